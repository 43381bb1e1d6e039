"""One client's chat over a WebSocket: its memory, the answer under way, and what it may not do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from starlette.types import Message as Event
from starlette.websockets import WebSocket, WebSocketDisconnect

from targets.api import Answer
from targets.generation import Message
from targets.server.chat.conversation import Conversation
from targets.server.chat.frames import AnyFrame, CancelFrame, MessageFrame, ResetFrame
from targets.server.guards.drain import turn
from targets.server.guards.rate import TokenBucket
from targets.server.http import frames
from targets.server.http.event_stream import FORESEEN
from targets.server.http.faults import CLIENT_CLOSED_REQUEST as CANCELLED
from targets.server.http.faults import problem_of
from targets.server.http.problems import Problem
from targets.server.service import Service

NORMAL, UNSUPPORTED, POLICY, TOO_BIG, FAILED = 1000, 1003, 1008, 1009, 1011
"""Close codes (RFC 6455, 7.4.1)."""


@dataclass(frozen=True)
class Manners:
    """What a client may do: frames at once and a second, characters of one, and seconds without any."""

    burst: int = 20
    per_s: float = 5.0
    frame_chars: int = 1 << 20
    idle_s: float = 300.0


class Ended(Exception):
    """The server ends the chat, with a problem and a close code."""

    def __init__(self, code: int, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.code = code
        self.problem = problem


@dataclass
class Reply:
    """An answer under way: the question, what was said of it so far, and whether its end has been told."""

    text: str
    pieces: list[str]
    dropped: int
    told: bool = False


class ChatSession:
    """Obeys the frames of one client, one after another, until either side ends the chat.

    `read`: makes a frame of a text. `decode`: the decoding of a message, as keys of a request.
    """

    def __init__(
        self,
        socket: WebSocket,
        service: Service,
        read: Callable[[str], AnyFrame],
        decode: Callable[[MessageFrame], dict[str, Any]],
        memory: Conversation,
        manners: Manners,
    ) -> None:
        self._socket = socket
        self._service = service
        self._read = read
        self._decode = decode
        self._memory = memory
        self._manners = manners
        self._bucket = TokenBucket(manners.burst, manners.per_s, asyncio.get_running_loop().time)
        self._reply: Reply | None = None
        self._answering: asyncio.Task[None] | None = None
        self._receiving: asyncio.Task[Event] | None = None

    async def serve(self) -> None:
        """Serve the client."""
        try:
            await self._serve()
        except WebSocketDisconnect:
            pass  # while something was sent to it
        except Exception:
            await self._socket.close(FAILED, "the server failed; its log says how")
            raise
        finally:
            await self._stop()

    async def _serve(self) -> None:
        try:
            while await self._next():
                pass
        except Ended as end:
            await self._stop()
            await self._send(frames.failed(end.problem))
            await self._socket.close(end.code, end.problem.detail[:120])

    async def _next(self) -> bool:
        """Wait for a frame or for the end of an answer, and act on it; False when the client has left."""
        receiving = self._receiving = self._receiving or asyncio.create_task(self._socket.receive())
        answering = self._answering
        waiting: set[asyncio.Task[Any]] = {receiving} if answering is None else {receiving, answering}
        patience = self._manners.idle_s if answering is None else None
        done, _ = await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if answering is not None and answering in done:
            self._answering = None
            answering.result()  # an error that nobody foresaw ends the chat, and is in the log
        if receiving in done:
            self._receiving = None
            return await self._take(receiving.result())
        if not done:
            told = f"nothing was said for {self._manners.idle_s:g} s, so the chat is closed; open another one"
            raise Ended(NORMAL, Problem(408, told))
        return True

    async def _take(self, received: Event) -> bool:
        if received["type"] == "websocket.disconnect":
            return False
        raw = received.get("text")
        if not self._bucket.take():
            told = f"more than {self._manners.per_s:g} frames a second came, {self._manners.burst} of them at once"
            raise Ended(POLICY, Problem(429, told))
        if raw is None:
            raise Ended(UNSUPPORTED, Problem(415, "a frame should be text (JSON), not binary"))
        if len(raw) > self._manners.frame_chars:
            told = f"the frame has {len(raw)} characters, at most {self._manners.frame_chars} are allowed"
            raise Ended(TOO_BIG, Problem(413, told))
        try:
            await self._obey(self._read(raw))
        except FORESEEN as error:
            await self._send(frames.failed(problem_of(error)))
        return True

    async def _obey(self, frame: AnyFrame) -> None:
        if isinstance(frame, MessageFrame):
            if self._answering is not None:
                raise Problem(409, "an answer is under way; wait for its end, or cancel it")
            messages, dropped = self._memory.ask(frame.text)
            self._reply = Reply(frame.text, [], dropped)
            self._answering = asyncio.create_task(self._answer(self._reply, messages, self._decode(frame)))
        elif isinstance(frame, CancelFrame):
            await self._cancel()
        elif isinstance(frame, ResetFrame):
            await self._cancel()
            self._memory.reset(frame.system)
            await self._send({"type": "reset"})

    async def _answer(self, reply: Reply, messages: list[Message], decoding: dict[str, Any]) -> None:
        began, status = perf_counter(), CANCELLED
        self._socket.scope.setdefault("state", {})
        with turn(self._socket.scope):
            try:
                request = {"messages": messages, **decoding}
                async with aclosing(self._service.stream("chat", request)) as items:
                    async for item in items:
                        if isinstance(item, str):
                            reply.pieces.append(item)
                            await self._send(frames.token(item))
                        else:
                            status = 200
                            await self._finish(reply, item)
            except FORESEEN as error:
                problem = problem_of(error)
                status = problem.status
                await self._send(frames.failed(problem))
            except WebSocketDisconnect:
                pass  # the client has left, as the next frame will say
            finally:
                self._service.metrics.task("chat").answered(status, perf_counter() - began)

    async def _finish(self, reply: Reply, answer: Answer) -> None:
        """Remember an answer, and tell its end."""
        reply.told = True
        dropped = answer.get("dropped_turns", 0)
        self._memory.learn(reply.text, answer["text"], dropped)
        await self._send(frames.done(answer, {"dropped_turns": reply.dropped + dropped}))

    async def _cancel(self) -> None:
        """End the answer under way within a token; its end is told like any other's."""
        task, reply, self._answering = self._answering, self._reply, None
        if task is None or reply is None:
            return
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
        elif not reply.told:
            await self._finish(reply, {"text": "".join(reply.pieces), "finish": "cancelled"})

    async def _stop(self) -> None:
        """End what is under way, because nobody listens any more."""
        tasks = [task for task in (self._receiving, self._answering) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _send(self, frame: frames.Frame) -> None:
        await self._socket.send_text(frames.packed(frame))
