"""Laws of generators: counts, ends, streams, batches, contexts; whatever engine, weights and number format."""

from __future__ import annotations

import pytest

from fixtures import guest
from fixtures.provision import Target
from fixtures.quality import well_formed
from fixtures.subjects import PROBE_TOKENS
from targets.api import Answer, UserError
from targets.registry import optimizations

pytestmark = pytest.mark.families("seq2seq", "causal")

ODD = (
    "?",
    "🙂🙃 naïve café — “quoted”",
    "東京は夜の七時。",
    "مرحبا بالعالم",
    "e\u0301\u0301 combining",
    "\u202eright to left",
    "a" * 300,
)
START = 8
"""Characters by which an answer is known again where its technique promises no equal ones."""
LONG = 96
"""Tokens within which the embedded models end by themselves."""


def said(answer: Answer) -> tuple[object, ...]:
    """What an answer says, without what it counts of its prompt."""
    return answer["text"], answer["token_ids"], answer["output_tokens"]


def context_of(target: Target) -> int:
    """Tokens that the model holds; skips the test where the engine does not tell."""
    found = target.evidence().details.get("context")
    if not isinstance(found, int):
        pytest.skip(f"the engine tells no context ({found})")
    return found


def pins(target: Target) -> bool:
    """Whether the engine can go on beyond an end token."""
    return bool(target.evidence().details.get("pins_length", True))


@pytest.mark.parametrize("count", [1, 5, 16])
def test_max_tokens_is_exact(target: Target, count: int) -> None:
    """As many tokens come as were asked for, no more and no fewer, where the end token is not to be honoured."""
    (answer,) = target.run([{**target.subject.mix[0], "max_tokens": count}])
    got, wanted = answer["output_tokens"], count
    assert got == wanted if pins(target) else got <= wanted, f"got {got} tokens, should be {wanted}"


def test_counts_agree(target: Target) -> None:
    """The answer's count is that of its ids and of the ticks: words, prompt and end token are not counted."""
    for request in target.subject.probes(3):
        (answer,), ticks = target.call(guest.watched, [request])
        ids, count = answer["token_ids"], answer["output_tokens"]
        assert ticks == count, f"{ticks} ticks for {count} tokens of {answer['text']!r}"
        assert ids is None or len(ids) == count, f"{len(ids)} ids, but {count} tokens are counted"


def test_prompt_is_counted_by_its_tokenizer(target: Target) -> None:
    """The tokens counted of a prompt are the ids that the model reads."""
    for request in target.subject.probes(3):
        counted, ids = target.run([request])[0]["tokens"], target.call(guest.prompt_ids, request)
        assert counted == len(ids), f"{counted} tokens are counted of a prompt of {len(ids)}"


def test_stream_is_the_whole(target: Target) -> None:
    """Watched token by token, or said piece by piece, an answer is what it is at once."""
    for request in target.subject.probes(3):
        (streamed,), _ = target.call(guest.watched, [request])
        whole = target.run([request])[0]
        assert streamed["text"] == whole["text"], f"{streamed['text']!r} streamed, {whole['text']!r} at once"
        assert streamed["output_tokens"] == whole["output_tokens"]
        said, pieces = target.call(guest.streamed, request)
        assert "".join(pieces) == said["text"] == whole["text"], f"{pieces} said, {whole['text']!r} at once"
        assert said["output_tokens"] == whole["output_tokens"]


def test_stop_string_ends_the_answer(target: Target) -> None:
    """A stop string ends the answer before it, and is not part of it."""
    for request in target.subject.probes(3):
        text = target.run([request])[0]["text"]
        inner = text[len(text) // 3 :].strip()[:3]
        if not inner or not text[: text.index(inner)].strip():
            continue
        (answer,) = target.run([{**request, "stop": [inner]}])
        assert answer["text"] == text[: text.index(inner)], f"got {answer['text']!r} of {text!r} with stop {inner!r}"
        assert answer["finish"] == "stop", f"finish is {answer['finish']!r}, should be 'stop'"
        return
    pytest.skip("no answer has a text long enough to be stopped within")


@pytest.mark.usefixtures("meaningful")
def test_end_token_is_honoured(target: Target) -> None:
    """A trained model ends its answers itself, and says so."""
    if target.subject.model.source != "embedded" or (target.subject.prompts and not target.subject.dataset.examples):
        pytest.skip("only of the embedded models is it known that they end within so many tokens")
    examples = [example.request for example in target.subject.dataset.examples[:4]]
    answers = target.run([{**request, "max_tokens": LONG, "ignore_eos": False} for request in examples])
    ended = sum(answer["finish"] == "stop" and answer["output_tokens"] < LONG for answer in answers)
    assert 2 * ended >= len(answers), f"{ended} of {len(answers)} answers end within {LONG} tokens, should be most"


def test_seed_reproduces_sampling(target: Target) -> None:
    """The same seed samples the same answer, and another seed another one."""
    request = {**target.subject.mix[0], "max_tokens": PROBE_TOKENS, "temperature": 1.5}
    seeds = (7, 8, 9, 10)  # several: where seeds are not heeded, two answers may be the same by chance
    sampled = [part[0] for part in target.run_each([[{**request, "seed": seed}] for seed in (*seeds, *seeds)])]
    for seed, first, again in zip(seeds, sampled, sampled[len(seeds) :], strict=False):
        assert said(again) == said(first), f"seed {seed} gave {first['text']!r}, then {again['text']!r}"
    told = sampled[0]["text"]
    assert any(said(other) != said(sampled[0]) for other in sampled[1 : len(seeds)]), f"four seeds all gave {told!r}"


def test_batch_is_its_requests(target: Target) -> None:
    """Requests answered together are answered as each alone: they neither mix nor change places."""
    batch = target.subject.probes(4)
    alone = [part[0] for part in target.run_each([[request] for request in batch])]
    together = target.run(batch)
    promised = optimizations[target.case.optimization].agreement(target.task.family)
    # dynamic quantization scales by the whole batch, and half precision rounds: then the beginning must do
    length = None if promised == 1.0 else START
    pairs = [(a["text"], b["text"]) for a, b in zip(alone, together, strict=True)]
    unlike = [f"{a!r} alone, {b!r} in a batch" for a, b in pairs if a[:length] != b[:length]]
    allowed = (len(batch) - 1) // 2 if length else 0
    assert len(unlike) <= allowed, f"{len(unlike)} of {len(batch)} differ, should be <= {allowed}: {'; '.join(unlike)}"


def test_what_came_before_leaves_no_trace(target: Target) -> None:
    """An answer does not depend on what was asked before, a prompt with the same beginning included."""
    a, b = target.subject.probes(2)
    *_, straight = target.run_each([[b], [a]])
    *_, again = target.run_each([[a], [b], [a], [a]])
    assert said(again[0]) == said(straight[0]), f"{straight[0]['text']!r} at first, {again[0]['text']!r} later"


@pytest.mark.tasks("generation")
@pytest.mark.usefixtures("meaningful")
def test_characters_arrive_whole(target: Target) -> None:
    """A character that is split over several tokens arrives as one, streamed or not."""
    if target.subject.model.source != "embedded":
        pytest.skip("only of the embedded model is it known that it writes such characters, and no half ones itself")
    examples = [each for each in target.subject.dataset.examples if "unicode" in each.slices][:4]
    batch = [{**each.request, "max_tokens": 16, "ignore_eos": False} for each in examples]
    texts = [answer["text"] for answer in target.run(batch)]
    texts += [target.call(guest.watched, [request])[0][0]["text"] for request in batch]
    halves = [text for text in texts if "\ufffd" in text.rstrip("\ufffd")]
    assert not halves, f"half a character in {halves}"
    assert not all(text.isascii() for text in texts), f"no answer has a character beyond ASCII: {texts}"


def test_odd_prompts_are_answered(target: Target) -> None:
    """Prompts of other scripts, of signs alone and of one long word are answered, each answer well-formed."""
    batch = [{**target.task.ask(text), "max_tokens": 2} for text in ODD]
    well_formed(target, batch, [part[0] for part in target.run_each([[request] for request in batch])])


def test_empty_prompt_is_refused(target: Target) -> None:
    """An empty prompt is refused in a sentence, and the target lives on."""
    with pytest.raises(UserError, match="empty"):
        target.run([target.task.ask("")])
    assert target.run(target.subject.probes(1))


def test_overlong_prompt(target: Target) -> None:
    """A prompt beyond the context is refused with its numbers, or where the task says so cut and reported."""
    if target.task.family == "seq2seq":
        (answer,) = target.run([{**target.task.ask("word " * 3000), "max_tokens": 4}])
        assert answer["truncated"], f"{answer['tokens']} tokens were read of 3000 words, and nothing says so"
        return
    request = {**target.task.ask("word " * (context_of(target) + 50)), "max_tokens": 4}
    with pytest.raises(UserError, match=r"context"):
        target.run([request])
    assert target.run(target.subject.probes(1)), "the target should live on after a refusal"


@pytest.mark.tasks("chat")
def test_oldest_turns_go_first(target: Target) -> None:
    """A conversation beyond the context loses its oldest turns, says how many, and never its system prompt."""
    context = context_of(target)
    system = {"role": "system", "content": "You are Orin, a small robot."}
    turns = [
        {"role": role, "content": f"Turn {number}. " + "word " * (context // 8)}
        for number in range(8)
        for role in ("user", "assistant")
    ]
    last = {"role": "user", "content": "Who are you?"}
    (answer,) = target.run([{"messages": [system, *turns, last], "max_tokens": PROBE_TOKENS}])
    (kept,) = target.run([{"messages": [system, *turns[answer["dropped_turns"] :], last], "max_tokens": PROBE_TOKENS}])
    assert 0 < answer["dropped_turns"] < len(turns), f"{answer['dropped_turns']} of {len(turns)} turns were dropped"
    assert said(kept) == said(answer), "the answer is not that of system prompt and latest turns"
    assert kept["dropped_turns"] == 0
    got, wanted = answer["tokens"], kept["tokens"]
    assert got == wanted, f"{got} tokens were read, system prompt and latest turns have {wanted}"


@pytest.mark.tasks("chat")
@pytest.mark.usefixtures("meaningful")
def test_memory_remembers_and_forgets(target: Target) -> None:
    """What was said earlier in a conversation is remembered, and after a reset it is not."""
    if target.subject.model.source != "embedded":
        pytest.skip("only of the embedded model is it known what it remembers")
    known = [e for e in target.subject.dataset.examples if "memory" in e.slices][:8]
    with_history = target.run([example.request for example in known])
    reset = target.run([{**e.request, "messages": e.request["messages"][-1:]} for e in known])
    right = [target.task.tally(e.gold, answer, ())[0] for e, answer in zip(known, with_history, strict=True)]
    after = [target.task.tally(e.gold, answer, ())[0] for e, answer in zip(known, reset, strict=True)]
    assert sum(right) > sum(after), f"{sum(right):.0f} of {len(known)} right with history, {sum(after):.0f} without"


def test_calls_leak_nothing(target: Target) -> None:
    """Repeated calls do not grow the process."""
    batches = [[{**request, "max_tokens": 2}] for request in target.subject.mix] * 3
    target.run_each(batches)
    before = target.call(guest.settled_mb)
    target.run_each(batches)
    grown = target.call(guest.settled_mb) - before
    assert grown < 8, f"{len(batches)} calls grew the process by {grown:.1f} MB, should be < 8 MB"
