"""Our server against other ways to serve the same runner, against the bare runner, and our figures against wrk's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec

import numpy as np
import pytest

from fixtures.serving import opponents, wrk
from fixtures.serving.bare import Cell
from fixtures.serving.duel import Duel, alone, p50_ms, p99_ms, per_s
from fixtures.serving.endpoints import ENDPOINTS
from fixtures.serving.ledger import Ledger
from fixtures.serving.lesson import learn, sample
from fixtures.serving.load import ROOT, Seen, run
from fixtures.serving.plan import Call, Plan, steady
from fixtures.serving.run import StartServer
from fixtures.serving.server import Server

SENTIMENT = ENDPOINTS["sentiment"]
CONNECTIONS, SECONDS, ROUNDS = 16, 2.5, 5
WORSE = 0.95
"""Rounds that lie below this, with their interval below 1, show that we are worse; less is noise."""
OURS = "ours"
WRK_CONNECTIONS, WRK_SECONDS, WRK_ROUNDS, AGREEMENT = 4, 4, 3, 0.10
CEILING, CEILING_BATCHES, CEILING_ROUNDS = 0.90, (1, 8, 16), 3
SATURATING = 32
"""Connections that leave no batch half full."""
SHORT = (8, 14)
"""Words of texts of about 16 tokens."""


def of_cell(cell: Cell, *more: str) -> tuple[str, ...]:
    """What makes our server serve this cell alone, with nothing cached."""
    engine = ("--backend", cell.backend, "--optimization", cell.optimization, "--threads", str(cell.threads))
    return ("--tasks", "sentiment", "--cache", "off", *engine, *more)


# First what has the machine to itself: the opponents below poll when they have nothing to do.


@pytest.fixture(scope="module")
def big(serving: Ledger) -> Cell:
    """A model of DistilBERT's size in int8: what is served in earnest. Its weights are random, which costs the same."""
    if not find_spec("onnxruntime"):
        pytest.skip(
            "the int8 model of DistilBERT's size runs on onnxruntime: pip install 'edge-nlp-suite[onnxruntime]'"
        )
    if serving.options.url:
        pytest.skip("a comparison needs servers of its own, on this machine; leave --url out")
    return Cell("sentiment", "onnxruntime", "int8", "distilbert-base-random", threads=os.cpu_count() or 1)


@pytest.fixture(scope="module")
def requests() -> list[dict[str, str]]:
    """Texts of about 16 tokens."""
    return [each for each in sample(SENTIMENT, 400) if SHORT[0] <= len(each["text"].split()) <= SHORT[1]][:64]


@pytest.fixture(scope="module")
def big_server(big: Cell, serving: Ledger, own_server: StartServer) -> Iterator[Server]:
    """Our server with that model alone."""
    files = bare(big, serving, "--files")
    with own_server(*of_cell(big), "--sentiment-model", files) as server:
        yield server


@pytest.fixture(scope="module")
def big_calls(big_server: Server, requests: list[dict[str, str]]) -> tuple[Call, ...]:
    """The requests, with the answers that it gives to each alone."""
    return learn(big_server, SENTIMENT, requests, named=True)


@pytest.mark.slow
def test_most_of_the_engine_is_left(
    big: Cell, big_server: Server, big_calls: tuple[Call, ...], requests: list[dict[str, str]], serving: Ledger
) -> None:
    """Under load the server answers at least 90 % of what a bare loop over the runner does at its best batch size."""
    order = json.dumps({"requests": requests, "batches": CEILING_BATCHES, "seconds": 3.0})
    served, rates = [], []
    for _ in range(CEILING_ROUNDS):
        plan = Plan(big_server.url, big_calls, steady(SATURATING, 4.0), connections=SATURATING, warm_s=0.5)
        served.append(run(plan))
        with alone({OURS: big_server.pid or 0}, "the bare loop"):
            rates.append(max(json.loads(bare(big, serving, order)).values()))
    share = float(np.median([per_s(each) / rate for each, rate in zip(served, rates, strict=True)]))
    tail = float(np.median([np.quantile(each.latency_ms, 0.95) for each in served]))
    rate = float(np.median([per_s(each) for each in served]))
    serving.figures["DistilBERT-size int8"] = (
        f"{rate:.0f} req/s, P95 {tail:.1f} ms, {share:.1%} of a bare loop's {np.median(rates):.0f} /s"
    )
    assert not any(each.errors for each in served)
    assert share >= CEILING or (rate > 100 and tail < 50), serving.figures["DistilBERT-size int8"]


def bare(cell: Cell, serving: Ledger, order: str) -> str:
    """What a bare loop in a process of its own prints."""
    command = [sys.executable, "-m", "fixtures.serving.bare", str(serving.build / "cache"), json.dumps(cell.as_json())]
    return subprocess.run([*command, order], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
def test_wrk_agrees(big_server: Server, big_calls: tuple[Call, ...], serving: Ledger) -> None:
    """wrk, in turns with our client at as many connections, finds the same rate and the same median within 10 %.

    On a model that is dear beside what a client costs: both run on the cores of the server.
    """
    ratios: dict[str, list[float]] = {"requests/s": [], "P50": []}
    for _ in range(WRK_ROUNDS):
        plan = Plan(big_server.url, big_calls, steady(WRK_CONNECTIONS, WRK_SECONDS), connections=WRK_CONNECTIONS)
        ours, theirs = run(plan), wrk.run(plan.url, big_calls, WRK_CONNECTIONS, WRK_SECONDS)
        assert not ours.errors, ours.examples
        assert theirs.errors == 0
        ratios["requests/s"].append(per_s(ours) / theirs.per_s)
        ratios["P50"].append(p50_ms(ours) / theirs.latency_ms["p50"])
    medians = {name: float(np.median(values)) for name, values in ratios.items()}
    serving.figures["against wrk"] = ", ".join(f"{name} {value:.3f} of wrk's" for name, value in medians.items())
    assert medians["requests/s"] == pytest.approx(1.0, abs=AGREEMENT), serving.figures["against wrk"]
    assert medians["P50"] == pytest.approx(1.0, abs=AGREEMENT), serving.figures["against wrk"]


@pytest.fixture(scope="module")
def cell() -> Cell:
    """The engine that every side uses."""
    return Cell("sentiment", "onnxruntime" if find_spec("onnxruntime") else "huggingface", "fp32")


@pytest.fixture(scope="module")
def sides(cell: Cell, serving: Ledger, own_server: StartServer) -> Iterator[dict[str, Server]]:
    """Our server and its opponents, all ready."""
    if serving.options.url:
        pytest.skip("a comparison needs servers of its own, on this machine; leave --url out")
    with ExitStack() as stack:
        found = {OURS: stack.enter_context(own_server(*of_cell(cell)))}
        for kind in opponents.KINDS if find_spec("litserve") else opponents.OWN:
            log = serving.build / "logs" / f"{kind}.log"
            found[kind] = stack.enter_context(opponents.opponent(kind, cell, serving.build / "cache", log))
        yield found


@pytest.fixture(scope="module")
def calls(sides: dict[str, Server]) -> tuple[Call, ...]:
    """The same requests for all, with the answers that our server gives to each alone."""
    return learn(sides[OURS], SENTIMENT, sample(SENTIMENT), named=True)


@pytest.fixture(scope="module")
def duel(sides: dict[str, Server], calls: tuple[Call, ...]) -> Duel:
    """Rounds of a saturating closed loop on each side."""
    pids = {name: side.pid or 0 for name, side in sides.items()}

    def load(name: str) -> Seen:
        plan = Plan(sides[name].url, calls, steady(CONNECTIONS, SECONDS), connections=CONNECTIONS, warm_s=0.5)
        with alone(pids, name):
            return run(plan)

    found = Duel(tuple(sides))
    found.play(load, ROUNDS)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("other", opponents.KINDS)
def test_no_worse_than(other: str, duel: Duel, serving: Ledger) -> None:
    """Same model, same load, in turns: throughput and P99 are no worse than the opponent's, and one is better."""
    if other not in duel.names:
        pytest.skip(f"{other} is not installed: {opponents.HINT}")
    assert not duel.trouble(), duel.trouble()
    rate, tail = duel.gain(other, per_s, more_is_better=True), duel.gain(other, p99_ms, more_is_better=False)
    told = f"throughput {rate.value:.2f} x [{rate.low:.2f}, {rate.high:.2f}], P99 {tail.value:.2f} x better"
    shown = f"{told} [{tail.low:.2f}, {tail.high:.2f}]; {duel.told()}"
    if not serving.told(f"against {other}", shown, duel.void):
        return
    for name, gain in (("throughput", rate), ("P99", tail)):
        assert gain.value is not None
        assert gain.high is not None
        assert gain.value >= WORSE or gain.high >= 1, f"{name} is worse than that of {other}: {told}"
    assert max(rate.value or 0, tail.value or 0) > 1, f"neither is better than that of {other}: {told}"
