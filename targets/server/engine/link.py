"""The server's end of one engine process: jobs go out, replies come in, silence and death are noticed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

from targets.server.engine import launcher
from targets.server.engine.launcher import Started
from targets.server.engine.wire import Message, Unpacker, pack
from targets.server.engine.worker import Order

LINES, TOLD, LINE = 60, 12, 300
"""How much is kept of what a process prints: the last lines, of which so many are told, each cut to this length."""
NOISE = re.compile(
    r'/multiprocessing/|/threading\.py"|/engine/worker\.py", line \d+ in (serve|outcome)|/process_end\.py"'
    r'|File "<string>"|Extension modules:'
)
"""What says nothing of the target: the frames below it, other threads, and faulthandler's list of modules."""
END_S = 5.0
"""How long a process may take to end by itself, and after SIGKILL until the kernel has taken it down."""
STACK_S = 0.2
"""How long faulthandler gets to write where a silent process stands."""


class Job:
    """One thing asked of a process. `over` gets the reply, or `{"died": True}`; it never holds an exception."""

    def __init__(self, number: int, patience_s: float, on_piece: Callable[[str], None] | None) -> None:
        self.number = number
        self.patience_s = patience_s
        self.on_piece = on_piece
        self.over: asyncio.Future[Message] = asyncio.get_running_loop().create_future()


class Prints(asyncio.Protocol):
    """The last lines of what a process printed."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=LINES)
        self._rest = ""
        self._transport: asyncio.BaseTransport | None = None
        self._whole = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It may begin to print."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        self._whole.set()

    async def close(self) -> None:
        """Wait for the last words; whoever still holds the other end is not waited for."""
        if await within(self._whole, STACK_S) or self._transport is None:
            return
        self._transport.close()
        await self._whole.wait()

    def data_received(self, data: bytes) -> None:
        """Keep what ends a line; of a line without an end only its start."""
        *whole, rest = (self._rest + data.decode(errors="replace")).split("\n")
        self.lines += (line[:LINE] for line in whole if line.strip())
        self._rest = rest[:LINE]

    def __str__(self) -> str:
        lines = [line.strip() for line in (*self.lines, self._rest) if line.strip() and not NOISE.search(line)]
        return " | ".join(lines[-TOLD:])


class Link(asyncio.Protocol):
    """One process, which does the jobs it is sent one after another.

    `on_lost` is called once, when the process is of no more use. Jobs that it had not begun are then told
    `{"died": True, "begun": False}`: its replies come in the order of the jobs, and are read before the end.
    """

    def __init__(self, started: Started, on_lost: Callable[[Link], None]) -> None:
        self.prints = Prints()
        self._process = started.process
        self._on_lost = on_lost
        self._unpacker = Unpacker()
        self._jobs: deque[Job] = deque()
        self._count = 0
        self._last_sign = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._verdict: str | None = None
        self._ended = asyncio.Event()
        self._closed = asyncio.Event()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, order: Order, preload: Iterable[str], on_lost: Callable[[Link], None]) -> Link:
        """A started process and the way to it."""
        started = await launcher.start(order, preload)
        link, loop = cls(started, on_lost), asyncio.get_running_loop()
        loop.add_reader(started.process.sentinel, link._process_ended)
        try:
            await loop.create_unix_connection(lambda: link, sock=started.control)
            await loop.create_unix_connection(lambda: link.prints, sock=started.said)
        except BaseException:
            link._kill()
            raise
        return link

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid or 0

    @property
    def lost(self) -> bool:
        """Whether the channel to the process has ended."""
        return self._closed.is_set()

    def begin(self, message: Message, patience_s: float, on_piece: Callable[[str], None] | None = None) -> Job:
        """Send a job. After `patience_s` seconds without a sign of life the process is ended."""
        self._count += 1
        job = Job(self._count, patience_s, on_piece)
        self._jobs.append(job)
        if self._transport is None:  # it ended before it was asked anything
            self._over({"died": True})
            return job
        if len(self._jobs) == 1:
            self._await_signs()
        self._transport.write(pack({**message, "job": job.number}))
        return job

    def cancel(self, job: Job) -> None:
        """Tell the process that a job is no longer wanted; it ends with its next token."""
        if job in self._jobs and self._transport is not None:
            self._transport.write(pack({"cancel": job.number}))

    def end(self, verdict: str) -> None:
        """End the process by force, for this reason; its stack is printed first."""
        if self._verdict is None:
            self._verdict = verdict
            self._signal(signal.SIGUSR1)
            asyncio.get_running_loop().call_later(STACK_S, self._kill)

    async def close(self) -> None:
        """Let the process end by itself if it has nothing to do, else end it. Nothing is left behind."""
        if self._jobs:
            self._kill()
        if self._transport is not None:
            self._transport.close()
        await self.bury()

    async def bury(self) -> str:
        """Wait for the end of the process and of what it started; returns how it ended."""
        await within(self._ended, END_S)
        self._kill()
        await within(self._ended, END_S)
        await self.prints.close()
        if self._transport is not None:
            self._transport.abort()
        await self._closed.wait()
        if self._verdict:
            return self._verdict
        code = self._process.exitcode
        if code is None:
            return "it closed its channel and did not end"
        if code >= 0:
            return f"exit code {code}"
        name = signal.Signals(-code).name
        return f"signal {name}" + (" (the kernel sends it when memory is short)" if name == "SIGKILL" else "")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The channel is open."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Replies, pieces and signs of life."""
        for message in self._unpacker.feed(data):
            self._hear(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """The process is gone, or was told to go."""
        self._transport = None
        self._closed.set()
        self._over({"died": True})
        while self._jobs:
            self._over({"died": True, "begun": False})
        self._on_lost(self)

    def _hear(self, message: Message) -> None:
        job = self._jobs[0] if self._jobs else None
        if job is None or message.get("job") != job.number:
            return
        self._last_sign = asyncio.get_running_loop().time()
        if "piece" in message:
            if job.on_piece is not None:
                job.on_piece(message["piece"])
        elif "alive" not in message:
            self._over(message)

    def _over(self, reply: Message) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._jobs:
            self._jobs.popleft().over.set_result(reply)
        if self._jobs and self._transport is not None:
            self._await_signs()

    def _await_signs(self) -> None:
        """The process begins the first of its jobs."""
        loop = asyncio.get_running_loop()
        self._last_sign = loop.time()
        self._timer = loop.call_later(self._jobs[0].patience_s, self._look)

    def _look(self) -> None:
        """Has the process been silent for too long?"""
        if not self._jobs:
            return
        loop, patience_s = asyncio.get_running_loop(), self._jobs[0].patience_s
        left = self._last_sign + patience_s - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._look)
        else:
            self.end(f"no sign of life for {patience_s:g} s")

    def _process_ended(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._process.sentinel)
        _ = self._process.exitcode  # reads it, once
        self._ended.set()
        if self._transport is not None:  # a helper may hold the channel open; what is in it is read first
            loop.call_later(STACK_S, self._transport.abort)

    def _kill(self) -> None:
        """End the process with the helpers that its target started."""
        self._signal(signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)


async def within(event: asyncio.Event, seconds: float) -> bool:
    """Whether it happens within this time."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


def words(prints: Prints) -> dict[str, Any]:
    """What a log line says of the prints: nothing where there are none."""
    return {"said": str(prints)} if str(prints) else {}
