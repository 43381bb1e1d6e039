"""Verdicts: which outcome a measurement earns, and what the verdict says."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.statistics import Estimate
from fixtures.thresholds import Limit
from fixtures.verdict import Measurement, Outcome, Verdict, judge, number, shown, worst
from targets.api import UserError

P95 = Limit(
    "latency_ms", "p95", "max", 10, "measured 2026-11-21", "thresholds.yaml:14", "sentiment/*/*/*", "jetson-orin-nano"
)
FLOOR = Limit("accuracy", "", "min", 0.95, "the requirement", "thresholds.yaml:9", "*/*/*/*", "cpu")
NUMBERS = st.floats(-1e6, 1e6)
ESTIMATES = st.one_of(
    st.builds(Estimate, st.floats()),
    st.just(Estimate(None, reason="n=3; p95 needs 90")),
    st.lists(NUMBERS, min_size=3, max_size=3).map(sorted).map(lambda ends: Estimate(ends[1], ends[0], ends[2])),
)
LIMITS = st.builds(replace, st.just(P95), bound=NUMBERS, direction=st.sampled_from(["min", "max"]))


def latency(estimate: Estimate, deterministic: bool = False, invalid: str | None = None) -> Measurement:
    return Measurement(
        "latency_ms", "ms", (), {"p95": estimate}, "700 laps at batch 1", invalid=invalid, deterministic=deterministic
    )


def one(measurement: Measurement, *limits: Limit) -> Verdict:
    (verdict,) = judge(measurement, limits)
    return verdict


@pytest.mark.parametrize(
    ("estimate", "outcome"),
    [
        (Estimate(9.0, 8.0, 9.9), "PASS"),
        (Estimate(9.0, 8.0, 10.0), "PASS"),
        (Estimate(9.0, 8.0, 10.1), "INCONCLUSIVE"),
        (Estimate(11.0, 9.9, 12.0), "INCONCLUSIVE"),
        (Estimate(11.0, 10.0, 12.0), "INCONCLUSIVE"),
        (Estimate(11.0, 10.1, 12.0), "FAIL"),
        (Estimate(10.0), "PASS"),
        (Estimate(10.1), "FAIL"),
        (Estimate(None, reason="n=40; p95 needs 90"), "INVALID"),
        (Estimate(math.nan), "INVALID"),
        (Estimate(math.inf), "INVALID"),
        (Estimate(9.0, 8.0, math.inf), "INCONCLUSIVE"),
    ],
)
def test_an_interval_decides(estimate: Estimate, outcome: str) -> None:
    """PASS and FAIL need the whole interval on one side of the limit; where there is none, the value decides."""
    assert one(latency(estimate), P95).outcome is Outcome(outcome)


@pytest.mark.parametrize(
    ("estimate", "outcome"),
    [
        (Estimate(9.0, 8.0, 12.0), "PASS"),
        (Estimate(11.0, 9.0, 12.0), "FAIL"),
        (Estimate(math.nan), "FAIL"),
        (Estimate(None, reason="n=0; a score needs 1 example"), "INVALID"),
    ],
)
def test_a_deterministic_value_decides(estimate: Estimate, outcome: str) -> None:
    """On fixed data a deterministic model is judged by its score; the interval is information, and NaN is a failure."""
    assert one(latency(estimate, deterministic=True), P95).outcome is Outcome(outcome)


@given(estimate=ESTIMATES, limit=LIMITS, deterministic=st.booleans())
def test_judging_is_total(estimate: Estimate, limit: Limit, deterministic: bool) -> None:
    """Every estimate earns one outcome; PASS only where a finite value holds, FAIL only where none does."""
    verdict = one(latency(estimate, deterministic), limit)
    held = estimate.value is not None and math.isfinite(estimate.value) and limit.holds(estimate.value)
    assert verdict.outcome is not Outcome.UNBOUNDED
    assert verdict.outcome is not Outcome.PASS or held
    assert verdict.outcome is not Outcome.FAIL or not held
    assert str(verdict).startswith(f"{verdict.outcome.value} latency_ms p95 = ")


@given(estimate=ESTIMATES, limit=LIMITS, deterministic=st.booleans())
def test_judging_is_symmetric(estimate: Estimate, limit: Limit, deterministic: bool) -> None:
    """A floor judges a number as a ceiling judges its negative."""

    def negative(value: float | None) -> float | None:
        return None if value is None else -value

    turned = "max" if limit.direction == "min" else "min"
    mirrored = replace(
        estimate, value=negative(estimate.value), low=negative(estimate.high), high=negative(estimate.low)
    )
    mirror = one(latency(mirrored, deterministic), replace(limit, direction=turned, bound=-limit.bound))
    assert one(latency(estimate, deterministic), limit).outcome is mirror.outcome


@given(estimate=ESTIMATES.filter(lambda found: found.low is not None), limit=LIMITS, more=st.floats(0, 1e6))
def test_doubt_never_decides(estimate: Estimate, limit: Limit, more: float) -> None:
    """A wider interval leaves a verdict as it was, or makes it INCONCLUSIVE."""
    assert estimate.low is not None
    assert estimate.high is not None
    before = one(latency(estimate), limit).outcome
    after = one(latency(replace(estimate, low=estimate.low - more, high=estimate.high + more)), limit).outcome
    assert after in (before, Outcome.INCONCLUSIVE)


def test_an_invalid_measurement_proves_nothing() -> None:
    """A measurement that cannot be trusted is INVALID whatever it shows, with limits or without."""
    measurement = latency(Estimate(1.0), invalid="the GPU was throttled (672 of 1020 MHz); cool it and run again")
    assert one(measurement, P95).outcome is Outcome.INVALID
    assert one(measurement).outcome is Outcome.INVALID
    assert "cool it" in str(one(measurement))


def test_one_verdict_a_limit() -> None:
    """Each limit gets its verdict, in order, on its own statistic."""
    measurement = Measurement("latency_ms", "ms", tuple(float(lap) for lap in range(1, 101)))
    limits = [replace(P95, statistic="p50"), P95, replace(P95, statistic="mean", direction="min", bound=0)]
    verdicts = judge(measurement, limits)
    assert [(verdict.statistic, verdict.value) for verdict in verdicts] == [("p50", 50), ("p95", 95), ("mean", 50.5)]
    assert [verdict.outcome.value for verdict in verdicts] == ["FAIL", "FAIL", "PASS"]


def test_limits_judge_their_own_metric() -> None:
    """A limit of another metric is a mistake of the caller."""
    with pytest.raises(ValueError, match="limits of accuracy cannot judge latency_ms"):
        judge(latency(Estimate(1.0)), [P95, FLOOR])


@pytest.mark.parametrize(
    ("outcomes", "summary"),
    [
        ("PASS FAIL INVALID", "FAIL"),
        ("INCONCLUSIVE INVALID PASS", "INVALID"),
        ("PASS INCONCLUSIVE UNBOUNDED", "INCONCLUSIVE"),
        ("UNBOUNDED PASS", "PASS"),
        ("UNBOUNDED UNBOUNDED", "UNBOUNDED"),
        ("", "UNBOUNDED"),
    ],
)
def test_worst(outcomes: str, summary: str) -> None:
    """A case is as good as its worst verdict, and UNBOUNDED only if nothing was judged."""
    assert worst(Outcome(name) for name in outcomes.split()) is Outcome(summary)


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (
            one(latency(Estimate(12.345, 11.9, 12.8)), P95),
            "FAIL latency_ms p95 = 12.35 ms [11.9, 12.8], should be <= 10 ms (thresholds.yaml:14, source: measured "
            "2026-11-21); 700 laps at batch 1",
        ),
        (
            one(latency(Estimate(9.8, 9.1, 10.2)), replace(P95, provisional=True)),
            "INCONCLUSIVE latency_ms p95 = 9.8 ms [9.1, 10.2], should be <= 10 ms (thresholds.yaml:14, provisional, "
            "source: measured 2026-11-21): the 95 % interval straddles the limit; 700 laps at batch 1",
        ),
        (
            one(Measurement("latency_ms", "ms", (1.0,) * 40), P95),
            "INVALID latency_ms p95 = n/a, should be <= 10 ms (thresholds.yaml:14, source: measured 2026-11-21): "
            "n=40; p95 needs 90",
        ),
        (
            one(Measurement.of("accuracy", 0.949999, deterministic=True, how="300 examples"), FLOOR),
            "FAIL accuracy = 0.949999, should be >= 0.95 (thresholds.yaml:9, source: the requirement); 300 examples",
        ),
        (
            one(Measurement("latency_ms", "ms", tuple(float(lap) for lap in range(1, 101)))),
            "UNBOUNDED latency_ms p50 = 50 ms [40, 61]: no limit for this case on this device",
        ),
        (
            one(Measurement.of("load_s", None, reason="the host died: signal 9")),
            "UNBOUNDED load_s = n/a: no limit for this case on this device; the host died: signal 9",
        ),
    ],
)
def test_a_verdict_prints_itself(verdict: Verdict, sentence: str) -> None:
    """The message says what was got, what it should be and where that stands, why, and how it was measured."""
    assert str(verdict) == sentence


@given(value=st.floats(allow_nan=False, allow_infinity=False), limit=LIMITS)
def test_rounding_never_hides_the_side(value: float, limit: Limit) -> None:
    """A printed number lies on the same side of the limit as the number itself."""
    assert limit.holds(float(shown(value, limit))) == limit.holds(value)


@given(bound=st.floats(allow_nan=False, allow_infinity=False))
def test_a_limit_prints_all_its_digits(bound: float) -> None:
    """A limit is printed as it was set, without loss."""
    assert float(number(bound)) == bound


@pytest.mark.parametrize(
    ("value", "text"), [(12.3456, "12.35"), (0.00012345, "0.0001234"), (123456.7, "123500"), (0.0, "0"), (1.0, "1")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    """Four digits are enough where no limit asks for more; no exponents for large numbers."""
    assert shown(value, None) == text


@given(
    estimate=ESTIMATES,
    limit=LIMITS | st.none(),
    deterministic=st.booleans(),
    invalid=st.none() | st.just("throttled"),
)
def test_verdicts_survive_json(
    estimate: Estimate, limit: Limit | None, deterministic: bool, invalid: str | None
) -> None:
    """Every verdict comes back from strict JSON as it was; a number that is not finite comes back absent."""
    verdict = one(latency(estimate, deterministic, invalid), *([limit] if limit else []))
    back = Verdict.from_json(json.loads(json.dumps(verdict.as_json(), allow_nan=False)))
    kept = verdict.value if verdict.value is not None and math.isfinite(verdict.value) else None
    assert back == replace(verdict, value=kept)


def test_json_has_the_agreed_keys() -> None:
    """results.json keeps metric, statistic, value, limit, verdict and reason, the limit as a number with its source."""
    kept = one(latency(Estimate(12.0, 11.0, 13.0, 700)), P95).as_json()
    wanted = {"metric": "latency_ms", "statistic": "p95", "value": 12.0, "limit": 10, "direction": "max"}
    wanted |= {"verdict": "FAIL", "reason": "", "low": 11.0, "high": 13.0, "n": 700, "source": "measured 2026-11-21"}
    assert {key: kept[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "GOOD"}, "'GOOD' is not a valid Outcome; the verdicts are PASS, FAIL"),
        ({"direction": "up"}, "min or max, not 'up'"),
        ({"low": None}, None),
    ],
)
def test_foreign_json_is_refused(change: dict[str, object], message: str | None) -> None:
    """A verdict that another version wrote, or none at all, is refused in a sentence."""
    kept = one(latency(Estimate(12.0, 11.0, 13.0)), P95).as_json() | change
    if message is None:
        del kept["low"]
        message = "no key 'low'"
    with pytest.raises(UserError, match=message):
        Verdict.from_json(kept)


def test_given_estimates_go_first() -> None:
    """What was estimated when it was measured is not derived again."""
    measurement = Measurement("latency_ms", samples=(1.0,) * 100, estimates={"p50": Estimate(2.0)})
    assert measurement.estimate("p50").value == 2.0
    assert measurement.estimate("p90").value == 1.0


@pytest.mark.parametrize(
    ("statistic", "value"), [("p50", 2500), ("p75", 3750), ("p99.9", 4995), ("mean", 2500.5), ("min", 1), ("max", 5000)]
)
def test_statistics_derived_from_samples(statistic: str, value: float) -> None:
    """Any percentile, the mean and the extremes come from the samples on demand."""
    measurement = Measurement("latency_ms", samples=tuple(float(lap) for lap in range(1, 5001)))
    assert measurement.estimate(statistic).value == value


@pytest.mark.parametrize(
    ("measurement", "statistic", "reason"),
    [
        (Measurement("latency_ms"), "p50", "nothing was measured"),
        (Measurement("latency_ms", samples=(1.0,) * 9), "", "samples have no statistic '(plain value)'"),
        (Measurement("latency_ms", samples=(1.0,) * 9), "p0", "samples have no statistic 'p0'"),
        (Measurement("latency_ms", samples=(1.0,) * 9), "p100", "samples have no statistic 'p100'"),
        (Measurement("latency_ms", samples=(1.0,) * 9), "best", "samples have no statistic 'best'"),
        (Measurement("latency_ms", samples=(1.0, math.nan)), "max", "1 of 2 samples are not finite"),
        (Measurement.of("load_s", 1.0), "p50", "only the plain value was measured"),
        (
            Measurement("t", estimates={"best": Estimate(1.0), "batch1": Estimate(1.0)}),
            "batch2",
            "only best, batch1 was",
        ),
    ],
)
def test_a_statistic_that_is_not_there_says_why(measurement: Measurement, statistic: str, reason: str) -> None:
    """Asking for what was not measured gives no number, and the reason; judged, it is INVALID."""
    found = measurement.estimate(statistic)
    assert found.value is None
    assert reason in (found.reason or "")
    assert one(measurement, replace(P95, metric=measurement.metric, statistic=statistic)).outcome is Outcome.INVALID


def test_numbers_and_intervals_have_the_keys_of_results() -> None:
    """Metrics are keyed "metric.statistic", plain values "metric"; what the samples do not support is absent."""
    laps = Measurement("latency_ms", samples=tuple(float(lap) for lap in range(1, 61)))
    assert laps.numbers() == {"latency_ms.p50": 30, "latency_ms.p90": 54, "latency_ms.mean": 30.5}
    assert laps.intervals()["latency_ms.p50"] == (22, 39)
    assert Measurement.of("load_s", 0.5).numbers() == {"load_s": 0.5}
    assert Measurement.of("load_s", 0.5).intervals() == {}
    assert Measurement.of("load_s", None, reason="not read").numbers() == {}


def test_an_absent_value_needs_a_reason() -> None:
    """A number that could not be read is never given away without saying why."""
    with pytest.raises(ValueError, match="needs a reason"):
        Measurement.of("energy_j", None)
