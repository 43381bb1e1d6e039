"""Answers that come as server-sent events while they are made: what is sent, and what a client that leaves stops."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from pydantic_core import to_json
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from targets.api import Answer
from targets.server.disconnect import WhileConnected
from targets.server.faults import FAULTS, problem_of
from targets.server.problems import Problem

FORESEEN = (Problem, *FAULTS)
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


async def events(items: AsyncGenerator[str | Answer, None], dialect: Dialect) -> AsyncGenerator[bytes, None]:
    """An answer as a service streams it, as events; the service's stream is closed with them.

    What fails before the first piece is raised: then the response has not begun, and can be a problem of its own.
    """
    begun = False
    try:
        async with aclosing(items):
            async for item in items:
                start = b"" if begun else dialect.begin()
                begun = True
                yield start + (dialect.piece(item) if isinstance(item, str) else dialect.end(item))
    except FORESEEN as error:
        if not begun:
            raise
        yield dialect.failure(problem_of(error))


async def with_first(made: AsyncGenerator[bytes, None], receive: Receive) -> AsyncGenerator[bytes, None]:
    """The same events, the first of which is there.

    Raises:
        ClientDisconnect: the client has left meanwhile.
        Exception: what prevented the first one.
    """
    async with WhileConnected(receive):
        first = await anext(made)

    async def rest() -> AsyncGenerator[bytes, None]:
        async with aclosing(made):
            yield first
            async for each in made:
                yield each

    return rest()


class EventStream(StreamingResponse):
    """Sends events as they come. A client that leaves closes them, and so ends what makes them."""

    def __init__(self, made: AsyncGenerator[bytes, None]) -> None:
        super().__init__(made, media_type=MEDIA_TYPE, headers=HEADERS)
        self._made = made

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        try:
            async with aclosing(self._made), WhileConnected(receive):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                async for each in self._made:
                    await send({"type": "http.response.body", "body": each, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except ClientDisconnect:
            return  # nobody is left to be told
