from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.baseline import looks
from fixtures.baseline import series as taken
from fixtures.baseline.comparison import Change, Known
from fixtures.baseline.keeper import Keeper
from fixtures.baseline.launch import Launch
from fixtures.baseline.looks import OTHERS, Looks
from fixtures.baseline.store import Entry
from fixtures.baseline.visits import LATE, LATE_S, PAUSE_S, VISITS, Visit
from fixtures.revisit import Revisit, others_follow, revisited
from fixtures.statistics import Estimate
from fixtures.verdict import Outcome
from fixtures.workbench import leave
from suites.meta.test_weather import visited

METRIC, ALL = "latency_ms", VISITS + LATE


def visit(number: int, slow: float = 1.0, void: str = "") -> Visit:
    """The launches of a visit that is a while after the one before."""
    return Visit([replace(each, at=1000.0 * number + each.at) for each in visited(number, (slow,))], void)


class Bench:
    """What `series.py` takes visits of, a case whose launches are told; where `follow`, other cases are left to run."""

    def __init__(self, shown: Sequence[Visit], monkeypatch: pytest.MonkeyPatch, follow: bool) -> None:
        self.taken: list[Visit] = []
        self.rested: list[float] = []
        self.entry = Entry(launches=[launch for number in range(VISITS) for launch in visit(number).launches])
        self.new = Entry()
        self._shown = cycle(shown)
        keeper = SimpleNamespace(
            weather={},
            gate=SimpleNamespace(effect=None),
            visits=defaultdict(list),
            looks=Looks(),
            new=lambda _: self.new,
        )
        case, device = SimpleNamespace(id="case", backend="fake"), SimpleNamespace(kind="cpu")
        options = SimpleNamespace(measuring=SimpleNamespace(rest_s=lambda _: 2 * PAUSE_S))
        session = SimpleNamespace(options=options, device=device)
        self.parts: dict[str, Any] = {
            "keeper": keeper,
            "target": SimpleNamespace(case=case, session=session),
            "record": SimpleNamespace(notes=[]),
            **dict.fromkeys(("meter", "item")),
        }
        monkeypatch.setattr(taken, "measured", self._measured)
        monkeypatch.setattr(taken, "others_follow", lambda _: follow)
        monkeypatch.setattr(taken, "revisit", self._revisit)
        monkeypatch.setattr(taken, "numbers", lambda _: {})
        monkeypatch.setattr("time.sleep", self.rested.append)

    def compare(self) -> Change:
        """What the case's visits showed, by the metric."""
        changes = taken.compare_visit(**self.parts, entry=self.entry)
        return next(each for each in changes if each.metric == METRIC)

    def peek(self) -> list[Change]:
        """What a visit would show, by the metric."""
        found = Known(self.entry.launches, {}, "fake").look([visit(99).launches])
        return [each for each in found if each.metric == METRIC]

    def record(self) -> list[Launch]:
        """What was recorded."""
        taken.record_visit(**self.parts)
        return self.new.launches

    def _measured(self, *_: Any) -> Visit:
        self.taken.append(next(self._shown))
        return self.taken[-1]

    def _revisit(self, _item: Any, why: str) -> None:
        raise Revisit(why)


@pytest.mark.parametrize(("slow", "visits", "outcome"), [(1.0, 1, Outcome.PASS), (1.1, ALL, Outcome.FAIL)])
def test_what_seems_slower_is_visited_until_it_is_told(
    slow: float, visits: int, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is as it was takes one visit; what seems slower takes all before it is red."""
    bench = Bench([visit(number, slow) for number in range(10, 10 + ALL)], monkeypatch, follow=False)
    assert bench.compare().outcome is outcome
    assert len(bench.taken) == visits
    assert not any(bench.rested)


def test_visits_wait_until_others_have_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """While others follow, a test leaves after each visit but the last, and says which one is next."""
    bench = Bench([visit(number, 1.1) for number in range(10, 10 + ALL)], monkeypatch, follow=True)
    for number in range(2, ALL + 1):
        last = VISITS if number <= VISITS else ALL
        with pytest.raises(Revisit, match=rf"^{METRIC} may have become worse: visit {number} of {last} ") as told:
            bench.compare()
        assert ("5 minutes later" in str(told.value)) is (number > VISITS)
    assert bench.compare().outcome is Outcome.FAIL
    assert len(bench.taken) == ALL


@pytest.mark.parametrize("gone", [VISITS, ALL - 1])
def test_what_is_gone_after_a_while_is_not_red(gone: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth that four visits in a row show is no regression where a late one does not."""
    shown = [visit(10 + number, 1.0 if number == gone else 1.1) for number in range(ALL)]
    bench = Bench(shown, monkeypatch, follow=False)
    found = bench.compare()
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.reason == f"1 of {gone + 1} visits do not show it by themselves"
    assert len(bench.taken) == gone + 1


def test_what_four_visits_do_not_tell_has_no_late_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is suspicious and would not be red is left undecided after the first four."""
    bench = Bench(
        [visit(10 + number, 1.02 if number == 2 else 1.1) for number in range(ALL)], monkeypatch, follow=False
    )
    assert bench.compare().outcome is Outcome.INCONCLUSIVE
    assert len(bench.taken) == VISITS


@pytest.mark.parametrize("void", [0, 1, 2, 3, 4])
def test_what_the_device_voided_does_not_count(void: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Visits to a throttling device make no case red; where most visits were such, the answer is INVALID."""
    hot = [visit(number, 1.3, "throttling: 97 °C") for number in range(10, 10 + void)]
    bench = Bench([*hot, *(visit(number) for number in range(20, 20 + VISITS))], monkeypatch, follow=False)
    found = bench.compare()
    assert found.outcome is (Outcome.PASS if void < VISITS else Outcome.INVALID)
    assert (found.reason == "throttling: 97 °C") is (void == VISITS)


@pytest.mark.parametrize(("slow", "outcome"), [(0.0, Outcome.FAIL), (0.16, Outcome.INCONCLUSIVE)])
def test_each_visit_is_held_against_what_others_showed(
    slow: float, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth is not red where cases of other engines are slower too, on the average over its own turns."""
    bench = Bench([visit(number, 1.1) for number in range(10, 10 + ALL)], monkeypatch, follow=False)
    told = bench.parts["keeper"].looks
    for turn in range(2 * ALL):  # at half of the case's first turns, and long after them
        for number in range(OTHERS):
            bad = slow if turn in (1, 3) or turn >= VISITS else 0.0
            changes = [replace(each, ratio=Estimate(1 + bad, n=8)) for each in bench.peek()]
            told.add(f"case {number}", "other", turn, changes)
    found = bench.compare()
    assert found.outcome is outcome
    assert ("cases of other engines were slower by 7.7%" in found.reason) is (slow > 0)  # the mean of logarithms


def test_visits_tell_other_cases_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each visit to a case is a look that others see, but those that the device voided."""
    shown = [visit(number, 1.1, "throttling: 97 °C" if number == 11 else "") for number in range(10, 10 + ALL)]
    bench = Bench(shown, monkeypatch, follow=False)
    monkeypatch.setattr(looks, "OTHERS", 1)
    bench.compare()
    told = [bench.parts["keeper"].looks.slower("another", (turn,)).get(METRIC) for turn in range(ALL + 1)]
    assert [each is not None for each in told] == [True, False, *[True] * (ALL - 2), False]


@pytest.mark.parametrize(("void", "rest_s"), [("", PAUSE_S), ("throttling: 97 °C", 2 * PAUSE_S)])
def test_visits_are_a_while_apart(void: str, rest_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no other case is left to run between them, the next visit waits; longer where the device has to cool."""
    now = time.time()
    shown = [visit(number, 1.1, void) for number in range(10, 10 + ALL)]
    recent = [replace(each, launches=[replace(one, at=now) for one in each.launches]) for each in shown]
    bench = Bench(recent, monkeypatch, follow=False)
    bench.compare()
    late = [] if void else [LATE_S, *[PAUSE_S] * (LATE - 1)]
    assert bench.rested == [pytest.approx(each + 1, abs=1) for each in [*[rest_s] * (VISITS - 1), *late]]


def test_a_slowdown_that_few_visits_tell_is_not_red(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one visit shows while the device was well is no regression where three others are void."""
    hot = [visit(number, 1.1, "swap-in: 3 MB/s") for number in range(10, 9 + VISITS)]
    bench = Bench([*hot, visit(20, 1.1)], monkeypatch, follow=False)
    found = bench.compare()
    assert found.outcome is Outcome.INVALID
    assert found.reason == "swap-in: 3 MB/s"


def test_tests_come_back_where_others_follow() -> None:
    """The last test does not come back after others, nor does one of a worker of xdist, which runs what it is told."""
    config, worker = SimpleNamespace(), SimpleNamespace(workerinput={})
    session = SimpleNamespace(items=[])
    one, two, sent = (SimpleNamespace(session=session, config=each) for each in (config, config, worker))
    session.items = [one, sent, two]
    assert [others_follow(cast(Any, each)) for each in (one, sent, two)] == [True, False, False]
    assert not revisited(cast(Any, one))
    session.items.append(one)
    assert revisited(cast(Any, one))


def test_what_is_gone_at_a_later_visit_has_failed() -> None:
    """What is not available is skipped; what was there at an earlier visit is red."""
    session = SimpleNamespace(items=[])
    item: Any = SimpleNamespace(session=session)
    session.items = [item]
    with pytest.raises(pytest.skip.Exception, match="no Ollama"):
        leave(item, "no Ollama")
    session.items.append(item)
    with pytest.raises(pytest.fail.Exception, match="measured once, and not available for another visit: no Ollama"):
        leave(item, "no Ollama")


def test_a_recording_knows_what_it_lacks() -> None:
    """Cases of fewer visits than all are told, and what a run has scored only is none of them."""
    taken = {"whole": VISITS, "cut": VISITS - 1, "scored": 0}
    keeper: Any = SimpleNamespace(
        recorded=SimpleNamespace(cases=taken), visits={name: [visit(1)] * count for name, count in taken.items()}
    )
    assert Keeper.unfinished(keeper) == ["cut"]


def test_a_baseline_has_all_its_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A case is recorded in all visits: in turns with others, and one after another where it is alone."""
    shown = [visit(number) for number in range(VISITS)]
    alone = Bench(shown, monkeypatch, follow=False)
    assert len(alone.record()) == sum(len(each.launches) for each in shown)
    turns = Bench(shown, monkeypatch, follow=True)
    for _ in range(VISITS - 1):
        with pytest.raises(Revisit):
            turns.record()
    assert turns.record() == alone.record()[: len(turns.new.launches)]


def test_what_cannot_run_here_leaves_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A case that is skipped as its first launch begins is not among those recorded."""
    bench, entries = Bench([visit(1)], monkeypatch, follow=False), list[str]()
    bench.parts["keeper"].new = lambda case: entries.append(case.id)

    def lacks(*_: object) -> Visit:
        pytest.skip("no server")

    monkeypatch.setattr(taken, "measured", lacks)
    with pytest.raises(pytest.skip.Exception, match="no server"):
        bench.record()
    assert entries == []
