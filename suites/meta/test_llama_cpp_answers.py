"""Answers of llama.cpp: where they end, what changes them and what does not, and prompts and chats too long."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.meta import llama_kit
from suites.meta.llama_kit import PROMPTS, ask
from suites.meta.tiny_llama import EMBEDDED, llama
from targets.api import ModelFiles, UserError
from targets.generation import ContextOverflow
from targets.llama.engine import text_of

pytest.importorskip("llama_cpp", reason="pip install '.[llama]'")
pytest.importorskip("gguf", reason="pip install '.[llama]'")


cache, runner, chat = llama_kit.cache, llama_kit.runner, llama_kit.chat


def test_ticks_change_nothing_and_come_once_a_token(runner: Any) -> None:
    """A timed call answers as one that is not, and ticks once for each token."""
    ticks: list[int] = []
    request: dict[str, Any] = {"prompt": PROMPTS[0], "max_tokens": 20, "ignore_eos": True}
    (timed,) = runner.run([request], lambda: ticks.append(1))
    assert timed == ask(runner, **request)
    assert len(ticks) == timed["output_tokens"] == len(timed["token_ids"]) == 20
    assert timed["finish"] == "length"


def test_the_end_token_ends_and_is_not_counted(runner: Any) -> None:
    """An answer ends at the end token unless that is ignored; then exactly the tokens asked for come, none an end."""
    found = ask(runner, PROMPTS[0], max_tokens=200)
    pinned = ask(runner, PROMPTS[0], max_tokens=200, ignore_eos=True)
    assert pinned["output_tokens"] == 200
    assert not runner.engine.ends & set(pinned["token_ids"])
    if found["finish"] == "stop":
        assert found["output_tokens"] < 200
        assert pinned["token_ids"][: found["output_tokens"]] == found["token_ids"]


def test_stop_strings_end_an_answer(runner: Any) -> None:
    """A stop string ends the answer and is not in it; what stands before it is unchanged."""
    whole = ask(runner, max_tokens=40, ignore_eos=True)["text"]
    stop = whole[len(whole) // 2 :][:3]
    found = ask(runner, max_tokens=40, ignore_eos=True, stop=[stop, "never"])
    assert found["text"] == whole[: whole.index(stop)]
    assert found["finish"] == "stop"
    assert found["output_tokens"] < 40


def test_sampling_follows_its_seed(runner: Any) -> None:
    """The same seed gives the same answer, others give others, and hardly any warmth is greedy."""
    request: dict[str, Any] = {"max_tokens": 30, "temperature": 1.5, "ignore_eos": True}
    answers = [ask(runner, **request, seed=seed)["token_ids"] for seed in (1, 2, 3, 1)]
    assert answers[0] == answers[3]
    assert len({tuple(ids) for ids in answers}) == 3
    cold = ask(runner, max_tokens=30, temperature=1e-4, ignore_eos=True)
    assert cold["token_ids"] == ask(runner, max_tokens=30, ignore_eos=True)["token_ids"]
    narrow = ask(runner, **{**request, "top_p": 1e-6})
    assert narrow["token_ids"] == cold["token_ids"]


def test_nothing_of_an_earlier_request_is_left(runner: Any) -> None:
    """An answer is the same after any other request, and in a batch."""
    alone = [ask(runner, prompt, max_tokens=12) for prompt in PROMPTS]
    ask(runner, PROMPTS[0] + " " + PROMPTS[1], max_tokens=30)
    assert [dict(found) for found in runner.run([{"prompt": p, "max_tokens": 12} for p in PROMPTS])] == alone


def test_long_prompts_are_read_in_parts(cache: Path) -> None:
    """A prompt longer than a batch gives the logits and tokens that it gives in one."""
    prompt = " ".join(PROMPTS)
    with llama(cache, n_batch=16) as parts, llama(cache, n_batch=512) as whole:
        (one,), (other,) = parts.logits([{"prompt": prompt}])[0], whole.logits([{"prompt": prompt}])[0]
        assert np.abs(one - other).max() < 1e-3
        assert ask(parts, prompt, max_tokens=10) == ask(whole, prompt, max_tokens=10)


@settings(deadline=None, max_examples=100)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20))
def test_characters_over_several_tokens_arrive_whole(runner: Any, text: str) -> None:
    """A text comes back from its tokens as it was, and from any part of them without a broken character."""
    pieces = [runner.engine.piece(token) for token in runner.engine.tokenize(text, whole=False)]
    assert text_of(b"".join(pieces)) == text
    for end in range(len(pieces)):
        assert text.startswith(text_of(b"".join(pieces[:end])))


def test_nothing_is_kept_of_what_was_said(runner: Any) -> None:
    """However many tokens have been said, nothing of them stays: no token's bytes are kept."""
    runner.engine.piece(0)
    tracemalloc.start()
    for token in range(runner.engine.llm.n_vocab()):
        runner.engine.piece(token)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 10_000


def test_a_full_context_is_refused(cache: Path) -> None:
    """A prompt and answer longer than the context are refused with the three numbers; what just fits is answered."""
    with llama(cache, n_ctx=64) as small:
        size = len(small.tokens({"prompt": PROMPTS[0]}))
        with pytest.raises(ContextOverflow, match=f"has {size} tokens and {65 - size} more .* context holds 64"):
            ask(small, max_tokens=65 - size, ignore_eos=True)
        assert ask(small, max_tokens=64 - size, ignore_eos=True)["output_tokens"] == 64 - size


def test_a_context_longer_than_the_models_is_told_if_asked_for(cache: Path) -> None:
    """The profile's context is cut to the model's; one that the user asks for is refused where it is longer."""
    with llama(cache, n_ctx=4096) as loaded:
        assert loaded.engine.context == 512
    with pytest.raises(UserError, match="4096"):
        llama(cache, n_ctx=4096, n_ctx_asked=True)


def test_empty_prompts_are_refused(runner: Any) -> None:
    """There is nothing to continue in an empty prompt."""
    with pytest.raises(UserError, match="the prompt is empty"):
        ask(runner, " \n")


def test_a_long_chat_forgets_its_oldest_turns(chat: Any) -> None:
    """Turns that do not fit are dropped from the oldest on, never the system prompt, and counted."""
    system = {"role": "system", "content": "Answer in one word."}
    turns = [
        turn
        for number in range(40)
        for turn in (
            {"role": "user", "content": f"This is message number {number} of a long talk."},
            {"role": "assistant", "content": "Noted."},
        )
    ]
    last = {"role": "user", "content": "Which one was this?"}
    (found,) = chat.run([{"messages": [system, *turns, last], "max_tokens": 16}])
    kept = [system, *turns[found["dropped_turns"] :], last]
    assert found["dropped_turns"] > 0
    assert found["dropped_turns"] % 2 == 0
    assert found["tokens"] == len(chat.tokens({"messages": kept, "max_tokens": 16}))
    assert found["tokens"] + 16 <= chat.engine.context
    with pytest.raises(ContextOverflow):
        chat.run([{"messages": [{"role": "user", "content": "word " * 600}]}])


def test_a_model_without_template_cannot_chat(tmp_path: Path) -> None:
    """A GGUF without a chat template is refused for chats, with what to take instead."""
    import shutil

    folder = tmp_path / "plain"
    shutil.copytree(EMBEDDED, folder)
    settings_file = folder / "tokenizer_config.json"
    settings_file.write_text(settings_file.read_text().replace('"chat_template"', '"no_template"'))
    with pytest.raises(UserError, match="has no chat template"):
        llama(tmp_path, task="chat", model=ModelFiles("plain", folder, "plain", "path"))
