"""JSON over HTTP, and streams of lines, with every way it can go wrong told in one sentence.

Built on http.client: a line of a stream costs 18 us there and 43 us with httpx (one core at 2 GHz), and what a client
costs stands in every gap between tokens.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
from collections.abc import Generator, Mapping
from typing import IO, Any
from urllib.parse import urlsplit

from targets.api import UserError

CONNECT_S = 5.0
READ_S = 60.0
BLOCK = 1 << 16


class ServerTrouble(UserError):
    """A server did not answer as it should; the message says where and what."""


class Unreachable(ServerTrouble):
    """Nothing listens there."""


class TimedOut(ServerTrouble):
    """It listens, and is silent."""


class CutOff(ServerTrouble):
    """The connection ended before the answer did."""


class Garbled(ServerTrouble):
    """The answer is not what the protocol says."""


class Refused(ServerTrouble):
    """An HTTP status of 400 or more; `told` is what the server says about it."""

    def __init__(self, where: str, status: int, told: str) -> None:
        super().__init__(f"{where} answered with status {status}: {told or 'no reason given'}")
        self.where = where
        self.status = status
        self.told = told


class HttpClient:
    """A client of one server; each thread has a connection of its own, which is kept open.

    Args:
        url: where the server is, for example http://127.0.0.1:8000; a path is kept as a prefix.
        key: sent as a bearer token.
        timeout_s: silence that counts as a time-out, in seconds.

    Raises:
        UserError: the url is malformed.
    """

    def __init__(self, url: str, key: str | None = None, timeout_s: float = READ_S) -> None:
        try:
            parts = urlsplit(url)
            self._address = (parts.hostname or "", parts.port)
        except ValueError as error:
            raise UserError(f"{url!r} is no server's url ({error}); it should look like http://host:port") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"{url!r} is no server's url; it should look like http://host:port")
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self._prefix = parts.path.rstrip("/")
        self._secure = parts.scheme == "https"
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        self._own = threading.local()
        self._open: list[http.client.HTTPConnection] = []

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        return self.call("GET", path)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that answers a JSON body."""
        return self.call("POST", path, body)

    def call(self, method: str, path: str, body: Mapping[str, Any] | IO[bytes] | None = None) -> Any:
        """The JSON that answers, None where the answer is empty. A file as body is sent as it is.

        Raises:
            ServerTrouble: one of its kinds.
        """
        response = self._send(method, path, body)
        try:
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._trouble(path, error) from error
        return self._parsed(path, content) if content.strip() else None

    def lines(self, path: str, body: Mapping[str, Any]) -> Generator[bytes, None, None]:
        """The lines of the answer to a JSON body, each as soon as it is there, without its end.

        Closed before its end, it drops the connection, by which a server knows that no more is wanted.

        Raises:
            ServerTrouble: one of its kinds; a stream that is cut off raises when that is seen.
        """
        response = self._send("POST", path, body)
        if "text/html" in response.headers.get("Content-Type", ""):
            raise Garbled(f"{self.url}{path} answers with a web page, not with a stream; is this the server's url?")
        rest = b""
        ended = False
        try:
            while block := response.read1(BLOCK):
                *whole, rest = (rest + block).split(b"\n")
                for line in whole:
                    yield line.rstrip(b"\r")
            ended = True
        except (OSError, http.client.HTTPException) as error:
            raise self._trouble(path, error) from error
        finally:
            if not ended:
                self._drop()
        if rest:
            yield rest

    def be_patient(self, seconds: float) -> None:
        """From now on, so much silence is a time-out."""
        self.timeout_s = seconds
        self.close()

    def close(self) -> None:
        """Close all connections; the next request opens one again."""
        for connection in self._open:
            connection.close()

    def _send(self, method: str, path: str, body: Any) -> http.client.HTTPResponse:
        headers, content = self._headers, body
        if isinstance(body, Mapping):
            content = json.dumps(body).encode()
        elif body is not None:
            size = os.fstat(body.fileno()).st_size
            headers = {**headers, "Content-Type": "application/octet-stream", "Content-Length": str(size)}
        try:
            response = self._exchange(method, path, content, headers)
            if response.status < 400:
                return response
            told = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._trouble(path, error) from error
        raise Refused(f"{self.url}{path}", response.status, told_in(told))

    def _exchange(self, method: str, path: str, content: Any, headers: dict[str, str]) -> http.client.HTTPResponse:
        connection = self._connection()
        used = connection.sock is not None
        try:
            return self._once(connection, method, path, content, headers)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            if not used:
                raise
        self._drop()  # a kept connection that the server has closed meanwhile says nothing about the server
        return self._once(self._connection(), method, path, content, headers)

    def _once(
        self, connection: http.client.HTTPConnection, method: str, path: str, content: Any, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        if connection.sock is None:
            self._connect(connection)
        connection.request(method, self._prefix + path, content, headers)
        return connection.getresponse()

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        try:
            connection.connect()
        except TimeoutError as error:
            raise Unreachable(f"{self.url}: no connection within {CONNECT_S:g} s; is the address right?") from error
        except OSError as error:
            raise Unreachable(
                f"nothing answers at {self.url} ({error}); start the server there, or correct the url"
            ) from error
        connection.sock.settimeout(self.timeout_s)

    def _connection(self) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if found is None:
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            found = self._own.connection = kind(*self._address, timeout=CONNECT_S)
            self._open.append(found)
        return found

    def _drop(self) -> None:
        self._connection().close()

    def _parsed(self, path: str, content: bytes) -> Any:
        try:
            return json.loads(content)
        except ValueError as error:
            what = "a web page" if content.lstrip()[:1] == b"<" else "what is no JSON"
            start = content[:60].decode(errors="replace")
            raise Garbled(f"{self.url}{path} answers with {what} ({start!r}); is this the server's url?") from error

    def _trouble(self, path: str, error: Exception) -> ServerTrouble:
        self._drop()
        where = f"{self.url}{path}"
        if isinstance(error, TimeoutError):
            return TimedOut(f"{where}: the server is there, but said nothing for {self.timeout_s:g} s")
        return CutOff(f"{where}: the connection ended before the answer did ({type(error).__name__}: {error})")


def told_in(content: bytes) -> str:
    """What an error's body says: its message, or its beginning; on one line."""
    try:
        found = json.loads(content)
    except ValueError:
        found = content.decode(errors="replace")
    while isinstance(found, dict):
        found = next((found[key] for key in ("error", "message", "detail") if found.get(key)), str(found))
    return " ".join(str(found).split())[:300]
