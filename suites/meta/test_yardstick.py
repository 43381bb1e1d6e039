from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from fixtures.baseline import launches, yardstick
from fixtures.baseline.cache_line import Ring
from fixtures.baseline.yardstick import hashes, kernels
from fixtures.host import ForkServer
from suites.meta.sample_launches import series

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
needs_cores = pytest.mark.skipif(
    len(CORES) < 2, reason="needs two cores that a process can choose; run on such a board"
)


@needs_cores
def test_a_byte_goes_around() -> None:
    """A cache line's way takes nanoseconds to microseconds, and this process may run anywhere afterwards."""
    ring = Ring(CORES)
    laps = [ring.lap() for _ in range(20)]
    assert 1e-5 < min(laps) < 5e-3
    assert sorted(os.sched_getaffinity(0)) == CORES
    for child in psutil.Process().children():
        if child.cpu_affinity() != CORES:  # those of the ring
            child.kill()
            child.wait(30)


@needs_cores
def test_the_ring_sleeps_between_laps_and_ends_with_its_host(tmp_path: Path) -> None:
    """What answers on the other cores works only during a lap, and is gone with the process that started it."""
    with ForkServer([], {}, tmp_path).start(120) as host:
        laps = host.call(yardstick.lap, 4)
        assert {name: len(found) for name, found in laps.ms.items()} == dict.fromkeys(("hash", "gather", "line"), 4)
        partners = psutil.Process(host.pid).children()
        assert len(partners) == min(len(CORES), 8) - 1
        before = sum(sum(each.cpu_times()[:2]) for each in partners)
        time.sleep(0.5)
        assert sum(sum(each.cpu_times()[:2]) for each in partners) - before < 0.1
    assert psutil.wait_procs(partners, 30)[1] == []


def test_the_clock_needs_no_cache_that_others_share() -> None:
    """What is hashed fits the first cache of the smallest core of a board (32 KB)."""
    assert len(yardstick.TEXT) <= 16 << 10


def test_on_one_core_there_is_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no second core, the clock alone is told."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert set(kernels.__wrapped__()) == {"hash", "gather"}
    assert hashes() > 0


def test_a_series_goes_on_until_enough_launches_are_like_the_baseline() -> None:
    """Launches that had the cores elsewhere do not end a series; its budgets do."""
    near, far = series(1), series(2, line=0.35)
    assert launches.enough(near, (), 1.0)
    assert launches.enough(near, near, 1.0)
    assert not launches.enough(far, near, launches.SERIES_S + 0.1)
    assert launches.enough(far, near, launches.PATIENT_S + 0.1)
    assert not launches.enough([*far, *near[:3]], near, 1.0)
    assert launches.enough([*far, *near[:3]], near, launches.SERIES_S + 0.1)
    assert not launches.enough(series(3, waited=0.9), (), 1.0)
    assert launches.lasted([replace(near[0], seconds=60.0), *near[1:3]]) == 3.0
    least = launches.LEAST_RECORDED
    assert not launches.enough(near[: least - 1], (), launches.SERIES_S + 0.1)
    assert launches.enough(near[:least], (), launches.SERIES_S + 0.1)
    assert launches.enough(near[: least - 1], (), launches.RECORDING_S + 0.1)
