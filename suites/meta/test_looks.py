from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from fixtures.baseline import run
from fixtures.baseline import series as taken
from fixtures.baseline.comparison import Change, Known, Today
from fixtures.baseline.keeper import KEEPER
from fixtures.baseline.looks import MOST, OTHERS, Looks
from fixtures.baseline.visits import Visit
from fixtures.baseline.weather import LEAST_CASES, learned, of
from fixtures.book import BOOK
from fixtures.statistics import Estimate
from fixtures.verdict import Outcome
from suites.meta.test_weather import restless, visited

METRIC = "latency_ms"


def change(left: float, noise: float = 1e-6, visits: float = 1.5) -> Change:
    """A comparison whose logarithm of the ratio is `left`."""
    return Change(METRIC, 1.0, 1.0, Estimate(float(np.exp(left)), n=8), 0.05, Outcome.PASS, "", noise, visits)


def looked(spread: float, slow: float = 0.0, cases: int = 40, seed: int = 0) -> Looks:
    """A run whose cases differ by so much (standard deviation of a visit), those of one engine slower besides."""
    draw, found = np.random.default_rng(seed), Looks()
    for number in range(cases):
        engine = ("one", "other")[number % 2]
        left = draw.normal(0, spread * 1.5**0.5) + (slow if engine == "one" else 0)
        found.add(f"case {number}", engine, 0, [change(left)])
    return found


@pytest.mark.parametrize("spread", [0.01, 0.05])
def test_unrest_of_today_is_what_cases_differ_by(spread: float) -> None:
    """Of many cases compared the spread of a visit is found."""
    assert looked(spread, cases=400).unrest("none", "one")[METRIC] == pytest.approx(spread, rel=0.15)


def test_an_engine_that_is_slower_is_no_unrest() -> None:
    """A slowdown of all cases of an engine leaves the unrest of today as it was."""
    assert looked(0.02, slow=0.3).unrest("none", "one") == pytest.approx(looked(0.02).unrest("none", "one"))


def test_a_case_is_judged_by_the_others() -> None:
    """However much slower one case is, that is no unrest for itself, and hardly any for the others."""
    looks = looked(0.01)
    before = looks.unrest("slow", "one")
    looks.add("slow", "one", 0, [change(0.5)])
    assert looks.unrest("slow", "one") == before
    assert looks.unrest("case 0", "one")[METRIC] < 1.3 * before[METRIC]


def test_engines_of_one_case_are_not_calm() -> None:
    """A case that is the only one of its engine has nothing to differ from, and does not make the others look calm."""
    looks = looked(0.05)
    before = looks.unrest("none", "one")
    for number in range(40):
        looks.add(f"single {number}", f"engine {number}", 0, [change(0.0)])
    assert looks.unrest("none", "one") == before


@pytest.mark.parametrize("slow", [0.05, 0.5])
def test_slow_cases_do_not_excuse_each_other(slow: float) -> None:
    """Four in ten of an engine's cases that become slower are no unrest as large as they are slow."""
    looks, draw = Looks(), np.random.default_rng(1)
    for number in range(50):
        looks.add(f"case {number}", "one", 0, [change(draw.normal(0, 0.01) + (slow if number % 5 < 2 else 0))])
    assert looks.unrest("case 0", "one")[METRIC] < 0.03


def test_what_does_not_count_is_no_look() -> None:
    """Comparisons that are INVALID, or of memory, or without a ratio, and a run of few cases tell nothing."""
    looks = Looks()
    for number in range(LEAST_CASES):
        void = replace(change(0.5), outcome=Outcome.INVALID), replace(change(0.5), ratio=Estimate(None, reason="none"))
        looks.add(f"case {number}", "one", 0, [*void, replace(change(0.5), metric="peak_memory_mb")])
    assert looks.unrest("none", "one") == {}
    assert looked(0.05, cases=LEAST_CASES - 1).unrest("none", "one")[METRIC] == 0.0


def test_a_restless_day_is_seen_in_the_run_itself() -> None:
    """On a day on which visits differ by 8 %, against a quiet one, a case in sixty is red at most, not one in ten."""
    weather = learned(restless(0.01))
    draw = np.random.default_rng(3)
    looks, known, firsts = Looks(), [], []
    for number in range(60):
        known.append(Known(visited(number, np.exp(draw.normal(0, 0.01, 2))), weather, "engine"))
        firsts.append(visited(1000 + number, np.exp(draw.normal(0, 0.08, 1))))
        looks.add(f"case {number}", "engine", 0, known[-1].look([firsts[-1]]))
    today = looks.today("case 0", "engine", range(2))
    assert of(weather, "engine", METRIC).unrest < 0.02
    assert today.unrest[METRIC] == pytest.approx(0.08, rel=0.3)
    again = [visited(2000 + number, np.exp(draw.normal(0, 0.08, 1))) for number in range(60)]
    red = {
        name: sum(
            Outcome.FAIL in {each.outcome for each in case.look([first, second], known_today)}
            for case, first, second in zip(known, firsts, again, strict=True)
        )
        for name, known_today in (("without", Today()), ("with", today))
    }
    assert red["without"] >= 6
    assert red["with"] <= 1


@pytest.mark.parametrize(("spread", "outcome"), [(0.005, Outcome.FAIL), (0.08, Outcome.INCONCLUSIVE)])
def test_a_visit_is_judged_by_the_run(spread: float, outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    """A case that is a tenth slower is red, but not in a run whose other cases differ by as much."""
    shown = (Visit(visited(seed, (1.1,))) for seed in count(2))
    monkeypatch.setattr(taken, "measured", lambda *_: next(shown))
    monkeypatch.setattr(taken, "others_follow", lambda _: False)
    gate = SimpleNamespace(effect=None)
    parts: dict[str, Any] = {
        "keeper": SimpleNamespace(weather={}, gate=gate, visits=defaultdict(list), looks=looked(spread)),
        "target": SimpleNamespace(case=SimpleNamespace(id="case", backend="one")),
        "entry": SimpleNamespace(launches=visited(1, (1.0, 1.0))),
        **dict.fromkeys(("record", "meter", "item")),
    }
    (found,) = (each for each in taken.compare_visit(**parts) if each.metric == METRIC)
    assert found.outcome is outcome


def beside(slow: float, turns: int = 1, cases: int = 10, seed: int = 0) -> Looks:
    """A run in which cases of three engines are slower by so much (a share), at each of their visits."""
    draw, found = np.random.default_rng(seed), Looks()
    for turn in range(turns):
        for number in range(cases):
            left = np.log1p(slow) + draw.normal(0, 0.005)
            found.add(f"case {number}", f"engine {number % 3}", turn, [change(left)])
    return found


@pytest.mark.parametrize("slow", [0.02, 0.07])
def test_what_all_engines_are_slower_by_is_the_machines(slow: float) -> None:
    """What cases of other engines have in common is found, and is told of the machine."""
    looks = beside(slow, turns=3, cases=60)
    assert looks.slower("another", range(3))[METRIC] == pytest.approx(np.log1p(slow), abs=0.003)
    assert looks.machine()[METRIC] == pytest.approx(slow, abs=0.003)


def test_an_engine_that_is_slower_excuses_nothing() -> None:
    """That one engine is slower is neither its own excuse, nor that of others, nor the machine's."""
    looks, draw = Looks(), np.random.default_rng(0)
    for number in range(60):
        engine = f"engine {number % 4}"
        slow = 0.2 if engine == "engine 0" else 0.0
        looks.add(f"case {number}", engine, 0, [change(slow + draw.normal(0, 0.01))])
    assert looks.slower("engine 0", (0,))[METRIC] < 0.01
    assert looks.slower("engine 1", (0,))[METRIC] < 0.02
    assert looks.machine()[METRIC] < 0.01


def test_a_machine_excuses_little() -> None:
    """Other engines that are faster make nothing red, and of what they are slower by no more than MOST is excused."""
    assert beside(-0.2).slower("another", (0,))[METRIC] == 0.0
    assert beside(1.0).slower("another", (0,))[METRIC] == pytest.approx(np.log1p(MOST))


def test_few_cases_excuse_nothing() -> None:
    """Fewer cases of other engines than OTHERS tell nothing, and turns in which as few came back do not count."""
    assert beside(0.05, cases=OTHERS - 1).slower("another", (0,)) == {}
    assert beside(0.05, cases=OTHERS).slower("engine 0", (0,)) == {}
    looks = beside(0.05)
    before = looks.slower("another", (0,))
    looks.add("case 0", "engine 0", 1, [change(1.0)])
    assert looks.slower("another", (0, 1)) == before


def test_one_engine_is_no_machine() -> None:
    """Of a run of a single engine nothing is told of the machine."""
    looks = Looks()
    for number in range(20):
        looks.add(f"case {number}", "one", 0, [change(0.1)])
    assert looks.machine() == {}


@pytest.mark.parametrize(("slow", "outcome"), [(0.0, Outcome.FAIL), (0.03, Outcome.FAIL), (0.08, Outcome.INCONCLUSIVE)])
def test_what_others_are_slower_by_is_taken_off(slow: float, outcome: Outcome) -> None:
    """A case that is a tenth slower is red, but not where cases of other engines are slower by nearly as much."""
    visits = [[replace(each, at=1000.0 * seed + each.at) for each in visited(seed, (1.1,))] for seed in range(2, 6)]
    known = Known(visited(1, (1.0, 1.0)), {}, "one")
    found = known.decided(METRIC, visits, Today(slower={METRIC: float(np.log1p(slow))}))
    assert found.outcome is outcome
    assert found.ratio == known.decided(METRIC, visits).ratio
    assert (f"cases of other engines were slower by {slow:.1%} at the same time" in found.reason) is (slow > 0)


@pytest.mark.parametrize(("slow", "told"), [(0.06, True), (0.01, False)])
def test_what_engines_have_in_common_is_told(slow: float, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's end says what most engines are slower by where it is half the least effect, and nothing of less."""
    said: list[str] = []
    looks = beside(slow, cases=60)
    keeper = SimpleNamespace(
        active=True, gate=SimpleNamespace(record=None, effect=0.05), old={"case"}, measured=(), place="b", looks=looks
    )
    config: Any = SimpleNamespace(stash={KEEPER: keeper, BOOK: SimpleNamespace(finished=())})
    monkeypatch.setattr(run, "not_measured", lambda *_: [])
    run.pytest_terminal_summary(cast(Any, SimpleNamespace(write_line=said.append)), config)
    assert any("most engines alike" in line for line in said) is told
    assert any(f"{METRIC} by {looks.machine()[METRIC]:.1%}" in line for line in said) is told
