"""The table of planted faults: for each, the checks that caught it and the first sentence of the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.results import CaseRecord, Results
from fixtures.verdict import Outcome
from suites.meta.fault_catalogue import FAULTS, SOUND
from suites.meta.fault_kit import DIED, Fault

TABLE = pytest.StashKey[str]()
"""The printed table of this pytest run, for its terminal summary."""
WIDTH = 110
VOIDING = {"_roofline_share": ("test_roofline", "beyond the roofline")}
"""Checks that do not fail but take a number back, by the end of the metric's name that they judge INVALID, and how the
reason begins: a neighbour on this machine voids numbers too, and is no word on the target."""


@dataclass(frozen=True)
class Row:
    """What came of one fault on one task."""

    fault: Fault
    record: CaseRecord

    @property
    def red(self) -> tuple[str, ...]:
        """The checks that failed, by the name of their function, in the order they ran."""
        return tuple(
            check.rpartition("::")[2] for check, text in self.record.checks.items() if text.startswith("failed")
        )

    @property
    def invalid(self) -> dict[str, str]:
        """The checks that took a number back, each with the sentence of its verdict."""
        void = [verdict for verdict in self.record.verdicts if verdict.outcome is Outcome.INVALID]
        return {
            check: str(each)
            for end, (check, reason) in VOIDING.items()
            for each in void
            if each.metric.endswith(end) and (each.reason or "").startswith(reason)
        }

    @property
    def told(self) -> tuple[str, ...]:
        """The checks that failed, and those that took a number back."""
        return (*self.red, *self.invalid)

    @property
    def caught_by(self) -> tuple[str, ...]:
        """The expected checks that failed or took a number back; `died` counts where the process ended."""
        seen = (*self.told, *((DIED,) if self.record.status == "crashed" else ()))
        return tuple(check for check in seen if check in self.fault.checks)

    @property
    def caught(self) -> bool:
        """Whether an expected check failed, or took a number back."""
        return bool(self.caught_by) and (self.record.status in ("failed", "crashed") or bool(self.invalid))

    @property
    def by_suite(self) -> dict[str, list[str]]:
        """What told of the fault, by suite."""
        found: dict[str, list[str]] = {}
        for check, text in self.record.checks.items():
            path, _, name = check.rpartition("::")
            if text.startswith("failed") or name in self.invalid:
                found.setdefault(path.partition("/")[0], []).append(name.removeprefix("test_"))
        return found

    @property
    def seconds(self) -> float | None:
        """Seconds of testing until the first check failed; None where none did."""
        return self.record.evidence.get("seconds until red")

    @property
    def verdict(self) -> str:
        """The first line of what the expected check said, else of the record's reason."""
        said = {check.rpartition("::")[2]: text for check, text in self.record.checks.items()} | self.invalid
        text = next((said[check] for check in self.caught_by if check in said), self.record.reason)
        return next(iter(text.removeprefix("failed: ").removeprefix("AssertionError: ").splitlines()), "")

    @property
    def mark(self) -> str:
        """How the row went, in a word."""
        if self.fault.name == SOUND:
            return "green" if self.record.status == "passed" and not self.invalid else "FALSE ALARM"
        return "caught" if self.caught else "MISSED"


def rows(cases: Iterable[CaseRecord]) -> list[Row]:
    """The rows of the cases that carry a fault (or `sound`), in the catalogue's order."""
    order = list(FAULTS)
    found = [Row(FAULTS[case.optimization], case) for case in cases if case.optimization in FAULTS]
    return sorted(found, key=lambda row: order.index(row.fault.name))


def never_red(cases: Sequence[CaseRecord]) -> list[str]:
    """The checks that ran and that no fault turned red: nothing here shows that they can fail."""
    every = {
        check.rpartition("::")[2]: 0
        for case in cases
        for check, text in case.checks.items()
        if not text.startswith("skipped")
    }
    for row in rows(cases):
        for check in row.told:
            every[check] = every.get(check, 0) + 1
    return sorted(check for check, times in every.items() if not times)


def table(path: Path) -> str:
    """The table of a results file. Raises UserError if it cannot be read."""
    cases = Results.read(path).cases
    found = rows(cases)
    lines = [("fault", "task", "", "red after s", "by suite: checks; first verdict")]
    lines += [
        (
            row.fault.name,
            row.record.task,
            row.mark,
            "" if row.seconds is None else f"{row.seconds:.1f}",
            "; ".join(f"{suite}: {', '.join(names)}" for suite, names in row.by_suite.items()),
        )
        for row in found
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, (*widths, 0), strict=True)) for line in lines]
    for place, row in enumerate(found, 1):
        text[place] += f"\n{' ' * (sum(widths) + 8)}{short(row.verdict)}" if row.verdict else ""
    missed = ", ".join(f"{row.fault.name}-{row.record.task}" for row in found if row.mark == "MISSED")
    untried = ", ".join(never_red(cases)).replace("test_", "")
    return "\n".join(
        [
            *(line.rstrip() for line in text),
            f"faults that nothing caught: {missed or 'none'}",
            f"checks that no fault turned red: {untried or 'none'}",
        ]
    )


def short(text: str) -> str:
    """A sentence's beginning."""
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}…"
