"""What the task routes answer, as pydantic models: for the OpenAPI document and for tests; answers pass them by."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field


class Told(BaseModel):
    """Part of an answer."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Model(Told):
    """What answered."""

    name: str = Field(description="What the model is called.")
    digest: str = Field(description="sha256 over its files.")
    backend: str = Field(description="The engine.")
    optimization: str = Field(description="How it was made faster or smaller.")


class Read(Told):
    """What every answer says of its text."""

    tokens: int = Field(ge=0, description="Tokens that the model read.")
    truncated: bool = Field(description="Whether the text was cut because the model reads no more.")


class Sentiment(Read):
    """The label of a text."""

    label: str = Field(description="The most probable label.")
    scores: dict[str, float] = Field(description="The probability of each label.")


class Entity(Told):
    """A named thing in a text."""

    label: str = Field(description="What kind of thing it is: PER, LOC, ORG, ...")
    text: str = Field(description="As the text has it.")
    start: int = Field(ge=0, description="Its first character in the text.")
    end: int = Field(ge=0, description="The character after its last.")
    score: float = Field(description="The probability of its least certain word.")


class Entities(Read):
    """The entities of a text, in its order."""

    entities: list[Entity]


class Span(Read):
    """The part of a context that answers a question; empty, with the score 0, if there is none."""

    text: str = Field(description="As the context has it.")
    start: int = Field(ge=0, description="Its first character in the context.")
    end: int = Field(ge=0, description="The character after its last.")
    score: float = Field(description="The probability of its start times that of its end, in its window.")
    windows: int = Field(ge=0, description="Windows that the context was read through.")


class Text(Read):
    """A text that was generated."""

    text: str = Field(description="The new text, without the prompt and without a stop string.")
    output_tokens: int = Field(ge=0, description="Its tokens, the end token not counted.")
    finish: Literal["stop", "length"] = Field(description="How it ended: by itself, or at its greatest length.")
    token_ids: list[int] | None = Field(
        default=None, description="Its tokens; only where they were asked for, null where the engine does not tell."
    )


T = TypeVar("T", bound=Told)


class Answers(Told, Generic[T]):
    """An answer for each text, in the order of the request."""

    model: Model
    results: list[T]


class TaskState(Told):
    """A task and the engine that answers it."""

    state: Literal["starting", "ready", "restarting", "stopped"]
    backend: str
    optimization: str
    model: str
    restarts: int = Field(ge=0, description="How often its process was started anew after it ended.")


class Health(Told):
    """The server is alive."""

    status: Literal["ok"]


class Readiness(Told):
    """Every model is loaded."""

    status: Literal["ready"]
    tasks: dict[str, TaskState]


class Mistake(Told):
    """One thing that is wrong with a request."""

    field: str = Field(description="Where it stands, for example texts[2].")
    detail: str = Field(description="What is wrong there.")


class ProblemDetails(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(extra="allow")
    type: str = Field(description="The kind of problem, as a URI.")
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(ge=400, le=599, description="The HTTP status.")
    detail: str = Field(description="What went wrong this time, and what to do.")
    instance: str | None = Field(default=None, description="The id of the request, as the server's log has it.")
    errors: list[Mistake] | None = Field(default=None, description="Everything that is wrong with the request.")
