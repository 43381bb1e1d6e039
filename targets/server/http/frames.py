"""How POST /generate and WebSocket /chat tell an answer: JSON objects whose `type` is token, done, error or reset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic_core import to_json

from targets.api import Answer
from targets.server.http.event_stream import event
from targets.server.http.problems import Problem

Frame: TypeAlias = dict[str, Any]

AGAIN = "Retry-After"
TOLD = ("text", "finish", "output_tokens", "tokens", "truncated")
"""What is told of an answer at its end."""


def packed(frame: Frame) -> str:
    """A frame as JSON."""
    return to_json(frame, inf_nan_mode="null").decode()


def token(text: str) -> Frame:
    """A piece of an answer's text."""
    return {"type": "token", "text": text}


def done(answer: Answer, more: Mapping[str, Any]) -> Frame:
    """The end of an answer: its whole text, its counts, how it ended, and what else there is to say."""
    return {"type": "done", **{name: answer[name] for name in TOLD if name in answer}, **more}


def failed(problem: Problem) -> Frame:
    """A problem, but for its own `type`, which says nothing; with the seconds after which to try again."""
    again = {"retry_after": int(problem.headers[AGAIN])} if AGAIN in problem.headers else {}
    return {**problem.document(None), **again, "type": "error"}


@dataclass(frozen=True)
class Frames:
    """An answer as events (see event_stream.Dialect). `more` stands in the last frame; `with_ids`: token ids too."""

    more: Mapping[str, Any] = field(default_factory=dict)
    with_ids: bool = False

    def begin(self) -> bytes:
        """Nothing."""
        return b""

    def piece(self, text: str) -> bytes:
        """A piece of the text."""
        return event(token(text))

    def end(self, answer: Answer) -> bytes:
        """What is said of the answer as a whole."""
        ids = {"token_ids": answer["token_ids"]} if self.with_ids else {}
        return event(done(answer, {**ids, **self.more}))

    def failure(self, problem: Problem) -> bytes:
        """The problem."""
        return event(failed(problem))
