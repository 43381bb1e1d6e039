from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the server: pip install 'edge-nlp-suite[server]'")

from suites.meta.asgi import Echo, call, chunks, scope
from targets.server.guards.access_log import AccessLog
from targets.server.guards.logs import JsonLine, LineWriter, Tally
from targets.server.guards.request_id import RequestId

CHUNKED = {"transfer-encoding": "chunked"}


class Lines(logging.Handler):
    """Keeps what was logged, as it would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLine())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    log = logging.getLogger("targets.server")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler
    log.removeHandler(handler)
    log.setLevel(level)


def test_a_request_is_one_line(lines: Lines) -> None:
    """A request is logged once, with what came of it."""
    app = RequestId(AccessLog(Echo(), routes=["/echo"]))
    call(app, scope("POST", headers={**CHUNKED, "x-request-id": "r1"}), chunks([b"four", b"more"]))
    (told,) = lines.told
    assert told.pop("ms") >= 0
    assert told.pop("time").endswith("Z")
    assert told == {
        "level": "info",
        "logger": "targets.server.access",
        "event": "request",
        "request_id": "r1",
        "client": "192.0.2.1",
        "method": "POST",
        "route": "/echo",
        "status": 200,
        "complete": True,
        "received_bytes": 8,
        "sent_bytes": 8,
    }


def test_logs_hold_no_text_of_users(lines: Lines) -> None:
    """Neither body, query, unknown path, header nor the message of an exception gets into a log."""
    secret = "secret words"
    app = RequestId(AccessLog(Echo(), routes=["/echo"]))
    asked = scope("POST", f"/{secret}", {**CHUNKED, "user-agent": secret}, query_string=b"text=secret%20words")
    call(app, asked, chunks([secret.encode()]))
    begun = [{"type": "http.request", "body": secret.encode(), "more_body": True}]
    with pytest.raises(ConnectionError, match=secret) as caught:
        call(app, scope("POST", headers=CHUNKED), begun)
    logging.getLogger("targets.server").error("failed", exc_info=caught.value)
    assert "secret" not in "\n".join(lines.lines)
    whole, broken, failed = lines.told
    assert (whole["route"], whole["status"], whole["complete"]) == (None, 200, True)
    assert (broken["route"], broken["status"], broken["complete"]) == ("/echo", None, False)
    assert failed["exception"][0]["type"] == "ConnectionError"
    assert any("asgi.py" in frame for frame in failed["exception"][0]["frames"])


def test_machines_are_logged_on_demand_only(lines: Lines) -> None:
    """What asks every few seconds is said at level debug."""
    call(AccessLog(Echo()), scope(path="/health"), chunks([]))
    assert lines.told == []
    logging.getLogger("targets.server").setLevel(logging.DEBUG)
    call(AccessLog(Echo()), scope(path="/health"), chunks([]))
    assert [told["route"] for told in lines.told] == ["/health"]


def test_a_reader_that_stops_reading_costs_lines_only() -> None:
    """A full pipe never blocks who logs; the loss is told as soon as there is room again, and every line is whole."""
    reading, writing = os.pipe()
    writer = LineWriter(writing)
    for number in range(5000):
        writer.write(json.dumps({"event": "request", "number": number}))
    assert writer.dropped > 0
    lost = writer.dropped
    early = os.read(reading, 1 << 20).decode()
    writer.write(json.dumps({"event": "after"}))
    assert writer.dropped == 0
    late = os.read(reading, 1 << 20).decode()
    told = [json.loads(line) for line in (early + late).splitlines() if line]
    assert told[-2] == {"level": "warning", "logger": "targets.server", "event": "log lines lost", "lines": lost}
    assert told[-1] == {"event": "after"}
    assert [each["number"] for each in told[:-2]] == list(range(5000 - lost))
    os.close(reading)
    writer.write("{}")
    assert writer.dropped == 1, "a closed pipe is no error either"
    os.close(writing)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full: Linux")
def test_a_full_disk_costs_lines_only() -> None:
    """Where nothing can be written, lines are counted and nothing else happens."""
    with Path("/dev/full").open("wb", buffering=0) as full:
        writer = LineWriter(full.fileno())
        writer.write("{}")
        writer.write("{}")
    assert writer.dropped == 2


def test_a_long_line_is_written_whole(tmp_path: Path) -> None:
    """A line longer than what a pipe takes at once is written in pieces."""
    file = tmp_path / "log"
    with file.open("wb", buffering=0) as opened:
        LineWriter(opened.fileno()).write("é" * 10_000)
    assert file.read_text() == "é" * 10_000 + "\n"


def test_a_flood_is_a_few_lines(lines: Lines) -> None:
    """What happens a thousand times a second is told once a second, with how often."""
    tally = Tally(logging.getLogger("targets.server.flood"), gap_s=60)
    for _ in range(1000):
        tally.count("refused", {"client": "192.0.2.1"})
    tally.count("other", {})
    assert [(told["event"], told["times"]) for told in lines.told] == [("refused", 1), ("other", 1)]
    tally._gap_s = 0
    tally.count("refused", {"client": "192.0.2.2"})
    assert (lines.told[-1]["times"], lines.told[-1]["client"]) == (1000, "192.0.2.2")
