from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.api import UserError
from targets.chat import checked, fit
from targets.generation import ContextOverflow, Decoding, Message, answer, cut_at_stop
from targets.registry import tasks
from targets.text_task import squeezed

SYSTEM = {"role": "system", "content": "s s s"}


def words(messages: Sequence[Message]) -> int:
    """A template that costs nothing."""
    return sum(len(message["content"].split()) for message in messages)


def turn(role: str, size: int) -> Message:
    return {"role": role, "content": "w " * size}


conversations = st.lists(st.integers(1, 9), min_size=1, max_size=9).map(
    lambda sizes: (
        [turn("user" if index % 2 == 0 else "assistant", size) for index, size in enumerate(sizes)]
        + ([turn("user", 2)] if len(sizes) % 2 == 0 else [])
    )
)


@given(conversations, st.booleans(), st.integers(1, 60))
def test_the_oldest_turns_go_and_the_rest_stays(turns: list[Message], system: bool, context: int) -> None:
    """What is kept fits, is the latest of the conversation, begins with a user, and has its system prompt."""
    messages = [*([SYSTEM] if system else []), *turns]
    try:
        kept, dropped = fit(messages, words, 4, context)
    except ContextOverflow:
        assert words([*messages[:system], messages[-1]]) + 4 > context
        return
    assert words(kept) + 4 <= context
    assert kept[:system] == messages[:system]
    assert kept[system:] == messages[len(messages) - len(kept) + system :]
    assert dropped == len(messages) - len(kept)
    assert kept[system]["role"] == "user"


def test_nothing_is_dropped_without_need() -> None:
    """A conversation that fits is left alone, and one that does not loses no more than it must."""
    turns = [turn("user", 5), turn("assistant", 5), turn("user", 5), turn("assistant", 5), turn("user", 5)]
    assert fit(turns, words, 5, 30) == (turns, 0)
    assert fit(turns, words, 5, 29) == (turns[2:], 2)


def test_overflow_gives_the_three_numbers() -> None:
    """The refusal says how long the prompt is, what is asked for, and what the context holds."""
    with pytest.raises(ContextOverflow, match="has 9 tokens and 4 more are asked for, but the context holds 10"):
        fit([turn("user", 9)], words, 4, 10)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "empty or no list"),
        ("hello", "empty or no list"),
        (["hello"], "message 1 should be an object"),
        ([{"role": "robot", "content": "x"}], "message 1 has the role 'robot', should be system, user, assistant"),
        ([turn("user", 1), SYSTEM, turn("user", 1)], "message 2 is a system prompt"),
        ([{"role": "user", "content": "  "}], "message 1 is empty"),
        ([turn("user", 1), turn("assistant", 1)], "last message is the assistant's, should be the user's"),
    ],
)
def test_malformed_conversations_are_refused(messages: Any, said: str) -> None:
    """What is no conversation that can be answered is refused in one sentence."""
    with pytest.raises(UserError, match=said) as refusal:
        checked(messages)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_tokens": 0}, "max_tokens is 0, should be at least 1"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"stop": [""]}, "stop is"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    """A setting out of its range is named with what was allowed."""
    with pytest.raises(UserError, match=said):
        Decoding.of({"prompt": "x", **settings})


def test_settings_come_from_the_request() -> None:
    """A request's own settings go before the task's; what it does not name has the default."""
    found = Decoding.of({"prompt": "x", "temperature": 0.5, "stop": ["."]}, max_tokens=7)
    assert (found.max_tokens, found.temperature, found.stop, found.seed, found.greedy) == (7, 0.5, (".",), 0, False)


@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=2), max_size=3))
def test_no_stop_string_is_left(text: str, stops: list[str]) -> None:
    """What is kept is a beginning of the text without any stop string, as long as it can be."""
    kept, stopped = cut_at_stop(text, stops)
    assert text.startswith(kept)
    assert not any(stop in kept for stop in stops)
    assert stopped is any(stop in text for stop in stops)
    assert stopped or kept == text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"token_ids": [1, 2, 3]}, "3 token ids, but 2 are counted"),
        ({"output_tokens": 9, "token_ids": None}, "9 tokens came, at most 4 were asked for"),
        ({"finish": "tired"}, "finish is 'tired'"),
        ({"text": "one. two"}, "the text holds a stop string"),
        ({"tokens": 0}, "0 tokens were read"),
    ],
)
def test_ill_formed_answers_are_told(changes: dict[str, Any], said: str) -> None:
    """Each law of a well-formed answer has its sentence, and a sound answer breaks none."""
    request = {"prompt": "x", "max_tokens": 4, "stop": ["."]}
    sound = answer("one two", [5, 6], output_tokens=2, tokens=3, finish="length")
    assert tasks["generation"].problems(request, sound) == []
    assert [each for each in tasks["generation"].problems(request, {**sound, **changes}) if said in each]


def test_replies_are_compared_by_what_they_say() -> None:
    """Case, spaces and a final stop do not make another reply."""
    assert squeezed(" Your  name is Anna. ") == squeezed("your name is anna")
    assert squeezed("Anna") != squeezed("Anne")


@pytest.mark.parametrize(
    ("task", "gold", "right", "wrong"),
    [
        ("summarization", ["The cat sat."], "The cat sat.", "Nothing at all happened"),
        ("translation", ["Das Haus ist rot."], "Das Haus ist rot.", "zzz qqq"),
        ("chat", "Your name is Anna.", "your name is Anna", "I do not know"),
    ],
)
def test_scores_tell_right_from_wrong(task: str, gold: Any, right: str, wrong: str) -> None:
    """The gold answer reaches a score's top, and one that shares no word with it stays near the bottom."""
    made = tasks[task]
    top = {score.name: score.top for score in made.scores}

    def scored(text: str) -> dict[str, float]:
        import numpy as np

        given = answer(text, None, output_tokens=3, tokens=3, finish="stop")
        totals = made.totals_to_scores(np.array([made.tally(gold, given, ())]).sum(axis=0))
        return {name: float(value) for name, value in totals.items()}

    for name, value in scored(right).items():
        assert value == pytest.approx(top[name])
    assert scored(wrong)[made.primary] < 0.1 * (top[made.primary] or 1)
