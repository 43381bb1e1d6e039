from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from suites.meta.engine_kit import PATIENCE_S, Lines, engine, played
from suites.meta.odd_engine import SILENT
from targets.server.engine.engine import Engine, EngineDied, TargetRefused

pytestmark = pytest.mark.usefixtures("short_pauses")


async def taken(subject: Engine, prompt: str, most: int) -> list[Any]:
    """What a stream gives, closed after so many items."""
    found: list[Any] = []
    async with aclosing(subject.stream({"prompt": prompt})) as stream:
        async for item in stream:
            found.append(item)
            if len(found) == most:
                break
    return found


async def count(subject: Engine) -> int:
    """How many words the target has ever written."""
    (answer,) = await subject.run([{"prompt": "count"}])
    return int(answer["text"])


def test_a_stream_gives_pieces_and_then_the_answer(tmp_path: Path) -> None:
    """Pieces come in order, and joined they are the text of the answer that comes last."""

    async def play(subject: Engine, _: Lines) -> None:
        *pieces, answer = await taken(subject, "a b c d", 100)
        assert pieces == ["a ", "b ", "c ", "d "]
        assert answer["text"] == "".join(pieces)

    played(play, engine(tmp_path, "generation"))


def test_a_stream_left_early_stops_the_target(tmp_path: Path) -> None:
    """A stream that is closed ends in the process within a few tokens, and the same process serves the next call."""

    async def play(subject: Engine, _: Lines) -> None:
        before = subject.pid
        base = await count(subject)
        assert await taken(subject, "endless", 3) == ["endless "] * 3
        said = await count(subject) - base
        assert 3 <= said < 100
        assert subject.pid == before

    played(play, engine(tmp_path, "generation"))


def test_a_call_that_is_cancelled_stops_the_generator(tmp_path: Path) -> None:
    """When the caller of `run` is cancelled, the target stops at its next token, and the next call is served."""

    async def play(subject: Engine, _: Lines) -> None:
        call: asyncio.Task[Any] = asyncio.create_task(_run(subject, "endless"))
        await asyncio.sleep(0)  # it has been sent
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await count(subject) >= 0
        assert subject.restarts == 0

    played(play, engine(tmp_path, "generation"))


async def _run(subject: Engine, prompt: str) -> Any:
    return await subject.run([{"prompt": prompt}])


def test_a_target_that_does_not_stream_says_so(tmp_path: Path) -> None:
    """Streaming from a target that cannot is refused with what to do, and it still answers whole."""

    async def play(subject: Engine, _: Lines) -> None:
        assert not subject.facts.streams
        with pytest.raises(TargetRefused, match="odd does not stream generation: ask without streaming"):
            await taken(subject, "a b", 100)
        (answer,) = await subject.run([{"prompt": "a b"}])
        assert answer["text"] == "a b "

    played(play, engine(tmp_path, "generation", SILENT))


def test_a_death_ends_a_stream(tmp_path: Path) -> None:
    """A stream whose process dies ends with EngineDied, not silently."""

    async def play(subject: Engine, _: Lines) -> None:
        async def read() -> None:
            async with aclosing(subject.stream({"prompt": "endless"})) as stream:
                async for _ in stream:
                    os.kill(subject.pid or 0, signal.SIGKILL)

        with pytest.raises(EngineDied):
            await read()
        assert await subject.wait_ready(PATIENCE_S)

    played(play, engine(tmp_path, "generation"))


def test_a_stream_and_batches_take_turns(tmp_path: Path) -> None:
    """Streams and batches that are asked for at once are all answered, each with its own text."""

    async def play(subject: Engine, _: Lines) -> None:
        calls: list[Coroutine[Any, Any, Any]] = [taken(subject, f"s{number} x", 9) for number in range(4)]
        calls += [_run(subject, f"r{number} x") for number in range(4)]
        found = await asyncio.gather(*calls)
        assert [items[-1]["text"] for items in found] == [f"{kind}{number} x " for kind in "sr" for number in range(4)]

    played(play, engine(tmp_path, "generation"))
