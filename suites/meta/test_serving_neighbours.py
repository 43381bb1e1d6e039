from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.serving import neighbours
from fixtures.serving.ledger import Ledger
from fixtures.serving.neighbours import Neighbours, undisturbed, watched
from fixtures.serving.options import LoadOptions
from fixtures.verdict import InvalidMeasurement

BURN = "import time; end = time.perf_counter() + 60\nwhile time.perf_counter() < end: pass"


@contextmanager
def burning(foreign: bool) -> Iterator[None]:
    """A process that takes a core: below us, or nobody's child."""
    words = [sys.executable, "-c", BURN]
    if not foreign:
        with subprocess.Popen(words) as process:
            yield
            process.kill()
        return
    launcher = f"import subprocess as s; print(s.Popen({words!r}, stdout=s.DEVNULL).pid)"
    told = subprocess.run(
        [sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True, check=True, start_new_session=True
    )
    try:
        yield
    finally:
        subprocess.run(["kill", "-9", told.stdout.strip()], check=True)


@pytest.mark.alone
def test_foreign_work_is_told_from_our_own() -> None:
    """A core taken by a stranger voids a measurement; the same taken by a child of ours adds nothing."""
    taken = {}
    for foreign in (False, True):
        with burning(foreign), watched() as others:
            time.sleep(1.0)  # the window itself: what is measured is what happens in it
        taken[foreign] = others
    ours, theirs = taken[False].cores, taken[True].cores
    assert ours is not None
    assert theirs is not None
    assert theirs - ours > 0.5
    assert "other processes took" in (taken[True].void or "")


def test_too_short_a_window_tells_nothing() -> None:
    """Where CPU time cannot be told there is no reading, and no reason to void."""
    with watched() as others:
        pass
    assert others == Neighbours(None)
    assert others.void is None


def test_a_disturbed_measurement_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others disturb is taken again, a few times; then it comes with the reason."""
    readings = [1.0, 0.0, 1.0, 1.0, 1.0]

    @contextmanager
    def reading() -> Iterator[Neighbours]:
        yield Neighbours(readings.pop(0))

    monkeypatch.setattr(neighbours, "watched", reading)
    monkeypatch.setattr(neighbours, "REST_S", 0.0)
    taken = iter(range(10))
    assert undisturbed(lambda: next(taken)) == (1, None)
    found, void = undisturbed(lambda: next(taken))
    assert found == 4
    assert void is not None


def test_a_void_figure_is_told_and_not_judged(tmp_path: Path) -> None:
    """It stands in the results with its reason; under --strict-verdicts it is INVALID."""
    ledger = Ledger(LoadOptions(), {}, tmp_path)
    assert ledger.told("cache hit", "1 ms")
    assert not ledger.told("start", "9 s", "other processes took 1 cores")
    assert ledger.figures == {"cache hit": "1 ms", "start": "9 s (INVALID: other processes took 1 cores)"}
    ledger.strict = True
    with pytest.raises(InvalidMeasurement, match="INVALID start: other processes"):
        ledger.told("start", "9 s", "other processes took 1 cores")


@pytest.mark.parametrize(("every", "void"), [(0.6, False), (1.0, True)])
def test_cores_that_are_one_are_told(every: float, void: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all cores at once take twice as long as one, they are not several."""
    monkeypatch.setattr(neighbours, "turns", lambda _: (0.5, every))
    assert bool(neighbours.shared_core()) is void
