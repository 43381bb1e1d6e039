"""How often the gate cries wolf, and how often it sees a slowdown: `python -m suites.meta.power_study FILE ...`.

Replays the laps that suites/meta/power_laps.py or power_again.py recorded through the decisions that production takes.
Each pair of sessions of a case is a trial: one is the baseline (or among what limits were calibrated on), the other is
now. Series are taken as they were measured, so that whatever differs between sessions stays in; a second series is
drawn again, with replacement, from the launches of its session. Slowdowns are injected by making the laps longer.

A decision is that on a case: red where one of its metrics is, as in production.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import TypeAlias

import numpy as np

from fixtures.baseline.calibrate import TIME
from fixtures.baseline.comparison import decided
from fixtures.baseline.launch import Launch
from fixtures.baseline.launches import LEAST_LAUNCHES, enough
from fixtures.shares import wilson
from fixtures.thresholds import Limit
from fixtures.verdict import Measurement, Outcome, judge, worst

SLOWDOWNS = (0.0, 0.02, 0.05, 0.10, 0.20)
SCALED = ("latency_ms", "ttft_ms", "tpot_ms", "prefill_ms_per_token")
CALIBRATED_ON = 3
Decision: TypeAlias = tuple[Outcome, float]
"""What was decided, and after how many seconds of measuring."""


@dataclass(frozen=True)
class Session:
    """A series of launches, and whether it was `recorded` to be compared with later."""

    launches: Sequence[Launch]
    recorded: bool


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % interval (Wilson, 1927)."""

    count: int
    n: int

    def __str__(self) -> str:
        if not self.n:
            return "n/a"
        found = wilson(self.count, self.n)
        return f"{found.value:6.1%} [{found.low:.1%}, {found.high:.1%}]"


def slowed(launch: Launch, share: float) -> Launch:
    """The launch with every lap of the case longer; the yardstick is as it was."""
    samples = {
        name: [[lap * (1 + share) for lap in laps] for laps in rows] if name in SCALED else rows
        for name, rows in launch.samples.items()
    }
    return replace(launch, samples=samples)


def taken(session: Session, beside: Session) -> Sequence[Launch]:
    """Of a series as much as a comparison with `beside` would have taken: a recording goes on for longer."""
    seconds = 0.0
    for count, each in enumerate(session.launches, 1):
        seconds += each.seconds
        if count >= LEAST_LAUNCHES and enough(session.launches[:count], beside.launches, seconds):
            return session.launches[:count]
    return session.launches


def stored(sessions: Sequence[Session], then: int, now: int, slow: float, draw: np.random.Generator) -> Decision:
    """The decision of --baseline, the second series included."""
    spent = 0.0

    first = taken(sessions[now], sessions[then])

    def series() -> Sequence[Launch]:
        nonlocal spent
        found = first
        if spent:
            later = sessions[now].launches
            found = [later[index] for index in draw.integers(0, len(later), len(first))]
        spent += sum(each.seconds for each in found)
        return [slowed(each, slow) for each in found]

    found = worst(change.outcome for change in decided(sessions[then].launches, series))
    return found, spent


def threshold(sessions: Sequence[Session], then: int, now: int, slow: float, draw: np.random.Generator) -> Decision:
    """The verdicts on limits that --calibrate would have proposed from other sessions."""
    others = [each for each in range(len(sessions)) if each not in (then, now)]
    known = [then, *draw.permutation(others)[: CALIBRATED_ON - 1]]
    new = [slowed(each, slow) for each in sessions[now].launches]
    outcomes = []
    for metric in (name for name in SCALED if name in new[0].samples):
        bound = TIME * max(flat(metric, sessions[each].launches).estimate("p50").value or 0.0 for each in known)
        limit = Limit(metric, "p50", "max", bound, "calibrated", "", "", "")
        outcomes += [verdict.outcome for verdict in judge(flat(metric, new), [limit])]
    return worst(outcomes), sum(each.seconds for each in new)


def flat(metric: str, launches: Sequence[Launch]) -> Measurement:
    """All laps of a session."""
    return Measurement(metric, samples=tuple(lap for each in launches for row in each.samples[metric] for lap in row))


MODES: dict[str, Callable[..., Decision]] = {"threshold": threshold, "stored baseline": stored}


def read(*files: Path) -> dict[str, list[Session]]:
    """Sessions by case. Of a run that measured a case twice the first series counts."""
    found: dict[str, dict[float, Session]] = defaultdict(dict)
    for data in (json.loads(line) for file in files for line in file.read_text().splitlines()):
        # A second series was taken because of what the first one showed: to pool them would be to choose.
        found[data["case"]].setdefault(
            data["began"], Session([Launch(**each) for each in data["launches"]], data["recorded"])
        )
    return {case: [*sessions.values()] for case, sessions in found.items()}


def trials(cases: dict[str, list[Session]]) -> Iterator[tuple[Sequence[Session], int, int]]:
    """Every pair of sessions of a case of which the first is fit to be compared with."""
    for sessions in cases.values():
        for then, now in permutations(range(len(sessions)), 2):
            if sessions[then].recorded:
                yield sessions, then, now


def table(cases: dict[str, list[Session]], seed: int = 0) -> str:
    """Shares of red decisions by mode and slowdown, over all cases with at least two sessions."""
    draw = np.random.default_rng(seed)
    lines = [f"{'mode':16} {'slowdown':>8}  {'red':28} {'not decided':28} {'s a decision':>12}"]
    for mode, decide in MODES.items():
        for slow in SLOWDOWNS:
            found = [decide(*trial, slow, draw) for trial in trials(cases)]
            outcomes = Counter(outcome for outcome, _ in found)
            open_ = outcomes[Outcome.INVALID] + outcomes[Outcome.INCONCLUSIVE]
            red, open_share = Rate(outcomes[Outcome.FAIL], len(found)), Rate(open_, len(found))
            typical = f"{np.median([spent for _, spent in found]):.1f}" if found else "n/a"
            lines.append(f"{mode:16} {slow:8.0%}  {red!s:28} {open_share!s:28} {typical:>12}")
    counts = ", ".join(f"{case} {len(sessions)}" for case, sessions in cases.items())
    return "\n".join([*lines, f"sessions: {counts}; each pair of a case's is a trial, so trials are not independent"])


def main(arguments: list[str]) -> int:
    """Print the table."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    print(table(read(*map(Path, arguments))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
