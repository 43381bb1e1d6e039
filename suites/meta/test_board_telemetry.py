from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from time import thread_time

import pytest

from fixtures.spans import Span
from fixtures.telemetry.energy import energy
from fixtures.telemetry.findings import Context
from fixtures.telemetry.meter import Meter
from fixtures.telemetry.sampler import Telemetry
from suites.meta import board_trees
from suites.meta.board_trees import Trace, board
from suites.meta.sensors import MS, SECOND, Clock
from targets.registry import probes


class Busy:
    """A target that was busy all the time."""

    spans = (Span("decode", 0, 3 * SECOND),)


CALM: Trace = ((0.0, {"power_w": 11.0}),)


@pytest.mark.parametrize(
    ("trace", "kinds"),
    [
        (CALM, []),
        (board_trees.THROTTLING, ["throttling"]),
        (board_trees.SWAPPING, ["swap-in"]),
        (board_trees.OVER_CURRENT, ["over-current"]),
        (board_trees.MISSING_SENSOR, ["sensor missing"]),
    ],
    ids=["calm", "throttling", "swapping", "over-current", "missing sensor"],
)
def test_what_a_board_shows_voids_its_numbers(tmp_path: Path, trace: Trace, kinds: list[str]) -> None:
    """From the files of a board through probe, telemetry and meter: each trace ends in the void that is its own."""
    nano, clock = board(tmp_path), Clock()
    telemetry = Telemetry(probes["jetson"](tmp_path), 20, clock=clock)
    context = Context(6, "jetson", energy_limited=True)
    with Meter(telemetry, Busy(), context, tree=dict, clock=clock).watch() as seen:
        for (_, values), (end, _) in pairwise([*trace, (3.0, {})]):
            nano.set({channel: value for channel, value in values.items() if channel in nano.state})
            while clock.now < end * SECOND:
                clock.sleep(0.05)
                if telemetry.sample() // (50 * MS) % 2 and values.get("power_w", 0.0) is not None:
                    nano.set(power_w=nano.state["power_w"] + 0.05)  # a sensor that stands still would be stuck
    telemetry.close()
    assert [void.kind for void in seen.voids] == kinds
    assert (energy(seen.window, seen.context.timed).joules is None) == (trace is board_trees.MISSING_SENSOR)


def test_a_board_is_read_lightly(tmp_path: Path) -> None:
    """All sensors of a board are read in well under the half millisecond that 1 % of a core allows at 20 Hz."""
    board(tmp_path)
    telemetry = Telemetry(probes["jetson"](tmp_path), 20)
    costs = []
    for _ in range(5):
        began = thread_time()
        for _ in range(20):
            telemetry.sample()
        costs.append((thread_time() - began) / 20)
    telemetry.close()
    assert min(costs) < 0.5e-3, f"{min(costs) * 1e3:.2f} ms a sample: {min(costs) * 20:.1%} of a core at 20 Hz"
