"""How often the gate cries wolf, and how often it sees a slowdown: `python -m suites.meta.power_study FILE [TRIALS]`.

Replays the laps that suites/meta/power_laps.py recorded through the decisions that production takes. A trial draws two
sessions of a case: one is the baseline (or what limits were calibrated on), the other is now. Launches are drawn again
from a session with replacement; slowdowns are injected by making the laps longer. Whatever differs between sessions
stays as it was recorded.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fixtures.baseline.calibrate import TIME
from fixtures.baseline.comparison import compare, confirm
from fixtures.baseline.launch import Launch
from fixtures.shares import wilson
from fixtures.thresholds import Limit
from fixtures.verdict import Measurement, Outcome, judge

SLOWDOWNS = (0.0, 0.02, 0.05, 0.10, 0.20)
SCALED = ("latency_ms", "ttft_ms", "tpot_ms", "prefill_ms_per_token")
CALIBRATED_ON = 3
Decision = tuple[Outcome, float]
"""What was decided, and after how many seconds of measuring."""


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


def redrawn(session: Sequence[Launch], draw: np.random.Generator) -> list[Launch]:
    """As many launches, drawn with replacement."""
    return [session[index] for index in draw.integers(0, len(session), len(session))]


def stored(metric: str, sessions: Sequence[Sequence[Launch]], slow: float, draw: np.random.Generator) -> Decision:
    """The decision of --baseline, the second series included."""
    then, now = draw.choice(len(sessions), 2, replace=False)
    old = redrawn(sessions[then], draw)
    new = [slowed(each, slow) for each in redrawn(sessions[now], draw)]
    spent = sum(each.seconds for each in new)
    found = compare(metric, old, new)
    if found.suspicious:
        again = [slowed(each, slow) for each in redrawn(sessions[now], draw)]
        spent += sum(each.seconds for each in again)
        found = confirm(metric, old, new, again)
    return found.outcome, spent


def threshold(metric: str, sessions: Sequence[Sequence[Launch]], slow: float, draw: np.random.Generator) -> Decision:
    """The verdict on a limit that --calibrate would have proposed from other sessions."""
    *known, now = draw.permutation(len(sessions))[: min(CALIBRATED_ON + 1, len(sessions))]
    bound = TIME * max(flat(metric, sessions[each]).estimate("p50").value or 0.0 for each in known)
    limit = Limit(metric, "p50", "max", bound, "calibrated", "", "", "")
    new = [slowed(each, slow) for each in redrawn(sessions[now], draw)]
    (verdict,) = judge(flat(metric, new), [limit])
    return verdict.outcome, sum(each.seconds for each in new)


def flat(metric: str, session: Sequence[Launch]) -> Measurement:
    """All laps of a session."""
    return Measurement(metric, samples=tuple(lap for each in session for row in each.samples[metric] for lap in row))


MODES: dict[str, Callable[..., Decision]] = {"threshold": threshold, "stored baseline": stored}


def read(file: Path) -> dict[str, list[list[Launch]]]:
    """Sessions by case; what a run measured twice is one session."""
    found: dict[str, dict[float, list[Launch]]] = defaultdict(lambda: defaultdict(list))
    for line in file.read_text().splitlines():
        data = json.loads(line)
        found[data["case"]][data["began"]] += [Launch(**each) for each in data["launches"]]
    return {case: [*sessions.values()] for case, sessions in found.items()}


def table(cases: dict[str, list[list[Launch]]], trials: int, seed: int = 0) -> str:
    """Shares of red decisions by mode, metric and slowdown, over all cases with at least two sessions."""
    draw = np.random.default_rng(seed)
    lines = [f"{'mode':16} {'slowdown':>8}  {'red':28} {'not decided':28} {'s a decision':>12}"]
    usable = {case: sessions for case, sessions in cases.items() if len(sessions) > 1}
    for mode, decide in MODES.items():
        for slow in SLOWDOWNS:
            outcomes: Counter[Outcome] = Counter()
            seconds: list[float] = []
            for sessions in usable.values():
                for metric in (name for name in SCALED if name in sessions[0][0].samples):
                    for _ in range(trials):
                        outcome, spent = decide(metric, sessions, slow, draw)
                        outcomes[outcome] += 1
                        seconds.append(spent)
            n = len(seconds)
            open_ = outcomes[Outcome.INVALID] + outcomes[Outcome.INCONCLUSIVE]
            typical = f"{np.median(seconds):.1f}" if seconds else "n/a"
            lines.append(
                f"{mode:16} {slow:8.0%}  {Rate(outcomes[Outcome.FAIL], n)!s:28} {Rate(open_, n)!s:28} {typical:>12}"
            )
    counts = ", ".join(f"{case} {len(sessions)}" for case, sessions in cases.items())
    return "\n".join([*lines, f"sessions: {counts}; {trials} trials a case and metric"])


def main(arguments: list[str]) -> int:
    """Print the table."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    print(table(read(Path(arguments[0])), int(arguments[1]) if len(arguments) > 1 else 100))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
