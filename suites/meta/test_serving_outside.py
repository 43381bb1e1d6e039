"""What our load generator is held against: MLPerf's LoadGen, wrk, and other servers in turns with ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pytest

from fixtures.serving import loadgen, neighbours, opponents, wrk
from fixtures.serving.bare import Cell
from fixtures.serving.client_health import Health
from fixtures.serving.duel import Duel, alone, family, p50_ms, per_s
from fixtures.serving.endpoints import ENDPOINTS
from fixtures.serving.load import Seen, installed, run
from fixtures.serving.loadgen import Order
from fixtures.serving.plan import Call, Plan, steady
from suites.meta.runs import until
from suites.meta.serving_double import double
from targets.api import UserError

needs_loadgen = pytest.mark.skipif(find_spec("mlperf_loadgen") is None, reason=f"no LoadGen: {loadgen.INSTALL}")
needs_wrk = pytest.mark.skipif(not (shutil.which("wrk") and installed()), reason=f"no wrk: {wrk.INSTALL}")
GOOD = ENDPOINTS["sentiment"].call({"text": "good"}, "positive")


@pytest.fixture(scope="module")
def rough() -> Iterator[str]:
    """A server that answers at once."""
    with double("rough") as url:
        yield url


@pytest.fixture(scope="module")
def queue() -> Iterator[str]:
    """A server that takes exactly 5 ms a request, one after another."""
    with double("queue", 5.0) as url:
        yield url


def order(url: str, scenario: str, per_s: float, text: str = "good") -> Order:
    call = ENDPOINTS["sentiment"].call({"text": text})
    return Order(scenario, ({"text": text},), per_s, seconds=1.0, url=url, calls=(call,), connections=8)


@needs_loadgen
@pytest.mark.alone
def test_single_stream_measures_the_service(queue: str) -> None:
    """One query at a time: LoadGen finds the service time, calls the run VALID, and counts enough queries."""
    found = loadgen.run(replace(order(queue, "SingleStream", 1000.0), connections=1))
    assert found.valid, str(found)
    assert 5.0 <= found.latency_ms["p90"] < 15.0
    assert found.queries >= 64
    assert found.wrong == 0


@needs_loadgen
def test_a_server_beyond_its_capacity_is_invalid(queue: str) -> None:
    """Offered twice what it can answer, the server misses the bound, and LoadGen calls the run INVALID with reasons."""
    found = loadgen.run(order(queue, "Server", 400.0))
    assert not found.valid
    assert found.reasons, str(found)
    assert found.latency_ms["p99"] > 50
    assert "INVALID (" in str(found)


@needs_loadgen
def test_wrong_answers_are_counted(queue: str) -> None:
    """LoadGen does not look at answers: a fast 500 is no success, and is counted here."""
    found = loadgen.run(order(queue, "Offline", 100.0, text="fail"))
    assert found.wrong >= loadgen.LEAST_OFFLINE
    assert f"{found.wrong} wrong" in str(found)


@needs_loadgen
def test_a_cache_answers_nothing_of_a_fresh_order() -> None:
    """Where a cache may be on, no text is sent twice; without that word the same samples come again and again."""
    with double("queue", 0.2) as url:
        fresh = loadgen.run(replace(order(url, "Offline", 100.0, text="once"), fresh=True))
        again = loadgen.run(order(url, "Offline", 100.0, text="once"))
    assert fresh.wrong == 0
    assert again.wrong >= loadgen.LEAST_OFFLINE - 1


@needs_loadgen
def test_loadgen_that_fails_says_why() -> None:
    """A run that ends without a result has its own words in the message."""
    with pytest.raises(UserError, match=r"(?s)LoadGen ended with status 1.*Nowhere"):
        loadgen.run(Order("Nowhere", ({"text": "a"},), 1.0, url="http://h", calls=(GOOD,)))


DETAIL = """
:::MLLOG {"key": "result_validity", "value": "INVALID", "time_ms": 1.0}
:::MLLOG {"key": "result_min_duration_met", "value": false, "time_ms": 1.0}
:::MLLOG {"key": "result_min_queries_met", "value": true, "time_ms": 1.0}
:::MLLOG {"key": "result_99.00_percentile_latency_ns", "value": 12500000, "time_ms": 1.0}
:::MLLOG {"key": "result_samples_per_second", "value": 81.5, "time_ms": 1.0}
"""


def test_what_loadgen_logs_is_read() -> None:
    """Validity, percentiles in ms, the rate and what was not met stand in the detailed log."""
    found = loadgen.outcome("Offline", DETAIL, wrong=0, seconds=1.0, cpu_share=0.5)
    assert (found.valid, found.reasons, found.latency_ms, found.per_s) == (False, ("too short",), {"p99": 12.5}, 81.5)


REPORT = """Running 4s test @ http://127.0.0.1:1/sentiment
  1 threads and 4 connections
  Latency Distribution
     50%    3.21ms
     75%  950.00us
     90%    1.02s
     99%    2.50m
  802 requests in 4.00s, 100.00KB read
  Socket errors: connect 0, read 3, write 0, timeout 1
  Non-2xx or 3xx responses: 7
Requests/sec:    200.43
Transfer/sec:     25.00KB
"""


def test_what_wrk_reports_is_read() -> None:
    """Rate, percentiles in ms whatever their unit, and errors of both kinds."""
    found = wrk.read(REPORT)
    assert (found.per_s, found.errors) == (200.43, 11)
    assert found.latency_ms == pytest.approx({"p50": 3.21, "p75": 0.95, "p90": 1020.0, "p99": 150000.0})
    with pytest.raises(UserError, match="no rate"):
        wrk.read("unable to connect")


@needs_wrk
@pytest.mark.alone
def test_wrk_agrees_with_us(queue: str) -> None:
    """On a server of a known service time wrk and we find the same rate and the same median, within 10 %."""
    calls: tuple[Call, ...] = (GOOD, ENDPOINTS["sentiment"].call({"text": 'awful "é"\n'}, "negative"))
    ratios = []
    for _ in range(3):
        ours = run(Plan(queue, calls, steady(4, 2.0), connections=4, warm_s=0.3))
        theirs = wrk.run(queue, calls, connections=4, seconds=2)
        assert not ours.errors, ours.examples
        assert theirs.errors == 0
        ratios.append((per_s(ours) / theirs.per_s, p50_ms(ours) / theirs.latency_ms["p50"]))
    assert np.median(ratios, axis=0) == pytest.approx(1.0, abs=0.10), ratios


def made(rate: float, cpu_share: float = 0.2, errors: int = 0) -> Seen:
    """A load of one second at this rate."""
    due = np.arange(rate) / rate
    kind = np.array([1] * errors + [0] * (int(rate) - errors))
    health = (Health(cpu_share, None, [0.1], [0.1]),)
    return Seen(
        Plan("http://h", (GOOD,), steady(1, 1)), due, due + 0.01, kind * 0, kind, ("ok", "reset"), {}, health, {}
    )


@pytest.fixture
def weather(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What is said of the machine's cores, look by look; None, all is well, when there is no more."""
    said: list[str | None] = []
    monkeypatch.setattr(neighbours, "shared_core", lambda: said.pop(0) if said else None)
    return said


@pytest.mark.usefixtures("weather")
def test_a_duel_turns_the_order_round() -> None:
    """Each side is first as often as the others, and gains are ratios within rounds: a drift of the machine cancels."""
    played: list[str] = []

    def load(name: str) -> Seen:
        weather = 1 - 0.05 * (len(played) // 3)
        played.append(name)
        return made({"ours": 200.0, "a": 100.0, "b": 400.0}[name] * weather)

    duel = Duel(("ours", "a", "b"))
    duel.play(load, 6)
    assert played[:9] == ["ours", "a", "b", "a", "b", "ours", "b", "ours", "a"]
    gains = {name: duel.gain(name, per_s, more_is_better=True).value for name in ("a", "b")}
    assert gains == {"a": pytest.approx(2.0, rel=0.05), "b": pytest.approx(0.5, rel=0.05)}
    assert duel.gain("a", p50_ms, more_is_better=False).value == pytest.approx(1.0)
    assert not duel.trouble()


def test_disturbed_rounds_are_played_again(weather: list[str | None]) -> None:
    """What was played while cores were shared is left out where enough is left; else the duel decides nothing."""
    weather += ["shared", None, "shared"]  # before the first round, and after the second
    duel = Duel(("ours", "a"))
    duel.play(lambda _: made(100), 3)
    assert (len(duel.calm), len(duel.disturbed), len(duel.rounds), duel.void) == (3, 2, 3, None)
    weather += ["shared"] * 12
    duel = Duel(("ours", "a"))
    duel.play(lambda _: made(100), 3)
    assert (len(duel.calm), len(duel.disturbed), len(duel.rounds)) == (0, 6, 6)
    assert duel.void == "6 of 6 rounds: shared"


@pytest.mark.usefixtures("weather")
def test_a_duel_tells_of_errors_and_of_a_busy_client() -> None:
    """Rounds with errors, or whose client had no time to spare, compare nothing."""
    duel = Duel(("ours", "a"))
    duel.play(lambda name: made(100, 0.95, errors=name == "a"), 1)
    assert duel.trouble() == ["round 1 on a: {'reset': 1}", "the client used 95% of a core"]


def stopped(pid: int) -> bool:
    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def test_only_one_side_runs_at_a_time() -> None:
    """The others are stopped with all their children, and go on afterwards."""
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'], stdin=sys.stdin)"
    sides = [subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) for _ in range(2)]
    pids = {"ours": sides[0].pid, "other": sides[1].pid}
    try:
        with alone(pids, "ours"):
            assert until(lambda: stopped(pids["other"]))
            assert not stopped(pids["ours"])
        assert until(lambda: not stopped(pids["other"]))
    finally:
        for side in sides:
            side.communicate(b"\n")


@pytest.mark.skipif(find_spec("litserve") is None, reason=f"no LitServe: {opponents.HINT}")
@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="the opponents' engine: onnxruntime")
def test_an_opponent_leaves_nothing_behind(tmp_path: Path) -> None:
    """When it is over, LitServe is gone with all that it started: what polls on would disturb whatever comes next."""
    cell = Cell("sentiment", "onnxruntime", "fp32")
    with opponents.opponent("litserve", cell, tmp_path / "cache", tmp_path / "log") as server:
        started = family(server.pid or 0)
    assert len(started) > 1
    assert until(lambda: not any(alive(process) for process in started))


def alive(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
