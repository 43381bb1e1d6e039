"""Launches made up for tests of the gate: a seeded machine with its noise."""

from __future__ import annotations

import numpy as np

from fixtures.baseline.launch import Launch


def launch(
    draw: np.random.Generator,
    speed: float = 1.0,
    waited: float = 0.0,
    case: float = 1.0,
    foreign: float | None = None,
    line: float = 0.13,
    others: float = 1.0,
) -> Launch:
    """A process on a machine whose times are all `speed` times longer; the case's alone `case` times.

    `line`: microseconds of a cache line's way from core to core. `others`: how many times longer memory takes.

    A launch lies up to a few per cent off for its whole life; a lap is noisy, and one in ten takes much longer.
    """

    def laps(base: float, count: int) -> list[float]:
        spikes = np.where(draw.random(count) < 0.1, draw.uniform(1, 5, count), 0)
        return [float(each) for each in base * (1 + np.abs(draw.normal(0, 0.02, count)) + spikes)]

    life = float(np.exp(draw.normal(0, 0.015)))
    samples = {"latency_ms": [laps(base * speed * case * life, 12) for base in (1.0, 1.5, 2.0)]}
    return Launch(
        samples=samples,
        hurt={name: [[0] * len(row) for row in rows] for name, rows in samples.items()},
        yard={
            name: [laps(base * speed, 4) for _ in range(12)]
            for name, base in (
                ("hash", 0.5),
                ("gather", 0.5 * others),
                ("line", line / 1e3),
            )
        },
        waited=waited,
        facts={"load_s": 0.2 * speed * float(np.exp(draw.normal(0, 0.05))), "peak_memory_mb": 80.0},
        seconds=1.0,
        foreign=foreign,
    )


def series(
    seed: int,
    count: int = 8,
    speed: float = 1.0,
    waited: float = 0.0,
    case: float = 1.0,
    line: float = 0.13,
    others: float = 1.0,
) -> list[Launch]:
    """Launches one after another."""
    draw = np.random.default_rng(seed)
    return [launch(draw, speed, waited, case, line=line, others=others) for _ in range(count)]
