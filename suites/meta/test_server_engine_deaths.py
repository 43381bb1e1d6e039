from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from suites.meta.engine_kit import PATIENCE_S, Lines, echo, engine, gone, played, until
from suites.meta.runs import ROOT
from targets.server.engine import engine as engine_module
from targets.server.engine.engine import Engine, EngineBusyStarting, EngineDied, TargetFailed

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.mark.parametrize(
    ("deed", "reason"), [("kill", "signal SIGKILL"), ("crash", "signal SIGSEGV"), ("leave", "exit code 7")]
)
def test_a_death_is_for_its_own_requests_only(tmp_path: Path, deed: str, reason: str) -> None:
    """A process that dies fails the call it has, is replaced by another, and leaves one line that says why."""

    async def play(subject: Engine, log: Lines) -> None:
        before = subject.pid
        with pytest.raises(EngineDied, match="the engine of sentiment died"):
            await echo(subject, deed)
        with pytest.raises(EngineBusyStarting, match="the engine of sentiment is restarting"):
            await echo(subject, "too early")
        assert await subject.wait_ready(PATIENCE_S)
        assert (await echo(subject, "again"))["pid"] == subject.pid != before
        assert subject.restarts == 1
        (line,) = log.of("engine_died")
        assert line["reason"].startswith(reason)
        assert (line["task"], line["pid"]) == ("sentiment", before)
        assert len(log.of("engine_restarted")) == 1

    played(play, engine(tmp_path))


def test_a_death_while_idle_is_noticed(tmp_path: Path) -> None:
    """A process that is killed while it has nothing to do is replaced without any request."""

    async def play(subject: Engine, log: Lines) -> None:
        assert subject.pid is not None
        os.kill(subject.pid, signal.SIGKILL)
        await until(lambda: subject.restarts == 1)
        assert (await echo(subject, "fine"))["text"] == "fine"

    played(play, engine(tmp_path))


def test_who_waits_for_a_turn_is_told_of_the_death(tmp_path: Path) -> None:
    """Calls that wait behind one that kills the process are not lost: each gets an answer or hears of the restart."""

    async def play(subject: Engine, _: Lines) -> None:
        texts = ["first", "kill", *("later" for _ in range(5))]
        found = await asyncio.gather(*(echo(subject, text) for text in texts), return_exceptions=True)
        assert isinstance(found[0], dict)
        assert isinstance(found[1], EngineDied)
        (waited,) = [each for each in found[2:] if isinstance(each, EngineDied)]
        assert not waited.begun, "it was at the process, and had not been begun"
        assert sum(isinstance(each, EngineBusyStarting) for each in found[2:]) == 4

    played(play, engine(tmp_path))


def test_a_hang_is_ended(tmp_path: Path) -> None:
    """A process without a sign of life is ended after `hang_s`, and the line says where it stood."""

    async def play(subject: Engine, log: Lines) -> None:
        with pytest.raises(EngineDied):
            await echo(subject, "hang")
        assert await subject.wait_ready(PATIENCE_S)
        (line,) = log.of("engine_died")
        assert line["reason"] == "no sign of life for 0.3 s"
        assert "odd_engine.py" in line["said"]

    played(play, engine(tmp_path, hang_s=0.3))


def test_a_frozen_process_is_ended(tmp_path: Path) -> None:
    """A process that was stopped (SIGSTOP) while it had a request is ended as one that hangs."""

    async def play(subject: Engine, log: Lines) -> None:
        assert subject.pid is not None
        os.kill(subject.pid, signal.SIGSTOP)
        with pytest.raises(EngineDied):
            await echo(subject, "anything")
        assert await subject.wait_ready(PATIENCE_S)
        assert log.of("engine_died")[0]["reason"] == "no sign of life for 0.3 s"

    played(play, engine(tmp_path, hang_s=0.3))


def test_tokens_are_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that takes longer than `hang_s` for an answer is left alone as long as tokens come."""

    async def play(subject: Engine, _: Lines) -> None:
        (answer,) = await subject.run([{"prompt": "endless", "max_tokens": 600}])  # 3 s at least
        assert answer["output_tokens"] == 600
        assert subject.restarts == 0

    played(play, engine(tmp_path, "generation", hang_s=2.0))


def test_a_process_whose_gpu_is_spoiled_is_replaced(tmp_path: Path) -> None:
    """After an error of CUDA that no call recovers from, the call fails and another process takes over."""

    async def play(subject: Engine, log: Lines) -> None:
        before = subject.pid
        with pytest.raises(TargetFailed, match="CUDA error"):
            await echo(subject, "spoil")
        await until(lambda: subject.restarts == 1)
        assert (await echo(subject, "fine"))["pid"] != before
        assert "GPU" in log.of("engine_died")[0]["reason"]

    played(play, engine(tmp_path))


def test_a_process_whose_own_server_has_ended_is_replaced(tmp_path: Path) -> None:
    """Where a target asks a server that it started, the end of that one is the death of the engine, which restarts."""

    async def play(subject: Engine, log: Lines) -> None:
        before = subject.pid
        with pytest.raises(EngineDied, match="it is being restarted"):
            await echo(subject, "bereave")
        await until(lambda: subject.restarts == 1)
        assert (await echo(subject, "fine"))["pid"] != before
        assert "the server that it had started has ended" in log.of("engine_died")[0]["reason"]

    played(play, engine(tmp_path))


def test_pauses_before_restarts_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it cannot be loaded again each pause is twice the last, up to the longest; then it serves again."""
    monkeypatch.setattr(engine_module, "LONGEST_PAUSE_S", 0.05)

    async def play(subject: Engine, log: Lines) -> None:
        (tmp_path / "deed").write_text("fail")
        with pytest.raises(EngineDied):
            await echo(subject, "kill")
        await until(lambda: len(log.of("engine_not_restarted")) == 4)
        (tmp_path / "deed").unlink()
        assert await subject.wait_ready(PATIENCE_S)
        pauses = [line["restart_in_s"] for line in log.all if "restart_in_s" in line]
        assert pauses[:5] == [0.01, 0.02, 0.04, 0.05, 0.05]
        assert subject.restarts == 1

    played(play, engine(tmp_path))


ORPHAN = """
import asyncio, os, sys
from pathlib import Path
from suites.meta.engine_kit import engine
async def main():
    subject, _ = engine(Path(sys.argv[1]))
    await subject.start()
    print(subject.pid, (await subject.run([{"text": "helper"}]))[0]["text"], flush=True)
    if sys.argv[2] == "left":
        return
    if sys.argv[2] == "busy":
        asyncio.create_task(subject.run([{"text": "hang"}]))
        await asyncio.sleep(0)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize("state", ["idle", "busy", "left"])
def test_an_engine_dies_with_its_server(tmp_path: Path, state: str) -> None:
    """When the server is killed, or leaves without a word, an engine ends with its helpers, even a busy one."""
    command = [sys.executable, "-c", ORPHAN, str(tmp_path), state]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        pids = [int(word) for word in server.stdout.readline().split()]
        assert len(pids) == 2
        if state != "left":
            server.kill()
    asyncio.run(asyncio.wait_for(until(lambda: all(map(gone, pids))), PATIENCE_S))
