from __future__ import annotations

import asyncio
from typing import Any

from suites.meta.virtual_time import run
from targets.server.guards.gathered import Gathered


class Wire:
    """A transport that remembers what is done with it."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append("close")

    def write_eof(self) -> None:
        self.done.append("eof")

    def abort(self) -> None:
        self.done.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.done


def test_what_is_written_at_a_moment_goes_out_as_one() -> None:
    """Headers and body written in one turn of the loop are one write, in order; those of the next turn another one."""

    async def main() -> None:
        wire = Wire()
        transport: Any = Gathered(wire, asyncio.get_running_loop())  # type: ignore[arg-type]
        transport.write(b"headers ")
        transport.write(b"body")
        assert wire.done == []
        await asyncio.sleep(0)
        assert wire.done == [b"headers body"]
        transport.write(b"more")
        await asyncio.sleep(0)
        assert wire.done == [b"headers body", b"more"]
        assert not transport.is_closing()

    run(main())


def test_an_end_comes_after_what_was_written() -> None:
    """Closing, or ending the sending side, writes what is held first; aborting drops it."""

    async def main() -> None:
        for end, left in (("close", [b"last", "close"]), ("write_eof", [b"last", "eof"]), ("abort", ["abort"])):
            wire = Wire()
            transport: Any = Gathered(wire, asyncio.get_running_loop())  # type: ignore[arg-type]
            transport.write(b"last")
            getattr(transport, end)()
            await asyncio.sleep(0)
            assert wire.done == left

    run(main())
