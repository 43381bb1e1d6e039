"""The load generator is held against servers whose behaviour is known beforehand."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from fixtures.serving.endpoints import ENDPOINTS
from fixtures.serving.figures import Figures
from fixtures.serving.load import INSTALL, Clients, Seen, free_port, installed, run
from fixtures.serving.plan import Call, Plan, Stage, steady
from suites.meta.queueing import lindley, mean_md1
from suites.meta.serving_double import STALL_S, double
from targets.api import UserError

pytestmark = pytest.mark.skipif(not installed(), reason=f"locust is not installed: {INSTALL}")

SERVICE_MS = 20.0
TRIES = 4
WAKE_MS = 5.0
"""What two event loops' timers of 1 ms, and a system with other work, may add to a latency at the median."""


@pytest.fixture(scope="module")
def queue() -> Iterator[str]:
    """A server that takes exactly 20 ms a request, one after another."""
    with double("queue", SERVICE_MS) as url:
        yield url


@pytest.fixture(scope="module")
def rough() -> Iterator[str]:
    """A server that answers at once, or misbehaves when told to."""
    with double("rough") as url:
        yield url


def calls(*texts: str, expected: str | None = "positive") -> tuple[Call, ...]:
    return tuple(ENDPOINTS["sentiment"].call({"text": text}, expected) for text in texts)


def fit(plan: Plan, clients: Clients | None = None) -> Seen:
    """A load whose client had the time it needs: what else the machine does is no fault of the load generator."""
    for _ in range(TRIES):
        seen = run(plan, clients)
        if Figures("sentiment", seen).invalid is None:
            break
    return seen


def close(seen: Seen, expected_ms: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """(ms) The median distance of latencies, in the order in which they were due, from what they should be."""
    order = np.argsort(seen.due, kind="stable")
    return float(np.median(np.abs(seen.latency_ms[order] - expected_ms)))


@pytest.mark.alone
@pytest.mark.parametrize("connections", [1, 4])
def test_a_closed_loop_keeps_one_server_busy(queue: str, connections: int) -> None:
    """N connections on one server of service time S: each waits N S; rate times mean latency is N (Little's law)."""
    seen = fit(Plan(queue, calls("good"), steady(connections, 60), connections=connections, requests=120, warm_s=0.3))
    assert len(seen.due) == 120
    assert not seen.errors, seen.examples
    wait = connections * SERVICE_MS
    assert np.quantile(seen.latency_ms, 0.1) == pytest.approx(wait, abs=connections * WAKE_MS)
    assert np.median(seen.latency_ms) >= 0.98 * wait
    assert 120 / seen.seconds * seen.latency_ms.mean() / 1e3 == pytest.approx(connections, rel=0.06)


@pytest.mark.alone
def test_an_open_loop_below_the_knee_waits_as_theory_says(queue: str) -> None:
    """Each arrival at 70 % of capacity waits as Lindley's recursion on the schedule has it; so does the mean."""
    seen = fit(Plan(queue, calls("good"), steady(35.0, 8.0), open_loop=True, connections=64, warm_s=0.3))
    assert not seen.errors, seen.examples
    expected = lindley(np.sort(seen.due), SERVICE_MS / 1e3) * 1e3
    assert close(seen, expected) < WAKE_MS
    assert seen.latency_ms.mean() == pytest.approx(expected.mean(), rel=0.2)
    assert mean_md1(0.7, SERVICE_MS) / 3 < seen.latency_ms.mean() < mean_md1(0.7, SERVICE_MS) * 3


@pytest.mark.alone
def test_above_capacity_latency_grows_with_the_overload(queue: str) -> None:
    """At 1.5 times the capacity the queue grows by half a second of work each second, and latencies say so."""
    seen = fit(Plan(queue, calls("good"), steady(75.0, 4.0), open_loop=True, connections=256, warm_s=0.3))
    assert close(seen, lindley(np.sort(seen.due), SERVICE_MS / 1e3) * 1e3) < 0.1 * 1e3
    slope = np.polyfit(seen.due[seen.ok], seen.latency_ms / 1e3, 1)[0]
    assert slope == pytest.approx(75.0 * SERVICE_MS / 1e3 - 1, abs=0.15)


@pytest.mark.alone
def test_a_stall_is_seen_by_all_who_would_have_met_it(queue: str) -> None:
    """While the server stalls for a second, requests fall due all the same: an open loop counts their waiting too."""
    texts = calls(*["good"] * 49, "stall", *["good"] * 150)
    seen = run(Plan(queue, texts, steady(25.0, 5.0), open_loop=True, connections=64, warm_s=0.0))
    stalled = int((seen.call == 49).sum())
    slow = int((seen.latency_ms > STALL_S * 1e3 / 2).sum())
    assert stalled == 1
    assert slow >= 0.3 * 25.0 * STALL_S, f"only {slow} requests felt a stall that {25 * STALL_S / 2:.0f} fell into"
    assert seen.latency_ms.max() >= STALL_S * 1e3 * 0.99


def test_errors_are_counted_by_kind(queue: str) -> None:
    """What goes wrong is told apart: time-out, status, no JSON of the right shape, another answer than alone."""
    texts = ("good", "fail", "reject", "hang", "garble", "lie")
    plan = Plan(queue, calls(*texts), steady(3, 30), connections=3, requests=18, timeout_s=1.0, warm_s=0.0)
    seen = run(plan)
    wanted = {"http 500": 3, "http 429": 3, "timeout": 3, "malformed": 3, "wrong answer": 3}
    assert seen.errors == wanted, seen.examples
    assert int(seen.ok.sum()) == 3
    assert "'negative'" in seen.examples["wrong answer"]
    assert seen.examples["http 500"] == '{"title": "no"}'
    assert seen.locust == {"requests": 18, "failures": 15}, "Locust's own count is ours"


def test_an_overload_ends(queue: str) -> None:
    """At ten times the capacity a request that no connection was free for in time is a time-out, and is not sent."""
    plan = Plan(queue, calls("good"), steady(500.0, 2.0), open_loop=True, connections=8, timeout_s=1.0, warm_s=0.0)
    seen = run(plan)
    assert set(seen.errors) == {"timeout"}
    assert seen.errors["timeout"] > 0.7 * len(seen.due)
    assert seen.examples["timeout"] == "no connection was free in time"
    assert seen.seconds < 4.0


def test_broken_connections_are_counted_by_kind(rough: str) -> None:
    """A reset, an end without an answer, half an answer and what is no HTTP are errors, and are never sent again."""
    texts = ("good", "reset", "drop", "half", "noise")
    seen = run(Plan(rough, calls(*texts), steady(2, 30), connections=2, requests=10, timeout_s=2.0, warm_s=0.0))
    assert seen.errors == {"reset": 2, "closed": 4, "not http": 2}, seen.examples
    assert int(seen.ok.sum()) == 2


def test_a_server_that_is_not_there_refuses_all() -> None:
    """Without a server every request is an error of its own kind, and the load ends all the same."""
    url = f"http://127.0.0.1:{free_port()}"
    seen = run(Plan(url, calls("good"), steady(2, 5), connections=2, requests=6, warm_s=0.0))
    assert seen.errors == {"refused": 6}


def test_a_request_is_right_only_with_the_answer_it_gets_alone(queue: str) -> None:
    """Without an expected answer any label of the right shape will do."""
    seen = run(Plan(queue, calls("awful", expected=None), steady(1, 9), connections=1, requests=3, warm_s=0.0))
    assert not seen.errors


@pytest.mark.alone
def test_workers_share_a_load(rough: str) -> None:
    """Two client processes carry out one plan: each its part, all requests once."""
    stages = (*steady(2.0, 0.5), Stage(0.5, 4.0, 4.0))
    plan = Plan(rough, calls("a", "b", "c"), stages, connections=4, requests=400, warm_s=0.1)
    seen = run(plan, Clients(workers=2))
    assert not seen.errors
    assert len(seen.clients) == 2
    assert 100 < len(seen.due) <= 400
    assert set(seen.call.tolist()) == {0, 1, 2}
    assert (np.diff(seen.done) >= 0).all()


def test_more_workers_than_connections(queue: str) -> None:
    """A worker without a connection is not started, so that all requests are sent."""
    seen = run(Plan(queue, calls("good"), steady(1, 9), connections=1, requests=4, warm_s=0.0), Clients(workers=2))
    assert (len(seen.clients), int(seen.ok.sum())) == (1, 4)


@pytest.mark.alone
def test_a_client_without_time_to_spare_voids_the_result(rough: str) -> None:
    """Where the server is faster than the client, what is measured is the client, and the result says so."""
    found = Figures("sentiment", run(Plan(rough, calls("good"), steady(16, 2.0), connections=16, warm_s=0.2)))
    assert found.invalid is not None
    assert found.invalid.startswith("the client was the bottleneck: it ")


@pytest.mark.alone
def test_a_client_that_was_stopped_voids_the_result(queue: str) -> None:
    """A client that stands still for a while sends late, and its latencies are not the server's."""

    def freeze(pids: list[int]) -> None:
        os.kill(pids[0], signal.SIGSTOP)
        threading.Timer(0.6, os.kill, (pids[0], signal.SIGCONT)).start()

    def later(pids: list[int]) -> None:
        threading.Timer(2.5, freeze, (pids,)).start()

    plan = Plan(queue, calls("good"), steady(20.0, 4.0), open_loop=True, connections=32, warm_s=0.0)
    found = Figures("sentiment", run(plan, during=later))
    assert found.invalid is not None
    assert "ms late (p95)" in found.invalid


def test_a_load_that_fails_says_why(rough: str) -> None:
    """Where Locust ends without a result, its own words are in the message; a plan of nothing is refused."""
    with pytest.raises(UserError, match=r"(?s)status 3 and no result.*KeyError"):
        run(Plan(rough, (Call("nowhere", "/", "{}"),), steady(1, 1), warm_s=0.0))
    with pytest.raises(ValueError, match="needs a call"):
        run(Plan(rough, (), steady(1, 1)))
