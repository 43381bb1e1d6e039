from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from fixtures import statistics
from fixtures.serving import chart, knee, rubric
from fixtures.serving.client_health import LEAST_LATE_MS, Health, void
from fixtures.serving.endpoints import ENDPOINTS
from fixtures.serving.figures import Figures, by_endpoint, correlation_time, dependent_percentile, proportion, rate
from fixtures.serving.ledger import Loaded, settle
from fixtures.serving.load import Seen
from fixtures.serving.plan import Call, Plan, steady
from fixtures.serving.rubric import BELOW, NO_GRADE
from fixtures.serving.table import error_table, figures_table, steps_table
from fixtures.verdict import InvalidMeasurement, Outcome
from targets.api import UserError

ROOT = Path(__file__).resolve().parents[2]
FIT = Health(0.2, 0.0, [0.1] * 100, [0.2] * 100)


def seen(
    latency_ms: float | Sequence[float],
    per_s: float = 200.0,
    count: int = 1000,
    errors: Mapping[str, int] | None = None,
    clients: Sequence[Health] = (FIT,),
) -> Seen:
    """A load of our making: evenly due, the last ones failing."""
    names = ("ok", *(errors or {}))
    failed = [names.index(name) for name, times in (errors or {}).items() for _ in range(times)]
    due = np.arange(count) / per_s
    kind = np.array([0] * (count - len(failed)) + failed)
    calls = (Call("sentiment", "/sentiment", "{}"), Call("ner", "/ner", "{}"))
    plan = Plan("http://h", calls[:1], steady(per_s, count / per_s), open_loop=True)
    done = due + np.broadcast_to(np.asarray(latency_ms, dtype=float), (count,)) / 1e3
    call = np.zeros(count, dtype=np.int64)
    return Seen(plan, due, done, call, kind, names, {"http 500": "no\nreally"}, tuple(clients), {})


def test_independent_values_have_the_plain_interval() -> None:
    """Where neighbours are not alike, the interval of a percentile is that of order statistics, or hardly wider."""
    values = np.random.default_rng(0).exponential(10, 5000)
    plain, found = statistics.percentile(values.tolist(), 0.95), dependent_percentile(values, 0.95)
    assert found.value == plain.value
    assert found.low is not None
    assert found.high is not None
    assert plain.low is not None
    assert plain.high is not None
    assert found.high - found.low == pytest.approx(plain.high - plain.low, rel=0.25)


def bursts(generator: np.random.Generator, n: int, length: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Exponential values, each repeated with a little noise: as in a queue, slow ones come together."""
    values = np.repeat(generator.exponential(10, n // length), length)
    return values + generator.uniform(0, 1e-6, len(values))


def test_values_in_bursts_are_worth_fewer() -> None:
    """Of values in bursts, our 95 % interval of P90 covers the truth as often as it says; the plain one does not."""
    truth, trials = 10 * np.log(10), 200
    generator = np.random.default_rng(1)
    covered = {"plain": 0, "ours": 0}
    for _ in range(trials):
        values = bursts(generator, 6000, 20)
        for name, each in (
            ("plain", statistics.percentile(values.tolist(), 0.9)),
            ("ours", dependent_percentile(values, 0.9)),
        ):
            assert each.low is not None
            assert each.high is not None
            covered[name] += each.low <= truth <= each.high
    assert covered["ours"] >= 0.89 * trials
    assert covered["plain"] < 0.6 * trials


def test_the_correlation_time_of_bursts_is_their_length() -> None:
    """Bursts of 10 that are above or below together: 10 of them tell as much as one."""
    above = np.repeat(np.random.default_rng(2).random(2000) > 0.9, 10)
    assert correlation_time(above) == pytest.approx(10, rel=0.3)
    assert correlation_time(np.zeros(50, dtype=bool)) == 1.0


def test_too_few_samples_have_no_percentile() -> None:
    """P99 needs 459 samples: with fewer it is not claimed, and the table says so."""
    found = Figures("sentiment", seen(10.0, count=200))
    assert found.latency.estimate("p95").value == pytest.approx(10.0)
    assert found.latency.estimate("p99").reason == "n=200; p99 needs 459"
    assert "n=200; p99 needs 459" in figures_table([(found, "good")])


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"), [(500, 500, 0.992649, 1.0), (0, 10, 0.0, 0.308497), (8, 10, 0.443905, 0.974789)]
)
def test_a_share_has_the_exact_interval(hits: int, n: int, low: float, high: float) -> None:
    """Clopper's and Pearson's interval, as in tables of it."""
    found = proportion(hits, n)
    assert found.low == pytest.approx(low, abs=1e-6)
    assert found.high == pytest.approx(high, abs=1e-6)


def test_a_rate_has_an_interval_over_windows() -> None:
    """A steady stream has a narrow one, an unsteady stream a wide one, few events none."""
    steady_ends = (np.arange(2000) + 0.5) / 100
    unsteady = np.concatenate([np.linspace(0, 10, 1500), np.linspace(10, 20, 500)])
    narrow, wide = rate(steady_ends, 20.0), rate(unsteady, 20.0)
    assert narrow.value == wide.value == 100.0
    assert narrow.low == pytest.approx(100.0, abs=0.5)
    assert wide.low is not None
    assert wide.low < 80
    assert rate(steady_ends[:50], 1.0).low is None


def test_errors_are_no_successes() -> None:
    """Failed requests count in the success rate and in the table of errors, not in latencies or throughput."""
    found = Figures("sentiment", seen(10.0, errors={"http 500": 30, "timeout": 10}))
    assert found.success.estimate("").value == 0.96
    assert found.rate.estimate("").value == pytest.approx(960 / found.seen.seconds)
    assert len(found.seen.latency_ms) == 960
    assert found.seen.errors == {"http 500": 30, "timeout": 10}
    text = error_table(found)
    assert "http 500  30" in text.replace("     ", "  ").replace("   ", "  ")
    assert "3.00%" in text
    assert "no really" in text


def test_endpoints_are_told_apart() -> None:
    """A mixed load has figures for each endpoint."""
    mixed = seen(10.0, count=10)
    calls = (Call("sentiment", "/sentiment", "{}"), Call("ner", "/ner", "{}"))
    plan = Plan("http://h", calls, mixed.plan.stages, open_loop=True)
    both = Seen(plan, mixed.due, mixed.done, np.arange(10) % 2, mixed.kind, mixed.kinds, {}, (FIT,), {})
    assert [(each.name, len(each.seen.due)) for each in by_endpoint(both)] == [("sentiment", 5), ("ner", 5)]


BUSY = Health(0.97, 0.0, [0.1] * 100, [0.2] * 100)
LATE = Health(0.2, 0.0, [0.1] * 90 + [30.0] * 10, [0.2] * 100)
SLEEPY = Health(0.2, 0.5, [0.1] * 100, [0.2] * 90 + [30.0] * 10)


@pytest.mark.parametrize(
    ("client", "told"),
    [(BUSY, "it used 97% of a core"), (LATE, "it sent requests 30.0 ms late"), (SLEEPY, "it woke 30.0 ms late")],
)
def test_an_unfit_client_voids_the_result(client: Health, told: str) -> None:
    """A client that is short of CPU, sends late or wakes late makes the result INVALID, even beside a fit one."""
    reason = void((FIT, client), 20.0)
    assert reason is not None
    assert told in reason
    found = Figures("sentiment", seen(20.0, clients=(client,)))
    rubrics = rubric.load(ROOT / "thresholds.yaml", ENDPOINTS)["sentiment"]
    assert rubrics.grade(found) == NO_GRADE
    verdicts = rubrics.verdicts(found)
    assert {each.outcome for each in verdicts if each.metric != "success_rate"} == {Outcome.INVALID}
    loaded = Loaded("load", found, NO_GRADE, tuple(verdicts))
    settle(loaded)
    with pytest.raises(InvalidMeasurement, match="bottleneck"):
        settle(loaded, strict=True)


def test_a_clients_delay_is_held_against_what_it_measures() -> None:
    """30 ms late is much of 20 ms, and little of 400 ms; within the clock's resolution nothing is late."""
    assert void((LATE,), 400.0) is None
    assert void((Health(0.5, 0.0, [LEAST_LATE_MS] * 10, []),), 1.0) is None
    assert void((FIT,), None) is None


@pytest.mark.parametrize(
    ("latency_ms", "per_s", "errors", "grade"),
    [
        (20.0, 200.0, {}, "excellent"),
        (20.0, 90.0, {}, "good"),
        (70.0, 200.0, {}, "good"),
        (150.0, 30.0, {}, "satisfactory"),
        (250.0, 200.0, {}, BELOW),
        (20.0, 15.0, {}, BELOW),
        (20.0, 200.0, {"timeout": 2}, BELOW),
    ],
)
def test_the_rubric(latency_ms: float, per_s: float, errors: Mapping[str, int], grade: str) -> None:
    """Excellent is below 50 ms and above 100 a second, good 100 and 50, satisfactory 200 and 20; all without errors."""
    found = Figures("sentiment", seen(latency_ms, per_s, errors=errors))
    sentiment = rubric.load(ROOT / "thresholds.yaml", ENDPOINTS)["sentiment"]
    assert sentiment.grade(found) == grade
    red = any(each.outcome is Outcome.FAIL for each in sentiment.verdicts(found))
    assert red == (grade == BELOW)
    assert rubric.load(ROOT / "thresholds.yaml", ENDPOINTS)["chat"].least is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- endpoints: sentiment\n  excellent: {latency_ms: {p95_max: 1}}", "limits.yaml:4: the entry has no source"),
        ("- endpoints: nr\n  source: s\n  good: {requests_per_s: {min: 1}}", "unknown endpoint 'nr'.*ner"),
        ("- endpoints: ner\n  source: s", "the entry has no grade"),
        ("- endpoints: ner\n  source: s\n  good: {latency: {p95_max: 1}}", "unknown metric 'latency'.*latency_ms"),
        ("- endpoints: ner\n  source: s\n  good: {latency_ms: {p77_max: 1}}", "unknown limit 'p77_max'"),
        ("- endpoints: ner\n  source: s\n  best: {}", "unknown key 'best'"),
        ("- endpoints: ner\n  source: s\n  least: good\n  excellent: {requests_per_s: {min: 1}}", "least is 'good'"),
    ],
)
def test_a_malformed_rubric_is_refused(tmp_path: Path, text: str, told: str) -> None:
    """A mistake in the file is told with its line."""
    file = tmp_path / "limits.yaml"
    indented = "\n".join(f"  {line}" for line in text.splitlines())
    file.write_text(f"schema: 1\nlimits: {{}}\nserving:\n{indented}\n")
    with pytest.raises(UserError, match=told):
        rubric.load(file, ENDPOINTS)


def test_the_knee_is_where_power_is_greatest() -> None:
    """Of a server that answers 100 a second and takes 10 ms, one connection more than it can use only waits."""
    found = [
        knee.Step(n, min(n * 100.0, 400.0), max(10.0, n * 2.5), max(10.0, n * 2.5), None, 1.0, True)
        for n in (1, 2, 4, 8, 16)
    ]
    best = knee.knee(found)
    assert best is not None
    assert best.level == 4
    assert knee.capacity_per_s(found) == 400
    text = steps_table(found, "connections")
    assert "knee at 4.00 connections; capacity 400 req/s" in text


def test_pictures_are_drawn() -> None:
    """A load and its steps become PNG files; one without requests is refused."""
    assert chart.over_time(seen(10.0, errors={"timeout": 3}), "load").startswith(b"\x89PNG")
    steps = [knee.Step(1, 100, 10.0, 10.0, 12.0, 1.0, True), knee.Step(2, 150, 14.0, 14.0, None, 1.0, True)]
    assert chart.knee_curve(steps, "knee", "connections").startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="without requests"):
        chart.over_time(seen(10.0, count=0), "load")
