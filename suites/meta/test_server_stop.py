from __future__ import annotations

import asyncio
import hashlib
import http.client
import importlib.util
import json
import signal
import socket
import time
from collections.abc import Sequence

import pytest

pytest.importorskip("uvicorn", reason="the server: pip install 'edge-nlp-suite[server]'")

from suites.meta.tiny_server import Running, asked, running, started, status

CLIENTS = 12


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
        waiting.close()
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


def told_after_all(server: Running, message: bytes) -> int | None:
    """The code that a client is told which sends all of its message before it reads anything."""
    from websockets.client import ClientProtocol
    from websockets.uri import parse_uri

    end = ClientProtocol(parse_uri(f"ws://127.0.0.1:{server.port}/chat"))
    with socket.create_connection(("127.0.0.1", server.port), 20) as line:
        end.send_request(end.connect())
        line.sendall(b"".join(end.data_to_send()))
        while not end.events_received():
            end.receive_data(line.recv(65536))
        end.send_text(message)
        line.sendall(b"".join(end.data_to_send()))
        while data := line.recv(65536):
            end.receive_data(data)
    end.receive_eof()
    return end.close_code


@needs_websockets
@pytest.mark.parametrize("size", [5_000, 8 << 20])
def test_a_large_message_ends_its_chat_only(size: int) -> None:
    """A message beyond the limit, however large, closes its connection with 1009, and the server goes on."""
    with running() as server:
        assert told_after_all(server, b"9" * size) == 1009
        assert status(server) == 200
