"""A stand-in for the server: one queue, one server, a service time that is what it says. Runs in a process of its own.

A request's text chooses what is done to it: "fail" 500, "reject" 429, "reset" a reset connection, "drop" an end
without an answer, "hang" none at all, "garble" no JSON, "lie" the other label, "stall" a service of one second, "once"
500 if the same text came before.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SCORES = {"positive": 0.9, "negative": 0.1}
STALL_S = 1.0


class Queue:
    """Serves one request after another, each for exactly `service_s`: what a late wake-up costs is not handed on."""

    def __init__(self, service_s: float) -> None:
        self.service_s = service_s
        self._free = 0.0

    async def served(self, service_s: float | None = None) -> None:
        """Wait for one's turn and its service."""
        now = time.perf_counter()
        self._free = max(now, self._free) + (self.service_s if service_s is None else service_s)
        await asyncio.sleep(self._free - now)


def app(service_s: float) -> Any:
    """The application."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    queue = Queue(service_s)
    seen: set[str] = set()

    async def sentiment(request: Request) -> Response:
        whole = (await request.json())["texts"][0]
        text = whole.split(" ")[0]
        await queue.served(STALL_S if text == "stall" else None)
        if text == "hang":
            await asyncio.Event().wait()
        if text == "once" and whole in seen:
            return Response(b'{"title": "again"}', 500)
        seen.add(whole)
        if text in ("fail", "reject"):
            return Response(b'{"title": "no"}', 500 if text == "fail" else 429)
        if text == "garble":
            return Response(b"[]")
        label = "negative" if text in ("awful", "lie") else "positive"
        scores = SCORES if label == "positive" else {"positive": 0.1, "negative": 0.9}
        return Response(json.dumps({"results": [{"label": label, "scores": scores}]}))

    return Starlette(routes=[Route("/sentiment", sentiment, methods=["POST"])])


async def rough(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What no framework does on purpose: answers at once, or resets or drops the connection by what is asked."""
    body = json.dumps({"results": [{"label": "positive", "scores": SCORES}]}).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            asked = await reader.readexactly(length)
            if b"reset" in asked:
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            if b"drop" in asked:
                return
            if b"half" in asked:
                writer.write(answer[:-5])
                return
            if b"noise" in asked:
                writer.write(b"SMTP ready\r\n\r\n")
                return
            writer.write(answer)
    except asyncio.IncompleteReadError:
        return
    finally:
        writer.close()


async def serve_rough() -> None:
    """Serve `rough` and say where."""
    server = await asyncio.start_server(rough, "127.0.0.1", 0)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def announce(port: int) -> None:
    """The line that whoever started this waits for."""
    print(json.dumps({"event": "listening", "url": f"http://127.0.0.1:{port}"}), flush=True)


@contextmanager
def double(kind: str, service_ms: float = 0.0) -> Iterator[str]:
    """The URL of a stand-in: "queue" (one queue, one server) or "rough"."""
    command = [sys.executable, "-m", "suites.meta.serving_double", kind, str(service_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.kill()


def main(kind: str, service_ms: float) -> None:
    """Serve until killed."""
    if kind == "rough":
        asyncio.run(serve_rough())
        return
    import uvicorn

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(1024)
    announce(listening.getsockname()[1])
    uvicorn.Server(uvicorn.Config(app(service_ms / 1e3), log_level="error")).run(sockets=[listening])


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
