from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from suites.meta.hostile_server import Place, Says, serving
from suites.meta.ollama_double import OllamaDouble
from targets.api import Device, ModelFiles, Request, Unavailable, Unsupported, UserError, no_tick
from targets.generation import ContextOverflow, GeneratorRunner
from targets.optimization import Optimization
from targets.registry import backends, tasks
from targets.remote.client import CutOff, Garbled, Refused, TimedOut

PROMPT = {"prompt": "one two three", "max_tokens": 5}


@dataclass(frozen=True, kw_only=True)
class AsIs(Optimization):
    """Nothing is done to the model."""


AS_IS = AsIs(name="as-is", group="gguf", summary="", backends=frozenset(), max_drop=0.0, min_agreement=1.0)


def device(url: str, **settings: object) -> Device:
    return Device(
        name="cpu",
        kind="cpu",
        model="a CPU",
        cores=1,
        threads=1,
        memory_mb=1024,
        memory_budget_mb=512,
        max_batch=4,
        supports=frozenset(),
        native=frozenset({"float32"}),
        backends={"ollama": {"url": url, "timeout_s": 0.3, **settings}},
    )


@contextmanager
def runner(
    double: OllamaDouble, task: str = "generation", **changes: object
) -> Iterator[tuple[GeneratorRunner, Place]]:
    """The backend on a double."""
    with serving(double) as place:
        where = replace(device(place.url), **changes)  # type: ignore[arg-type]
        model = ModelFiles("small", Path(), "", "ollama", format="ollama")
        with backends["ollama"].load(model, Path(), tasks[task], AS_IS, where) as found:
            yield found, place  # type: ignore[misc]


def test_a_stream_says_what_a_whole_answer_says() -> None:
    """The same answer comes whole and streamed, and a stream ticks once a token."""
    with runner(OllamaDouble()) as (target, place):
        ticks: list[int] = []
        whole, streamed = target.run([PROMPT])[0], target.run([PROMPT], lambda: ticks.append(1))[0]
        assert whole == streamed
        assert (whole["output_tokens"], len(ticks), whole["tokens"], whole["finish"]) == (5, 5, 3, "length")
        assert whole["token_ids"] is None
        first, second = place.bodies("/api/generate")[1:]
        assert (first["stream"], second["stream"], first["raw"]) == (False, True, True)


def test_the_end_token_is_not_counted() -> None:
    """Ollama counts the end token in eval_count; an answer does not."""
    with runner(OllamaDouble(ends_after=3)) as (target, _):
        ticks: list[int] = []
        for tick in (no_tick, lambda: ticks.append(1)):
            answer = target.run([PROMPT], tick)[0]
            assert (answer["output_tokens"], answer["finish"]) == (3, "stop")
        assert len(ticks) == 3


def test_stop_strings_are_sent_and_end_the_answer() -> None:
    """A stop string ends the answer, whole and streamed, with the tokens that made it counted."""
    with runner(OllamaDouble()) as (target, _):
        ticks: list[int] = []
        request = {**PROMPT, "stop": ["blue"]}
        whole, streamed = target.run([request])[0], target.run([request], lambda: ticks.append(1))[0]
        assert whole == streamed
        assert "blue" not in whole["text"]
        assert (whole["finish"], len(ticks)) == ("stop", whole["output_tokens"])


def test_an_answer_that_ends_too_early_is_noted() -> None:
    """Where the end token cannot be ignored, shorter answers come, and the evidence says so."""
    with runner(OllamaDouble(ends_after=3)) as (target, _):
        assert target.run([{**PROMPT, "ignore_eos": True}])[0]["output_tokens"] == 3
        assert target.evidence().details["pins_length"] is False
        assert any("end before max_tokens" in note for note in target.evidence().details["notes"])


def test_concurrent_requests_do_not_mix() -> None:
    """A batch of concurrent requests is answered in order, each as it is alone."""
    requests = [{"prompt": "word " * size, "max_tokens": 4 + size % 3} for size in range(1, 13)]
    with runner(OllamaDouble()) as (target, _):
        alone = [target.run([request])[0] for request in requests]
        ticks: list[int] = []
        assert target.run(requests) == alone
        assert target.run(requests, lambda: ticks.append(1)) == alone
        assert len(ticks) == sum(answer["output_tokens"] for answer in alone)


def test_chats_go_through_the_template_of_the_model() -> None:
    """A chat is sent as messages, and what does not fit loses its oldest turns."""
    turns = [{"role": role, "content": "many words " * 8} for role in ("user", "assistant") * 3]
    request = {"messages": [{"role": "system", "content": "be brief"}, *turns[:5]], "max_tokens": 16}
    with runner(OllamaDouble(), "chat") as (target, place):
        answer = target.run([request])[0]
        assert answer["dropped_turns"] == 4
        assert [turn["role"] for turn in place.bodies("/api/chat")[-1]["messages"]] == ["system", "user"]


def test_a_prompt_that_does_not_fit_is_refused() -> None:
    """A prompt longer than the context is refused, with its numbers where Ollama tells them."""
    with runner(OllamaDouble()) as (target, _):
        with pytest.raises(ContextOverflow, match="60 tokens and 5 more are asked for, but the context holds 64"):
            target.run([{"prompt": "word " * 60, "max_tokens": 5}])
        with pytest.raises(ContextOverflow, match="too long for 64 tokens"):
            target.run([{"prompt": "word " * 80, "max_tokens": 5}])


def test_no_ids_and_no_logits() -> None:
    """What Ollama does not tell is Unsupported."""
    with runner(OllamaDouble()) as (target, _):
        with pytest.raises(Unsupported, match="ids"):
            target.tokens(PROMPT)
        with pytest.raises(Unsupported, match="logits"):
            target.logits([PROMPT])


@pytest.mark.parametrize(("bytes_there", "found"), [(0, "cpu"), (1000, "gpu")])
def test_size_vram_proves_the_gpu(bytes_there: int, found: str) -> None:
    """On a device with a GPU, the evidence says from size_vram whether it is used."""
    double = OllamaDouble(size_vram=bytes_there)
    with runner(double, torch_device="cuda") as (target, _):
        target.run([PROMPT])
        evidence = target.evidence()
        assert (evidence.requested["device"], evidence.actual["device"]) == ("gpu", found)
        assert evidence.details["size_vram"] == bytes_there


def test_durations_are_held_against_our_clock() -> None:
    """An eval_duration that is not the time that passed is noted; one that is, is not."""
    for token_ms, noted in ((10.0, False), (1.0, True)):
        with runner(OllamaDouble(gap_s=0.01, token_ms=token_ms)) as (target, _):
            target.run([{**PROMPT, "max_tokens": 12}], lambda: None)
            notes = target.evidence().details["notes"]
            assert any("disagrees with our clock" in note for note in notes) == noted, notes


def miscounted(said: Says) -> Says:
    *lines, last = said.lines or (said.body or b"",)
    found = json.loads(last) | {"eval_count": 3}
    text = json.dumps(found).encode()
    return replace(said, lines=(*lines, text + b"\n")) if said.lines else replace(said, body=text)


def test_a_wrong_count_is_a_mismatch() -> None:
    """An eval_count below what the stream brought stands in the evidence as a mismatch."""
    with runner(OllamaDouble(flaw=miscounted)) as (target, _):
        assert not target.evidence().mismatches
        target.run([PROMPT], lambda: None)
        assert target.evidence().mismatches == [
            "tokens counted: asked for as they came, got 3 by eval_count, 5 in the stream"
        ]


def keep(count: int) -> Callable[[Says], Says]:
    return lambda said: replace(said, lines=said.lines[:count])


@pytest.mark.parametrize(
    ("flaw", "kind", "words"),
    [
        (keep(3), CutOff, "ended before the answer did, after 3 tokens"),
        (lambda said: replace(said, lines=said.lines[:3], cut=True), CutOff, "connection ended before the answer did"),
        (lambda _: Says(cut=True), CutOff, "connection ended before the answer did"),
        (lambda said: replace(said, lines=(*said.lines[:2], b"{broken\n")), Garbled, "no JSON: '{broken'"),
        (lambda said: replace(said, lines=(b"[1]\n",)), Garbled, "should be an object"),
        (lambda said: replace(said, lines=(b'{"response": "", "done": true}\n',)), Garbled, "eval_count"),
        (lambda said: replace(said, lines=(b'{"error": "unexpected EOF"}\n',)), Refused, "unexpected EOF"),
        (lambda _: Says(b'{"error": "llama runner crashed"}', status=500), Refused, "status 500: llama runner crashed"),
        (lambda said: replace(said, gap_s=0.6), TimedOut, "said nothing for 0.3 s"),
        (lambda said: replace(said, silent_s=0.6), TimedOut, "said nothing for 0.3 s"),
        (lambda _: Says(b"<html>", kind="text/html"), Garbled, "web page"),
    ],
)
def test_a_hostile_stream_is_one_clear_sentence(
    flaw: Callable[[Says], Says], kind: type[UserError], words: str
) -> None:
    """A stream that is truncated, dropped, garbled, silent or refused ends in one sentence that says so."""
    with runner(OllamaDouble(flaw=flaw)) as (target, _), pytest.raises(kind, match=words) as caught:
        target.run([PROMPT], lambda: None)
    assert "\n" not in str(caught.value)


def test_a_slow_drip_is_no_timeout() -> None:
    """As long as bytes come, a server is slow and not silent."""
    with runner(OllamaDouble(flaw=lambda said: replace(said, gap_s=0.1))) as (target, _):
        assert target.run([PROMPT], lambda: None)[0]["output_tokens"] == 5


def test_one_failure_in_a_batch_leaves_the_server_usable() -> None:
    """After a batch in which one request was refused, the next is answered."""
    with runner(OllamaDouble()) as (target, _):
        with pytest.raises(ContextOverflow):
            target.run([PROMPT, {"prompt": "word " * 80, "max_tokens": 5}, PROMPT])
        assert target.run([PROMPT])[0]["output_tokens"] == 5


def load(url: str, model: ModelFiles, task: str = "generation", artifact: Path = Path()) -> object:
    return backends["ollama"].load(model, artifact, tasks[task], AS_IS, device(url))


def test_no_ollama_is_unavailable() -> None:
    """Without a server the case is skipped, and told how to get one."""
    with serving(OllamaDouble()) as place:
        url = place.url
    model = ModelFiles("small", Path(), "", "ollama", format="ollama")
    with pytest.raises(Unavailable, match=r"start it with `ollama serve`, or give --ollama-url"):
        load(url, model)


def test_another_server_is_no_ollama() -> None:
    """A server without Ollama's routes is named as such."""
    model = ModelFiles("small", Path(), "", "ollama", format="ollama")
    with serving(lambda _: Says(b"{}", status=404)) as place, pytest.raises(Unavailable, match="is no Ollama"):
        load(place.url, model)


def test_a_model_that_is_not_pulled_comes_with_its_command() -> None:
    """A missing model is skipped with the exact command that gets it."""
    model = ModelFiles("llama3.2:1b", Path(), "", "ollama", format="ollama")
    with serving(OllamaDouble()) as place, pytest.raises(Unavailable, match=r"`ollama pull llama3\.2:1b`"):
        load(place.url, model)


def test_our_file_is_lent_and_taken_back(tmp_path: Path) -> None:
    """A GGUF of ours is uploaded once, made a model, and deleted on close."""
    file = gguf(tmp_path)
    double = OllamaDouble()
    with serving(double) as place:
        for _ in range(2):
            with load(place.url, ModelFiles("own", file, "", "path", format="gguf"), artifact=file) as target:  # type: ignore[attr-defined]
                assert len(double.models) == 2
                request: Request = PROMPT
                assert target.run([request])[0]["output_tokens"] == 5
            assert double.models == ["small:latest"]
        uploads = [each for each in place.asked if each.method == "POST" and each.path.startswith("/api/blobs/")]
        assert len(uploads) == 1
        assert uploads[0].body == file.read_bytes()
        assert double.created[0]["files"] == {"model.gguf": uploads[0].path.rsplit("/", 1)[-1]}


def test_a_file_without_a_template_cannot_chat(tmp_path: Path) -> None:
    """Where Ollama finds no chat template in a GGUF, chats are unavailable and nothing is left there."""
    file = gguf(tmp_path)
    double = OllamaDouble(template="{{ .Prompt }}")
    with serving(double) as place, pytest.raises(Unavailable, match="does not recognise the chat template"):
        load(place.url, ModelFiles("own", file, "", "path", format="gguf"), "chat", file)
    assert double.models == ["small:latest"]


def gguf(folder: Path) -> Path:
    """A file that reads as a GGUF of one tensor."""
    numpy, library = pytest.importorskip("numpy"), pytest.importorskip("gguf")
    writer = library.GGUFWriter(folder / "own.gguf", "llama")
    writer.add_context_length(64)
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", numpy.zeros((2, 4), dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "own.gguf"
