from __future__ import annotations

import http.client
import importlib.util
import json
import socket
import time
from collections.abc import Iterator

import psutil
import pytest

pytest.importorskip("uvicorn", reason="the server: pip install 'edge-nlp-suite[server]'")

from suites.meta.tiny_server import Running, running

PARSERS = {
    "h11": "uvicorn.protocols.http.h11_impl:H11Protocol",
    "httptools": "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol",
}
CONNECTIONS = 12
HEADER_S = 0.4
PATIENCE_S = 120
"""How long a test waits for what has to happen at once: a busy machine is slow."""


@pytest.fixture(scope="module", params=PARSERS)
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    """A server with short times, for all tests of this file."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"this parser is not installed: pip install {request.param}")
    limits = {"connections": CONNECTIONS, "header_s": HEADER_S, "rest_s": 1.0}
    with running(parser=PARSERS[request.param], limits=limits, body_s=0.4, unread_s=1.0) as one:
        yield one


def connected(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)


def everything(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionResetError:
        pass  # it closes without having read all that was sent
    return data


def alive(server: Running) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    connection.request("GET", "/health")
    answer = connection.getresponse().read()
    connection.close()
    return bool(json.loads(answer)["ok"])


def trickle(connection: socket.socket, piece: bytes, gap_s: float = 0.05) -> bytes:
    """Send a piece again and again until the server has had enough; returns what it said."""
    connection.settimeout(gap_s)
    data = b""
    for _ in range(int(PATIENCE_S / gap_s)):
        try:
            connection.sendall(piece)
            if not (said := connection.recv(65536)):
                return data
            data += said
        except TimeoutError:
            continue
        except OSError:
            return data
    raise AssertionError("the server never had enough")


def test_a_silent_client_is_left(server: Running) -> None:
    """A client that connects and says nothing is closed after the time for headers, without a word."""
    with connected(server) as connection:
        began = time.monotonic()
        assert connection.recv(1) == b""
        assert time.monotonic() - began > HEADER_S * 0.9


def test_a_header_a_moment_is_too_slow(server: Running) -> None:
    """No byte renews the time for headers: who sends one line a moment for ever is answered 408."""
    with connected(server) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        said = trickle(connection, b"X-More: x\r\n")
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in said


def test_later_requests_have_the_same_time(server: Running) -> None:
    """On a connection that was used before, the headers of the next request have their time too."""
    with connected(server) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        said = b""
        while not said.endswith(b"}"):
            said += connection.recv(65536)
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        said = trickle(connection, b"X-More: x\r\n")
    assert said.startswith(b"HTTP/1.1 408 ")


def test_a_slow_body_is_too_slow(server: Running) -> None:
    """A body that trickles for ever is answered 408."""
    with connected(server) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n")
        said = trickle(connection, b"x")
    assert said.startswith(b"HTTP/1.1 408 ")


def test_ten_megabytes_are_refused_readably(server: Running) -> None:
    """A client that sends all of a body far too large still reads the 413, and may go on with its connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    connection.request("POST", "/echo", body=b"x" * (10 << 20))
    refusal = connection.getresponse()
    assert (refusal.status, json.loads(refusal.read())["title"]) == (413, "Request Entity Too Large")
    connection.request("POST", "/echo", body=b"y" * 1000)
    assert json.loads(connection.getresponse().read())["bytes"] == 1000
    connection.close()


def test_ten_megabytes_of_unknown_length(server: Running) -> None:
    """A chunked body is refused as soon as it has become too large."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    connection.request("POST", "/echo", body=(b"x" * 65536 for _ in range(160)), encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_a_refused_body_is_not_read_for_ever(server: Running) -> None:
    """The rest of a refused body has its time too; then the connection is closed."""
    with connected(server) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        said = trickle(connection, b"x" * 100)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert said.count(b"HTTP/1.1") == 1


def test_endless_headers_are_too_large(server: Running) -> None:
    """Headers that never end are answered 431 at their limit, not kept."""
    with connected(server) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        said = b""
        line = b"X-More: " + b"x" * 1000 + b"\r\n"
        try:
            for _ in range(400):
                connection.sendall(line)
        except OSError:
            pass
        said = everything(connection)
    assert said == b"" or said.split()[1] in (b"431", b"400")
    assert alive(server)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET \xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"\r\n\r\n\r\nnothing at all\r\n\r\n",
    ],
)
def test_what_is_no_http_is_said_so(server: Running, garbage: bytes) -> None:
    """Bytes that are no HTTP are answered 400 with a problem, and cost nobody else anything."""
    with connected(server) as connection:
        connection.sendall(garbage)
        said = everything(connection)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["status"] == 400
    assert alive(server)


def test_connections_beyond_the_limit_are_turned_away(server: Running) -> None:
    """Who comes too many is told 503 and when to come again; who came before is served, and room is given again."""
    inside = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S) for _ in range(CONNECTIONS)]
    for connection in inside:
        connection.request("GET", "/health")
        assert connection.getresponse().read()
    with connected(server) as outside:
        outside.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        said = everything(outside)
    assert said.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in said
    inside[0].request("GET", "/health")
    assert inside[0].getresponse().status == 200
    for connection in inside:
        connection.close()
    assert eventually(lambda: alive_or_full(server))


def test_a_flood_leaves_nothing_behind(server: Running) -> None:
    """After five hundred connections at once the server has no more descriptors open than before, and serves."""
    process = psutil.Process(server.pid)
    flood = [connected(server) for _ in range(500)]
    for connection in flood:
        connection.close()
    assert eventually(lambda: alive_or_full(server))
    assert eventually(lambda: process.num_fds() <= server.descriptors)


def test_who_stops_reading_is_left(server: Running) -> None:
    """A stream to a client that does not read ends when the kernel gives the client up; the application hears of it."""
    with connected(server) as connection:
        connection.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.until("left")


def test_who_has_left_is_noticed(server: Running) -> None:
    """A stream to a client that closes ends, and its log line says that it was not whole."""
    with connected(server) as connection:
        connection.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\nX-Request-ID: left-1\r\n\r\n")
        assert connection.recv(100)
    server.until("left")
    while (line := server.until("request"))["request_id"] != "left-1":
        pass
    assert (line["status"], line["complete"]) == (200, False)


def alive_or_full(server: Running) -> bool:
    try:
        return alive(server)
    except (KeyError, OSError, http.client.HTTPException):  # a 503 has no "ok"
        return False


def eventually(condition: object) -> bool:
    """Whether it comes true in time."""
    assert callable(condition)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False
