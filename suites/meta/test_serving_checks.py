"""The tools of the serving checks see what they are for: a leak, a mix-up, a problem that is none."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fixtures.serving.client import PROBLEM, Reply
from fixtures.serving.distinct import distinct
from fixtures.serving.endpoints import ENDPOINTS
from fixtures.serving.fault_table import WIDTHS, FaultTable
from fixtures.serving.haproxy import DEPLOYED, placed
from fixtures.serving.leak import BLOCKS, Growth, Sample
from fixtures.serving.ledger import settle
from fixtures.serving.likeness import COARSE, ROUNDING, difference, tolerance
from fixtures.serving.process_tree import Held
from fixtures.serving.traffic import Question, verdict
from targets.api import Unavailable, UserError

SEEDS = range(200)


def soak(seed: int, *, leak: float = 0.0, steps: float = 0.0, jitter: float = 0.2, seconds: int = 60) -> Growth:
    """A sample a second: a leak (MB a minute), a walk of an allocator (MB a step), and jitter (MB)."""
    draw = np.random.default_rng(seed)
    moves = np.where(draw.random(seconds) < 0.1, draw.normal(0, steps, seconds), 0.0).cumsum()
    levels = 500 + moves + leak * np.arange(seconds) / 60 + draw.normal(0, jitter, seconds)
    return Growth([Sample(float(at), Held(float(level), 40)) for at, level in enumerate(levels)])


@pytest.mark.parametrize("steps", [0.0, 0.5])
def test_no_leak_is_seldom_called_one(steps: float) -> None:
    """Of memory that jitters, or walks by an allocator's steps, at most one soak in twenty is said to grow."""
    alarms = sum(soak(seed, steps=steps).grows for seed in SEEDS)
    assert alarms <= 0.05 * len(SEEDS), f"{alarms} of {len(SEEDS)} soaks without a leak are said to grow"


@pytest.mark.parametrize(("jitter", "leak"), [(0.2, 2.0), (0.5, 6.0)])
def test_a_leak_is_seen(jitter: float, leak: float) -> None:
    """A leak that is as large as what the soak says it can see is seen nearly always."""
    found = [soak(seed, leak=leak, jitter=jitter) for seed in SEEDS]
    assert np.median([each.blind_mb_per_min for each in found]) < leak
    seen = sum(each.grows for each in found)
    assert seen >= 0.95 * len(SEEDS), f"{seen} of {len(SEEDS)} leaks of {leak} MB a minute are seen"


def test_one_step_is_no_leak() -> None:
    """Memory that grows once and stays is no leak."""
    samples = [Sample(float(at), Held(500.0 + 30 * (at > 25), 40)) for at in range(60)]
    assert not Growth(samples).grows


def test_growth_is_told_by_the_request() -> None:
    """A server that keeps so many bytes of each request is said to keep them."""
    per_s = 240
    for kept in (64, 2):
        levels = [500.0 + kept * per_s * at / 2**20 for at in range(60)]
        growth = Growth([Sample(float(at), Held(level, 40)) for at, level in enumerate(levels)])
        found = growth.bytes_per_request(59 * per_s)
        assert found.value == pytest.approx(kept, rel=0.01)
    assert growth.bytes_per_request(0).value is None


def test_too_few_samples_say_nothing() -> None:
    """A soak of a few seconds has no slope, and says so."""
    found = Growth([Sample(float(at), Held(500.0 + at, 40)) for at in range(BLOCKS)])
    assert found.memory_mb_per_min.value is None
    assert "soak for longer" in str(found.memory_mb_per_min.reason)


def test_kept_descriptors_are_counted() -> None:
    """Descriptors that are opened and kept are told; those that come and go are not."""
    kept = Growth([Sample(float(at), Held(500.0, 40 + at // 10)) for at in range(60)])
    passing = Growth([Sample(float(at), Held(500.0, 40 + at % 3)) for at in range(60)])
    assert kept.descriptors == 5
    assert abs(passing.descriptors) <= 1


def test_no_load_excuses_garbage() -> None:
    """A load with an answer that is another one, or no answer, or a server's own failure, is red without any limit."""
    for kind, red in (("wrong answer", True), ("malformed", True), ("http 500", True), ("http 429", False)):
        figures = SimpleNamespace(seen=SimpleNamespace(errors={kind: 3}, examples={kind: "..."}, due=range(500)))
        loaded = SimpleNamespace(figures=figures, verdicts=[])
        if red:
            with pytest.raises(pytest.fail.Exception, match=f"3 x {kind}"):
                settle(loaded)  # type: ignore[arg-type]
        else:
            settle(loaded)  # type: ignore[arg-type]


def reply(status: int, content: Any, kind: str = PROBLEM, **headers: str) -> Reply:
    """A reply as a client gets it."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Reply(status, {"content-type": kind, **headers}, raw, 0.0, 0.1)


def problem(status: int) -> dict[str, Any]:
    """A proper problem document."""
    return {"type": "about:blank", "title": "No", "status": status, "detail": "not like this"}


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (reply(422, problem(422)), None),
        (reply(200, b"anything", "text/plain"), None),
        (reply(503, problem(503), **{"retry-after": "2"}), None),
        (reply(503, problem(503)), "no Retry-After"),
        (reply(422, problem(422), "application/json"), "should be application/problem+json"),
        (reply(422, problem(400)), "the problem says 400"),
        (reply(422, b"<html>"), "no JSON"),
        (reply(422, {"detail": "no"}), "says nothing of type, title, status"),
        (reply(422, []), "says nothing of"),
    ],
)
def test_problems_are_judged(found: Reply, fault: str | None) -> None:
    """What is no proper problem document is told, with what is wrong about it."""
    assert (found.trouble is None) == (fault is None)
    assert fault is None or fault in str(found.trouble)


@pytest.mark.parametrize(
    ("expected", "got", "where"),
    [
        ({"label": "a", "score": 0.5}, {"label": "a", "score": 0.50001}, None),
        ({"score": 0.5}, {"score": 0.51}, "score is 0.51"),
        ({"label": "a"}, {"label": "b"}, "label is 'b'"),
        ({"label": "a"}, {"label": "a", "more": 1}, "it has"),
        ([{"start": 1}], [{"start": 2}], "[0].start is 2"),
        ([1, 2], [1], "1 items, should have 2"),
        ({"text": "a", "n": 3}, {"text": "a", "n": 3}, None),
        ({"score": 1.0}, {"score": 1}, None),
    ],
)
def test_differences_are_found(expected: Any, got: Any, where: str | None) -> None:
    """Two answers differ where they do, numbers beyond the tolerance only."""
    found = difference(expected, got, ROUNDING)
    assert (found is None) == (where is None)
    assert where is None or where in str(found)


def test_tolerances_follow_the_optimization() -> None:
    """What is exact is held to rounding; where a neighbour moves activations, a probability may move."""
    assert tolerance("fp32") == ROUNDING
    assert tolerance("int8") == COARSE


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (reply(200, {"results": [{"label": "positive", "score": 0.9}]}, "application/json"), "right"),
        (reply(200, {"results": [{"label": "positive", "score": 0.8}]}, "application/json"), "wrong"),
        (reply(200, {"results": []}, "application/json"), "malformed"),
        (reply(200, b"nothing", "text/plain"), "malformed"),
        (reply(429, problem(429), **{"retry-after": "1"}), "429"),
        (reply(500, b"<html>", "text/html"), "malformed"),
    ],
)
def test_traffic_tells_a_mix_up(found: Reply, kind: str) -> None:
    """Another one's answer is told from one's own, and a status without a problem from one with it."""
    question = Question(("/sentiment", {}), {"label": "positive", "score": 0.9})
    assert verdict(found, question, ROUNDING)[0] == kind


@pytest.mark.parametrize("name", ENDPOINTS)
def test_distinct_requests_are_distinct(name: str) -> None:
    """As many different requests as asked for, the same each time."""
    found = distinct(ENDPOINTS[name], 500)
    assert len({json.dumps(each) for each in found}) == 500
    assert found == distinct(ENDPOINTS[name], 500)
    assert all(ENDPOINTS[name].varied(each).strip() for each in found)


def test_the_table_of_faults(tmp_path: Path) -> None:
    """A fault that held says yes, one that did not NO, one that could not be tried why; lines fit the terminal."""
    table = FaultTable()
    with table.trying("a fault with a rather long name", "a law that is longer than its column is wide") as row:
        row.seen = "figures"
    with pytest.raises(AssertionError), table.trying("another", "another law"):
        raise AssertionError
    with pytest.raises(Unavailable), table.trying("a third", "a law"):
        raise Unavailable("apt install it")
    assert [row.held for row in table.rows] == ["yes", "NO", "n/a"]
    assert "apt install it" in table.text()
    assert max(map(len, table.text().splitlines())) <= sum(WIDTHS) + 6
    table.write(tmp_path / "faults.json")
    kept = json.loads((tmp_path / "faults.json").read_text())
    assert [row["held"] for row in kept["faults"]] == ["yes", "NO", "n/a"]


def test_the_deployed_configuration_is_the_one_that_is_tried() -> None:
    """Only ports and the way replicas are found differ from deploy/haproxy.cfg; one that has changed is refused."""
    text = DEPLOYED.read_text()
    found = placed(text, 1234, 5678, ["127.0.0.1:1", "127.0.0.1:2"])
    changed = [line for line in found.splitlines() if line not in text.splitlines()]
    assert [line.strip() for line in changed] == [
        "bind 127.0.0.1:1234",
        "server replica1 127.0.0.1:1",
        "server replica2 127.0.0.1:2",
        "bind 127.0.0.1:5678",
    ]
    with pytest.raises(UserError, match="adapt this check"):
        placed(text.replace("bind :8404", "bind :9000"), 1, 2, [])
