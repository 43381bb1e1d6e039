"""How often a comparison cries wolf, and how often it sees a slowdown: on laps of this machine, A against A.

    python -m suites.meta.versus_study record laps.jsonl [rounds]
    python -m suites.meta.versus_study replay laps.jsonl

Recording runs the same interpreter on both sides. Replaying draws stretches of rounds that followed one another, slows
the laps of one side down by a known share, and lets the suite decide as it does, the second series included. Both sides
being the same, a stretch is as good with its sides swapped, and is swapped by chance: a mean of the recording that is
off by chance is so not taken for a true difference. What it was is printed beside it, with its interval.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fixtures.shares import wilson
from fixtures.versus.decision import LOOKS, Answer, Round, confirmed, interval, series
from suites.meta.runs import outside

ROOT = Path(__file__).resolve().parents[2]
SLOWDOWNS = (0.0, 0.02, 0.05, 0.10, 0.20)
DRAWS = 2000
STRETCH = 3
"""Rounds drawn together: the machine's weather outlasts a round."""
CASES = "sentiment and (onnxruntime/fp32 or onnxruntime/int8 or huggingface/fp32) or llama-cpp-python/q4_k_m"
SELECTION = ("--task=sentiment,generation", "--optimization=fp32,int8,q4_k_m", "-k", f"versus and ({CASES})")


@dataclass(frozen=True)
class Recorded:
    """Rounds of one metric of one case, in the order they were taken, and the seconds measured in each."""

    case: str
    metric: str
    rounds: tuple[Round, ...]
    seconds: float


def record(laps: Path, rounds: int, build: Path, cache: Path) -> int:
    """Add rounds of every case of the study to `laps`; the exit code of the run, whose output lies beside it."""
    environment = {**outside(), "VERSUS_LAPS": str(laps.resolve()), "VERSUS_ROUNDS": str(rounds)}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--build={build}", f"--cache={cache}"]
    command += [*SELECTION, f"--versus={sys.executable}", "--targets=suites.meta.versus_recorder", "--offline"]
    command += ["suites/performance/test_versus.py"]
    with laps.with_suffix(".log").open("a") as log:
        return subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False).returncode


def read(laps: Path) -> list[Recorded]:
    """What was recorded, by case and metric."""
    found: dict[tuple[str, str], list[tuple[Round, float]]] = {}
    for line in laps.read_text().splitlines():
        told = json.loads(line)
        key, seconds = (told.pop("case"), told.pop("metric")), told.pop("seconds")
        found.setdefault(key, []).append((Round(**told), seconds))
    return [
        Recorded(*key, tuple(each for each, _ in rounds), float(np.mean([spent for _, spent in rounds])))
        for key, rounds in found.items()
    ]


def slowed(each: Round, share: float) -> Round:
    """The round, had the other side been slower by a share."""
    return replace(each, theirs=[lap * (1 + share) for lap in each.theirs])


def verdict(first: Sequence[float], second: Sequence[float]) -> tuple[str, int]:
    """What the suite says of two series as long as they can get, and how many rounds it took."""
    said, used = ended(first)
    if said is not Answer.SLOWER:
        return said.value, used
    _, more = ended(second)
    agreed = confirmed(first[:used], second[:more])
    return (Answer.SLOWER if agreed else Answer.NOT_SLOWER).value, used + more


def ended(ratios: Sequence[float]) -> tuple[Answer, int]:
    """Where a series stops, and what it says there."""
    for count in LOOKS:
        said = series(ratios[:count])
        if said is not Answer.UNDECIDED:
            return said, count
    raise AssertionError("the last look decides")


def replay(found: Recorded, share: float, draws: int = DRAWS, seed: int = 0) -> tuple[Counter[str], float]:
    """How often each verdict was given, and the mean number of rounds it took."""
    ratios = np.array([slowed(each, share).log_ratio for each in found.rounds]) - math.log1p(share)
    generator = np.random.default_rng(seed)
    verdicts: Counter[str] = Counter()
    used = 0
    for _ in range(draws):
        starts = generator.integers(0, len(ratios), math.ceil(2 * LOOKS[-1] / STRETCH))
        rounds = ratios[(starts[:, None] + np.arange(STRETCH)) % len(ratios)]
        swapped = generator.choice((-1, 1), (len(starts), 1))
        drawn = ((swapped * rounds).ravel() + math.log1p(share)).tolist()
        said, count = verdict(drawn[: LOOKS[-1]], drawn[LOOKS[-1] : 2 * LOOKS[-1]])
        verdicts[said] += 1
        used += count
    return verdicts, used / draws


def report(recorded: Sequence[Recorded]) -> str:
    """The table: red at each slowdown with its interval, seconds measured a decision and side, and A/A itself."""
    lines = [
        f"{'case, metric':<58}{'slowdown':>9}{'red':>8}{'95 % interval':>18}{'unclear':>9}{'rounds':>8}{'s/side':>8}"
    ]
    together: dict[float, list[tuple[Counter[str], float, float]]] = {share: [] for share in SLOWDOWNS}
    for found in recorded:
        ratios = [each.log_ratio for each in found.rounds]
        value, low, high = (math.expm1(each) for each in interval(ratios, 0.05))
        name = f"{found.case} {found.metric}"
        spread = float(np.std(ratios, ddof=1))
        lines.append(
            f"{name}: {len(ratios)} rounds, A/A {value:+.2%} [{low:+.2%}, {high:+.2%}], a round deviates {spread:.1%}"
        )
        for share in SLOWDOWNS:
            verdicts, used = replay(found, share)
            together[share].append((verdicts, used, used * found.seconds))
            lines.append(row(share, verdicts, used, used * found.seconds))
    lines.append("all")
    for share, each in together.items():
        verdicts = sum((verdicts for verdicts, _, _ in each), Counter())
        lines.append(row(share, verdicts, *np.mean([(used, seconds) for _, used, seconds in each], axis=0)))
    lines.append("draws are of the same rounds: the intervals say how exact the replay is, nothing of other hours")
    return "\n".join(lines)


def row(share: float, verdicts: Counter[str], rounds: float, seconds: float) -> str:
    """A line of the table."""
    hits, total = verdicts[Answer.SLOWER.value], sum(verdicts.values())
    red = wilson(hits, total)
    unclear = verdicts[Answer.UNCLEAR.value] / total
    return (
        f"{'':<58}{share:>9.0%}{hits / total:>8.1%}{f'[{red.low:.1%}, {red.high:.1%}]':>18}{unclear:>9.1%}"
        f"{rounds:>8.1f}{seconds:>8.1f}"
    )


def main(arguments: Sequence[str]) -> int:
    """Record or replay."""
    if len(arguments) < 2 or arguments[0] not in ("record", "replay"):
        print(__doc__, file=sys.stderr)
        return 2
    laps = Path(arguments[1])
    if arguments[0] == "record":
        return record(
            laps,
            int(arguments[2]) if len(arguments) > 2 else 40,
            laps.with_suffix(".build"),
            laps.with_suffix(".cache"),
        )
    print(report(read(laps)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
