"""Stand-ins for sensors and time: a probe that follows a script, a clock that is turned by hand, recorded traces."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixtures.spans import Span
from fixtures.telemetry.findings import Context
from fixtures.telemetry.watch import SensorWatch
from fixtures.telemetry.window import Row, Window, window

TRACES = Path(__file__).parent / "traces"
MS = 1_000_000
SECOND = 1_000_000_000


class Clock:
    """Time in ns that passes when it is told to."""

    def __init__(self, now: int = 0) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


class ScriptedProbe:
    """A probe whose readings are given by the number of the sample, from 0; a reading that is an error is raised."""

    def __init__(
        self, script: Callable[[int], Mapping[str, float] | OSError], missing: Mapping[str, str] | None = None
    ) -> None:
        self._script = script
        self.missing = dict(missing or {})
        self.taken = 0
        self.closed = False

    @property
    def channels(self) -> tuple[str, ...]:
        first = self._script(0)
        return tuple(first) if isinstance(first, Mapping) else ()

    def read(self) -> dict[str, float]:
        found = self._script(self.taken)
        self.taken += 1
        if isinstance(found, OSError):
            raise found
        return dict(found)

    def close(self) -> None:
        self.closed = True


def rows(values: Iterable[Mapping[str, float]], hz: float = 20.0, start: int = 0) -> list[Row]:
    """Readings at the points of a grid."""
    return [(start + round(index * 1e9 / hz), reading) for index, reading in enumerate(values)]


def steady(seconds: float, hz: float = 20.0, **channels: float) -> list[Row]:
    """The same reading over so many seconds, both ends included; `__` in a name stands for the dot."""
    reading = {name.replace("__", "."): value for name, value in channels.items()}
    return rows([reading] * (round(seconds * hz) + 1), hz)


@dataclass(frozen=True)
class Trace:
    """A trace of telemetry: how it came about, its rows, and the context it is judged in."""

    told: str
    hz: float
    rows: list[Row]
    missing: dict[str, str]
    context: Context

    @property
    def window(self) -> Window:
        """All of it, with the troubles that a watch on the sensors finds."""
        watch = SensorWatch()
        kept = [(at, watch.look(at, reading)) for at, reading in self.rows]
        return window(kept, kept[0][0], kept[-1][0], self.hz, self.missing, watch.troubles)


def trace(name: str) -> Trace:
    """A trace of suites/meta/traces: a line that says what it is, then a line [ns, {channel: value}] a sample."""
    first, *others = (TRACES / f"{name}.jsonl").read_text().splitlines()
    head: dict[str, Any] = json.loads(first)
    spans = tuple(Span(*each) for each in head["spans"])
    found = [(at, reading) for at, reading in map(json.loads, others)]
    return Trace(head["told"], head["hz"], found, head["missing"], Context(**head["context"], spans=spans))
