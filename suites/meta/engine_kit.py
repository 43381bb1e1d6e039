"""Engines of the server in tests: the odd one, started, played with and closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

from suites.meta.odd_engine import NAME, PLAIN
from targets.server.engine.engine import Engine
from targets.server.settings import ServedTask, Settings

PATIENCE_S = 300.0


class Lines:
    """What an engine logged."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def __call__(self, event: str, /, **facts: Any) -> None:
        self.all.append({"event": event, **facts})

    def of(self, event: str) -> list[dict[str, Any]]:
        """The facts of one kind of event."""
        return [line for line in self.all if line["event"] == event]


def settings(folder: Path, **changes: Any) -> Settings:
    """A server of the odd engine, whose artifacts lie in `folder`."""
    tasks = {task: ServedTask(task, NAME, PLAIN) for task in ("sentiment", "generation")}
    return Settings(tasks=tasks, artifacts=folder, targets=("suites.meta.odd_engine",), **changes)


def engine(folder: Path, task: str = "sentiment", optimization: str = PLAIN, **changes: Any) -> tuple[Engine, Lines]:
    log = Lines()
    return Engine(ServedTask(task, NAME, optimization), settings(folder, **changes), log=log), log


def played(play: Callable[[Engine, Lines], Awaitable[None]], made: tuple[Engine, Lines]) -> None:
    """Run `play` with the started engine, and close it."""

    async def whole() -> None:
        subject, log = made
        await subject.start()
        try:
            await asyncio.wait_for(play(subject, log), PATIENCE_S)
        finally:
            await subject.close()

    asyncio.run(whole())


async def echo(subject: Engine, text: str) -> dict[str, Any]:
    (answer,) = await subject.run([{"text": text}])
    return dict(answer)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what nothing announces, such as the end of another's process."""
    while not condition():
        await asyncio.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether a process has ended (one that nobody has waited for yet counts as ended)."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
