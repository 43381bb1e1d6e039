"""What a client of WebSocket /chat may send: JSON objects of three types, as pydantic models."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from targets.registry import did_you_mean
from targets.server.http.problems import Problem
from targets.server.http.schemas import READ, Seed, Stop, Temperature, TopP, limited, sampling
from targets.server.settings import Limits


class Frame(BaseModel):
    """What a client sends."""

    model_config = READ


class MessageFrame(Frame):
    """A turn to be answered. How tokens are chosen stands here as in POST /generate."""

    type: Literal["message"]
    text: str = Field(description="What the user says.")
    max_tokens: int | None = Field(default=None, ge=1, description="Tokens that the answer has at most.")
    temperature: Temperature = Field(default=0.0, description="0 takes the most probable token each time.")
    top_p: TopP = Field(default=1.0, description="Tokens beyond this probability mass are never drawn.")
    seed: Seed | None = Field(default=None, description="The same seed draws the same tokens; without one any are.")
    stop: Stop = Field(default=[], description="Texts that end the answer; they are no part of it.")

    def decoding(self, max_tokens: int) -> dict[str, Any]:
        """The keys of `Decoding`; `max_tokens` where the client names no number."""
        seed = drawn() if self.seed is None else self.seed
        return sampling(self.max_tokens or max_tokens, self.temperature, self.top_p, seed, self.stop)


class ResetFrame(Frame):
    """Forget what was said. An answer under way is cancelled first."""

    type: Literal["reset"]
    system: str | None = Field(default=None, description="The system prompt of the conversation that begins.")


class CancelFrame(Frame):
    """End the answer under way; what was said of it is remembered. Without one nothing happens."""

    type: Literal["cancel"]


AnyFrame: TypeAlias = MessageFrame | ResetFrame | CancelFrame


def drawn() -> int:
    """A seed that nobody can foresee."""
    return secrets.randbelow(2**31)


def reader(limits: Limits) -> Callable[[str], AnyFrame]:
    """What reads a frame within these limits. It raises Problem, in a sentence, for what is none."""
    kinds: dict[str, type[AnyFrame]] = {
        "message": limited(MessageFrame, limits),
        "reset": limited(ResetFrame, limits),
        "cancel": CancelFrame,
    }

    def read(raw: str) -> AnyFrame:
        try:
            content = from_json(raw, cache_strings="keys")
        except ValueError as error:
            raise Problem(400, f"the frame is no valid JSON: {error}") from None
        if not isinstance(content, dict):
            raise Problem(422, "a frame should be a JSON object with a type")
        kind = content.get("type")
        if not isinstance(kind, str) or kind not in kinds:
            shown = f" {kind[:60]!r}" if isinstance(kind, str) else ""
            hint = did_you_mean(kind if isinstance(kind, str) else "", kinds)
            raise Problem.invalid("type", f"unknown type of frame{shown}.{hint}")
        try:
            return kinds[kind].model_validate(content)
        except ValidationError as error:
            raise Problem.of_validation(error, tuple(kinds[kind].model_fields)) from None

    return read
