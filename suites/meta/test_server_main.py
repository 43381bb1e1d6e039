from __future__ import annotations

import asyncio
import hashlib
import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the server: pip install 'edge-nlp-suite[server]'")

from suites.meta.tiny_server import ROOT, Running, running, started
from targets.api import UserError
from targets.remote.process import free_port
from targets.server import listening

CLIENTS = 12


def asked(server: Running, path: str = "/health", body: bytes | None = None) -> http.client.HTTPConnection:
    """A connection with one request under way."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET" if body is None else "POST", path, body=body)
    return connection


def test_it_says_where_it_listens() -> None:
    """Port 0 takes a free one, and one JSON line says which, when requests are already answered there."""
    with running() as server:
        assert asked(server).getresponse().status == 200
        line = server.told[-1]
        assert (line["level"], line["pid"]) == ("info", server.pid)
        server.signal()
        assert server.end() == 0
        assert [each["event"] for each in server.told][-3:] == ["stopping", "closed", "stopped"]


async def client(port: int, name: str, answered: list[bytes], enough: asyncio.Event) -> str:
    """Ask without a pause on one connection until it ends; returns how it ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in range(100_000):
        body = f"{name}/{number}".encode()
        head = f"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        try:
            headers = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            return f"lost {body.decode()}: {error!r}"
        size = int(headers.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        told = json.loads(await reader.readexactly(size))
        if told["sha256"] != hashlib.sha256(body).hexdigest():
            return f"{body.decode()} got another one's answer"
        answered.append(body)
        if len(answered) > 20 * CLIENTS:
            enough.set()
        if b"connection: close" in headers.lower():
            writer.close()
            return "closed after an answer"
    return "never ended"


def test_nothing_is_lost_when_it_stops_under_load() -> None:
    """Every request on every connection gets its own answer, the last with the word to close; then it ends with 0."""

    async def load(server: Running) -> tuple[list[str], int]:
        answered: list[bytes] = []
        enough = asyncio.Event()
        clients = [asyncio.ensure_future(client(server.port, f"c{n}", answered, enough)) for n in range(CLIENTS)]
        await asyncio.wait_for(enough.wait(), 20)
        server.signal()
        return await asyncio.gather(*clients), len(answered)

    with running() as server:
        ends, answers = asyncio.run(load(server))
        assert set(ends) == {"closed after an answer"}
        assert server.end() == 0
        closed = next(line for line in server.told if line["event"] == "closed")
        assert (closed["begun"], closed["answered"]) == (answers, answers)
        assert server.told[-1]["cut_off"] == 0


def test_idle_connections_do_not_hold_it() -> None:
    """Connections without a request, silent or kept alive, are closed at once when it stops."""
    with running() as server:
        kept = asked(server)
        kept.getresponse().read()
        silent = http.client.HTTPConnection("127.0.0.1", server.port)
        silent.connect()
        began = time.monotonic()
        server.signal()
        assert server.end() == 0
        assert time.monotonic() - began < 4, "keep-alive alone would hold it 5 s, the time for headers 10 s"
        kept.close()
        silent.close()


def test_what_takes_too_long_is_cut_off_aloud() -> None:
    """A request that outlasts the time to stop is answered 503, and the exit code says that something was lost."""
    with running(shutdown_s=1) as server:
        waiting = asked(server, "/forever")
        server.until("waiting")
        server.signal()
        answer = waiting.getresponse()
        told = json.loads(answer.read())
        assert (answer.status, answer.headers["retry-after"], told["status"]) == (503, "5", 503)
        assert told["instance"] == answer.headers["x-request-id"]
        assert server.end() == 1
        assert server.told[-1]["cut_off"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(number: signal.Signals) -> None:
    """Whoever asks twice does not wait for what was accepted."""
    with running() as server:
        waiting = asked(server, "/forever")
        server.until("waiting")
        server.signal()
        server.until("stopping")
        server.signal(number)
        assert server.end() == 128 + number
        waiting.close()


def test_a_start_can_be_called_off() -> None:
    """A signal while the application starts ends it at once, with exit code 0."""
    with started(start="slow") as server:
        server.until("starting")
        server.signal()
        assert server.end() == 0
        assert "error" not in {line["level"] for line in server.told}


def test_a_start_that_the_user_can_mend() -> None:
    """What the user asked for and cannot have is one sentence and exit code 2."""
    with started(start="mistake") as server:
        out, errors = server.process.communicate(timeout=20)
        assert (server.process.returncode, errors) == (2, "the model is missing\n")
        assert "trace" not in out


def test_a_start_that_fails() -> None:
    """Any other failure to start is logged with its message and its place, and ends with exit code 3."""
    with started(start="broken") as server:
        assert server.end() == 3
        told = next(line for line in server.told if line["event"] == "could not start or stop")
        assert told["message"] == "the model is missing"
        assert told["exception"][0]["type"] == "OSError"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full: Linux")
def test_a_full_disk_for_logs_fails_no_request() -> None:
    """Where no log can be written, requests are answered, and the end is orderly."""
    port = free_port()
    code = f"from targets.server import listening as l; b = l.bind; l.bind = lambda h, p, **k: b(h, {port}, **k)"
    start = f"import json, sys; {code}; from suites.meta.tiny_server import main; raise SystemExit(main({{}}))"
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            [sys.executable, "-c", start], stdout=full, cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        with Running(process, port) as server:
            answered = patiently(server, 20)
            assert answered == [200] * 20
            server.signal()
            assert process.wait(20) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""


def test_a_log_that_nobody_reads_stops_nothing() -> None:
    """A pipe that is full of unread log lines stops neither requests nor the end."""
    with running() as server:
        assert patiently(server, 600, "/echo") == [200] * 600  # 600 lines are more than the 64 KiB of a pipe
        server.signal()
        assert server.process.wait(20) == 0


def patiently(server: Running, times: int, path: str = "/health") -> list[int]:
    """The status of each of some requests; the server may still be starting."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    end = time.monotonic() + 20
    while True:
        try:
            connection.connect()
            break
        except ConnectionRefusedError:
            assert time.monotonic() < end, "it never listened"
            time.sleep(0.02)
    statuses = []
    for _ in range(times):
        connection.request("POST", path, body=b"x")
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
    connection.close()
    return statuses


def chat(server: Running, turns: Sequence[str], stop_after: int) -> tuple[list[str], int | None]:
    """What came over a chat, and the code it was closed with; a signal is sent after some frames."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    async def talk() -> tuple[list[str], int | None]:
        frames: list[str] = []
        async with connect(f"ws://127.0.0.1:{server.port}/chat") as connection:
            for turn in turns:
                await connection.send(turn)
            try:
                while True:
                    if len(frames) == stop_after:
                        server.signal()
                    frames.append(str(await connection.recv()))
            except ConnectionClosed:
                return frames, connection.close_code

    return asyncio.run(asyncio.wait_for(talk(), 20))


needs_websockets = pytest.mark.skipif(
    importlib.util.find_spec("websockets") is None, reason="WebSocket: pip install websockets"
)


@needs_websockets
def test_a_turn_of_a_chat_is_finished() -> None:
    """A chat in the middle of an answer gets all of it, and is then told that the server restarts (1012)."""
    with running() as server:
        assert chat(server, ["8"], stop_after=2) == (["token"] * 8 + ["done"], 1012)
        assert server.end() == 0


@needs_websockets
def test_a_chat_between_turns_does_not_hold_it() -> None:
    """A chat that waits for its user is closed at once."""
    with running() as server:
        began = time.monotonic()
        assert chat(server, ["1"], stop_after=2) == (["token", "done"], 1012)
        assert server.end() == 0
        assert time.monotonic() - began < 8


@needs_websockets
def test_a_large_message_ends_its_chat_only() -> None:
    """A message beyond the limit closes its connection with 1009, and the server goes on."""
    with running() as server:
        frames, code = chat(server, ["9" * 5000], stop_after=-1)
        assert (frames, code) == ([], 1009)
        assert asked(server).getresponse().status == 200


@pytest.mark.parametrize(
    ("host", "port", "complaint"),
    [
        ("no such host", 0, "is no address of this machine"),
        ("192.0.2.1", 0, "no interface of this machine has that address; choose 127.0.0.1"),
    ],
)
def test_an_address_that_cannot_be_had(host: str, port: int, complaint: str) -> None:
    """What is wrong with an address is one sentence with what to do."""
    with pytest.raises(UserError, match=complaint):
        listening.bind(host, port)


def test_a_port_that_is_taken() -> None:
    """A port in use is said so, with the way out."""
    with listening.bind("127.0.0.1", 0) as first:
        first.listen()
        with pytest.raises(UserError, match="another program listens there; choose another port with --port, or 0"):
            listening.bind("127.0.0.1", first.getsockname()[1])


def test_open_files_suffice_for_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """The soft limit is raised to what is needed; a hard limit below it is refused with the largest number allowed."""
    raised: list[Any] = []
    monkeypatch.setattr("resource.getrlimit", lambda _: (64, 1024))
    monkeypatch.setattr("resource.setrlimit", lambda _, limits: raised.append(limits))
    listening.allow_descriptors(512)
    assert raised == [(768, 1024)]
    with pytest.raises(UserError, match="allow at most 768 with --max-connections"):
        listening.allow_descriptors(10_000)


FAKES = """
import sys, types
from types import SimpleNamespace as Names
from targets.api import UserError
from suites.meta.tiny_server import Tiny

def parse(arguments, environment):
    if arguments == ["--wrong"]:
        raise UserError("--wrong is no option. Known: --port.")
    limits = Names(max_body_bytes=1 << 20, max_connections=8)
    keys = __import__("pathlib").Path(arguments[0]) if arguments else None
    place = {"host": "127.0.0.1", "port": 0, "log_level": "info"}
    return Names(**place, limits=limits, api_key_file=keys, cors_origins=(), shutdown_s=5)

class App(Tiny):
    routes = [Names(path="/health"), Names(path="/echo")]

for name, things in {"settings": {"parse": parse}, "app": {"create_app": lambda settings: App()}}.items():
    module = sys.modules[f"targets.server.{name}"] = types.ModuleType(name)
    vars(module).update(things)

from targets.server.__main__ import main
raise SystemExit(main(sys.argv[1:]))
"""


def program(*arguments: str) -> Running:
    """`python -m targets.server` with settings and an application of its own."""
    return Running(
        subprocess.Popen(
            [sys.executable, "-c", FAKES, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )
    )


def test_the_program(tmp_path: Path) -> None:
    """The program puts settings, guards and application together: its key is asked for, its log names the route."""
    keys = tmp_path / "keys"
    keys.write_text("k" * 32)
    with program(str(keys)) as server:
        server.port = int(server.until("listening")["url"].rpartition(":")[2])
        assert asked(server).getresponse().status == 200
        assert asked(server, "/echo", b"x").getresponse().status == 401
        assert server.until("request")["route"] == "/echo"
        server.signal()
        assert server.end() == 0


@pytest.mark.parametrize(("argument", "sentence"), [("--wrong", "Known: --port"), ("/nowhere/keys", "cannot be read")])
def test_a_mistake_is_a_sentence(argument: str, sentence: str) -> None:
    """A wrong option or file ends the program with exit code 2 and one sentence."""
    with program(argument) as server:
        out, errors = server.process.communicate(timeout=20)
    assert (server.process.returncode, out) == (2, "")
    assert errors.startswith("error: ")
    assert sentence in errors
    assert errors.count("\n") == 1
