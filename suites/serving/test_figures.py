"""The figures that the server is to reach with the embedded models on two cores, the client on the same machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fixtures import devices
from fixtures.serving.bare import Cell
from fixtures.serving.duel import Duel, alone, p50_ms, per_s
from fixtures.serving.endpoints import ENDPOINTS
from fixtures.serving.ledger import Ledger
from fixtures.serving.lesson import learn, sample
from fixtures.serving.load import ROOT, Seen, run
from fixtures.serving.neighbours import undisturbed
from fixtures.serving.options import OPEN_CONNECTIONS
from fixtures.serving.plan import Plan, steady
from fixtures.serving.run import StartServer
from fixtures.serving.server import Server

SENTIMENT = ENDPOINTS["sentiment"]
RATE, RATE_S, P95_MS = 320.0, 60.0, 50.0
OVERHEAD_MS, HIT_MS, READY_S = 2.0, 3.0, 10.0
CONNECTIONS, SECONDS, ROUNDS = 32, 3.0, 6
BATCHING, BATCHING_GPU = 0.95, 1.5


@pytest.mark.slow
def test_three_hundred_a_second_for_a_minute(served: Server, serving: Ledger) -> None:
    """At 320 arrivals a second at random, for 60 s, P95 stays below 50 ms and nothing fails."""
    calls = learn(served, SENTIMENT, sample(SENTIMENT), named=True)
    stages = steady(RATE, RATE_S)
    plan = serving.plan(served, calls, stages=stages, open_loop=True, connections=OPEN_CONNECTIONS, requests=None)
    loaded = serving.load(served, plan, "320/s for a minute")
    seen, tail = loaded.figures.seen, loaded.figures.percentile("p95").value
    assert not seen.errors, seen.examples
    assert tail is not None
    rate = len(seen.due) / seen.seconds
    if serving.told("a minute of 320/s", f"{rate:.0f}/s, P95 {tail:.1f} ms", loaded.figures.invalid):
        assert rate > 300
        assert tail < P95_MS


def test_it_is_ready_soon(serving: Ledger, own_server: StartServer) -> None:
    """From the start of the process until all seven embedded models are loaded it takes at most 10 s."""
    if serving.options.url:
        pytest.skip("the server runs already; leave --url out")
    with own_server():
        pass  # builds what is built once

    def start() -> float:
        with own_server() as again:
            return again.ready_s or 0.0

    seconds, void = undisturbed(start)
    if serving.told("start to ready", f"{seconds:.1f} s", void):
        assert seconds <= READY_S


@pytest.mark.slow
def test_the_overhead_beside_the_runner(serving: Ledger, own_server: StartServer) -> None:
    """On one connection, an answer takes at most 2 ms longer than the runner itself at the median."""
    if serving.options.url:
        pytest.skip("the runner of a server elsewhere cannot be timed; leave --url out")
    requests = sample(SENTIMENT)
    with own_server("--tasks", "sentiment", "--cache", "off") as server:
        calls = learn(server, SENTIMENT, requests, named=True)
        cell = cell_of(server)

        def both() -> tuple[float, float]:
            seen = run(Plan(server.url, calls, steady(1, 2.0), connections=1, warm_s=0.5))
            with alone({"server": server.pid or 0}, "the bare runner"):
                return p50_ms(seen), bare_p50_ms(cell, serving.build / "cache", requests)

        (ours, bare), void = undisturbed(both)
    if serving.told("overhead at one connection", f"P50 {ours:.2f} ms, {ours - bare:.2f} ms over the runner's", void):
        assert ours - bare <= OVERHEAD_MS


def torch_device() -> str:
    """Where engines compute on this machine."""
    return devices.detect().torch_device


def cell_of(server: Server) -> Cell:
    """What the server says that it serves for sentiment."""
    told = server.facts()["tasks"]["sentiment"]
    return Cell("sentiment", told["backend"], told["optimization"])


def bare_p50_ms(cell: Cell, cache: Path, requests: list[dict[str, str]]) -> float:
    """The median time of one request to a bare runner in a process of its own."""
    order = json.dumps({"requests": requests, "laps": True, "seconds": 2.0})
    command = [sys.executable, "-m", "fixtures.serving.bare", str(cache), json.dumps(cell.as_json()), order]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(np.median(json.loads(done.stdout)))


def test_what_is_cached_comes_at_once(serving: Ledger, own_server: StartServer) -> None:
    """On one connection, 95 of 100 answers that the cache has come within 3 ms."""
    if serving.options.url:
        pytest.skip("whether a server elsewhere has a cache is its own affair; leave --url out")
    with own_server("--tasks", "sentiment", "--cache", "memory") as server:
        calls = learn(server, SENTIMENT, sample(SENTIMENT), named=True)
        before = server.cache_hits() or 0
        plan = Plan(server.url, calls, steady(1, 60), connections=1, requests=500, warm_s=0.3)
        seen, void = undisturbed(lambda: run(plan))
        hits = (server.cache_hits() or 0) - before
    tail = float(np.quantile(seen.latency_ms, 0.95))
    assert not seen.errors, seen.examples
    assert hits >= 500, "the answers did not come from the cache"
    if serving.told("cache hit", f"P95 {tail:.2f} ms, P50 {p50_ms(seen):.2f} ms", void):
        assert tail <= HIT_MS


@pytest.mark.slow
def test_batching_pays_or_costs_nothing(serving: Ledger, own_server: StartServer) -> None:
    """At saturation, batches of up to 16 answer no fewer requests than batches of 1; on a GPU half as many more."""
    if serving.options.url:
        pytest.skip("two servers of different batch sizes are compared; leave --url out")
    with (
        own_server("--tasks", "sentiment", "--cache", "off") as batched,
        own_server("--tasks", "sentiment", "--cache", "off", "--max-batch-size", "1") as single,
    ):
        sides = {"batches of 16": batched, "batches of 1": single}
        calls = learn(batched, SENTIMENT, sample(SENTIMENT), named=True)

        def load(name: str) -> Seen:
            plan = Plan(sides[name].url, calls, steady(CONNECTIONS, SECONDS), connections=CONNECTIONS, warm_s=0.5)
            with alone({each: side.pid or 0 for each, side in sides.items()}, name):
                return run(plan)

        duel = Duel(tuple(sides))
        duel.play(load, ROUNDS)
    gain = duel.gain("batches of 1", per_s, more_is_better=True)
    told = f"{gain.value:.2f} x [{gain.low:.2f}, {gain.high:.2f}]; {duel.told()}"
    assert not duel.trouble(), duel.trouble()
    assert gain.value is not None
    least = BATCHING_GPU if torch_device() == "cuda" else BATCHING
    assert not serving.told("dynamic batching", told, duel.void) or gain.value >= least, told
