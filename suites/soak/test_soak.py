"""What is left of a case's speed after minutes of load. Runs alone, with `--soak MINUTES`: it heats the device."""

from __future__ import annotations

import numpy as np
import pytest

from fixtures import report, stopwatch
from fixtures.judging import Judge, spend
from fixtures.provision import Target
from fixtures.results import CaseRecord
from fixtures.soak import chart as rate_chart
from fixtures.soak import load as soak
from fixtures.soak.endurance import Endurance, Sensors
from fixtures.soak.load import SoakPlan
from fixtures.statistics import Estimate
from fixtures.verdict import Measurement

WARM_CAP_S = 5.0


@pytest.fixture
def sensors(request: pytest.FixtureRequest) -> Sensors | None:
    """Telemetry, where this run has it."""
    try:
        found: Sensors | None = request.getfixturevalue("telemetry")
    except pytest.FixtureLookupError:
        return None
    return found


def test_endurance(target: Target, judged: Judge, record: CaseRecord, sensors: Sensors | None) -> None:
    """Under load for as long as asked, the target keeps its speed and its memory within the device's limits."""
    options = target.session.options.soak
    found, warm_s = soaked(target, sensors)
    spend(record, warm_s, found.length_s)
    record.samples |= {
        "soak_per_s": [round(rate, 4) for rate in found.rates.tolist()],
        "soak_memory_mb": [each.memory_mb for each in found.windows if each.memory_mb is not None],
    }
    report.attach_png("rate over time", rate_chart.rate_over_time(found, target.case.id))
    count = sum(each.requests for each in found.windows)
    how = f"{count} requests one at a time for {options.minutes:g} min, in {len(found.windows)} windows"
    if found.cause:
        record.notes.append(f"when it slowed down: {found.cause}")
    measured = [
        Measurement("sustained_burst_ratio", unit="×", estimates={"": found.ratio}, how=how),
        Measurement("memory_slope_mb_per_min", unit="MB/min", estimates={"": found.memory_slope}, how=how),
        Measurement("burst_per_s", unit="/s", estimates={"": middle(found.burst.tolist())}, how=how),
        Measurement("sustained_per_s", unit="/s", estimates={"": middle(found.sustained.tolist())}, how=how),
    ]
    drop = found.time_to_throttle
    record.notes.append(told(found))
    outlasted = all(limit.bound <= found.length_s for limit in judged.limits if limit.metric == "time_to_throttle_s")
    if drop.value is None and outlasted and not found.too_few:
        judged(*measured)  # it held out for longer than any limit asks
    else:
        judged(*measured, Measurement("time_to_throttle_s", unit="s", estimates={"": drop}, how=how))


def soaked(target: Target, sensors: Sensors | None) -> tuple[Endurance, float]:
    """The target warmed up and then under load, and the seconds it took to warm up."""
    options, mix = target.session.options.soak, target.subject.mix
    requests = mix[:1] if target.subject.is_generator else mix  # a pass is part of a window, not longer than it
    _, warm_s, _ = target.call(stopwatch.warm_up, requests, WARM_CAP_S)
    slice_s = min(soak.SLICE_S, target.session.options.timeout_s / 4)
    found = Endurance()
    while (left := options.seconds - found.length_s) > 0:
        plan = SoakPlan(requests, options.window_s, min(slice_s, left))
        found.add(target.call(soak.soak, plan), sensors)
    return found, warm_s


def told(found: Endurance) -> str:
    """The soak in one sentence."""
    drop, ratio = found.time_to_throttle, found.ratio
    if ratio.value is None:
        return f"soak: n/a: {ratio.reason}"
    when = (
        f"slowed down after {drop.value:.1f} s" if drop.value is not None else f"time_to_throttle_s n/a: {drop.reason}"
    )
    kept = f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] of {np.median(found.burst):.3g} /s"
    return f"soak of {found.length_s:.0f} s: sustained {kept}; {when}"


def middle(rates: list[float]) -> Estimate:
    """The median of windows, as what it is."""
    ordered = sorted(rates)
    return Estimate(ordered[len(ordered) // 2], n=len(ordered))
