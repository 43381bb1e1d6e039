from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from suites.meta.engine_kit import PATIENCE_S, Lines, echo, engine, gone, played, settings, until
from suites.meta.odd_engine import NAME, PLAIN
from suites.meta.runs import ROOT
from targets.api import Unavailable, UserError
from targets.server.engine.engine import Engine, EngineBusyStarting, EngineDied, TargetFailed
from targets.server.engine.link import Link
from targets.server.settings import ServedTask

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.mark.parametrize(
    ("deed", "error", "message"),
    [
        ("refuse", UserError, "this text is refused"),
        ("unavailable", Unavailable, "this machine has no such thing"),
        ("fail", TargetFailed, "ValueError: the target fails"),
        ("leave", EngineDied, r"did not start: exit code 7; it said: odd: no more"),
        ("hang", EngineDied, r"did not start: no sign of life for 0.5 s"),
    ],
)
def test_a_start_that_fails_says_why(tmp_path: Path, deed: str, error: type[Exception], message: str) -> None:
    """A target that cannot be loaded fails the start with its reason, and leaves no process behind."""
    (tmp_path / "deed").write_text(deed)

    async def whole() -> None:
        subject, _ = engine(tmp_path, start_s=0.5 if deed == "hang" else PATIENCE_S)
        await warm(tmp_path)
        before = workers()
        with pytest.raises(error, match=message):
            await subject.start()
        assert subject.state == "stopped"
        assert workers() == before
        await subject.close()

    asyncio.run(whole())


async def warm(folder: Path) -> None:
    """The fork server has imported what it imports: that is no engine's time."""
    (folder / "warm").mkdir()
    subject, _ = engine(folder / "warm")
    await subject.start()
    await subject.close()


def workers() -> set[int]:
    """Processes below this one, the fork server and multiprocessing's tracker not among them."""
    below = psutil.Process().children(recursive=True)
    return {each.pid for each in below if each.ppid() != os.getpid()}


def test_a_process_that_ends_behind_its_reply_does_not_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose channel has ended when its load is heard of fails the start: nobody would ever replace it."""
    monkeypatch.setattr(Link, "lost", property(lambda link: link.pid > 0))

    async def whole() -> None:
        subject, _ = engine(tmp_path)
        with pytest.raises(EngineDied, match="ended as soon as it had loaded"):
            await subject.start()
        assert subject.state == "stopped"
        await subject.close()

    asyncio.run(whole())


def test_a_model_for_another_task_is_refused(tmp_path: Path) -> None:
    """A folder that holds another kind of model fails the start with the kinds that the task takes."""
    folder = str(ROOT / "fixtures/zoo/ner")
    subject = Engine(ServedTask("sentiment", NAME, PLAIN, folder), settings(tmp_path), log=Lines())
    with pytest.raises(UserError, match=r"is a DistilBertForTokenClassification; sentiment needs"):
        asyncio.run(subject.start())


def test_closing_leaves_nothing_behind(tmp_path: Path) -> None:
    """After `close` neither the process nor a helper that its target started is alive, and calls are refused."""
    pids: list[int] = []

    async def play(subject: Engine, _: Lines) -> None:
        answer = await echo(subject, "helper")
        pids.extend((answer["pid"], int(answer["text"])))
        assert not any(map(gone, pids))
        await subject.close()
        assert subject.state == "stopped"
        with pytest.raises(EngineBusyStarting, match="stopped"):
            await echo(subject, "too late")
        await until(lambda: all(map(gone, pids)))

    played(play, engine(tmp_path))


def test_closing_ends_what_is_running(tmp_path: Path) -> None:
    """A call that has not come back when the engine is closed hears that the process ended."""

    async def play(subject: Engine, _: Lines) -> None:
        call = asyncio.create_task(echo(subject, "hang"))
        await asyncio.sleep(0)  # it has been sent
        await subject.close()
        with pytest.raises(EngineDied):
            await call

    played(play, engine(tmp_path))


def test_closing_between_death_and_restart_leaves_nothing_open(tmp_path: Path) -> None:
    """An engine that is closed while it restarts has closed every socket when `close` returns."""

    async def play(subject: Engine, _: Lines) -> None:
        before = psutil.Process().num_fds()
        assert subject.pid is not None
        os.kill(subject.pid, signal.SIGKILL)
        await until(lambda: subject.state == "restarting")
        await subject.close()
        assert psutil.Process().num_fds() < before

    played(play, engine(tmp_path))


def test_signals_to_the_whole_group_are_not_for_the_engine(tmp_path: Path) -> None:
    """SIGTERM and SIGINT do not end an engine: it is for the server to end it, when its work is done."""

    async def play(subject: Engine, _: Lines) -> None:
        assert subject.pid is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(subject.pid, number)
            assert (await echo(subject, "fine"))["pid"] == subject.pid
        assert subject.restarts == 0

    played(play, engine(tmp_path))


def test_a_process_that_ends_at_once_is_told(tmp_path: Path) -> None:
    """A process that cannot even begin, for it is to import what is not there, fails the start with its last words."""
    told = replace(settings(tmp_path), targets=("suites.meta.odd_engine", "no_such_module_of_mine"))
    subject = Engine(ServedTask("sentiment", NAME, PLAIN), told, log=Lines())
    with pytest.raises(EngineDied, match=r"did not start: exit code 1; it said: .*no_such_module_of_mine"):
        asyncio.run(subject.start())
