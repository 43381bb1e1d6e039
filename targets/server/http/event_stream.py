"""Answers that come as server-sent events while they are made: what is sent, and what a client that leaves stops."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from time import perf_counter
from typing import Protocol, TypeAlias

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from targets.api import Answer
from targets.server.http.disconnect import WhileConnected
from targets.server.http.faults import FAULTS, problem_of
from targets.server.http.problems import Problem
from targets.server.metrics import TaskMetrics

Items: TypeAlias = AsyncGenerator[str | Answer, None]
"""What a service streams: pieces of text, and at last the answer."""
Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

FORESEEN: tuple[type[Exception], ...] = (Problem, *FAULTS)
"""What a service may raise: it is told in a stream that has begun; all else drops the connection, and is in the log."""
MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""The second keeps nginx from gathering events until there are enough of them."""


class Dialect(Protocol):
    """How a protocol writes an answer as events. Each method gives the bytes to be sent."""

    def begin(self) -> bytes:
        """What comes before the first piece."""
        ...

    def piece(self, text: str) -> bytes:
        """A piece of the text."""
        ...

    def end(self, answer: Answer) -> bytes:
        """What comes after the last piece."""
        ...

    def failure(self, problem: Problem) -> bytes:
        """What comes where the answer breaks off."""
        ...


def event(content: object) -> bytes:
    """One event with JSON as its data."""
    return b"data: " + to_json(content, inf_nan_mode="null") + b"\n\n"


class EventStream(StreamingResponse):
    """An answer of a service, sent as events while it is made. A client that leaves closes it, and so ends its making.

    `ended` is called with the status that it came to, in the end.
    """

    def __init__(self, items: Items, dialect: Dialect) -> None:
        super().__init__((), media_type=MEDIA_TYPE, headers=HEADERS)
        self.ended: Callable[[int], None] = lambda _: None
        self._items = items
        self._dialect = dialect
        self._first: str | Answer = ""
        self._outcome = 200

    async def begun(self, receive: Receive) -> EventStream:
        """This, when its first piece is there. What prevents that is raised, so that it can be a response of its own.

        Raises:
            ClientDisconnect: the client has left meanwhile.
        """
        async with WhileConnected(receive):
            self._first = await anext(self._items)
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        made = self._events()
        try:
            async with aclosing(self._items), aclosing(made), WhileConnected(receive):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                async for each in made:
                    await send({"type": "http.response.body", "body": each, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except ClientDisconnect as gone:
            self._outcome = problem_of(gone).status  # nobody is left to be told
        except BaseException:
            self._outcome = 500
            raise
        finally:
            self.ended(self._outcome)

    async def _events(self) -> AsyncGenerator[bytes, None]:
        try:
            yield self._dialect.begin() + self._told(self._first)
            async for item in self._items:
                yield self._told(item)
        except FORESEEN as error:
            problem = problem_of(error)
            self._outcome = problem.status
            yield self._dialect.failure(problem)

    def _told(self, item: str | Answer) -> bytes:
        return self._dialect.piece(item) if isinstance(item, str) else self._dialect.end(item)


def counted(metrics: TaskMetrics, endpoint: Endpoint) -> Endpoint:
    """The endpoint, whose requests are counted with their status and time; an answer that streams when it has ended."""

    async def answer(request: Request) -> Response:
        began = perf_counter()

        def count(status: int) -> None:
            metrics.answered(status, perf_counter() - began)

        try:
            response = await endpoint(request)
        except Exception as error:
            count(problem_of(error).status)
            raise
        if isinstance(response, EventStream):
            response.ended = count
        else:
            count(200)
        return response

    return answer
