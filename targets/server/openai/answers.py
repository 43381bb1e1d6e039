"""What the routes in OpenAI's shape answer: pydantic models for the OpenAPI document, and how an answer becomes one."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from targets.api import Answer
from targets.server.http.event_stream import event
from targets.server.http.problems import Problem
from targets.server.openai.errors import of_openai

OWNER = "edge-nlp"
"""Whose the models are."""
LAST = b"data: [DONE]\n\n"


class Usage(BaseModel):
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatMessageOut(BaseModel):
    """What the assistant says."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(BaseModel):
    """The answer to a conversation."""

    index: int
    message: ChatMessageOut
    logprobs: None
    finish_reason: Literal["stop", "length"]


class TextChoice(BaseModel):
    """The continuation of a prompt."""

    index: int
    text: str
    logprobs: None
    finish_reason: Literal["stop", "length"]


class Made(BaseModel):
    """What every answer has."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    usage: Usage


class ChatCompletion(Made):
    """A conversation, answered."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class Completion(Made):
    """Prompts, continued; a choice for each."""

    object: Literal["text_completion"]
    choices: list[TextChoice]


class ServedModel(BaseModel):
    """A model that can be asked."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int | None


class ServedModels(BaseModel):
    """The models that can be asked."""

    object: Literal["list"]
    data: list[ServedModel]


def usage(answers: Sequence[Answer]) -> dict[str, int]:
    """Counts of tokens over all answers."""
    prompt, made = (sum(answer[name] for answer in answers) for name in ("tokens", "output_tokens"))
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


@dataclass(frozen=True)
class Head:
    """What an answer and each event of it begin with. `model`: as Service.model tells it."""

    model: Mapping[str, str]
    prefix: str
    number: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def of(self, kind: str) -> dict[str, Any]:
        """The head of an object of this kind."""
        made = f"{self.model['backend']}-{self.model['optimization']}-{self.model['digest'][:12]}"
        return {
            "id": f"{self.prefix}-{self.number}",
            "object": kind,
            "created": self.created,
            "model": self.model["name"],
            "system_fingerprint": made,
        }


def chat_completion(model: Mapping[str, str], answer: Answer) -> dict[str, Any]:
    """A conversation, answered. `dropped_turns`, beyond the standard: the oldest turns that were not read."""
    message = {"role": "assistant", "content": answer["text"], "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer["finish"]}
    found = {**Head(model, "chatcmpl").of("chat.completion"), "choices": [choice], "usage": usage([answer])}
    return found | dropped(answer)


def completion(model: Mapping[str, str], answers: Sequence[Answer]) -> dict[str, Any]:
    """Prompts, continued."""
    choices = [
        {"index": place, "text": answer["text"], "logprobs": None, "finish_reason": answer["finish"]}
        for place, answer in enumerate(answers)
    ]
    return {**Head(model, "cmpl").of("text_completion"), "choices": choices, "usage": usage(answers)}


def dropped(answer: Answer) -> dict[str, int]:
    """How many turns were dropped, where any were."""
    count = answer.get("dropped_turns", 0)
    return {"dropped_turns": count} if count else {}


class Chunks:
    """An answer as events (see event_stream.Dialect): of a chat (`chat`), or of a completion.

    `counted`: whether its counts come in an event of their own, at last; the others then say that they have none.
    """

    def __init__(self, model: Mapping[str, str], *, chat: bool, counted: bool) -> None:
        head = Head(model, "chatcmpl" if chat else "cmpl")
        self._head = head.of("chat.completion.chunk" if chat else "text_completion")
        self._none = {"usage": None} if counted else {}
        self._chat = chat
        self._counted = counted

    def begin(self) -> bytes:
        """Who speaks."""
        return self._event({"delta": {"role": "assistant", "content": ""}}) if self._chat else b""

    def piece(self, text: str) -> bytes:
        """A piece of the text."""
        return self._event({"delta": {"content": text}} if self._chat else {"text": text})

    def end(self, answer: Answer) -> bytes:
        """Why it ended, the counts, and the mark that nothing more comes."""
        last = self._event({"delta": {}} if self._chat else {"text": ""}, answer["finish"], dropped(answer))
        counts = event({**self._head, "choices": [], "usage": usage([answer])}) if self._counted else b""
        return last + counts + LAST

    def failure(self, problem: Problem) -> bytes:
        """The error, after which nothing comes, not even the mark."""
        return event(of_openai(problem).document(None))

    def _event(
        self, part: Mapping[str, Any], finish: str | None = None, more: Mapping[str, Any] | None = None
    ) -> bytes:
        choice = {"index": 0, **part, "logprobs": None, "finish_reason": finish}
        return event({**self._head, "choices": [choice], **self._none, **(more or {})})
