"""An engine: one target in a process of its own, watched, and started again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal, Protocol, TypeAlias

from targets.api import Answer, Device, Request, Unavailable, UserError
from targets.generation import GeneratorTask
from targets.registry import tasks
from targets.server.engine import allotment
from targets.server.engine.errors import EngineBusyStarting, EngineDied, TargetFailed, TargetRefused, UpstreamFailed
from targets.server.engine.facts import EngineFacts, Timing, facts_of
from targets.server.engine.link import Job, Link, within, words
from targets.server.engine.orders import here, order_of, preload_of, unavailable
from targets.server.engine.wire import Message
from targets.server.settings import ServedTask, Settings

__all__ = [
    "Engine",
    "EngineBusyStarting",
    "EngineDied",
    "EngineFacts",
    "TargetFailed",
    "TargetRefused",
    "Timing",
    "UpstreamFailed",
]

State: TypeAlias = Literal["starting", "ready", "restarting", "stopped"]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Pauses before restarts: each twice as long as the one before."""
STEADY_S = 60.0
"""An engine that has lived so long after a restart begins anew with the shortest pause."""


class Log(Protocol):
    """Writes one structured line."""

    def __call__(self, event: str, /, **facts: Any) -> None:
        """`event` names what happened; `facts` are JSON-ready."""


class Engine:
    """One served target. Batches and streams are done one at a time, in the order they come.

    `ahead`: whether the next one may wait at the process itself, which then begins it without a pause. Not so where an
    answer can be cancelled at its next token: the process would have to look for that among jobs.
    """

    def __init__(self, served: ServedTask, settings: Settings, *, log: Log) -> None:
        self.served = served
        self.state: State = "starting"
        self.restarts = 0
        self.last_timing = Timing(0.0, None)
        self._settings = settings
        self._log = log
        self._facts: EngineFacts | None = None
        self._link: Link | None = None
        self._former: Link | None = None
        self.ahead = not isinstance(tasks[served.task], GeneratorTask)
        self._turn = asyncio.Semaphore(1 + self.ahead)
        self._prepared: Message | None = None
        self._pause_s = FIRST_PAUSE_S
        self._ready_since = 0.0
        self._ready = asyncio.Event()
        self._reviving: asyncio.Task[None] | None = None

    @property
    def facts(self) -> EngineFacts:
        """What is loaded. Raises EngineBusyStarting before the first start is done."""
        if self._facts is None:
            raise self._not_ready()
        return self._facts

    @property
    def pid(self) -> int | None:
        """The process id; None while there is no process."""
        return self._link.pid if self._link else None

    async def start(self) -> None:
        """Build the artifact if need be, load it, and answer once.

        Raises:
            UserError: the model is missing, damaged, or made for another task.
            Unavailable: this machine cannot run it; says why and how to get it.
            EngineDied, TargetFailed: loading killed the process, took longer than `start_s`, or raised.
        """
        self.state = "starting"
        try:
            await self._load()
        except BaseException:
            self.state = "stopped"
            raise

    async def close(self) -> None:
        """End the process; what it is busy with ends as EngineDied. Call it when all accepted work is done."""
        self.state = "stopped"
        self._ready.clear()
        if self._reviving is not None:
            self._reviving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reviving
        links, self._link, self._former = (self._link, self._former), None, None
        for link in links:
            if link is not None:
                await link.close()

    async def wait_ready(self, timeout_s: float) -> bool:
        """Whether it is ready within so many seconds."""
        return await within(self._ready, timeout_s)

    async def run(self, batch: Sequence[Request]) -> list[Answer]:
        """Answers to a batch, in order. When the caller is cancelled, a generator stops at its next token.

        Raises:
            EngineBusyStarting: it is not ready.
            EngineDied: the process ended or hung; it restarts by itself.
            TargetRefused: the target does not take a request of this batch.
            UpstreamFailed: the server that the target asks did not answer as it should.
            TargetFailed: the target raised anything else.
        """
        job = await self._begin({"do": "run", "batch": list(batch)})
        try:
            done = self._outcome(await asyncio.shield(job.over))
        finally:
            self._cancel(job)
        self.last_timing = Timing(done["run_s"], done["tokenize_s"])
        answers: list[Answer] = done["answers"]
        return answers

    async def stream(self, request: Request) -> AsyncGenerator[str | Answer, None]:
        """Pieces of text as they come, at last the answer. Closing the iterator stops the target at its next token.

        Raises:
            EngineBusyStarting, EngineDied, TargetRefused, TargetFailed: as `run`; TargetRefused also where the target
                does not stream.
        """
        pieces: asyncio.Queue[str | asyncio.Future[Message]] = asyncio.Queue()
        job = await self._begin({"do": "stream", "request": dict(request)}, pieces)
        try:
            while isinstance(piece := await pieces.get(), str):
                yield piece
            done = self._outcome(piece.result())
            self.last_timing = Timing(done["run_s"], done["tokenize_s"])
            yield done["answers"][0]
        finally:
            self._cancel(job)

    async def _begin(self, message: Message, pieces: asyncio.Queue[Any] | None = None) -> Job:
        """The job, sent as soon as the process has done those before it; the next one waits until this is over."""
        self._demand()
        await self._turn.acquire()
        try:
            link = self._demand()
            job = link.begin(message, self._settings.hang_s, pieces.put_nowait if pieces else None)
        except BaseException:
            self._turn.release()
            raise
        job.over.add_done_callback(lambda _: self._turn.release())
        if pieces is not None:
            job.over.add_done_callback(pieces.put_nowait)
        return job

    def _cancel(self, job: Job) -> None:
        if not job.over.done() and self._link is not None:
            self._link.cancel(job)

    def _demand(self) -> Link:
        if self._link is None or self.state != "ready":
            raise self._not_ready()
        return self._link

    def _not_ready(self) -> EngineBusyStarting:
        return EngineBusyStarting(f"the engine of {self.served.task} is {self.state}", self._pause_s)

    def _outcome(self, reply: Message) -> Message:
        if "died" in reply:
            told = f"the engine of {self.served.task} died while it had this request; it is being restarted"
            raise EngineDied(told, begun=reply.get("begun", True))
        if "failed" not in reply:
            return dict(reply["done"])
        failed = reply["failed"]
        if failed["refused"]:
            raise TargetRefused(failed["message"])
        facts = {"task": self.served.task, "kind": failed["kind"], "where": failed["where"][-3:]}
        if self._settings.log_level == "debug":
            facts["message"] = failed["message"]  # it may quote the request, which other levels keep to themselves
        self._log("target_failed", **facts)
        if failed["spoiled"] and self._link is not None:
            self._link.end(f"{failed['kind']}: {failed['spoiled']}")
            self._lost(self._link)
        if failed["died"]:
            raise EngineDied(f"what serves {self.served.task} died while it had this request; it is being restarted")
        if failed["upstream"]:
            raise UpstreamFailed(failed["message"], failed["kind"])
        raise TargetFailed(failed["message"], failed["kind"])

    async def _load(self) -> None:
        """A process with the target loaded takes its place."""
        device = await asyncio.to_thread(here)
        prepared = self._prepared or await self._prepare(device)
        threads = allotment.threads(self._settings.threads, device, prepared["size_mb"])
        prove = allotment.may_prove(device, prepared["size_mb"])
        order = {"files": prepared["files"], "artifact": prepared["artifact"], "threads": threads, "prove": prove}
        link = await Link.open(order_of(self.served, self._settings, device), preload_of(self._settings), self._lost)
        try:
            loaded = await self._first(link, {"do": "load", **order})
        except BaseException:
            self._prepared = None  # it may be the artifact that is bad: look at it again
            await link.close()
            raise
        if link.lost:  # it ended right behind its reply, and nobody was told, for it did not serve yet
            raise EngineDied(f"the engine of {self.served.task} ended as soon as it had loaded: {await link.bury()}")
        self._prepared = prepared
        self._facts = facts_of(self.served, prepared, loaded, threads)
        self._link, self.state = link, "ready"
        self._ready_since = asyncio.get_running_loop().time()
        self._ready.set()
        self._warn()

    async def _prepare(self, device: Device) -> Message:
        """The artifact, built by a process whose memory goes with it."""
        if reason := unavailable(self.served, device):
            raise Unavailable(reason)
        link = await Link.open(order_of(self.served, self._settings, device), preload_of(self._settings), self._lost)
        try:
            return await self._first(link, {"do": "prepare"})
        finally:
            await link.close()

    async def _first(self, link: Link, message: Message) -> Message:
        """The result of what is done before the engine is ready: no request is in it, so all may be told."""
        job = link.begin(message, self._settings.start_s)
        reply = await asyncio.shield(job.over)
        if "died" in reply:
            reason = await link.bury()
            said = f"; it said: {link.prints}" if str(link.prints) else ""
            raise EngineDied(f"the engine of {self.served.task} did not start: {reason}{said}")
        if "failed" not in reply:
            return dict(reply["done"])
        failed = reply["failed"]
        if failed["unavailable"]:
            raise Unavailable(failed["message"])
        if failed["refused"] or failed["upstream"]:
            raise UserError(failed["message"])
        raise TargetFailed(f"{failed['kind']}: {failed['message']} (at {failed['where'][-1:]})", failed["kind"])

    def _lost(self, link: Link) -> None:
        """A process is gone: if it was the one that served, another one is started."""
        if link is not self._link:
            return
        self._link, self._former, self.state = None, link, "restarting"
        self._ready.clear()
        self._reviving = asyncio.create_task(self._revive(link))

    async def _revive(self, link: Link) -> None:
        """Start again, as often as it takes."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._ready_since > STEADY_S:
            self._pause_s = FIRST_PAUSE_S
        reason = await link.bury()
        facts = {"task": self.served.task, "pid": link.pid, "reason": reason, **words(link.prints)}
        self._log("engine_died", **facts, restart_in_s=self._pause_s)
        while self.state != "ready":
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            try:
                await self._load()
            except Exception as error:  # the supervisor's boundary: whatever it is, it is told and tried again
                told = {"task": self.served.task, "reason": str(error), "restart_in_s": self._pause_s}
                self._log("engine_not_restarted", **told)
        self.restarts += 1
        self._log("engine_restarted", task=self.served.task, pid=self.pid, restarts=self.restarts)

    def _warn(self) -> None:
        """Tell what does not run as it was asked to: a provider that fell back to the CPU, above all."""
        evidence = self.facts.evidence
        if evidence is not None and evidence.mismatches:
            self._log("engine_not_as_asked", task=self.served.task, mismatches=evidence.mismatches)
