from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures import measuring_options
from fixtures.measuring import Measuring, Taken
from fixtures.measuring_options import MeasuringOptions
from fixtures.results import CaseRecord
from fixtures.telemetry.energy_metrics import Work
from fixtures.telemetry.findings import Untold, Void
from fixtures.verdict import Measurement
from suites.meta.runs import arguments, run
from targets.api import Evidence, UserError

HOT = Void("throttling", "gpu was active in 3 of 9 samples", "let it cool")


class Sight:
    """What a meter saw: these voids, one check that could not be made, and one reading."""

    def __init__(self, *voids: Void) -> None:
        self.voids = list(voids)
        self.untold = [Untold("steal", "the window is too short")]

    def readings(self) -> dict[str, dict[str, float]]:
        return {"gpu_mhz": {"median": 612.0}}

    def energy(self, _: Work) -> list[Measurement]:
        return [
            Measurement.of("power_w", 5.0),
            Measurement.of("energy_j_per_request", None, reason="no sensor"),
            Measurement.of("energy_j_per_token", None, reason="no sensor"),
        ]


class Meter:
    """Sees these things one after another."""

    def __init__(self, *sights: Sight) -> None:
        self.sights = list(sights)

    @contextmanager
    def watch(self) -> Iterator[Sight]:
        yield self.sights.pop(0)


def target(requested: str = "cuda", actual: str = "cuda") -> Any:
    """A target that is on the device `actual`."""
    return SimpleNamespace(
        retried=0,
        start=lambda: None,
        proof=Evidence({"device": requested}, {"device": actual}),
        session=SimpleNamespace(device=SimpleNamespace(kind="cpu")),
    )


def measuring(*sights: Sight, on: Any = None, retries: int = 1) -> tuple[Measuring, CaseRecord]:
    record = CaseRecord("t/m/b/o", "t", "m", "b", "o")
    meter: Any = Meter(*sights)
    return Measuring(meter, on or target(), record, MeasuringOptions(retries, 0.0)), record


def test_a_measurement_that_stands_is_taken_once() -> None:
    """What no sensor objects to counts as it is; the readings beside it and what could not be checked are kept."""
    take, record = measuring(Sight())
    taken = take(lambda: 7, "latency_ms")
    assert (taken.result, taken.invalid) == (7, None)
    assert record.evidence == {
        "telemetry": {"latency_ms": {"gpu_mhz": {"median": 612.0}}},
        "not checked": {"latency_ms": ["steal: not checked, the window is too short"]},
    }


def test_a_void_measurement_is_taken_once_more() -> None:
    """After a void the second result counts; that there was a first one, and why, is kept."""
    take, record = measuring(Sight(HOT), Sight())
    results = iter([1, 2])
    taken = take(lambda: next(results), "latency_ms")
    assert (taken.result, taken.invalid) == (2, None)
    assert record.evidence["taken again"] == {"latency_ms": str(HOT)}


def test_a_case_has_so_many_retries() -> None:
    """What stays void is INVALID, and further measurements of the case are not taken again: heat does not go away."""
    take, record = measuring(Sight(HOT), Sight(HOT), Sight(HOT))
    assert take(lambda: 1, "ttft_ms").invalid == str(HOT)
    assert take(lambda: 1, "decode_tokens_per_s").invalid == str(HOT)
    assert list(record.evidence["taken again"]) == ["ttft_ms"]


def test_what_runs_elsewhere_than_asked_is_void() -> None:
    """A number of an engine that is not where it was asked to be is INVALID, with both places."""
    take, _ = measuring(Sight(), on=target(actual="cpu"), retries=0)
    assert str(take(lambda: 1, "latency_ms").invalid).startswith(
        "backend not engaged: device: asked for cuda, got cpu; see the evidence"
    )


def test_what_no_rest_ends_is_not_taken_again() -> None:
    """A sensor that is missing stays missing: the case's retry is kept for what may pass."""
    take, record = measuring(Sight(Void("sensor missing", "no power_w", "give the run the right to read it")))
    assert take(lambda: 1, "latency_ms").invalid is not None
    assert "taken again" not in record.evidence


def test_energy_is_told_where_it_was_measured_or_is_limited() -> None:
    """Energy without a sensor is silent unless a limit asks for it, and void with the measurement it belongs to."""
    sight: Any = Sight()
    taken = Taken(1, sight, (HOT,))
    found = taken.energies(Work(3), frozenset({"energy_j_per_token"}))
    assert [one.metric for one in found] == ["power_w", "energy_j_per_token"]
    assert {one.invalid for one in found} == {str(HOT)}


@pytest.mark.parametrize(("kind", "asked", "rest"), [("cpu", None, 2), ("jetson", None, 20), ("jetson", 3.0, 3)])
def test_a_board_rests_longer(kind: str, asked: float | None, rest: float) -> None:
    """A device rests as long as its kind needs, or as long as was asked."""
    assert MeasuringOptions(1, asked).rest_s(kind) == rest


@pytest.mark.parametrize(
    ("retries", "rest", "said"),
    [(-1, None, "--retries -1: should be 0 or more"), (1, -2.0, "--cool-down -2: should be from 0 to 600 seconds")],
)
def test_bad_options_are_refused(retries: int, rest: float | None, said: str) -> None:
    """Numbers that mean nothing are told in one sentence."""
    config: Any = SimpleNamespace(getoption={"retries": retries, "cool_down": rest}.__getitem__)
    with pytest.raises(UserError, match=said):
        measuring_options.parse(config)


def test_a_run_tells_its_telemetry(tmp_path: Path) -> None:
    """A run on real sensors files the readings beside each measurement, and what the observer itself cost."""
    found = run(tmp_path / "b", *arguments(tmp_path, "plain"), "suites/performance")
    assert found.code == 0, found.output
    assert found.results["run"]["telemetry"]["hz"] == 20
    assert "cpu_busy_s" in found.results["run"]["telemetry"]["channels"]
    (case,) = found.cases.values()
    assert case["evidence"]["telemetry"]["throughput_per_s"]["cpu_busy_s"]["delta"] > 0
