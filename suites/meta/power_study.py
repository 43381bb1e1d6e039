"""How often the gate cries wolf, and how often it sees a slowdown: `python -m suites.meta.power_study FILE ...`.

Replays the laps that suites/meta/power_laps.py or power_again.py recorded through the decisions that production
takes. Of the visits to a case, in the order of time, as many as a baseline has are the baseline, and as many later
ones as it takes to be red are now, used one by one while they are suspicious; and the other way round. Visits are
taken as they were measured, so that whatever differs between them stays in. Slowdowns are injected by making the laps
longer. Of power_again.py's runs most hold one visit to a case only: there the visits that are now are of several
runs, and what one run has in common is evened out by the others. What a whole run decides is what power_again.py
itself tells.

A decision is that on a case: red where one of its metrics is, as in production.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from fixtures.baseline.calibrate import TIME
from fixtures.baseline.comparison import Known, Today, wanted
from fixtures.baseline.keeper import engine_of
from fixtures.baseline.launch import Launch
from fixtures.baseline.looks import Looks
from fixtures.baseline.visits import LATE, VISITS
from fixtures.baseline.weather import Weather, learned
from fixtures.shares import wilson
from fixtures.thresholds import Limit
from fixtures.verdict import Measurement, Outcome, judge, worst

SLOWDOWNS = (0.0, 0.02, 0.05, 0.10, 0.20)
RARE = 10
"""One case in so many may have fewer visits than all are replayed with."""
SCALED = ("latency_ms", "ttft_ms", "tpot_ms", "prefill_ms_per_token")
Visit: TypeAlias = Sequence[Launch]
Cases: TypeAlias = Mapping[str, Sequence[Visit]]
Decision: TypeAlias = tuple[Outcome, float]
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


@dataclass(frozen=True)
class Trial:
    """Visits to a case, then and now, and what is known of the machine: then and, by other cases, now."""

    then: Sequence[Visit]
    now: Sequence[Visit]
    weather: Weather
    engine: str
    today: Today = field(default_factory=Today)

    @property
    def known(self) -> Known:
        """What the case is compared with."""
        return Known([launch for visit in self.then for launch in visit], self.weather, self.engine)


def stored(trial: Trial, slow: float) -> Decision:
    """The decision of --baseline, after as many visits as it takes."""
    known = trial.known
    taken: list[Visit] = []
    for visit in trial.now:
        taken.append([slowed(each, slow) for each in visit])
        changes = known.look(taken, trial.today)
        if not any(change.suspicious for change in changes) or len(taken) >= wanted(changes):
            break
    spent = sum(launch.seconds for each in taken for launch in each)
    return worst(change.outcome for change in changes), spent


def threshold(trial: Trial, slow: float) -> Decision:
    """The verdicts on limits that --calibrate would have proposed from the other visits."""
    new = [slowed(each, slow) for each in trial.now[0]]
    outcomes = []
    for metric in (name for name in SCALED if name in new[0].samples):
        bound = TIME * max(flat(metric, each).estimate("p50").value or 0.0 for each in trial.then)
        limit = Limit(metric, "p50", "max", bound, "calibrated", "", "", "")
        outcomes += [verdict.outcome for verdict in judge(flat(metric, new), [limit])]
    return worst(outcomes), sum(each.seconds for each in new)


def flat(metric: str, visit: Visit) -> Measurement:
    """All laps of a visit."""
    return Measurement(metric, samples=tuple(lap for each in visit for row in each.samples[metric] for lap in row))


MODES: dict[str, Callable[..., Decision]] = {"threshold": threshold, "stored baseline": stored}


def read(*files: Path) -> dict[str, list[Visit]]:
    """Visits by case, in the order of time."""
    found: dict[str, list[Visit]] = defaultdict(list)
    for data in (json.loads(line) for file in files for line in file.read_text().splitlines()):
        found[data["case"]].append([Launch(**each) for each in data["launches"]])
    return {case: sorted(visits, key=lambda visit: visit[0].at) for case, visits in found.items()}


def trials(cases: Cases) -> Iterator[Trial]:
    """Every few visits that follow one another with every few later ones; and backwards.

    Visits that few cases had are left out: those of restless cases, which would count for more than the others.
    """
    most = sorted(map(len, cases.values()))[len(cases) // RARE] if cases else 0
    many = max(VISITS, min(VISITS + LATE, most - VISITS))  # late ones as far as there are any
    for way in (1, -1):
        cut = {case: visits[:most] for case, visits in cases.items()}
        turned = {case: backwards(visits) if way < 0 else visits for case, visits in cut.items()}
        for then in range(most - VISITS - many + 1):
            weather = learned(
                (engine_of(case), [launch for visit in visits[then : then + VISITS] for launch in visit])
                for case, visits in turned.items()
                if len(visits) >= then + VISITS
            )
            alone = {
                case: [
                    Trial(visits[then : then + VISITS], [visit], weather, engine_of(case)).known.look([visit])
                    for visit in visits[then + VISITS :]
                ]
                for case, visits in turned.items()
            }
            for now in range(then + VISITS, most - many + 1):
                drawn = {
                    case: Trial(visits[then : then + VISITS], visits[now : now + many], weather, engine_of(case))
                    for case, visits in turned.items()
                    if len(visits) >= now + many
                }
                looks = Looks()
                for case, trial in drawn.items():
                    for turn in range(VISITS):
                        looks.add(case, trial.engine, turn, alone[case][now - then - VISITS + turn])
                for case, trial in drawn.items():
                    yield replace(trial, today=looks.today(case, trial.engine, range(VISITS)))


def backwards(visits: Sequence[Visit]) -> list[Visit]:
    """The visits as if the last had been the first."""
    end = max((launch.at for visit in visits for launch in visit), default=0.0)
    return [
        [replace(launch, at=end - visit[-1].at + launch.at - visit[0].at) for launch in visit] for visit in visits[::-1]
    ]


def table(cases: Cases) -> str:
    """Shares of red decisions by mode and slowdown, over all cases with visits enough."""
    lines = [f"{'mode':16} {'slowdown':>8}  {'red':28} {'not decided':28} {'s a decision':>12}"]
    drawn = [*trials(cases)]
    for mode, decide in MODES.items():
        for slow in SLOWDOWNS:
            found = [decide(trial, slow) for trial in drawn]
            outcomes = Counter(outcome for outcome, _ in found)
            open_ = outcomes[Outcome.INVALID] + outcomes[Outcome.INCONCLUSIVE]
            red, open_share = Rate(outcomes[Outcome.FAIL], len(found)), Rate(open_, len(found))
            typical = f"{np.median([spent for _, spent in found]):.1f}" if found else "n/a"
            lines.append(f"{mode:16} {slow:8.0%}  {red!s:28} {open_share!s:28} {typical:>12}")
    counts = Counter(map(len, cases.values()))
    told = ", ".join(f"{count} cases of {visits} visits" for visits, count in sorted(counts.items()))
    weather = learned((engine_of(case), [each for visit in visits for each in visit]) for case, visits in cases.items())
    rows = [
        f"{engine or 'all':16} {metric:>20}  {known.unrest:6.1%}"
        for (engine, metric), known in sorted(weather.items())
        if metric in SCALED
    ]
    told += "; trials share visits, so they are not independent"
    return "\n".join([*lines, told, "", "unrest: from visit to visit, with nothing new, times differ by", *rows])


def main(arguments: list[str]) -> int:
    """Print the table."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    print(table(read(*map(Path, arguments))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
