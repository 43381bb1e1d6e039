"""What a listener hears of an answer while it comes, whatever engine says it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.devices import planned
from suites.meta.hostile_server import serving
from suites.meta.ollama_double import OllamaDouble
from suites.meta.openai_double import OpenAiDouble
from targets.api import ModelFiles, Request
from targets.model_folder import digest
from targets.prompt_reader import PromptReader
from targets.registry import backends, optimizations, tasks

ZOO = Path(__file__).parents[2] / "fixtures" / "zoo"
CASES = (
    "llama-cpp-python/f32/generation",
    "llama-cpp-python/prompt-lookup/generation",
    "llama-cpp-python/f32/chat",
    "huggingface/fp32/generation",
    "huggingface/prompt-lookup/generation",
    "huggingface/fp32/translation",
    "onnxruntime/fp32/generation",
    "onnxruntime/fp32/summarization",
    "openai/f16/chat",
)
"""backend/optimization/task: every way that an engine of this project streams."""
TEXT = "Otto sends Eva a message every Tuesday. It ends with a"
UNICODE = "Julia learns Japanese in the forest. The word for"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """Loads a case on its embedded model; each once."""
    cache, found = tmp_path_factory.mktemp("cache"), dict[str, Any]()
    with ExitStack() as stack:

        def load(case: str) -> Any:
            if case not in found:
                found[case] = stack.enter_context(loaded(case, cache))
            return found[case]

        yield load


def loaded(case: str, cache: Path) -> Any:
    backend, optimization, task = case.split("/")
    modules = {"openai": ("llama_cpp", "gguf", "starlette_context", "sse_starlette")}
    for module in modules.get(backend, [each.module for each in backends[backend].requires]):
        pytest.importorskip(module)
    folder = ZOO / ("llama" if tasks[task].family == "causal" else "t5")
    model, engine = ModelFiles(folder.name, folder, digest(folder), "embedded"), backends[backend]
    technique, place = optimizations[optimization], replace(planned("cpu"), threads=1)
    return engine.load(model, engine.build(model, tasks[task], technique, place, cache), tasks[task], technique, place)


@pytest.fixture(params=CASES)
def target(request: pytest.FixtureRequest, opened: Callable[[str], Any]) -> Any:
    return opened(request.param)


def ask(target: Any, text: str = TEXT, **decoding: Any) -> Request:
    return {**target.task.ask(text), "max_tokens": 24, **decoding}


def heard(target: Any, request: Request) -> tuple[Any, list[str]]:
    """The answer, and what was said of it."""
    pieces: list[str] = []
    return target.stream(request, pieces.append), pieces


def test_pieces_are_the_answer(target: Any) -> None:
    """The pieces joined are the text, the answer is the one that comes at once, and each token ticks once."""
    for request in (ask(target), ask(target, UNICODE), ask(target, temperature=1.2, seed=5), ask(target, max_tokens=1)):
        pieces, ticks = list[str](), itertools.count()
        answer = target.stream(request, pieces.append, ticks.__next__)
        assert "".join(pieces) == answer["text"]
        assert answer == target.run([request])[0]
        assert next(ticks) == answer["output_tokens"]


def test_pieces_come_as_they_are_made(target: Any) -> None:
    """A listener hears of nearly every token by itself, not of the whole at the end."""
    answer, pieces = heard(target, ask(target, ignore_eos=True))
    assert answer["output_tokens"] == 24
    assert len(pieces) > 12


@pytest.mark.parametrize("seed", range(3))
def test_characters_come_whole(target: Any, seed: int) -> None:
    """Of tokens that are bytes at random, what is said is what the answer holds, and no half of a character."""
    answer, pieces = heard(target, ask(target, temperature=3.0, seed=seed, max_tokens=48))
    assert (
        "".join(pieces)
        == answer["text"]
        == target.run([ask(target, temperature=3.0, seed=seed, max_tokens=48)])[0]["text"]
    )
    assert not answer["text"].endswith("\ufffd")


@pytest.mark.parametrize("size", [1, 3, 9])
def test_nothing_of_a_stop_string_is_heard(target: Any, size: int) -> None:
    """A stop string ends the answer before it, and no part of it is said, however many tokens it is spread over."""
    whole = target.run([ask(target, ignore_eos=True)])[0]["text"]
    for start in range(1, len(whole) - size, 7):
        stop = whole[start : start + size]
        answer, pieces = heard(target, ask(target, ignore_eos=True, stop=[stop, "never to be said"]))
        assert "".join(pieces) == answer["text"] == whole[: whole.index(stop)]
        assert answer["finish"] == "stop"


def test_a_seed_is_heard_again(target: Any) -> None:
    """The same seed says the same again, and others something else."""
    said = ["".join(heard(target, ask(target, temperature=1.5, seed=seed))[1]) for seed in (1, 2, 3, 1)]
    assert said[0] == said[3]
    assert len(set(said)) > 1


class Enough(Exception):
    """Nobody listens any more."""


@pytest.mark.parametrize("after", [1, 5])
def test_a_listener_may_leave(target: Any, after: int) -> None:
    """An exception of the listener ends the answer at that piece, comes out, and leaves the target as it was."""
    before, pieces = target.run([ask(target)])[0], list[str]()

    def leave(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == after:
            raise Enough

    samplings: tuple[dict[str, Any], ...] = ({}, {"temperature": 1.0})
    for decoding in samplings:
        pieces.clear()
        with pytest.raises(Enough):
            target.stream(ask(target, ignore_eos=True, **decoding), leave)
        assert len(pieces) == after
        assert target.run([ask(target)])[0] == before


def test_an_engine_stops_where_the_listener_leaves(opened: Callable[[str], Any]) -> None:
    """Not one token more is computed once nobody listens."""
    llama = opened("llama-cpp-python/f32/generation")
    steps, step = list[int](), llama.engine._step

    def count(token: int) -> None:
        steps.append(token)
        step(token)

    def leave(piece: str) -> None:
        raise Enough

    llama.engine._step = count
    with pytest.raises(Enough):
        llama.stream(ask(llama, ignore_eos=True, max_tokens=40), leave)
    llama.engine._step = step
    assert len(steps) < 3, f"{len(steps)} steps for one piece"


@pytest.mark.parametrize("double", [OpenAiDouble(), OllamaDouble()], ids=["openai", "ollama"])
def test_a_server_is_left_with_its_listener(double: Any) -> None:
    """A remote engine says what its server says, and drops the connection when the listener leaves."""
    name = type(double).__name__.removesuffix("Double").lower()
    with serving(double) as place:
        device = replace(planned("cpu"), backends={name: {"url": place.url, "timeout_s": 1.0}})
        model = ModelFiles("small", Path(), "", name, format=name)
        technique = optimizations["as-is"]
        with backends[name].load(model, Path(), tasks["generation"], technique, device) as found:
            remote: Any = found
            answer, pieces = heard(remote, ask(remote))
            assert pieces == [f" {word}" for word in answer["text"].split()]
            assert len(pieces) == 24

            def leave(piece: str) -> None:
                raise Enough

            with pytest.raises(Enough):
                remote.stream(ask(remote), leave)
            assert remote.engine.client._connection().sock is None
            assert heard(remote, ask(remote)) == (answer, pieces)


BYTES = [f"<0x{value:02X}>" for value in range(256)]


@pytest.mark.parametrize(
    "ids", [[195, 169, 195], [195, 169, 195, 169, 256], [195, 256, 169, 256], [240, 159, 144, 182]]
)
def test_bytes_wait_for_their_neighbours(ids: list[int]) -> None:
    """SentencePiece's decoder may undo a character when another byte follows: it is said when none can."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    vocabulary = {token: place for place, token in enumerate([*BYTES, "\u2581x", "<unk>"])}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    made.decoder = tokenizers.decoders.Sequence(
        [tokenizers.decoders.Replace("\u2581", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made)
    config = type("Config", (), {"is_encoder_decoder": False, "max_position_embeddings": 64})
    reader = PromptReader(tasks["generation"], tokenizer, config)  # type: ignore[arg-type]
    texts = [reader.text([256], ids[: count + 1]) for count in range(len(ids))]
    settled = [text for text, token in zip(texts, ids, strict=True) if reader.settled(token)]
    assert all(texts[-1].startswith(text) for text in settled), (settled, texts)
