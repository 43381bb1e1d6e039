from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from suites.meta.hostile_server import Place, Says, serving
from suites.meta.openai_double import OpenAiDouble
from suites.meta.small_llama import own, small_device, small_gguf
from targets.api import ModelFiles, Unsupported, UserError, no_tick
from targets.generation import ContextOverflow
from targets.openai.protocol import KEY, served_models
from targets.registry import backends, optimizations, tasks
from targets.remote.client import CutOff, Garbled, Refused, TimedOut, Unreachable
from targets.remote.generator import RemoteGenerator
from targets.remote.process import ServerDied

PROMPT = {"prompt": "one two three", "max_tokens": 5}
MODEL = ModelFiles("small", Path(), "", "openai", format="openai")


def load(url: str, task: str = "generation", model: ModelFiles = MODEL) -> RemoteGenerator:
    device = small_device(openai={"url": url, "timeout_s": 0.3})
    found = backends["openai"].load(model, Path(), tasks[task], optimizations["as-is"], device)
    assert isinstance(found, RemoteGenerator)
    return found


@contextmanager
def runner(double: OpenAiDouble, task: str = "generation") -> Iterator[tuple[RemoteGenerator, Place]]:
    """The backend on a double."""
    with serving(double) as place, load(place.url, task) as found:
        yield found, place


@pytest.mark.parametrize("task", ["generation", "chat"])
@pytest.mark.parametrize("tells_usage", [True, False])
@pytest.mark.parametrize("ends_after", [3, 1000])
def test_a_stream_says_what_a_whole_answer_says(task: str, tells_usage: bool, ends_after: int) -> None:
    """The same answer comes whole and streamed, with the same counts, and a stream ticks once a token."""
    asked = {"messages": [{"role": "user", "content": "one two three"}], "max_tokens": 5} if task == "chat" else PROMPT
    with runner(OpenAiDouble(tells_usage=tells_usage, ends_after=ends_after), task) as (target, _):
        ticks: list[int] = []
        whole, streamed = target.run([asked])[0], target.run([asked], lambda: ticks.append(1))[0]
        assert whole == streamed
        assert len(ticks) == whole["output_tokens"] == min(5, ends_after)
        assert whole["tokens"] == (7 if task == "chat" else 3)
        assert whole["finish"] == ("stop" if ends_after == 3 else "length")


@pytest.mark.parametrize("shows_end", [True, False])
def test_the_end_token_is_not_counted(shows_end: bool) -> None:
    """Where a server counts the end token, an answer does not, nor is there a tick for it."""
    with runner(OpenAiDouble("vllm", ends_after=3, counts_end=True, shows_end=shows_end)) as (target, _):
        ticks: list[int] = []
        counts = [target.run([PROMPT], tick)[0]["output_tokens"] for tick in (no_tick, lambda: ticks.append(1))]
        assert (counts, len(ticks)) == ([3, 3], 3)


def test_concurrent_requests_do_not_mix() -> None:
    """A batch of concurrent requests is answered in order, each as it is alone."""
    requests = [{"prompt": "word " * size, "max_tokens": 4 + size % 3} for size in range(1, 13)]
    with runner(OpenAiDouble()) as (target, _):
        alone = [target.run([request])[0] for request in requests]
        ticks: list[int] = []
        assert target.run(requests) == alone
        assert target.run(requests, lambda: ticks.append(1)) == alone
        assert len(ticks) == sum(answer["output_tokens"] for answer in alone)


def test_an_unknown_server_is_sent_standard_fields_only() -> None:
    """Beyond the standard, an unknown server is asked only to ignore the end token, and only when that is wanted."""
    with runner(OpenAiDouble()) as (target, place):
        target.run([PROMPT])
        target.run([{**PROMPT, "ignore_eos": True}], lambda: None)
        first, second = place.bodies("/v1/completions")
        assert set(first) == {"model", "prompt", "max_tokens", "temperature", "top_p", "seed", "stream"}
        assert set(second) - set(first) == {"ignore_eos", "stream_options"}


def test_a_refused_field_is_left_out_and_noted() -> None:
    """A server that refuses a field beyond the standard is asked once more without, and never again with it."""
    with runner(OpenAiDouble(takes=frozenset())) as (target, place):
        for _ in range(2):
            assert target.run([{**PROMPT, "ignore_eos": True}], lambda: None)[0]["output_tokens"] == 5
        assert len(place.bodies("/v1/completions")) == 3 + 1  # and one that counts the prompt, as no usage is told
        assert any(
            "does not take all of ignore_eos, stream_options" in note for note in target.evidence().details["notes"]
        )


def test_vllm_requests_share_no_prefix() -> None:
    """Each request to vLLM has a salt of its own, so that none finds another's prefix."""
    with runner(OpenAiDouble("vllm", cached=2)) as (target, place):
        target.run([PROMPT, PROMPT])
        salts = {body["cache_salt"] for body in place.bodies("/v1/completions")}
        assert len(salts) == 2
        assert target.evidence().details["cached_tokens"] == 2


def test_ends_are_biased_away_by_their_ids() -> None:
    """llama_cpp.server has no field to ignore the end token: its ids get a bias that nothing overcomes."""
    double = OpenAiDouble("me", ids_of_ends=("<|im_end|>",))
    with runner(double) as (target, place):
        target.run([{**PROMPT, "ignore_eos": True}])
        assert place.bodies("/v1/completions")[0]["logit_bias"] == {"7": -1e9}
        assert target.tokens(PROMPT) == [1] * 6


def test_an_overflow_is_told_and_chats_are_shortened() -> None:
    """A prompt that the server finds too long is refused; a chat loses its oldest turns first."""
    with (
        runner(OpenAiDouble(context=32)) as (target, _),
        pytest.raises(ContextOverflow, match=r"finds the prompt too long: .*your prompt has 40"),
    ):
        target.run([{"prompt": "word " * 40, "max_tokens": 5}])
    turns = [{"role": role, "content": "many words " * 6} for role in ("user", "assistant") * 3][:5]
    for context in (32, None):  # told in /v1/models, or only by its refusal
        double = OpenAiDouble(context=32)
        with runner(double, "chat") as (target, place):
            target.engine.context = context  # type: ignore[misc]
            assert target.run([{"messages": turns, "max_tokens": 8}])[0]["dropped_turns"] == 4
            assert len(place.bodies("/v1/chat/completions")[-1]["messages"]) == 1


def test_unknown_ids_and_logits() -> None:
    """What the protocol does not tell is Unsupported."""
    with runner(OpenAiDouble()) as (target, place):
        with pytest.raises(Unsupported, match="does not tell the ids"):
            target.tokens(PROMPT)
        with pytest.raises(Unsupported, match="logits"):
            target.logits([PROMPT])
        assert target.remote == place.url


def keep(*kept: int) -> Callable[[Says], Says]:
    return lambda said: replace(said, lines=tuple(said.lines[place] for place in kept))


EVENT = b'data: {"choices": [{"text": " a", "finish_reason": null}]}\n\n'


@pytest.mark.parametrize(
    ("flaw", "kind", "words"),
    [
        (keep(0, 1, 2), CutOff, "ended before the answer did, after 3 tokens"),
        (keep(0, 1, 2, 3, 4, 5, 6), CutOff, r"ended without \[DONE\]"),
        (keep(7), CutOff, "ended before the answer did, after 0 tokens"),
        (lambda said: replace(said, lines=said.lines[:3], cut=True), CutOff, "connection ended before the answer did"),
        (lambda _: Says(cut=True), CutOff, "connection ended before the answer did"),
        (lambda said: replace(said, lines=(EVENT, b"data: {broken\n\n")), Garbled, "an event is no JSON: '{broken'"),
        (lambda said: replace(said, lines=(b"data: 7\n\n",)), Garbled, "should be an object, is '7'"),
        (
            lambda said: replace(said, lines=(EVENT, b'data: {"error": {"message": "CUDA error"}}\n\n')),
            Refused,
            "CUDA error",
        ),
        (lambda _: Says(b'{"error": {"message": "out of blocks"}}', status=503), Refused, "status 503: out of blocks"),
        (lambda _: Says(b"gone", status=502), Refused, "status 502: gone"),
        (lambda said: replace(said, gap_s=0.6), TimedOut, "said nothing for 0.3 s"),
        (lambda said: replace(said, silent_s=0.6), TimedOut, "said nothing for 0.3 s"),
        (lambda _: Says(b"<html>", kind="text/html"), Garbled, "web page"),
    ],
)
def test_a_hostile_stream_is_one_clear_sentence(
    flaw: Callable[[Says], Says], kind: type[UserError], words: str
) -> None:
    """A stream that is truncated, dropped, garbled, silent or refused ends in one sentence that says so."""
    with runner(OpenAiDouble(flaw=flaw)) as (target, _), pytest.raises(kind, match=words) as caught:
        target.run([PROMPT], lambda: None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (Says(b"<!doctype html>", kind="text/html"), Garbled, "answers with a web page"),
        (Says(b"hello"), Garbled, "answers with what is no JSON"),
        (Says(b'{"choices": []}'), Garbled, "should have choices and usage"),
        (Says(b"[]"), Garbled, "should be an object"),
        (Says(b'{"choices"', cut=True), CutOff, "connection ended before the answer did"),
        (Says(b'{"error": "boom"}', status=500), Refused, "status 500: boom"),
        (Says(b"{}", silent_s=0.6), TimedOut, "said nothing for 0.3 s"),
    ],
)
def test_a_hostile_answer_is_one_clear_sentence(said: Says, kind: type[UserError], words: str) -> None:
    """A whole answer that is none ends in one sentence that says so."""
    with runner(OpenAiDouble(flaw=lambda _: said)) as (target, _), pytest.raises(kind, match=words) as caught:
        target.run([PROMPT])
    assert "\n" not in str(caught.value)


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that wants a key is told it, and a refusal names the variable to set."""
    monkeypatch.delenv(KEY, raising=False)
    with serving(OpenAiDouble(key="secret")) as place:
        with pytest.raises(UserError, match=f"refuses requests without a key .status 401.: set {KEY}"):
            load(place.url)
        monkeypatch.setenv(KEY, "wrong")
        with pytest.raises(UserError, match="refuses the key it was given"):
            served_models(place.url)
        monkeypatch.setenv(KEY, "secret")
        assert served_models(place.url) == served_models(f"{place.url}/v1/") == ["small"]
        with load(place.url) as target:
            assert target.run([PROMPT])[0]["output_tokens"] == 5


def test_a_model_that_is_not_there_comes_with_those_that_are() -> None:
    """An unknown model is refused with the names of those that the server has."""
    wanted = "no model 'big'; it has small: choose with --openai-model"
    with serving(OpenAiDouble()) as place, pytest.raises(UserError, match=wanted):
        load(place.url, model=replace(MODEL, name="big"))
    with runner(OpenAiDouble()) as (target, _):
        target.engine._model = "gone"  # type: ignore[attr-defined]
        with pytest.raises(UserError, match="no model 'gone'; it has small"):
            target.run([PROMPT])


def test_nothing_there_is_told_so() -> None:
    """A url where nothing listens, or something else does, is refused with what to do."""
    wanted = "is that an OpenAI-compatible server"
    with serving(lambda _: Says(b"{}", status=404)) as place, pytest.raises(UserError, match=wanted):
        served_models(place.url)
    with pytest.raises(Unreachable, match=r"nothing answers at .* start the server there"):
        served_models(place.url)
    with pytest.raises(UserError, match="is no server's url"):
        served_models("localhost:8000")
    with serving(lambda _: Says(b'{"data": []}')) as place, pytest.raises(UserError, match="offers no model"):
        served_models(place.url)


def test_a_real_server_keeps_every_law(tmp_path: Path) -> None:
    """llama_cpp.server: whole = streamed = concurrent, exact lengths, no reuse; killed, it is diagnosed."""
    file = small_gguf(tmp_path)
    pytest.importorskip("uvicorn")
    pytest.importorskip("starlette_context")
    device = small_device()
    loaded = backends["openai"].load(own(), file, tasks["generation"], optimizations["f16"], device)
    assert isinstance(loaded, RemoteGenerator)
    with loaded as target:
        pinned = {"prompt": "The clock", "max_tokens": 24, "ignore_eos": True}
        ticks: list[int] = []
        whole, streamed = target.run([pinned])[0], target.run([pinned], lambda: ticks.append(1))[0]
        assert whole == streamed
        assert len(ticks) == whole["output_tokens"] == 24
        assert whole["tokens"] == len(target.tokens(pinned))
        requests = [{"prompt": text, "max_tokens": 8} for text in ("A", "The clock is", "One day")]
        assert target.run(requests) == [target.run([request])[0] for request in requests]
        first = whole["text"].split()[3]
        stopped = target.run([{**pinned, "stop": [first]}], lambda: None)[0]
        assert (stopped["finish"], first in stopped["text"]) == ("stop", False)
        sampled = [target.run([{**pinned, "temperature": 1.0, "seed": seed}])[0]["text"] for seed in (1, 1, 2)]
        assert sampled[0] == sampled[1] != sampled[2]
        with pytest.raises(ContextOverflow):
            target.run([{"prompt": "clock " * 200, "max_tokens": 8}])
        evidence = target.evidence()
        assert not evidence.mismatches
        assert evidence.actual["reused prompts"] == "0"
        assert target.process is not None
        pid = target.process.pid
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ServerDied, match=r"ended with signal SIGKILL; last lines of its log:\n  "):
            target.run([pinned])
        log = target.process.log
    assert not psutil.pid_exists(pid)
    assert not log.exists()
