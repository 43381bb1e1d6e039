from __future__ import annotations

import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.spans import Span
from fixtures.telemetry.window import Row, Trouble, Window, window
from suites.meta.sensors import MS, SECOND, rows, steady

READINGS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)
STAMPS = st.lists(st.integers(0, 4 * SECOND), max_size=60, unique=True).map(sorted)
EDGES = st.lists(st.integers(0, 4 * SECOND), min_size=2, max_size=2, unique=True).map(sorted)


def at(*stamps: int) -> list[Row]:
    return [(stamp, {"x": float(stamp)}) for stamp in stamps]


@given(values=READINGS)
def test_a_summary_is_that_of_the_readings(values: list[float]) -> None:
    """Median, least and most are those of the channel's readings in the window, and of none outside."""
    found = rows([{"x": 1e9}, *({"x": value} for value in values), {"x": -1e9}])
    seen = window(found, found[1][0], found[-2][0], 20).summary("x")
    assert seen == (statistics.median(values), min(values), max(values))


@given(stamps=STAMPS, edges=EDGES)
def test_coverage_and_gaps_make_up_the_window(stamps: list[int], edges: list[int]) -> None:
    """Gaps lie in the window, apart, far from each reading, and with what is covered they are all of it."""
    start, end = edges
    seen = window(at(*stamps), start, end, 20)
    gaps = seen.gaps()
    assert all(start <= low < high <= end for low, high in gaps)
    assert all(before[1] < after[0] for before, after in pairwise(gaps))
    assert not any(low < stamp + 50 * MS and stamp - 50 * MS < high for low, high in gaps for stamp in stamps)
    assert seen.coverage() == pytest.approx(1 - sum(high - low for low, high in gaps) / (end - start))
    assert 0 <= seen.coverage() <= 1


@given(stamps=STAMPS, edges=EDGES, middle=st.integers(0, 4 * SECOND))
def test_growth_adds_up(stamps: list[int], edges: list[int], middle: int) -> None:
    """What a counter grows over two parts is what it grows over both, where all three are known."""
    start, end = edges
    middle = min(max(middle, start), end)
    found = at(*stamps)
    parts = [window(found, *each, 20).delta("x") for each in ((start, middle), (middle, end), (start, end))]
    if None not in parts:
        first, second, both = (part or 0.0 for part in parts)
        assert first + second == pytest.approx(both, abs=1e-3)


def test_regular_samples_cover_everything() -> None:
    """At the asked rate, with a jitter of a fifth, nothing is missed; a sample that is left out is still no gap."""
    jittered = at(*(50 * MS * index + (10 * MS if index % 3 == 0 else 0) for index in range(41)))
    assert window(jittered, 0, 2 * SECOND, 20).coverage() == 1
    assert window([row for row in jittered if row[0] != 500 * MS], 0, 2 * SECOND, 20).coverage() == 1


def test_a_gap_is_told_by_its_place() -> None:
    """Half a second of silence is missing but for the period that the readings on either side speak for."""
    seen = window([row for row in steady(2, x=1.0) if not SECOND < row[0] < 1500 * MS], 0, 2 * SECOND, 20)
    assert seen.gaps() == [(1050 * MS, 1450 * MS)]
    assert seen.coverage() == pytest.approx(0.8)


def test_a_channel_has_its_own_coverage() -> None:
    """A sensor that falls silent is missed even while others are read."""
    found = rows([{"x": 1.0, "y": 1.0}] * 20 + [{"y": 1.0}] * 21)
    seen = window(found, 0, 2 * SECOND, 20)
    assert seen.coverage("y") == 1
    assert seen.coverage("x") == pytest.approx(0.5)
    assert seen.covered("x", [Span("measure", 0, 900 * MS)]) == 1
    assert seen.covered("x", [Span("measure", 0, 900 * MS), Span("measure", 1100 * MS, 2 * SECOND)]) == 0.5


def test_edges_come_from_the_neighbours() -> None:
    """A value at an edge lies between the samples around it; too far from any it is not known."""
    seen = window(at(0, 50 * MS, 100 * MS), 25 * MS, 75 * MS, 20)
    assert seen.at("x", 25 * MS) == 25 * MS
    assert seen.delta("x") == 50 * MS
    assert seen.inside == ((50 * MS, {"x": 50.0 * MS}),)
    assert seen.at("x", 140 * MS) == 100 * MS
    assert seen.at("x", 160 * MS) is None
    assert seen.at("y", 50 * MS) is None


def test_a_counter_that_goes_back_has_not_grown() -> None:
    """A counter that was reset tells nothing, least of all a negative growth."""
    assert window(rows([{"x": 5.0}, {"x": 1.0}]), 0, 50 * MS, 20).delta("x") is None


def test_rows_belong_to_the_spans_they_fall_into() -> None:
    """Of the rows of a window those count that lie in a span."""
    seen = window(steady(1, x=1.0), 0, SECOND, 20)
    assert [
        stamp // MS for stamp, _ in seen.during([Span("decode", 90 * MS, 160 * MS), Span("decode", 990 * MS, SECOND)])
    ] == [
        100,
        150,
        1000,
    ]


def test_a_part_is_cut_out_of_a_window() -> None:
    """A part keeps its own rows, the neighbours for its edges, and the troubles that touch it."""
    troubles = [Trouble("x", 0, "early", 200 * MS), Trouble("x", 700 * MS, "late")]
    seen = window(steady(1, x=1.0), 0, SECOND, 20, {"y": "none"}, troubles)
    part = seen.part(400 * MS, 600 * MS)
    assert (len(part.inside), len(part.rows), part.troubles, part.missing) == (5, 7, (), {"y": "none"})
    assert seen.part(600 * MS, SECOND).trouble("x") == troubles[1]


def test_json_has_gauges_and_growth() -> None:
    """A record keeps what the gauges showed and by how much the counters grew."""
    found = rows([{"gpu_mhz": 600.0 + index, "swap_in_mb": 2.0 * index} for index in range(3)])
    assert window(found, 0, 100 * MS, 20).as_json() == {
        "gpu_mhz": {"median": 601.0, "least": 600.0, "most": 602.0},
        "swap_in_mb": {"delta": 4.0},
    }


def test_a_window_without_telemetry_knows_nothing() -> None:
    """Off: nothing covered, nothing read, nothing made up."""
    off = Window(0, SECOND, 0.0)
    assert (off.coverage(), off.channels, off.summary("x"), off.seconds) == (0.0, (), None, 1.0)
    with pytest.raises(ValueError, match="telemetry is off"):
        _ = off.period_ns
    with pytest.raises(ValueError, match="ends after it starts"):
        window([], 2, 1, 20)
