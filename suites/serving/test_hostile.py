"""Clients that do the server no good, beside honest ones that must not notice."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

from fixtures.serving import gauges, hostile, process_tree
from fixtures.serving.checking import CONNECTIONS
from fixtures.serving.client import Client, Lost
from fixtures.serving.crowd import Job, ask_all
from fixtures.serving.fault_table import FaultTable
from fixtures.serving.hostile import Slow
from fixtures.serving.programs import await_that
from fixtures.serving.server import Server
from fixtures.serving.traffic import honest

pytestmark = pytest.mark.usefixtures("local")

HEADER_S, BODY_S, SLACK_S = 10.0, 30.0, 5.0
"""What a client has for its headers and for its body, and what a busy machine may add."""
HONEST_S = 3.0
"""The longest that an honest client may wait while others misbehave, on two cores that run both."""
BACK_S = 20.0
TURNED_AWAY = 100
"""Connections beside those that are served, which are being told that there is no room."""
TENS_MB = 10 << 20
MOST_GROWTH_MB = 40.0
"""Of the server under 32 bodies of 10 MB, 320 MB in all: they were not kept."""


def test_slow_and_silent_clients(sturdy: Server, faults: FaultTable) -> None:
    """Clients that trickle headers or bodies, or say nothing, are given up in time; honest ones notice nothing."""
    law = "all are given up: headers after 10 s, bodies after 30 s by 408; honest clients are all served"
    with (
        faults.trying("slow-loris: 60 header, 30 body, 30 silent", law) as row,
        honest(sturdy, "sentiment", 4) as traffic,
    ):
        traffic.more(50)
        before = process_tree.descriptors(sturdy)
        whole = hostile.head(sturdy, "/sentiment", 200)
        headers = hostile.slow_clients(sturdy, 60, whole[:20], whole[20:])
        bodies = hostile.slow_clients(sturdy, 30, whole, b'{"texts": ["' + b"a" * 180)
        silent = hostile.slow_clients(sturdy, 30, b"", b"")
        began = time.perf_counter()
        hostile.trickle([*headers, *bodies, *silent], BODY_S + SLACK_S)
        traffic.more(50)
        process_tree.settled(sturdy, before)
        row.seen = f"headers {longest(headers)}, bodies {longest(bodies)}, silent {longest(silent)}; " + (
            f"honest: {traffic.summary()}, slowest {traffic.slowest_s(began):.2f} s"
        )
        for group, most in ((headers, HEADER_S), (silent, HEADER_S), (bodies, BODY_S)):
            held = [each.held_s for each in group if each.ended is None or each.held_s > most + SLACK_S]
            assert not held, f"{len(held)} of {len(group)} were held for up to {max(held):.0f} s, should be {most:g} s"
        statuses = Counter(hostile.status_of(each.said) for each in bodies)
        assert statuses == {408: len(bodies)}, f"slow bodies were answered by {statuses}, should be 408"
        traffic.allowed("right")
        assert traffic.slowest_s(began) < HONEST_S


def longest(group: list[Slow]) -> str:
    """For how long the server bore with the most patient of them."""
    return f"{max(each.held_s for each in group):.1f} s"


def test_clients_that_break_off(sturdy: Server, faults: FaultTable) -> None:
    """Clients that vanish in the middle of headers, bodies or answers leave nothing behind."""
    law = "no descriptor, no queued request is left; honest clients are all served"
    with faults.trying("400 clients reset in mid-request", law) as row, honest(sturdy, "sentiment", 4) as traffic:
        traffic.more(50)
        before = process_tree.descriptors(sturdy)
        body = json.dumps({"texts": ["I loved the view."] * 2}).encode()
        head = hostile.head(sturdy, "/sentiment", len(body))
        for number in range(400):
            line = hostile.connect(sturdy)
            line.sendall((head[:30], head, head + body[:50], head + body)[number % 4])
            hostile.leave(line)
        traffic.more(50)
        process_tree.settled(sturdy, before)
        await_that(lambda: gauges.read(sturdy).sum("nlp_queue_depth") <= 4, "the queue is empty", BACK_S)
        row.seen = f"honest: {traffic.summary()}"
        traffic.allowed("right")


def test_half_closed_client(sturdy: Server, faults: FaultTable) -> None:
    """A client that has closed its sending side after its request still gets its answer, or a clean end."""
    law = "it gets its answer, or the connection ends; nothing hangs"
    with faults.trying("client closes its sending side", law) as row:
        body = b'{"texts": ["I loved the view."]}'
        with hostile.connect(sturdy) as line:
            line.sendall(hostile.head(sturdy, "/sentiment", len(body)) + body)
            line.shutdown(socket.SHUT_WR)
            answer = received(line)
        row.seen = f"status {hostile.status_of(answer)}" if answer else "the connection ended without an answer"
        assert not answer or hostile.status_of(answer) == 200


def received(line: socket.socket) -> bytes:
    """All that comes until the other side ends. Raises TimeoutError if it does not."""
    found = b""
    with suppress(ConnectionResetError):
        while data := line.recv(65536):
            found += data
    return found


def test_huge_bodies(sturdy: Server, faults: FaultTable) -> None:
    """Bodies of 10 MB are refused by 413 and a problem, declared or chunked, and take no memory."""
    law = f"each gets 413 and a problem; the server grows by less than {MOST_GROWTH_MB:g} MB; honest clients are served"
    with faults.trying("32 bodies of 10 MB", law) as row, honest(sturdy, "sentiment", 4) as traffic:
        traffic.more(50)
        before = process_tree.server_process(sturdy).memory_info().rss
        body = b'{"texts": ["' + b"a" * TENS_MB + b'"]}'
        declared: list[Job] = [("/sentiment", body)] * 16
        replies = ask_all(sturdy, declared, 8)
        replies += [chunked(sturdy, body) for _ in range(16)]
        grown = (process_tree.server_process(sturdy).memory_info().rss - before) / 2**20
        statuses = Counter(each.kind if isinstance(each, Lost) else each.status for each in replies)
        row.seen = f"{dict(statuses)}; grew by {grown:.1f} MB; honest: {traffic.summary()}"
        assert statuses == {413: 32}, f"got {statuses}"
        assert not [each.trouble for each in replies if not isinstance(each, Lost) and each.trouble]
        assert grown < MOST_GROWTH_MB
        traffic.allowed("right")


def chunked(server: Server, body: bytes) -> Any:
    """The reply to a body whose length is not told before."""
    with Client(server.url) as client:
        parts = (body[start : start + 65536] for start in range(0, len(body), 65536))
        whole = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        try:
            return client.ask("POST", "/sentiment", whole, {"Transfer-Encoding": "chunked"})
        except Lost as trouble:
            return trouble


BYTES: tuple[bytes, ...] = (
    b'{"texts": ["\xff\xfe"]}',
    b'{"texts": ["caf\xe9"]}',
    b'{"texts": ["\xed\xa0\x80"]}',
    b'{"texts": ["\\ud800"]}',
    b'{"texts": ["\\udc00\\ud800"]}',
    '{"texts": ["UTF-16"]}'.encode("utf-16"),
    b'\xef\xbb\xbf{"texts": ["with a mark"]}',
    b'{"texts": ["\x00"]}',
    b'{"texts": ["\\u0000 zero"]}',
    b"\x80\x81\x82",
    b"",
    b"{",
    b"[[[[" * 2000,
    b'{"texts": ' * 500 + b"1" + b"}" * 500,
    b'{"texts": [1e999]}',
    b'{"texts": ["a"], "batch_size": ' + b"9" * 5000 + b"}",
    b'{"texts": ["a"], "texts": ["b"]}',
    b"NaN",
)
"""Bodies that are no UTF-8, or no JSON, or hardly."""


def test_bodies_that_are_no_text(sturdy: Server, faults: FaultTable) -> None:
    """Bytes that are no UTF-8 or no JSON get a 4xx problem that says so; their neighbours get their answers."""
    law = "each gets an answer or a 4xx problem, never a 5xx; honest clients are all served"
    with faults.trying("invalid UTF-8 and JSON", law) as row, honest(sturdy, "sentiment", 4) as traffic:
        found: Counter[int] = Counter()
        with Client(sturdy.url) as client:
            for path in ("/sentiment", "/v1/chat/completions"):
                for body in BYTES:
                    reply = client.post(path, body)
                    found[reply.status] += 1
                    assert reply.status < 500, (
                        f"{path} answered {reply.status} to {body[:60]!r}: {reply.content[:200]!r}"
                    )
                    assert reply.trouble is None, f"{path}, {body[:60]!r}: {reply.trouble}"
            reply = client.post("/sentiment", {"texts": ["I loved it."]}, {"X-Request-ID": "caf\xe9 \xff"})
            assert reply.status == 200
        row.seen = f"{len(BYTES) * 2} bodies: {dict(found)}; honest: {traffic.summary()}"
        traffic.more(20)
        traffic.allowed("right")


def test_what_is_no_http(sturdy: Server, faults: FaultTable) -> None:
    """Bytes that are no HTTP are refused or dropped, and the server goes on."""
    law = "400, 431 or an end of the connection within 10 s each; honest clients are all served"
    noises = (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /sentiment HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /sentiment HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /sentiment HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 300_000 + b"\r\n\r\n",
        bytes(range(256)) * 20,
    )
    with faults.trying("bytes that are no HTTP", law) as row, honest(sturdy, "sentiment", 4) as traffic:
        seen = []
        for noise in noises:
            with hostile.connect(sturdy, HEADER_S + SLACK_S) as line:
                with suppress(ConnectionError):
                    line.sendall(noise)
                seen.append(hostile.status_of(received(line)))
        row.seen = f"{', '.join(str(each or 'ended') for each in seen)}; honest: {traffic.summary()}"
        assert all(each is None or 400 <= each < 500 for each in seen), f"got {seen}"
        traffic.more(20)
        traffic.allowed("right")


def test_ten_thousand_connections(sturdy: Server, faults: FaultTable) -> None:
    """A flood of connections is turned away; those who were there are served, and afterwards everybody is."""
    count = hostile.allowed_connections(10_000)
    law = f"at most {CONNECTIONS} are held, those before are served on, afterwards anybody is; all descriptors are back"
    with faults.trying(f"{count} connections at once", law) as row, honest(sturdy, "sentiment", 4) as traffic:
        traffic.more(50)
        before = process_tree.descriptors(sturdy)
        began = time.perf_counter()
        with hostile.flood(sturdy, count) as flood:
            took = time.perf_counter() - began
            traffic.more(50)
            most = process_tree.descriptors(sturdy)
        fates = ", ".join(f"{number} {fate}" for fate, number in flood.fates.most_common())
        row.seen = f"in {took:.1f} s: {fates}; honest: {traffic.summary()}, slowest {traffic.slowest_s(began):.2f} s"
        assert sum(flood.fates.values()) == count, f"got {fates} of {count}"
        assert most <= before + CONNECTIONS + TURNED_AWAY, f"{most} descriptors were open, {before} before"
        process_tree.settled(sturdy, before)
        assert sturdy.ask("/health")[0] == 200
        traffic.more(20)
        traffic.allowed("right")
