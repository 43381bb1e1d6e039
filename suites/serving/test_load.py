"""The server under load: closed and open loop, and where its knee is."""

from __future__ import annotations

import pytest

from fixtures import report
from fixtures.serving import chart, knee, table
from fixtures.serving.endpoints import ENDPOINTS, Endpoint
from fixtures.serving.ledger import Ledger, settle
from fixtures.serving.lesson import learn, sample
from fixtures.serving.options import OPEN_CONNECTIONS, Levels
from fixtures.serving.plan import steady
from fixtures.serving.server import Server

KNEE = Levels((1.0, 2.0, 4.0, 8.0, 16.0, 32.0))
STEP_S = 1.5
OPEN_S = 8.0
SHARE = 0.5
"""Of the rate of a closed loop, which saturates: here a queue is short, and every stall of the server is seen."""


def test_load(endpoint: Endpoint, served: Server, serving: Ledger) -> None:
    """Under the load asked for no answer is another than the request gets alone, within the rubric's least grade.

    A server elsewhere may have a cache, so that each text gets a mark; of such an answer only the form is looked at.
    """
    calls = learn(served, endpoint, sample(endpoint), serving.options.named)
    loaded = serving.load(served, serving.plan(served, calls), "load")
    steps = knee.steps(loaded.figures.seen)
    if len(steps) > 1:
        unit = "offered /s" if loaded.figures.seen.plan.open_loop else "connections"
        report.attach_text("steps", table.steps_table(steps, unit))
        report.attach_png("knee", chart.knee_curve(steps, f"{endpoint.name}: latency by throughput", unit))
    assert loaded.figures.seen.ok.any(), f"nothing was answered rightly\n{table.error_table(loaded.figures)}"
    settle(loaded, serving.strict)


@pytest.fixture
def first(serving: Ledger) -> Endpoint:
    """The first endpoint chosen stands for all where a test is about the server, not about a task."""
    return ENDPOINTS[serving.options.endpoints[0]]


def test_poisson(first: Endpoint, served: Server, serving: Ledger) -> None:
    """At half the rate that it can answer, arrivals at random are all answered, within the rubric's least grade."""
    calls = learn(served, first, sample(first), named=True)
    closed = serving.plan(served, calls, stages=steady(16, 3.0), open_loop=False, connections=16, requests=None)
    ceiling = serving.load(served, closed, "saturation").figures.rate.estimate("").value
    assert ceiling, "nothing was answered at saturation"
    stages = steady(SHARE * ceiling, OPEN_S)
    plan = serving.plan(served, calls, stages=stages, open_loop=True, connections=OPEN_CONNECTIONS, requests=None)
    loaded = serving.load(served, plan, "Poisson arrivals at half of saturation")
    settle(loaded, serving.strict)


def test_knee(first: Endpoint, served: Server, serving: Ledger) -> None:
    """From one connection to 32 nothing fails, and more connections never answer fewer requests by half."""
    calls = learn(served, first, sample(first), named=True)
    stages = KNEE.stages(STEP_S * len(KNEE.values))
    plan = serving.plan(
        served, calls, stages=stages, open_loop=False, connections=int(KNEE.most), requests=None, warm_s=1.0
    )
    loaded = serving.load(served, plan, "steps to the knee")
    steps = knee.steps(loaded.figures.seen)
    report.attach_text("steps", table.steps_table(steps, "connections"))
    report.attach_png("knee", chart.knee_curve(steps, f"{first.name}: latency by throughput", "connections"))
    assert all(step.success == 1 for step in steps), table.error_table(loaded.figures)
    if not loaded.figures.invalid:
        best = knee.capacity_per_s(steps)
        assert steps[-1].rate_per_s >= best / 2, "the server collapses under more connections\n" + table.steps_table(
            steps, "connections"
        )
