from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fixtures.baseline.comparison import SURE, Known, compare
from fixtures.baseline.figures import location, low_quantile
from fixtures.baseline.launch import Launch
from fixtures.baseline.ratio import TAIL, ratio_of
from fixtures.baseline.selection import FOREIGN
from fixtures.baseline.weather import Following
from fixtures.verdict import Outcome
from suites.meta.sample_launches import series


def later(seed: int, **different: Any) -> list[Launch]:
    """A visit that is a while after the one of a smaller seed."""
    return [replace(each, at=1000.0 * seed + second) for second, each in enumerate(series(seed, **different))]


@pytest.mark.parametrize("speed", [0.7, 1.0, 1.3])
def test_the_machine_divides_out(speed: float) -> None:
    """A machine that is faster or slower as a whole makes no regression and no improvement."""
    found = compare("latency_ms", series(1), series(2, speed=speed))
    assert found.outcome is Outcome.PASS
    assert not found.better
    assert found.ratio.value == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("speed", [0.7, 1.0, 1.3])
def test_a_slower_case_is_red_on_any_machine(speed: float) -> None:
    """A case that takes a tenth longer is red, however fast the machine is today."""
    old, visits = series(1), [later(seed, speed=speed, case=1.1) for seed in (2, 3)]
    assert compare("latency_ms", old, visits[0]).suspicious
    found = Known(old, {}, "fake").decided("latency_ms", visits)
    assert found.outcome is Outcome.FAIL
    assert found.ratio.value == pytest.approx(1.1, abs=0.03)
    assert found.ratio.low is not None
    assert found.ratio.low > 1


@pytest.mark.parametrize(("gone", "outcome"), [(0, Outcome.FAIL), (1, Outcome.INCONCLUSIVE)])
def test_what_a_visit_does_not_show_is_not_red(gone: int, outcome: Outcome) -> None:
    """A slowdown that is gone at one visit of four is no regression, however much all together show it."""
    visits = [later(seed, case=1.25 if seed < 6 - gone else 1.0) for seed in range(2, 6)]
    old, together = series(1), [launch for visit in visits for launch in visit]
    assert compare("latency_ms", old, together).outcome is Outcome.FAIL
    found = Known(old, {}, "fake").decided("latency_ms", visits)
    assert found.outcome is outcome
    assert found.reason == ("1 of 4 visits do not show it by themselves" if gone else "")


@pytest.mark.parametrize(("slow", "outcome"), [(1.0, Outcome.FAIL), (1.15, Outcome.INCONCLUSIVE)])
def test_what_the_baseline_did_itself_is_not_red(slow: float, outcome: Outcome) -> None:
    """A case that is a tenth slower is not red where one visit of its baseline was as slow."""
    old = [each for seed in range(2, 6) for each in later(seed, case=slow if seed == 3 else 1.0)]
    visits = [later(seed, case=1.12) for seed in range(6, 10)]
    together = [launch for visit in visits for launch in visit]
    assert compare("latency_ms", old, together).outcome is Outcome.FAIL
    found = Known(old, {}, "fake").decided("latency_ms", visits)
    assert found.outcome is outcome
    assert ("a visit then was as slow: 1.1" in found.reason) is (outcome is Outcome.INCONCLUSIVE)


def test_what_is_not_suspicious_any_more_is_told() -> None:
    """Visits after the one that cleared a metric do not bring it back."""
    old = series(1)
    visits = [later(2), *(later(seed, case=1.3) for seed in (3, 4, 5))]
    found = Known(old, {}, "fake").decided("latency_ms", visits)
    assert found == compare("latency_ms", old, visits[0])
    assert Known(old, {}, "fake").decided("latency_ms", visits[1:]).outcome is Outcome.FAIL


def test_visits_that_cannot_be_compared_do_not_vote() -> None:
    """What launches elsewhere on the processor seem to show makes nothing red, nor do visits of one launch each."""
    old, known = series(1), Known(series(1), {}, "fake")
    far = [later(seed, case=1.5, line=0.35) for seed in (3, 4, 5)]
    found = known.decided("latency_ms", [later(2, case=1.2), *far])
    assert compare("latency_ms", old, later(2, case=1.2)).outcome is Outcome.FAIL
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.reason == "1 of 4 visits can be compared"
    single = [later(seed, count=1, case=1.2) for seed in (3, 4)]
    assert known.decided("latency_ms", [later(2, case=1.2), *single, later(5, case=1.2)]).outcome is Outcome.FAIL


def test_one_of_several_metrics_must_be_surer() -> None:
    """What is red as a case's only metric may be chance where it is one of three."""
    old = [launch for seed in range(-4, 0) for launch in later(100 + seed)]
    visits = [later(seed, case=1.07) for seed in range(200, 204)]
    known = Known(old, {("fake", "latency_ms"): Following(unrest=0.028)}, "fake")
    assert known.decided("latency_ms", visits).outcome is Outcome.FAIL
    several = [[with_more(each) for each in visit] for visit in visits]
    found = known.decided("latency_ms", several)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.reason == "by one of many metrics and cases, chance may show as much"
    surer = Known(old, {("fake", "latency_ms"): Following(unrest=0.01)}, "fake")
    assert surer.decided("latency_ms", several).outcome is Outcome.FAIL


@pytest.mark.parametrize(("chance", "least", "most"), [(TAIL, 0.01, 0.05), (SURE, 0.0, 0.005)])
def test_launches_that_differ_widely_are_rarely_red(chance: float, least: float, most: float) -> None:
    """Where launches differ by a tenth and nothing is new, the interval is beyond it as rarely as it says."""
    draw = np.random.default_rng(0)
    sides = (([*draw.normal(0, 0.1, (4, 3))], [*draw.normal(0, 0.1, (4, 3))]) for _ in range(2000))
    red = [(ratio_of(*each, chance=chance).low or 0.0) > 1 for each in sides]
    assert least <= np.mean(red) <= most


@pytest.mark.parametrize(("slow", "outcome"), [(1.1, Outcome.INCONCLUSIVE), (1.2, Outcome.FAIL)])
def test_launches_that_differ_widely_must_be_surer(slow: float, outcome: Outcome) -> None:
    """Where launches differ by a tenth, what chance may show in a run of many cases is not red; what is plain is."""
    old, new = (
        [
            [scaled(each, factor) for each, factor in zip(later(seed, count=3, case=case), (0.91, 1, 1.1), strict=True)]
            for seed in seeds
        ]
        for seeds, case in ((range(4), 1.0), (range(4, 8), slow))
    )
    known = Known([each for visit in old for each in visit], {}, "fake")
    assert known.compare("latency_ms", [each for visit in new for each in visit]).outcome is Outcome.FAIL
    assert known.decided("latency_ms", new).outcome is outcome


def scaled(launch: Launch, factor: float) -> Launch:
    """A launch that took so many times longer."""
    return replace(
        launch, samples={"latency_ms": [[lap * factor for lap in row] for row in launch.samples["latency_ms"]]}
    )


def with_more(launch: Launch) -> Launch:
    """A launch that has two metrics besides."""
    return replace(launch, samples={**launch.samples, "ttft_ms": [[1.0]], "tpot_ms": [[1.0]]})


def test_what_cannot_be_told_is_visited_again() -> None:
    """Launches too few for an interval leave a case open for another visit."""
    assert compare("latency_ms", series(1), later(2, count=1)).suspicious


def test_memory_is_judged_by_all_visits() -> None:
    """A tenth more memory at every visit is red, whatever the machine's speed; at one visit of four it is not."""
    visits = [later(seed, speed=1.3) for seed in range(2, 6)]
    larger = [[replace(each, facts={**each.facts, "peak_memory_mb": 92.0}) for each in visit] for visit in visits]
    known = Known(series(1), {}, "fake")
    assert known.decided("peak_memory_mb", visits).outcome is Outcome.PASS
    assert known.decided("peak_memory_mb", larger).outcome is Outcome.FAIL
    assert known.decided("peak_memory_mb", [larger[0], *visits[1:]]).outcome is Outcome.PASS


def test_significance_without_effect_is_green() -> None:
    """Two per cent, however certain, are no regression; with a least effect of one per cent they are."""
    old, new = series(1, count=60), series(2, count=60, case=1.03)
    assert compare("latency_ms", old, new).outcome is Outcome.PASS
    assert compare("latency_ms", old, new, effect=0.01).outcome is Outcome.FAIL


def test_effect_without_significance_is_not_red() -> None:
    """Launches that scatter more than they differ decide nothing, and the reason says so."""
    old, new = series(1), series(2)
    rows = [
        replace(each, samples={"latency_ms": [[lap * factor for lap in row] for row in each.samples["latency_ms"]]})
        for each, factor in zip(new, (0.6, 1.9, 0.7, 1.6, 0.8, 1.7, 1.5, 0.9), strict=True)
    ]
    found = compare("latency_ms", old, rows)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "the interval holds" in found.reason


def test_an_improvement_is_seen() -> None:
    """A case that takes a tenth less is green, and better."""
    found = compare("latency_ms", series(1), series(2, case=0.9))
    assert found.outcome is Outcome.PASS
    assert found.better


@pytest.mark.parametrize(
    ("then", "now", "told"), [(0.6, 0.0, "baseline was recorded"), (0.0, 0.6, "now: 8 of 8 launches")]
)
def test_foreign_load_voids(then: float, now: float, told: str) -> None:
    """Where others used the machine, then or now, a time is INVALID whatever it shows, and the reading says so."""
    found = compare("latency_ms", series(1, waited=then), series(2, waited=now, case=1.5))
    assert found.outcome is Outcome.INVALID
    assert told in found.reason
    assert "60%" in found.reason
    assert f"{FOREIGN:.0%}" in found.reason


def test_cores_that_others_took_void_too() -> None:
    """Other processes may leave the yardstick its core, and an engine of many threads not all of its own."""
    found = compare("latency_ms", series(1), crowded(series(2, case=1.5), 8))
    assert found.outcome is Outcome.INVALID
    assert "other processes took 0.6 cores" in found.reason


def test_disturbed_launches_are_left_out() -> None:
    """Where enough launches are left, those during which others worked count for nothing."""
    slow = series(3, case=1.5)
    found = compare("latency_ms", series(1), [*series(2), *crowded(slow, len(slow))])
    assert found.outcome is Outcome.PASS
    assert found.ratio.value == pytest.approx(1, abs=0.03)


def test_launches_with_the_cores_elsewhere_are_left_out() -> None:
    """A case is compared where the host had the cores in one place; what it takes elsewhere says nothing."""
    there = series(2, 4, case=1.5, line=0.35)
    found = compare("latency_ms", [*series(1), *there], [*series(3, 4), *series(4, 3, case=1.8, line=0.35)])
    assert found.outcome is Outcome.PASS
    assert found.ratio.n == 4
    found = compare("latency_ms", series(1), [*series(5, 4, case=1.2), *there])
    assert found.outcome is Outcome.FAIL
    assert found.ratio.value == pytest.approx(1.2, abs=0.04)


def test_cores_elsewhere_than_ever_before_void() -> None:
    """Where the host had the cores in no place that both sides know, the verdict is INVALID with both readings."""
    found = compare("latency_ms", series(1, line=0.13), [*series(2, 2, line=0.13), *series(3, case=1.5, line=0.35)])
    assert found.outcome is Outcome.INVALID
    assert "took 0.13 us from core to core then, 0.3" in found.reason


def test_memory_does_not_depend_on_where_the_cores_are() -> None:
    """How much memory a case takes is compared whatever the host did."""
    assert compare("peak_memory_mb", series(1, line=0.13), series(2, line=0.35)).outcome is Outcome.PASS


def test_cores_that_moved_meanwhile_void() -> None:
    """A launch during which the host moved the cores counts for nothing."""
    moved = [
        replace(each, yard={**each.yard, "line": each.yard["line"][:6] + [[0.00035] * 4] * 6})
        for each in series(2, case=1.3)
    ]
    assert compare("latency_ms", series(1), [*moved, *series(3)]).outcome is Outcome.PASS
    found = compare("latency_ms", series(1), moved)
    assert found.outcome is Outcome.INVALID
    assert "the host moved the cores" in found.reason


def test_where_no_line_can_be_timed_all_launches_count() -> None:
    """On one core, or where a process cannot choose its core, launches are compared as they are."""
    old, new = (
        [replace(each, yard={name: rows for name, rows in each.yard.items() if name != "line"}) for each in side]
        for side in (series(1), series(2, case=1.2))
    )
    assert compare("latency_ms", old, new).ratio.n == 8


def crowded(launches: list[Launch], count: int) -> list[Launch]:
    """The first launches beside others' work."""
    return [replace(each, foreign=0.6 if place < count else 0.0) for place, each in enumerate(launches)]


def test_foreign_load_does_not_void_memory() -> None:
    """How much memory a case takes does not depend on who else works."""
    assert compare("peak_memory_mb", series(1, waited=0.6), series(2, waited=0.6)).outcome is Outcome.PASS


def test_memory_does_not_follow_the_machine() -> None:
    """A slower machine does not excuse more memory."""
    old = series(1)
    new = [replace(each, facts={"peak_memory_mb": 92.0}) for each in series(2, speed=2.0)]
    assert compare("peak_memory_mb", old, new).outcome is Outcome.FAIL


def test_disturbed_laps_are_left_out_where_enough_are_left() -> None:
    """Laps during which a core was taken count only where too few others are left."""
    assert low_quantile([1.0, 9.0, 1.0, 9.0, 1.0], [0, 1, 0, 1, 0]) == 1.0
    assert low_quantile([9.0, 9.0, 1.0], [1, 1, 0]) > 1.0


def test_a_launch_is_known_by_low_laps() -> None:
    """Spikes of single laps do not move a launch."""
    (each,) = series(1, count=1)
    assert location("latency_ms", each) == pytest.approx(1.5, rel=0.06)


def test_one_launch_decides_nothing() -> None:
    """Without two launches a side there is no interval, and no verdict."""
    found = compare("latency_ms", series(1, count=1), series(2, count=1, case=2.0))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "needs 2" in found.reason
