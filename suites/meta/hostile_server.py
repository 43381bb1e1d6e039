"""An HTTP server that says what a test tells it to, the wrong things above all; for the harness's own tests."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Says:
    """One answer: `body` at once, or `lines` as chunks, `gap_s` apart.

    `silent_s` passes before the first byte; `cut`: the connection is dropped before the answer is complete.
    """

    body: bytes | None = None
    lines: tuple[bytes, ...] = ()
    status: int = 200
    kind: str = "application/json"
    gap_s: float = 0.0
    silent_s: float = 0.0
    cut: bool = False


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    body: Any
    key: str | None


@dataclass
class Place:
    """Where the server is, and what it was asked."""

    url: str
    asked: list[Asked] = field(default_factory=list)

    def bodies(self, path: str) -> list[Any]:
        """The bodies that came to a path."""
        return [each.body for each in self.asked if each.path == path]


def says(value: Any, status: int = 200) -> Says:
    """A JSON answer."""
    return Says(json.dumps(value).encode(), status=status)


@contextlib.contextmanager
def serving(reply: Callable[[Asked], Says]) -> Iterator[Place]:
    """A server on a free loopback port for the time of the block."""
    place = Place("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_one_request(self) -> None:
            with contextlib.suppress(ConnectionError):
                super().handle_one_request()

        def answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            is_json = self.headers.get("Content-Type") == "application/json"
            body = json.loads(content) if content and is_json else content or None
            asked = Asked(self.command, self.path, body, self.headers.get("Authorization"))
            place.asked.append(asked)
            send(self, reply(asked))

        do_GET = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    place.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield place
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(handler: BaseHTTPRequestHandler, what: Says) -> None:
    """Write an answer as it is scripted."""
    time.sleep(what.silent_s)
    if what.cut and what.body is None and not what.lines:
        handler.close_connection = True
        return
    handler.send_response(what.status)
    handler.send_header("Content-Type", what.kind)
    if what.body is not None:
        handler.send_header("Content-Length", str(len(what.body) + (100 if what.cut else 0)))
        handler.end_headers()
        handler.wfile.write(b"" if handler.command == "HEAD" else what.body)
    else:
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for line in what.lines:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            handler.wfile.flush()
            time.sleep(what.gap_s)
        handler.wfile.write(b"" if what.cut else b"0\r\n\r\n")
    handler.close_connection = handler.close_connection or what.cut
