from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.serving.endpoints import ENDPOINTS
from fixtures.serving.options import Levels, checked_url, endpoints, levels
from fixtures.serving.plan import Call, Plan, Stage, arrivals, mark, steady, wanted
from suites.meta.queueing import lindley, mean_md1
from targets.api import UserError

LEVEL = st.floats(0.5, 500)


@given(seconds=st.floats(0.1, 100), start=LEVEL, end=LEVEL, share=st.floats(0, 1))
def test_a_stage_is_at_its_area_when_its_moment_says(seconds: float, start: float, end: float, share: float) -> None:
    """The integral of the level up to moment(a) is a, and the moment lies within the stage."""
    stage = Stage(seconds, start, end)
    at = stage.moment(share * stage.area)
    assert at * (start + stage.level(at)) / 2 == pytest.approx(share * stage.area, abs=1e-6)
    assert -1e-9 <= at <= seconds * (1 + 1e-9)


def test_arrivals_are_a_poisson_process() -> None:
    """Gaps are exponential: mean and deviation are 1/rate, and no gap is too long or short for it (Kolmogorov)."""
    gaps = np.diff([0.0, *arrivals(steady(50.0, 400.0), Random(1))])
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.02)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.03)
    expected = 1 - np.exp(-50 * np.sort(gaps))
    distance = np.abs(expected - np.arange(1, len(gaps) + 1) / len(gaps)).max()
    assert distance < 1.63 / math.sqrt(len(gaps)), "1 % bound of Kolmogorov's statistic"


def test_clients_share_a_rate() -> None:
    """Four clients with a quarter of the rate each are together as one, and their moments differ."""
    parts = [list(arrivals(steady(40.0, 100.0), Random(f"0-{place}"), 4)) for place in range(4)]
    assert all(len(part) == pytest.approx(1000, rel=0.1) for part in parts)
    assert len({part[0] for part in parts}) == 4
    gaps = np.diff(np.sort(np.concatenate(parts)))
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.04), "exponential again"


def test_a_ramp_brings_more_as_it_rises() -> None:
    """Of a ramp from 0 to 100 a second, three quarters of the requests come in its second half."""
    found = np.array(list(arrivals((Stage(60.0, 0.0, 100.0),), Random(3))))
    assert len(found) == pytest.approx(3000, rel=0.06)
    assert (found > 30).mean() == pytest.approx(0.75, abs=0.03)


def test_stages_follow_each_other() -> None:
    """Each stage has its own rate, moments rise, and none lies beyond the end."""
    found = list(arrivals((*steady(10.0, 20.0), *steady(100.0, 20.0)), Random(5)))
    assert all(left < right for left, right in pairwise(found))
    assert sum(at < 20 for at in found) == pytest.approx(200, rel=0.2)
    assert sum(at >= 20 for at in found) == pytest.approx(2000, rel=0.1)
    assert found[-1] < 40


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_the_schedule_agrees_with_queueing_theory(load: float) -> None:
    """Fed to one server of fixed service time, the arrivals wait as Pollaczek and Khinchine say for M/D/1."""
    service = 0.01
    due = np.array(list(arrivals(steady(load / service, 4000.0), Random(7))))
    assert lindley(due, service).mean() == pytest.approx(mean_md1(load, service), rel=0.03)


def test_a_closed_loop_uses_the_connections_of_its_level() -> None:
    """A connection waits for the level to reach its place, and is told when it never will again."""
    stages = (*steady(1.0, 10.0), *steady(4.0, 10.0), Stage(10.0, 4.0, 8.0))
    assert wanted(stages, 0, 3.0) == 3.0
    assert wanted(stages, 3, 3.0) == 10.0
    assert wanted(stages, 6, 12.0) == pytest.approx(25.0)
    assert wanted(stages, 8, 0.0) is None
    assert wanted(stages, 0, 30.0) is None


def test_a_plan_survives_the_wire() -> None:
    """Workers get the plan that the master has."""
    call = Call("sentiment", "/sentiment", '{"texts": ["é"]}', 15, "positive")
    plan = Plan("http://h:1", (call,), (Stage(1.0, 2.0, 3.0),), True, 4, 5, 6.0, 7.0, 8, True, {"A": "b"})
    assert Plan.loads(plan.dumps()) == plan


def leaves(value: Any) -> Iterator[Any]:
    """Everything in a JSON value that is no container."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if parts is None:
        yield value
    else:
        for part in parts:
            yield from leaves(part)


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_fresh_text_is_in_the_text(name: str) -> None:
    """A mark changes the one text that may vary, and nothing else."""
    messages = [{"role": "system", "content": "c"}, {"role": "user", "content": "u\n"}]
    texts = {"text": 'a "b" \\ é', "question": "q?", "context": 'c "d"', "prompt": "p"}
    request = {**texts, "messages": messages, "max_tokens": 3}
    call = ENDPOINTS[name].call(request)
    assert json.loads(call.text(None)) == ENDPOINTS[name].body(request)
    pairs = zip(leaves(json.loads(call.text(None))), leaves(json.loads(call.text("17"))), strict=True)
    changed = [(plain, fresh) for plain, fresh in pairs if plain != fresh]
    assert changed == [(ENDPOINTS[name].varied(request), f"{ENDPOINTS[name].varied(request)} 17")]


def test_marks_are_many_of_few_words() -> None:
    """Every mark of a load is another one, and all of them together have fewer words than they are by far."""
    marks = [mark(7, number) for number in range(100_000)]
    assert len(set(marks)) == len(marks)
    assert len({word for each in marks for word in each.split()}) <= 1 + 1000 + 1000


@pytest.mark.parametrize(
    ("text", "values", "ramp"),
    [("20", (20.0,), False), ("1,2,4", (1.0, 2.0, 4.0), False), ("1-64", (1.0, 64.0), True), ("0.5", (0.5,), False)],
)
def test_levels(text: str, values: tuple[float, ...], ramp: bool) -> None:
    """A level, steps, or a ramp."""
    assert levels("--rate", text) == Levels(values, ramp)


@pytest.mark.parametrize("text", ["", "0", "1-", "-5", "1,,2", "1-2-3", "many", "1,0"])
def test_malformed_levels_are_refused(text: str) -> None:
    """What is no level says what one is."""
    with pytest.raises(UserError, match=r"--rate .*: should be a number above 0 \(20\), steps \(1,2,4\) or a ramp"):
        levels("--rate", text)


def test_unknown_endpoints_are_refused() -> None:
    """A mistyped endpoint is told with the nearest one."""
    with pytest.raises(UserError, match=r"--endpoint sentimet is unknown.*sentiment"):
        endpoints(["sentimet"])
    assert endpoints(["ner,qa", "ner"]) == ("ner", "qa")
    assert endpoints(["all"]) == endpoints([]) == tuple(ENDPOINTS)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://h", "http://", "http://h/?a=1"])
def test_what_is_no_url_is_refused(url: str) -> None:
    """A URL names scheme and host."""
    with pytest.raises(UserError, match="should be the base of a server"):
        checked_url(url)
