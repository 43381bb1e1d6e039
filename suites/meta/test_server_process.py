from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from suites.meta.small_llama import own, small_device, small_gguf
from targets.api import Unavailable
from targets.generation import ContextOverflow
from targets.llama.programs import program
from targets.optimization import Optimization
from targets.registry import backends, optimizations, tasks
from targets.remote.client import HttpClient, Refused
from targets.remote.generator import RemoteGenerator
from targets.remote.process import ServerDied, ServerProcess, free_port

SERVER = """
import sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        self.send_response({codes}[min(Handler.asked, len({codes})) - 1])
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{{}}")

print("loading the model", flush=True)
time.sleep({wait})
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def python(code: str, *arguments: str) -> ServerProcess:
    return ServerProcess("a server", [sys.executable, "-c", code, *arguments])


def test_a_server_is_waited_for() -> None:
    """While nothing listens, and while the server says that it is loading, it is waited for."""
    port = free_port()
    process = python(SERVER.format(codes=[503, 503, 200], wait=0.1), str(port))
    client = HttpClient(f"http://127.0.0.1:{port}", timeout_s=2)
    try:
        assert process.wait(client, "/health", 10) > 0.1
        process.check()
    finally:
        client.close()
        process.stop()
    assert not psutil.pid_exists(process.pid)
    assert not process.log.exists()
    process.stop()


def test_a_server_that_ends_early_is_diagnosed() -> None:
    """A child that ends before it is ready is told with its exit code and its last lines."""
    process = python("import sys; print('loading'); sys.exit('error: the file is no model')")
    client = HttpClient(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(
        ServerDied, match=r"ended with exit code 1; last lines of its log:\n  (loading\n  )?error: the fi"
    ):
        process.wait(client, "/health", 10)
    process.stop()


def test_a_server_that_is_never_ready_is_stopped() -> None:
    """A child that is not ready in time is stopped, and its last lines are told."""
    process = python("import time; print('compiling', flush=True); time.sleep(60)")
    client = HttpClient(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ServerDied, match=r"not ready within 0.4 s and was stopped; .*\n  compiling"):
        process.wait(client, "/health", 0.4)
    assert not psutil.pid_exists(process.pid)


def test_a_refusal_is_not_waited_out() -> None:
    """A server that refuses is not one that is loading."""
    port = free_port()
    process = python(SERVER.format(codes=[500], wait=0), str(port))
    client = HttpClient(f"http://127.0.0.1:{port}", timeout_s=2)
    try:
        with pytest.raises(Refused, match="status 500"):
            process.wait(client, "/health", 10)
    finally:
        client.close()
        process.stop()


def test_a_stubborn_server_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that ignores the polite signal is killed."""
    monkeypatch.setattr("targets.remote.process.STOP_S", 0.2)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    process = python(code)
    while "up" not in process.last_words():
        process.check()
    process.stop()
    assert not psutil.pid_exists(process.pid)


def test_a_program_that_cannot_start_leaves_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is nothing to start, the system's reason is raised and nothing is left."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        ServerProcess("nothing", ["/nowhere/server"])
    assert list(tmp_path.iterdir()) == []


def test_a_free_port_can_be_listened_on() -> None:
    """Nothing listens on the port that is found."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free_port()))


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteGenerator]:
    """llama-server on the embedded Llama."""
    if program("llama-server") is None:
        pytest.skip("llama-server is not found: set LLAMA_CPP_DIR")
    file = small_gguf(tmp_path_factory.mktemp("gguf"))
    found = backends["llama-server"].load(own(), file, tasks["generation"], optimizations["f16"], small_device())
    assert isinstance(found, RemoteGenerator)
    with found as runner:
        yield runner


def test_llama_server_keeps_every_law(native: RemoteGenerator) -> None:
    """Whole = streamed = concurrent; exact lengths; ids are told; seeds reproduce; no prefix is reused."""
    pinned = {"prompt": "The clock", "max_tokens": 24, "ignore_eos": True}
    ticks: list[int] = []
    whole, streamed = native.run([pinned])[0], native.run([pinned], lambda: ticks.append(1))[0]
    assert whole == streamed
    assert len(ticks) == whole["output_tokens"] == len(whole["token_ids"]) == 24
    assert whole["tokens"] == len(native.tokens(pinned))
    requests = [{"prompt": text, "max_tokens": 8} for text in ("A", "The clock is", "One day", "It was")]
    assert [each["text"] for each in native.run(requests)] == [native.run([each])[0]["text"] for each in requests]
    sampled = [native.run([{**pinned, "temperature": 1.0, "seed": seed}])[0]["text"] for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]
    assert not native.evidence().mismatches


def test_llama_server_fills_its_context_and_no_more(native: RemoteGenerator) -> None:
    """A prompt and answer of exactly the context fit; one more token is refused with the three numbers."""
    prompt = "clock"
    while len(native.tokens({"prompt": prompt})) < 100:
        prompt += " clock"
    size = len(native.tokens({"prompt": prompt}))
    fits = {"prompt": prompt, "max_tokens": 128 - size, "ignore_eos": True}
    assert native.run([fits])[0]["output_tokens"] == 128 - size
    with pytest.raises(ContextOverflow, match=f"{size} tokens and {129 - size} more are asked for, but .* holds 128"):
        native.run([{**fits, "max_tokens": 129 - size}])
    with pytest.raises(ContextOverflow):
        native.run([{"prompt": prompt * 3, "max_tokens": 1}])


def test_llama_server_stops_where_it_should(native: RemoteGenerator) -> None:
    """A stop string ends the answer before it, streamed or not, and is not in the text."""
    text = native.run([{"prompt": "The clock", "max_tokens": 24}])[0]["text"]
    stop = text.split()[3]
    ticks: list[int] = []
    request = {"prompt": "The clock", "max_tokens": 24, "stop": [stop]}
    whole, streamed = native.run([request])[0], native.run([request], lambda: ticks.append(1))[0]
    assert whole == streamed
    assert whole["text"] == text[: text.index(stop)]
    assert (whole["finish"], len(ticks)) == ("stop", whole["output_tokens"])


def test_llama_server_ends_a_chat_at_its_end_token(native: RemoteGenerator) -> None:
    """A reply ends with the end token, which is neither counted nor among the ids nor ticked."""
    request = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 60}
    native.task, before = tasks["chat"], native.task  # type: ignore[assignment]
    try:
        ticks: list[int] = []
        whole, streamed = native.run([request])[0], native.run([request], lambda: ticks.append(1))[0]
    finally:
        native.task = before
    assert whole == streamed
    assert whole["finish"] == "stop"
    assert len(ticks) == whole["output_tokens"] == len(whole["token_ids"])


def test_a_killed_llama_server_is_diagnosed(tmp_path: Path) -> None:
    """A server that is killed in mid-run is told with its signal and log, and nothing is left of it."""
    if program("llama-server") is None:
        pytest.skip("llama-server is not found: set LLAMA_CPP_DIR")
    file = small_gguf(tmp_path)
    with backends["llama-server"].load(
        own(), file, tasks["generation"], optimizations["f16"], small_device()
    ) as target:
        assert isinstance(target, RemoteGenerator)
        assert target.process is not None
        killed = target.process

        def kill() -> None:
            os.kill(killed.pid, signal.SIGKILL)

        with pytest.raises(ServerDied, match=r"llama-server ended with signal SIGKILL; last lines of its log:\n  "):
            target.run([{"prompt": "The clock", "max_tokens": 100, "ignore_eos": True}], kill)
    assert not psutil.pid_exists(killed.pid)
    assert not killed.log.exists()


@dataclass(frozen=True, kw_only=True)
class Strange(Optimization):
    """Asks for something that no server has."""

    def llama_options(self, device: object, layers: int) -> dict[str, int]:
        """One unknown option."""
        return {"wings": 2}


@pytest.mark.parametrize("name", ["llama-server", "openai"])
def test_an_unknown_option_is_not_dropped(name: str, tmp_path: Path) -> None:
    """An option that a server cannot be told of is an error, as a silent default would be measured instead."""
    if name == "llama-server" and program(name) is None:
        pytest.skip("llama-server is not found: set LLAMA_CPP_DIR")
    file = small_gguf(tmp_path)
    strange = Strange(name="x", group="gguf", summary="", backends=frozenset(), max_drop=0.0, min_agreement=1.0)
    with pytest.raises(ValueError, match="is not told of wings"):
        backends[name].load(own(), file, tasks["generation"], strange, small_device())


@pytest.mark.parametrize(("name", "words"), [("vllm", "--vllm-python"), ("tensorrt-llm", "container")])
def test_a_missing_engine_comes_with_its_hint(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is not installed is found by no requirement, and unavailable with how to get it."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("VLLM_PYTHON", raising=False)
    (requirement,) = backends[name].requires
    assert requirement.find is not None
    if name == "vllm" and requirement.find():
        pytest.skip("vLLM is installed here")
    assert requirement.find() is None
    assert words in requirement.install
    with pytest.raises(Unavailable, match=words):
        backends[name].load(own(), own().path, tasks["generation"], optimizations["fp16"], small_device())


@pytest.mark.parametrize("name", ["vllm", "tensorrt-llm"])
def test_a_server_that_cannot_start_is_diagnosed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ends at once is told with its last lines; its command names model, port and number format."""
    program = tmp_path / "trtllm-serve"
    program.write_text('#!/bin/sh\necho "$@"\necho no GPU >&2\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    device = small_device(vllm={"python": str(program)})
    with pytest.raises(ServerDied, match="exit code 3") as caught:
        backends[name].load(own(), own().path, tasks["generation"], optimizations["fp16"], device)
    words = str(caught.value)
    assert "no GPU" in words
    assert "127.0.0.1" in words
