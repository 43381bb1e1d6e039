from __future__ import annotations

from pathlib import Path

import pytest

from suites.meta import power, power_laps, versus_study


def test_parts_print_under_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parts run in the order they are asked for, each below its name."""
    monkeypatch.setitem(power.PARTS, "faults", lambda folder: f"faults in {folder.name}")
    monkeypatch.setitem(power.PARTS, "laps", lambda folder: f"laps in {folder.name}")
    assert power.main([str(tmp_path / "p"), "laps", "faults"]) == 0
    assert capsys.readouterr().out == "LAPS\nlaps in p\n\nFAULTS\nfaults in p\n\n"


@pytest.mark.parametrize("arguments", [[], ["folder", "fault"]])
def test_an_unknown_part_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What is no part is told with the parts there are, before anything is measured."""
    assert power.main(arguments) == 2
    assert "laps" in capsys.readouterr().err


def test_without_laps_there_is_no_study(tmp_path: Path) -> None:
    """A gate is judged on laps of this machine, never on invented ones."""
    assert power.gate(tmp_path).endswith("gate.jsonl is not there: record laps first (part `laps`)")


def test_laps_of_both_kinds_are_taken_in_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sessions and runs in turns follow one another, and one that ended badly is said."""
    taken: list[str] = []
    statuses = iter((0, 0, 1, 0))

    def session(file: Path, _cache: Path) -> float:
        taken.append(file.name)
        return 7.0

    def record(file: Path, _rounds: int, _build: Path, _cache: Path) -> int:
        taken.append(file.name)
        return next(statuses)

    monkeypatch.setattr(power_laps, "session", session)
    monkeypatch.setattr(versus_study, "record", record)
    power.laps(tmp_path)
    assert taken == [power.STORED, power.VERSUS] * power.SESSIONS
    said = capsys.readouterr().out.splitlines()
    assert [number for number, line in enumerate(said, 1) if "ended with status 1" in line] == [3]
