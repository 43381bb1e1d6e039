"""A tiny application behind the real guards and the real uvicorn, as a process of its own: `python -m` with JSON."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import psutil
from starlette.types import Receive, Scope, Send

from targets.api import UserError

LOG = logging.getLogger("targets.server.tiny")
ROOT = Path(__file__).resolve().parents[2]
BLOCK = b"x" * 65536


@dataclass
class Tiny:
    """Answers by path; `begun` and `answered` count what `/echo` was asked and what it said."""

    start: str = "ok"
    begun: int = 0
    answered: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await self._chat(scope, receive, send)
        else:
            await getattr(self, f"_{scope['path'][1:]}", self._missing)(receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        if self.start == "slow":
            LOG.warning("starting")
            await asyncio.Event().wait()
        if self.start in ("mistake", "broken"):
            await send({"type": "lifespan.startup.failed", "message": "a long trace"})
            raise {"mistake": UserError, "broken": OSError}[self.start]("the model is missing")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        LOG.warning("closed", extra={"fields": {"begun": self.begun, "answered": self.answered}})
        await send({"type": "lifespan.shutdown.complete"})

    async def _health(self, receive: Receive, send: Send) -> None:
        await answer(send, {"ok": True})

    _ready = _health

    async def _missing(self, receive: Receive, send: Send) -> None:
        await answer(send, {}, 404)

    async def _echo(self, receive: Receive, send: Send) -> None:
        self.begun += 1
        body = (await receive())["body"]
        await asyncio.sleep(0.005)  # the work
        await answer(send, {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()})
        self.answered += 1

    async def _forever(self, receive: Receive, send: Send) -> None:
        LOG.warning("waiting")
        await asyncio.Event().wait()

    async def _stream(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()
        left = asyncio.ensure_future(receive())
        while not left.done():
            await send({"type": "http.response.body", "body": BLOCK, "more_body": True})
            await asyncio.sleep(0)
        LOG.warning("left")

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        from targets.server.guards.drain import turn

        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            with turn(scope):
                for _ in range(int(message["text"])):
                    await send({"type": "websocket.send", "text": "token"})
                    await asyncio.sleep(0.05)  # the work
                await send({"type": "websocket.send", "text": "done"})


async def answer(send: Send, content: Any, status: int = 200) -> None:
    """A JSON response."""
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main(told: dict[str, Any]) -> int:
    """Serve as told; returns the exit code."""
    from targets.server.guards import listening, logs, protect, serve
    from targets.server.guards.connection import ConnectionLimits
    from targets.server.guards.drain import Drain

    if told.get("parser"):
        from uvicorn.importer import import_from_string

        vars(serve)["AutoHTTPProtocol"] = import_from_string(told["parser"])
    logs.configure(told.get("level", "info"))
    drain = Drain()
    app = protect.protect(Tiny(told.get("start", "ok")), drain, max_body_bytes=1 << 20, body_s=told.get("body_s", 30))
    listener = listening.bind("127.0.0.1", 0, unread_s=told.get("unread_s", 30))
    limits = ConnectionLimits(**told.get("limits", {}))
    try:
        return serve.serve(app, listener, drain, limits, max_message_bytes=4096, shutdown_s=told.get("shutdown_s", 20))
    except UserError as mistake:
        print(mistake, file=sys.stderr)
        return serve.REFUSED


@dataclass
class Running:
    """A tiny server that runs, and what it has logged."""

    process: subprocess.Popen[str]
    port: int = 0
    descriptors: int = 0
    """Open ones before anybody has connected."""
    told: list[dict[str, Any]] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def until(self, event: str) -> dict[str, Any]:
        """Read its log until a line of this event; returns the line."""
        for line in cast(IO[str], self.process.stdout):
            self.told.append(json.loads(line))
            if self.told[-1]["event"] == event:
                return self.told[-1]
        raise AssertionError(f"ended with {self.process.wait()} before {event!r}: {self.told}")

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def end(self, timeout_s: float = 120) -> int:
        """Its exit code, and the rest of its log."""
        out, _ = self.process.communicate(timeout=timeout_s)
        self.told += [json.loads(line) for line in out.splitlines()]
        return self.process.returncode

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()


def started(stdout: int | IO[Any] = subprocess.PIPE, **told: Any) -> Running:
    """The process, which may not listen yet."""
    command = [sys.executable, "-m", "suites.meta.tiny_server", json.dumps(told)]
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    return Running(
        subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, cwd=ROOT, text=True, env=environment)
    )


@contextlib.contextmanager
def running(**told: Any) -> Iterator[Running]:
    """A server that listens."""
    with started(**told) as server:
        server.port = int(server.until("listening")["url"].rpartition(":")[2])
        server.descriptors = psutil.Process(server.pid).num_fds()
        yield server


def status(server: Running, path: str = "/health", body: bytes | None = None) -> int:
    """What one request is answered."""
    connection = asked(server, path, body)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def asked(server: Running, path: str = "/health", body: bytes | None = None) -> http.client.HTTPConnection:
    """A connection with one request under way."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    connection.request("GET" if body is None else "POST", path, body=body)
    return connection


if __name__ == "__main__":
    raise SystemExit(main(json.loads(sys.argv[1])))
