"""The suites against targets that are broken on purpose: every fault of the catalogue turns its case red."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.options import ROOT
from fixtures.results import CaseRecord, Results
from fixtures.verdict import Outcome, Verdict
from suites.meta.fault_catalogue import FAULTS, SOUND, fault, sound
from suites.meta.fault_kit import Fault
from suites.meta.fault_run import ALL_TASKS, LIMIT_S, run_all
from suites.meta.fault_table import TABLE, Row, never_red, rows, table

pytestmark = pytest.mark.alone

CELLS = [(each, task) for each in FAULTS.values() for task in each.tasks]
PLANTED = [cell for cell in CELLS if cell[0].name != SOUND]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Results:
    """The suites over all planted faults."""
    found = run_all(folder := tmp_path_factory.mktemp("faults"))
    pytestconfig.stash[TABLE] = table(folder / "results.json")
    return found


@pytest.fixture(scope="module")
def found(run: Results) -> dict[tuple[str, str], Row]:
    """What came of each fault on each task."""
    return {(row.fault.name, row.record.task): row for row in rows(run.cases)}


@pytest.mark.parametrize(("planted", "task"), PLANTED, ids=[f"{each.name}-{task}" for each, task in PLANTED])
def test_fault_is_caught(planted: Fault, task: str, run: Results, found: dict[tuple[str, str], Row]) -> None:
    """A planted fault turns its case red, or its numbers INVALID, by a check that the catalogue names for it."""
    if planted.kinds and run.device["kind"] not in planted.kinds:
        pytest.skip(f"exists on {', '.join(planted.kinds)} only; this device is {run.device['kind']}")
    row = found[planted.name, task]
    assert row.caught, f"failed: {row.red or 'nothing'}; should be one of {sorted(planted.checks)}: {row.record.checks}"


@pytest.mark.parametrize("task", ALL_TASKS)
def test_sound_target_is_green(task: str, found: dict[tuple[str, str], Row]) -> None:
    """The same backend without a fault passes every check: what turns the others red is their fault."""
    row = found[SOUND, task]
    assert row.mark == "green", f"{row.record.reason} (failed: {', '.join(row.told)})"


def test_every_fault_ran(run: Results, found: dict[tuple[str, str], Row]) -> None:
    """No fault of the catalogue is left out of the run."""
    kind = run.device["kind"]
    assert set(found) == {(each.name, task) for each, task in CELLS if not each.kinds or kind in each.kinds}


def test_every_check_can_fail(run: Results) -> None:
    """Each check that ran is turned red by some fault: none is there for show."""
    kind = run.device["kind"]
    absent = {check for each in FAULTS.values() if each.kinds and kind not in each.kinds for check in each.checks}
    assert set(never_red(run.cases)) <= absent


def row(name: str, status: str, **checks: str) -> Row:
    """A row as a run might have left it."""
    record = CaseRecord("", "sentiment", "embedded", "faulty-sentiment", name, status=status)
    record.checks = {f"conformance/test_any_target.py::{check}": text for check, text in checks.items()}
    return Row(FAULTS[name], record)


def test_unexpected_check_is_no_catch() -> None:
    """A fault that only an unrelated check stumbles over counts as missed."""
    assert row("call-leak", "failed", test_calls_leak_nothing="failed: it grew").mark == "caught"
    assert row("call-leak", "failed", test_determinism="failed: it differs").mark == "MISSED"
    assert row("call-leak", "passed", test_calls_leak_nothing="passed").mark == "MISSED"
    assert row("hang", "crashed", test_load="failed: hang").mark == "caught"
    assert row("hang", "failed", test_load="failed: slow").mark == "MISSED"


def test_a_number_taken_back_is_a_catch() -> None:
    """A fault is caught where the expected check judges its number INVALID; on a sound target that is a false alarm."""
    for name, mark in (("remembered-answers", "caught"), ("call-leak", "MISSED"), (SOUND, "FALSE ALARM")):
        found = row(name, "passed", test_roofline="passed")
        found.record.verdicts.append(
            Verdict("decode_roofline_share", "", 9.0, Outcome.INVALID, reason="beyond the roofline: 9")
        )
        assert found.mark == mark
        assert never_red([found.record]) == []


def test_a_neighbour_is_no_false_alarm() -> None:
    """What other processes void is no word on the target: a sound one stays green, and a fault is not caught by it."""
    for name, mark in (("remembered-answers", "MISSED"), (SOUND, "green")):
        found = row(name, "passed", test_roofline="passed")
        reason = "what it is a share of is void"
        found.record.verdicts.append(Verdict("decode_roofline_share", "", None, Outcome.INVALID, reason=reason))
        assert found.mark == mark


def test_red_sound_target_is_a_false_alarm() -> None:
    """A sound target that is not green shows as a false alarm."""
    assert row(SOUND, "passed", test_load="passed").mark == "green"
    assert row(SOUND, "failed", test_load="failed: slow").mark == "FALSE ALARM"


def test_checks_that_never_fail_are_told() -> None:
    """A check is untried until a fault has turned it red."""
    records = [
        row(SOUND, "passed", test_load="passed", test_determinism="passed").record,
        row("call-leak", "failed", test_load="passed", test_determinism="failed: it differs").record,
    ]
    assert never_red(records) == ["test_load"]


def test_table_names_fault_checks_and_verdict(tmp_path: Path) -> None:
    """The table shows each fault with its task, when and by which checks it was caught, and what they said."""
    failed = row("call-leak", "failed", test_load="failed: x", test_calls_leak_nothing="failed: it grew by 32 MB")
    failed.record.evidence["seconds until red"] = 3.21
    Results({}, {}, {}, [failed.record]).write(tmp_path / "results.json")
    text = " ".join(table(tmp_path / "results.json").split())
    assert "call-leak sentiment caught 3.2 conformance: load, calls_leak_nothing it grew by 32 MB faults" in text
    assert "faults that nothing caught: none checks that no fault turned red: none" in text


def test_fault_names_are_unique() -> None:
    """Two faults of one name are refused."""
    with pytest.raises(ValueError, match="'sound' is in the catalogue twice"):
        fault(SOUND, tasks=("sentiment",))(sound)


def test_table_program_refuses_a_missing_file(tmp_path: Path) -> None:
    """Without a results file the program says so in one sentence."""
    command = [sys.executable, "-m", "suites.meta.faults", str(tmp_path / "none.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"{tmp_path / 'none.json'}: no such results file; a run writes one (--results FILE)"
    ]
