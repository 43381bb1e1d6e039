from __future__ import annotations

import asyncio
import json

import pytest

pytest.importorskip("starlette", reason="the server: pip install 'edge-nlp-suite[server]'")

from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from suites.meta.asgi import Echo, call, chunks, scope
from targets.server.guards.drain import Drain, Draining, turn
from targets.server.guards.guard import Guard
from targets.server.guards.refusal import bare
from targets.server.guards.request_id import RequestId

CHUNKED = {"transfer-encoding": "chunked"}
LIMIT = 64


@given(parts=st.lists(st.binary(max_size=40), max_size=6), declared=st.booleans())
def test_a_body_passes_whole_or_not_at_all(parts: list[bytes], declared: bool) -> None:
    """However a body is cut up, the application sees all of it if it keeps the limit, and else nothing."""
    body = b"".join(parts)
    echo = Echo()
    headers = {"content-length": str(len(body))} if declared else CHUNKED
    said = call(Guard(echo, LIMIT), scope("POST", headers=headers), chunks(parts))
    if len(body) <= LIMIT:
        assert (said.status, said.body, echo.bodies) == (200, body, [body])
        assert echo.after == ["http.disconnect"], "what follows the body reaches the application"
    else:
        assert (said.problem["title"], echo.bodies) == ("Request Entity Too Large", [])


def test_a_large_body_is_refused_unread() -> None:
    """A declared length beyond the limit is refused before a byte of the body is asked for."""
    said = call(Guard(Echo(), LIMIT), scope("POST", headers={"content-length": str(LIMIT + 1)}), chunks([b"x" * 65]))
    assert (said.status, said.received) == (413, 0)
    assert "64 bytes" in said.problem["detail"]


def test_a_lying_length_changes_nothing() -> None:
    """What is counted decides, whatever was declared."""
    for declared in ("1", "0", "99999999999999999999999999", "-5", "1e3"):
        said = call(Guard(Echo(), LIMIT), scope("POST", headers={"content-length": declared}), chunks([b"x" * 65]))
        assert said.status == 413, declared


def test_a_body_has_its_time() -> None:
    """A body that does not end in time is answered 408, and its connection is given up."""
    begun = [{"type": "http.request", "body": b"{", "more_body": True}]
    echo = Echo()
    said = call(Guard(echo, LIMIT, body_s=0.02), scope("POST", headers=CHUNKED), begun, stalls=True)
    assert (said.problem["title"], said.headers["connection"], echo.bodies) == ("Request Timeout", "close", [])


def test_a_client_that_leaves_in_its_body() -> None:
    """A client that is gone before its body was whole costs the application nothing."""
    begun = [{"type": "http.request", "body": b"{", "more_body": True}]
    echo = Echo()
    said = call(Guard(echo, LIMIT), scope("POST", headers=CHUNKED), begun)
    assert (said.messages, echo.bodies) == ([], [])


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_headers_have_a_size(kind: str) -> None:
    """Headers beyond the limit are refused, for requests and for handshakes."""
    told = call(Guard(Echo(), LIMIT, header_bytes=100), scope(headers={"cookie": "x" * 200}, kind=kind)).problem
    assert (told["title"], "100 bytes" in told["detail"]) == ("Request Header Fields Too Large", True)


def test_a_handshake_is_closed_where_it_cannot_be_answered() -> None:
    """A server without the extension for denials gets a close instead."""
    said = call(Guard(Echo(), LIMIT, header_bytes=1), scope(headers={"a": "b"}, kind="websocket", extensions={}))
    assert [(each["type"], each["code"]) for each in said.messages] == [("websocket.close", 1008)]


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1._Z", True), ("", False), ("a b", False), ("x" * 65, False), ('"}', False)]
)
def test_a_request_has_a_name(given: str, kept: bool) -> None:
    """A client's own id is kept if it is harmless, else one is made; the answer carries it once, and problems too."""
    said = call(RequestId(Guard(Echo(), LIMIT)), scope("POST", headers={"x-request-id": given, **CHUNKED}), chunks([]))
    name = said.headers["x-request-id"]
    assert (name == given) == kept
    assert len(name) == (8 if kept else 32)
    assert sum(pair[0] == b"x-request-id" for pair in said.messages[0]["headers"]) == 1
    refused = call(RequestId(Guard(Echo(), 1)), scope("POST", headers={"x-request-id": name, "content-length": "9"}))
    assert refused.problem["instance"] == name


def test_a_websocket_has_a_name_too() -> None:
    """The id of a chat stands in the answer to its handshake."""
    assert len(call(RequestId(Echo()), scope(kind="websocket")).headers["x-request-id"]) == 32


def test_a_stopping_server_closes_after_the_answer() -> None:
    """While the server stops, an answer tells the client not to use its connection again."""
    drain = Drain()
    assert "connection" not in call(Draining(Echo(), drain), scope("POST"), chunks([])).headers
    drain.begun = True
    assert call(Draining(Echo(), drain), scope("POST"), chunks([])).headers["connection"] == "close"


@pytest.mark.parametrize("started", [False, True])
def test_what_a_stopping_server_cuts_off_is_told(started: bool) -> None:
    """A request that is cancelled at the end of the time to stop is answered 503, unless its answer had begun."""
    drain = Drain()

    async def cancelled(scope: Scope, receive: Receive, send: Send) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        drain.begun = True
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    if started:
        with pytest.raises(asyncio.CancelledError):
            call(Draining(cancelled, drain), scope())
    else:
        said = call(Draining(cancelled, drain), scope())
        assert (said.status, said.headers["retry-after"], said.headers["connection"]) == (503, "5", "close")
    assert drain.cut == 1


def test_a_turn_ends_before_its_connection() -> None:
    """What waits for the turns of a connection happens at the end of the last one, and only then."""
    connection = scope(kind="websocket")
    happened: list[str] = []
    with turn(connection):
        with turn(connection):
            connection["state"]["turns"].then = lambda: happened.append("closed")
        assert happened == []
    assert happened == ["closed"]


def test_a_bare_response_is_http() -> None:
    """The response on a connection without a request is one that a client can read."""
    head, _, body = bare(503, "All taken.", [(b"retry-after", b"1")]).partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    assert status == "HTTP/1.1 503 Service Unavailable"
    assert f"content-length: {len(body)}" in headers
    assert {"connection: close", "retry-after: 1", "content-type: application/problem+json"} <= set(headers)
    assert json.loads(body)["detail"] == "All taken."
