from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.power.mode import STATE, Keeper, PowerMode, check, read
from suites.meta import jetson_stand_in
from suites.meta.jetson_stand_in import GATED, current, environment, install
from suites.meta.runs import Run, Running, arguments, interrupt, run, traced, until
from targets import power_mode
from targets.api import UserError
from targets.power_mode import Mode, RebootNeeded
from targets.profiles import profiles

QUICK = ("-pno:allure_pytest", "suites/accuracy/test_accuracy.py::test_score")
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="the stand-in is asked by root, as nvpmodel is")


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a board in mode MAXN_SUPER, whose nvpmodel is on PATH."""
    root = tmp_path / "board"
    monkeypatch.setenv("PATH", install(root)["PATH"])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return root


def test_modes_are_those_of_the_configuration(board: Path) -> None:
    """Modes and their numbers are read from nvpmodel's configuration, comments and parameters left out."""
    assert {name: mode.number for name, mode in power_mode.modes(board).items()} == jetson_stand_in.MODES
    assert power_mode.mode("maxn_super", board) == Mode("MAXN_SUPER", 2)
    assert power_mode.current() == Mode("MAXN_SUPER", 2)


def test_an_unknown_mode_names_the_known_ones(board: Path) -> None:
    """A mode that does not exist is refused in one sentence with those that do."""
    with pytest.raises(UserError, match=r"^--power-mode MAXN: this board has 15W, 25W, MAXN_SUPER, 7W; did you mean"):
        power_mode.mode("MAXN", board)


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), ("# nothing\n", "names no power mode")])
def test_a_configuration_without_modes_is_told(tmp_path: Path, content: str | None, said: str) -> None:
    """Where nvpmodel's configuration is missing or empty the sentence names the file."""
    if content is not None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/nvpmodel.conf").write_text(content)
    with pytest.raises(UserError, match=rf"nvpmodel\.conf {said}"):
        power_mode.modes(tmp_path)


def test_a_mode_is_set_and_restored(board: Path) -> None:
    """Setting is checked by asking again; the mode before comes back, and nothing is left to restore."""
    keeper = Keeper(board)
    assert keeper.set(Mode("15W", 0)) == "15W, set for this run; MAXN_SUPER before, and again at its end"
    assert current(board) == "15W"
    assert read(board / STATE) is not None
    keeper.restore()
    assert current(board) == "MAXN_SUPER"
    assert read(board / STATE) is None
    keeper.restore()
    asked = (board / "asked").read_text().split("\n")
    assert [line for line in asked if line.startswith("-m")] == ["-m 0", "-m 2"]


def test_the_mode_at_hand_is_left_alone(board: Path) -> None:
    """A board that is in the mode already is not touched, by whoever asks."""
    keeper = Keeper(board)
    assert keeper.set(Mode("MAXN_SUPER", 2)) == "MAXN_SUPER, as it was"
    keeper.restore()
    assert "-m" not in (board / "asked").read_text()


def test_a_mode_that_needs_a_reboot_is_not_forced(board: Path) -> None:
    """The question whether to reboot is answered no; the sentence says what to type, and --resume; nothing changed."""
    with pytest.raises(RebootNeeded, match=r"needs a reboot.*sudo nvpmodel -m 3, answer YES.*--resume"):
        Keeper(board).set(Mode(GATED, 3))
    assert not (board / "rebooted").exists()
    assert current(board) == "MAXN_SUPER"
    assert read(board / STATE) is None


@pytest.mark.parametrize(
    ("fault", "said"), [("refuses", "ended with status 255: NVPM ERROR"), ("ignores", "but the board is in MAXN_SUPER")]
)
def test_a_mode_that_was_not_set_is_noticed(board: Path, fault: str, said: str) -> None:
    """A program that fails, or claims success and changes nothing, is told in one sentence."""
    (board / fault).touch()
    with pytest.raises(UserError, match=said):
        Keeper(board).set(Mode("15W", 0))
    assert read(board / STATE) is None


def test_without_root_the_command_is_told(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not root is told what to type, and nothing is tried."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UserError, match=r"by root only: type sudo nvpmodel -m 0, then run again"):
        Keeper(board).set(Mode("15W", 0))
    assert "-m" not in (board / "asked").read_text()
    assert not (board / STATE).exists()


def test_a_machine_without_nvpmodel_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the program, or with one that tells nothing, the sentence says so."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="nvpmodel is not on PATH"):
        power_mode.current()
    (tmp_path / "nvpmodel").write_text("#!/bin/sh\n")
    (tmp_path / "nvpmodel").chmod(0o755)
    with pytest.raises(UserError, match="told no power mode: it said nothing"):
        power_mode.current()


def leave(board: Path, pid: int, began: float) -> None:
    """As a run that was killed leaves it: in 15W, MAXN_SUPER before."""
    power_mode.change(Mode("15W", 0))
    left = {"before": {"name": "MAXN_SUPER", "number": 2}, "during": {"name": "15W", "number": 0}}
    (board / STATE).parent.mkdir(parents=True)
    (board / STATE).write_text(json.dumps({**left, "pid": pid, "began": began}))


def test_what_a_killed_run_left_is_restored(board: Path) -> None:
    """The next run sets the mode that a killed run found, and says so; a process of the same number is no reason."""
    leave(board, os.getpid(), began=1.0)
    said = Keeper(board).recover()
    assert said == "restored power mode MAXN_SUPER: a run that was killed had left 15W"
    assert current(board) == "MAXN_SUPER"
    assert Keeper(board).recover() == ""


def test_a_mode_set_by_hand_since_is_kept(board: Path) -> None:
    """Where somebody has set another mode since, that is kept."""
    leave(board, os.getpid(), began=1.0)
    power_mode.change(Mode("25W", 1))
    assert "the board is in 25W by now" in Keeper(board).recover()
    assert current(board) == "25W"
    assert read(board / STATE) is None


def test_a_run_under_way_keeps_its_mode(board: Path) -> None:
    """Two runs do not pull one board to and fro: the second is refused with the process of the first."""
    keeper = Keeper(board)
    keeper.set(Mode("15W", 0))
    with pytest.raises(UserError, match=rf"process {os.getpid()} has set power mode 15W for its run"):
        Keeper(board).recover()
    keeper.restore()


def test_a_damaged_note_is_told(board: Path) -> None:
    """A note that cannot be read is named, with what to do."""
    (board / STATE).parent.mkdir(parents=True)
    (board / STATE).write_text('{"before"')
    with pytest.raises(UserError, match="delete the file"):
        Keeper(board).recover()


def test_what_cannot_be_restored_is_said(board: Path) -> None:
    """A failure to restore is told with the command, and the note stays for the next run."""
    told: list[str] = []
    keeper = Keeper(board, told.append)
    keeper.set(Mode("15W", 0))
    (board / "refuses").touch()
    keeper.restore()
    assert len(told) == 1
    assert "MAXN_SUPER could not be restored" in told[0]
    assert "by hand: sudo nvpmodel -m 2" in told[0]
    assert read(board / STATE) is not None


def test_only_a_jetson_has_power_modes(tmp_path: Path) -> None:
    """Elsewhere --power-mode is refused in one sentence that names the machine; without it nothing is asked."""
    found = run(tmp_path / "build", *arguments(tmp_path, "plain"), "--power-mode=15W")
    assert found.code == pytest.ExitCode.USAGE_ERROR
    (error,) = found.errors
    assert "only a Jetson has power modes, and this is " in error
    assert "jetson-orin-nano" in profiles()
    assert check(PowerMode(), None) is None  # type: ignore[arg-type]


def started(folder: Path, *words: str, technique: str = "plain") -> tuple[Running, Path]:
    """A run on a board in MAXN_SUPER, and the board's root."""
    root = folder / "board"
    there = environment(root) if root.exists() else install(root)
    asked = [*arguments(folder, technique), "--targets=suites.meta.jetson_stand_in", *QUICK, *words]
    return Running(folder / "build", *asked, environment={**there, "FAKE_TRACE": str(folder / "trace")}), root


def finished(folder: Path, *words: str) -> tuple[Run, Path]:
    """The same, when it has ended."""
    running, root = started(folder, *words)
    return running.wait(), root


@ROOT_ONLY
def test_a_run_measures_in_the_mode_asked_for(tmp_path: Path) -> None:
    """Header and results name the mode, and the board is back in its own afterwards."""
    found, root = finished(tmp_path, "--power-mode=15w")
    assert found.code == 0, found.output
    assert "power mode: 15W, set for this run; MAXN_SUPER before" in found.output
    assert found.results["device"]["power_mode"] == "15W"
    assert current(root) == "MAXN_SUPER"
    assert not (root / STATE).exists()


@ROOT_ONLY
@pytest.mark.parametrize(("mode", "said"), [("8W", "this board has 15W"), (GATED, "needs a reboot")])
def test_a_mode_that_cannot_be_set_stops_the_run(tmp_path: Path, mode: str, said: str) -> None:
    """One sentence, before anything has run."""
    found, root = finished(tmp_path, f"--power-mode={mode}")
    assert found.code == pytest.ExitCode.USAGE_ERROR
    (error,) = found.errors
    assert said in error
    assert "Traceback" not in found.output
    assert current(root) == "MAXN_SUPER"
    assert not (root / "rebooted").exists()


@ROOT_ONLY
@pytest.mark.parametrize(
    "how",
    [
        interrupt,
        lambda running: running.process.terminate(),
        lambda running: running.process.send_signal(signal.SIGHUP),
    ],
)
def test_the_mode_is_restored_however_a_run_ends(tmp_path: Path, how: Callable[[Running], object]) -> None:
    """Ctrl-C, SIGTERM and a closed terminal leave the board in its own mode."""
    running, root = started(tmp_path, "--power-mode=15W", technique="hang")
    assert until(lambda: bool(traced(tmp_path / "trace")))
    assert current(root) == "15W"
    how(running)
    assert running.wait().code != 0
    assert current(root) == "MAXN_SUPER"
    assert not (root / STATE).exists()


@ROOT_ONLY
def test_after_kill_9_the_next_run_restores(tmp_path: Path) -> None:
    """A run killed with -9 leaves the mode behind; the next run, whatever it asks for, restores it and says so."""
    running, root = started(tmp_path, "--power-mode=15W", technique="hang")
    assert until(lambda: bool(traced(tmp_path / "trace")))
    running.process.kill()
    running.end()
    assert current(root) == "15W"
    found, _ = finished(tmp_path)
    assert found.code == 0, found.output
    assert "power mode: restored power mode MAXN_SUPER: a run that was killed had left 15W" in found.output
    assert found.results["device"]["power_mode"] == "MAXN_SUPER"
    assert current(root) == "MAXN_SUPER"
