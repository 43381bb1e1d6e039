"""What the routes in OpenAI's shape take, as pydantic models: a subset of its API, and nothing ignored that matters.

A parameter that could not change the answer of these models is taken and does nothing (user, metadata, ...). One that
would change it, and is not served (tools, logprobs, more than one choice, ...), is refused unless its value says that
it is off; so is a name that nobody knows.
"""

# ruff: noqa: UP007 (pydantic's tags stand in a Union)
from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeAlias, Union

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, WrapValidator
from pydantic_core import PydanticCustomError

from targets.api import Request, UserError
from targets.chat import checked
from targets.generation import Message
from targets.server.http.problems import Problem
from targets.server.http.schemas import MANY, ONE, READ, Body, Stop, Temperature, TopP, count, sampling

COMPLETION_TOKENS = 16
"""Tokens of a completion where none are named, as in OpenAI's API."""
MAX_MESSAGES = 256
SEEDS = 2**31
ROLES = ("system", "developer", "user", "assistant")


def only(told: str) -> WrapValidator:
    """Values that a type does not take are refused with this sentence."""

    def check(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            found = handler(value)
        except ValidationError:
            raise PydanticCustomError("unsupported", told) from None
        if isinstance(found, bool) is not isinstance(value, bool):  # 0 is no false and true no 1 in JSON
            raise PydanticCustomError("unsupported", told)
        return found

    return WrapValidator(check)


AllZero: TypeAlias = Annotated[float, Field(ge=0, le=0)]
AllOne: TypeAlias = Annotated[float, Field(ge=1, le=1)]
EMPTY = Field(max_length=0)
Off: TypeAlias = Annotated[None, only("this server does not do that; leave it out")]
No: TypeAlias = Annotated[Literal[False] | None, only("this server does not do that; leave it out or send false")]
Single: TypeAlias = Annotated[Literal[1] | None, only("one answer is given a request; leave it out or send 1")]
Zero: TypeAlias = Annotated[AllZero | None, only("penalties are not served; leave it out or send 0")]
Once: TypeAlias = Annotated[AllOne | None, only("penalties are not served; leave it out or send 1")]
NoBias: TypeAlias = Annotated[Annotated[dict[str, Any], EMPTY] | None, only("biases are not served; leave it out")]
NoTools: TypeAlias = Annotated[Annotated[list[Any], EMPTY] | None, only("tools are not served; leave it out")]
NoChoice: TypeAlias = Annotated[Literal["none", "auto"] | None, only("tools are not served; leave it out")]
TEXT_ONLY = only("only text is answered; leave it out")


class Options(BaseModel):
    """Part of a body."""

    model_config = READ


class StreamOptions(Options):
    """What a stream brings beside the text."""

    include_usage: bool | None = Field(default=None, description="Counts of tokens in an event before the last.")
    include_obfuscation: Any = Field(default=None, description="Taken, and does nothing.")


class TextFormat(Options):
    """What an answer looks like."""

    type: Literal["text"]


class TextPart(Options):
    """A part of a message."""

    type: Annotated[Literal["text"], only("only text is read; send parts of the type text")]
    text: str = Field(min_length=1)


class ChatMessage(Options):
    """A turn of a conversation."""

    model_config = ConfigDict(extra="ignore")
    role: Annotated[Literal["system", "developer", "user", "assistant"], only(f"should be {', '.join(ROLES)}")]
    content: Annotated[
        Union[Annotated[str, Field(min_length=1), Tag(ONE)], Annotated[list[TextPart], Tag(MANY)]],
        Discriminator(count, "text_or_parts", "should be a string, or a list of parts of the type text"),
    ] = Field(description="What was said.")
    tool_calls: NoTools = None
    function_call: Off = None
    audio: Off = None

    def message(self) -> Message:
        """The turn as a task takes it."""
        said = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": said}


class Sampled(Body):
    """What both routes take."""

    model: str | None = Field(default=None, max_length=200, description="One of GET /v1/models; else the one there is.")
    max_tokens: int | None = Field(default=None, ge=1, description="Tokens that the answer has at most.")
    temperature: Temperature | None = Field(default=None, description="0, and null: the most probable token each time.")
    top_p: TopP | None = Field(default=None, description="Tokens beyond this probability mass are never drawn.")
    seed: int | None = Field(
        default=None, ge=-(2**63), le=2**63 - 1, description="The same seed draws the same tokens; without one any are."
    )
    stop: Stop | None = Field(default=None, description="Texts that end the answer; they are no part of it.")
    stream: bool | None = Field(default=None, description="Server-sent events, one a piece of text.")
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = Field(default=None, description="Go on until max_tokens, whatever the model says.")
    n: Single = None
    logit_bias: NoBias = None
    frequency_penalty: Zero = None
    presence_penalty: Zero = None
    repetition_penalty: Once = None
    repeat_penalty: Once = None
    min_p: Zero = None
    top_k: Annotated[Literal[0, -1] | None, only("it is not served; use top_p, or send 0 for none")] = None
    user: Any = Field(default=None, description="Taken, and does nothing.")
    metadata: Any = Field(default=None, description="Taken, and does nothing.")
    store: Any = Field(default=None, description="Taken, and does nothing.")
    service_tier: Any = Field(default=None, description="Taken, and does nothing.")
    safety_identifier: Any = Field(default=None, description="Taken, and does nothing.")
    prompt_cache_key: Any = Field(default=None, description="Taken, and does nothing.")
    cache_prompt: Any = Field(default=None, description="Taken, and does nothing.")
    cache_salt: Any = Field(default=None, description="Taken, and does nothing.")

    @property
    def usage_wanted(self) -> bool:
        """Whether a stream is to tell its counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def decoding(self, max_tokens: int) -> dict[str, Any]:
        """The keys of `Decoding`."""
        seed = secrets.randbelow(SEEDS) if self.seed is None else self.seed % SEEDS
        top_p = 1.0 if self.top_p is None else self.top_p
        found = sampling(max_tokens, self.temperature or 0.0, top_p, seed, self.stop)
        return found | ({"ignore_eos": True} if self.ignore_eos else {})


class ChatCompletionBody(Sampled):
    """A conversation to be answered."""

    messages: list[ChatMessage] = Field(
        min_length=1, max_length=MAX_MESSAGES, description="The turns, the user's last."
    )
    max_completion_tokens: int | None = Field(default=None, ge=1, description="The newer name of max_tokens.")
    logprobs: No = None
    top_logprobs: Annotated[Literal[0] | None, only("probabilities are not told; leave it out")] = None
    tools: NoTools = None
    functions: NoTools = None
    tool_choice: NoChoice = None
    function_call: NoChoice = None
    response_format: Annotated[TextFormat | None, TEXT_ONLY] = None
    modalities: Annotated[list[Literal["text"]] | None, TEXT_ONLY] = None
    audio: Off = None
    parallel_tool_calls: Any = Field(default=None, description="Taken, and does nothing.")
    prediction: Any = Field(default=None, description="Taken, and does nothing.")

    def request(self, max_tokens: int, most_chars: int) -> Request:
        """The request of the task chat; `max_tokens` where none are named."""
        named = {each for each in (self.max_tokens, self.max_completion_tokens) if each is not None}
        if len(named) > 1:
            raise Problem.invalid("max_tokens", "max_tokens and max_completion_tokens differ; send one of them")
        messages = [each.message() for each in self.messages]
        if (chars := sum(len(each["content"]) for each in messages)) > most_chars:
            told = f"messages have {chars} characters in all, at most {most_chars} are allowed"
            raise Problem.invalid("messages", told)
        try:
            return {"messages": checked(messages), **self.decoding(max(named, default=max_tokens))}
        except UserError as error:
            raise Problem.invalid("messages", str(error)) from None


class CompletionBody(Sampled):
    """Prompts to be continued."""

    prompt: str | list[str] = Field(description="The prompt, or a list of them; not token ids.")
    logprobs: Off = None
    echo: No = None
    best_of: Single = None
    suffix: Annotated[Literal[""] | None, only("nothing can be put before a suffix; leave it out")] = None

    def asked(self) -> list[Request]:
        """The requests of the task generation, in order."""
        prompts: Sequence[str] = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        decoding = self.decoding(self.max_tokens or COMPLETION_TOKENS)
        return [{"prompt": prompt, **decoding} for prompt in prompts]
