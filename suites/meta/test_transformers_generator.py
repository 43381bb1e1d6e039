"""Generators by Transformers' `generate`, on PyTorch and ONNX Runtime: the tokens of transformers called directly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.devices import planned
from suites.meta.tiny_models import tiny
from targets.api import Device, ModelFiles, Request, UserError
from targets.generation import ContextOverflow
from targets.model_folder import digest
from targets.registry import backends, optimizations, tasks
from targets.transformers_generator import TransformersGenerator

TASKS = {"llama": "generation", "gpt2": "generation", "t5": "summarization"}
WORDS = ("the quick brown fox", "a model", "jumps over the lazy dog and says nothing of sense", "x")
Open = Callable[..., TransformersGenerator]


@pytest.fixture(scope="module")
def device() -> Device:
    return replace(planned("cpu"), threads=1)


@pytest.fixture(scope="module")
def open_(tmp_path_factory: pytest.TempPathFactory, device: Device) -> Iterator[Open]:
    """Loads a tiny model by kind, backend, optimization and task; each once."""
    cache = tmp_path_factory.mktemp("cache")
    opened: dict[Any, TransformersGenerator] = {}

    def load(kind: str, backend: str = "huggingface", optimization: str = "fp32", task: str = "") -> Any:
        key = (kind, backend, optimization, task or TASKS[kind])
        if key not in opened:
            for requirement in (*backends[backend].requires, *optimizations[optimization].requires):
                pytest.importorskip(requirement.module)
            opened[key] = fresh(tiny(kind, tmp_path_factory), *key[1:], device, cache)
        return opened[key]

    yield load
    for runner in opened.values():
        runner.close()


def fresh(folder: Path, backend: str, optimization: str, task: str, device: Device, cache: Path) -> Any:
    model = ModelFiles(folder.name, folder, digest(folder), "path")
    engine, technique, made = backends[backend], optimizations[optimization], tasks[task]
    artifact = engine.build(model, made, technique, device, cache)
    return engine.load(model, artifact, made, technique, device)


def request(kind: str, text: str, **decoding: Any) -> Request:
    return {"text" if kind == "t5" else "prompt": text, "max_tokens": 8, "ignore_eos": True, **decoding}


def batch(kind: str, **decoding: Any) -> list[Request]:
    return [request(kind, text, **decoding) for text in WORDS]


engines = pytest.mark.parametrize("backend", ["huggingface", "onnxruntime"])
kinds = pytest.mark.parametrize("kind", sorted(TASKS))


@engines
@kinds
def test_greedy_is_that_of_transformers(kind: str, backend: str, open_: Open, tmp_path_factory: Any) -> None:
    """Every engine's greedy tokens are those of transformers called as its documentation shows."""
    runner = open_(kind, backend)
    auto = pytest.importorskip("transformers")
    bare = getattr(auto, f"AutoModelFor{runner.task.head}").from_pretrained(tiny(kind, tmp_path_factory))
    tokenizer = auto.AutoTokenizer.from_pretrained(tiny(kind, tmp_path_factory))
    for asked in batch(kind, ignore_eos=False):
        inputs = tokenizer(runner.task.prompt(asked), return_tensors="pt")
        output = bare.generate(**inputs, max_new_tokens=8, do_sample=False)[0].tolist()
        new = output[1:] if kind == "t5" else output[inputs.input_ids.shape[1] :]
        ended = new.index(2) if 2 in new else None
        answer = runner.run([asked])[0]
        assert answer["token_ids"] == new[:ended]
        assert answer["finish"] == ("length" if ended is None else "stop")
        assert answer["tokens"] == inputs.input_ids.shape[1] == len(runner.tokens(asked))
        assert answer["text"] == tokenizer.decode(new, skip_special_tokens=True).rstrip("\ufffd")


@engines
@kinds
def test_a_batch_is_as_many_single_calls(kind: str, backend: str, open_: Open) -> None:
    """Padding leaves no trace, whatever lengths and settings stand together in a batch."""
    runner = open_(kind, backend)
    mixed = [*batch(kind), request(kind, "the lazy", max_tokens=3), request(kind, "dog", temperature=1.0, seed=5)]
    assert runner.run(mixed) == [runner.run([one])[0] for one in mixed]
    assert runner.run([]) == []


@engines
@kinds
def test_every_token_ticks_once(kind: str, backend: str, open_: Open) -> None:
    """A call with a tick gives the same answers as one without, and ticks as often as tokens come."""
    runner, ticks = open_(kind, backend), []
    answers = runner.run(batch(kind), lambda: ticks.append(1))
    assert answers == runner.run(batch(kind))
    assert len(ticks) == sum(answer["output_tokens"] for answer in answers) == 8 * len(WORDS)


@kinds
def test_pinned_length(kind: str, open_: Open) -> None:
    """With the end token ignored exactly max_tokens come, none of them an end token."""
    for count in (1, 2, 17):
        for answer in open_(kind).run(batch(kind, max_tokens=count)):
            assert (answer["output_tokens"], len(answer["token_ids"])) == (count, count)
            assert answer["finish"] == "length"
            assert 2 not in answer["token_ids"]


@kinds
def test_the_end_token_is_stripped_and_does_not_tick(kind: str, open_: Open) -> None:
    """Where a model ends by itself, the end token is neither in the answer, nor counted, nor ticked."""
    runner, ticks = open_(kind), []
    ids = runner.run([request(kind, WORDS[0])])[0]["token_ids"]
    ends, runner.ends = runner.ends, (ids[4],)
    try:
        expected = ids[: ids.index(ids[4])]
        answer = runner.run([request(kind, WORDS[0], ignore_eos=False)], lambda: ticks.append(1))[0]
    finally:
        runner.ends = ends
    assert answer["token_ids"] == expected
    assert (answer["output_tokens"], len(ticks), answer["finish"]) == (len(expected), len(expected), "stop")


@kinds
def test_stop_strings_cut_text_and_tokens_alike(kind: str, open_: Open) -> None:
    """An answer ends before the first stop string, in the middle of a token too, alone as in a batch."""
    runner = open_(kind)
    plain = [request(kind, f"{first} {second}", max_tokens=32) for first in WORDS for second in WORDS]
    place, free, found = next(
        (place, answer, found)
        for place, answer in enumerate(runner.run(plain))
        if (found := re.search(r"(?<=.)[ -~]{2}(?=..)", answer["text"], re.DOTALL))
    )
    asked, stop = plain[place], found[0]
    answer = runner.run([{**asked, "stop": [stop]}])[0]
    assert answer["text"] == free["text"][: free["text"].index(stop)]
    assert answer["finish"] == "stop"
    assert answer["token_ids"] == free["token_ids"][: answer["output_tokens"]]
    assert len(answer["token_ids"]) < len(free["token_ids"])
    assert runner.run([{**one, "stop": [stop]} for one in plain])[place] == answer


@kinds
def test_seeds_reproduce_sampling(kind: str, open_: Open) -> None:
    """The same seed draws the same tokens, another seed others, and the process's own generator is left alone."""
    import torch

    runner, one = open_(kind), request(kind, WORDS[0], temperature=2.0, top_p=0.95, max_tokens=16)
    before = torch.random.get_rng_state()
    first, again, other = (runner.run([{**one, "seed": seed}])[0] for seed in (3, 3, 4))
    assert first == again
    assert first["token_ids"] != other["token_ids"]
    assert torch.equal(before, torch.random.get_rng_state())


@engines
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_forced_logits_lead_to_the_greedy_token(kind: str, backend: str, open_: Open) -> None:
    """The logits after a prompt's last token are highest for the token that greedy decoding takes."""
    runner = open_(kind, backend)
    for asked in batch(kind, ignore_eos=False):
        (logits,) = runner.logits([asked])[0]
        assert logits.shape == (len(runner.tokens(asked)), runner.model.config.vocab_size)
        assert logits.dtype == "float32"
        taken = runner.run([{**asked, "max_tokens": 1}])[0]["token_ids"] or [2]
        assert int(logits[-1].argmax()) == taken[0]


@engines
def test_forced_logits_follow_the_greedy_answer(backend: str, open_: Open) -> None:
    """Forced with its greedy answer, an encoder-decoder's logits are highest for that answer's tokens."""
    runner = open_("t5", backend)
    (logits,) = runner.logits([request("t5", WORDS[0])])[0]
    answer = runner.run([request("t5", WORDS[0])])[0]["token_ids"]
    logits[:, 2] = -1e9  # the request ignores the end token
    assert logits[:-1].argmax(axis=-1).tolist() == answer


@engines
def test_what_does_not_fit_is_refused_or_cut(backend: str, open_: Open) -> None:
    """A causal model refuses what its context cannot hold; an encoder-decoder cuts its input by tokens and says so."""
    with pytest.raises(ContextOverflow, match=r"the prompt has 1 tokens and 128 more are asked for, .* holds 128"):
        open_("llama", backend).run([request("llama", "x", max_tokens=128)])
    assert open_("llama", backend).run([request("llama", "x", max_tokens=127)])[0]["output_tokens"] == 127
    short, cut = open_("t5", backend).run([request("t5", "x"), request("t5", "fox " * 500)])
    assert (short["truncated"], cut["truncated"], cut["tokens"]) == (False, True, 128)


def test_chats_speak_the_models_template(open_: Open) -> None:
    """A chat's prompt is the model's own template, and the oldest turns give way, the system prompt never."""
    runner = open_("llama", task="chat")
    turns = [{"role": "system", "content": "fox"}, {"role": "user", "content": "dog"}]
    rendered = "<s>system: fox</s><s>user: dog</s><s>assistant:"
    assert runner.tokens({"messages": turns}) == runner.tokenizer(rendered)["input_ids"]
    long = [turns[0], *[{"role": role, "content": "lazy " * 9} for role in ("user", "assistant")] * 3, turns[1]]
    answer = runner.run([{"messages": long, "max_tokens": 4}])[0]
    assert answer["dropped_turns"] in (2, 4)
    kept = [turns[0], *long[1 + answer["dropped_turns"] :]]
    assert answer["tokens"] == len(runner.tokens({"messages": kept, "max_tokens": 4}))
    with pytest.raises(ContextOverflow):
        runner.run([{"messages": [turns[0], {"role": "user", "content": "lazy " * 200}]}])


def test_a_model_without_a_template_cannot_chat(open_: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing template, and one that refuses the messages, are each told in a sentence."""
    runner = open_("llama", task="chat")
    asked = [{"messages": [{"role": "user", "content": "dog"}]}]
    monkeypatch.setattr(runner.tokenizer, "chat_template", "{{ raise_exception('no dogs') }}")
    with pytest.raises(UserError, match="chat template refuses these messages: no dogs"):
        runner.run(asked)
    monkeypatch.setattr(runner.tokenizer, "chat_template", None)
    with pytest.raises(UserError, match="has no chat template"):
        runner.run(asked)


def test_a_character_of_several_tokens_comes_whole(open_: Open) -> None:
    """A character whose bytes are several tokens is in the text when it is complete, and not before."""
    runner = open_("llama")
    ids = runner.tokenizer("a😀")["input_ids"]
    assert len(ids) > 3
    texts = [runner.reader.text([5], ids[:count]) for count in range(1, len(ids) + 1)]
    assert texts == ["a"] * (len(ids) - 1) + ["a😀"]


def test_calls_leave_nothing_behind(open_: Open) -> None:
    """No call depends on an earlier one: neither cache nor settings stay."""
    runner = open_("llama")
    first = runner.run(batch("llama"))
    runner.run([request("llama", "dog", temperature=3.0, stop=["x"], max_tokens=30)])
    runner.logits(batch("llama"))
    assert runner.run(batch("llama")) == first


@engines
@kinds
def test_the_end_is_held_back(kind: str, backend: str, open_: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """With min_tokens no end token is chosen before so many, and the first ones are those of the model otherwise."""
    runner = open_(kind, backend)
    endless = runner.run([request(kind, WORDS[0])])[0]["token_ids"]
    monkeypatch.setattr(runner, "ends", (endless[0],))
    short, held = (runner.run([request(kind, WORDS[0], ignore_eos=False, min_tokens=n)])[0] for n in (0, 5))
    assert (short["token_ids"], short["finish"]) == ([], "stop")
    assert 5 <= held["output_tokens"] <= 8
    assert endless[0] not in held["token_ids"][:5]
    assert runner.task.problems(request(kind, WORDS[0], min_tokens=5), short)


def test_an_end_that_cannot_be_held_back_is_refused(open_: Open) -> None:
    """Where candidates are drafted, and where more is asked for at least than at most, min_tokens is refused."""
    with pytest.raises(UserError, match="cannot hold an end back"):
        open_("llama", optimization="prompt-lookup").run([request("llama", WORDS[0], min_tokens=2)])
    with pytest.raises(UserError, match="min_tokens is 9, should be 0 to 8"):
        open_("llama").run([request("llama", WORDS[0], min_tokens=9)])
