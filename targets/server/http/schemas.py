"""What the task routes take and give, as pydantic models; the OpenAPI document is made of them.

The classes say what each field means; `limited` adds what this server's settings allow. Nothing is coerced: a number
is no string, and a field that nobody knows is refused, because a mistyped option would else be ignored in silence.
"""

# ruff: noqa: UP007 (pydantic's tags stand in a Union)
from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, TypeVar, Union

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, create_model

from targets.api import Request
from targets.generation import MAX_TOKENS
from targets.server.http.problems import Problem
from targets.server.settings import Limits

NOT_BLANK = r"[^\s\x1c-\x1f\x85\ufeff]"
"""At least one character that is no space, in the dialects of JSON Schema, of Python and of pydantic alike."""
COLDEST = 0.01
"""The lowest temperature above 0: logits divided by less leave the range of 32-bit floats."""
MAX_STOPS = 4
"""Stop strings of a request, as many as OpenAI's API takes."""
MAX_STOP_CHARS = 200
LENGTHS = ("max_tokens", "max_length")
"""Fields that bound an answer."""
ONE, MANY = "one", "many"
"""Tags of what may be one text or a list of texts; they are no part of a field's name (see mistakes.field)."""


def warm(temperature: float) -> float:
    """The temperature, raised to `COLDEST` unless it is 0."""
    return max(temperature, COLDEST) if temperature else 0.0


def whole(value: Any) -> Any:
    """A number without a fraction as the integer that it is, as JSON Schema counts them: 3.0 is 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def count(value: Any) -> str | None:
    """The tag of what may be one text or a list of texts."""
    return ONE if isinstance(value, str) else MANY if isinstance(value, list) else None


ONE_OR_MANY = Discriminator(count, "one_or_many", "should be a string or a list of strings")
"""Tells one text from a list of them, with an error of its own for anything else."""
Temperature = Annotated[float, Field(ge=0, le=2), AfterValidator(warm)]
TopP = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1), BeforeValidator(whole)]
Least = Annotated[int, Field(ge=0), BeforeValidator(whole)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1), BeforeValidator(whole)]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
StopTexts = Annotated[list[StopText], Field(max_length=MAX_STOPS)]
Stop = Annotated[Union[Annotated[StopText, Tag(ONE)], Annotated[StopTexts, Tag(MANY)]], ONE_OR_MANY]


READ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, cache_strings="keys")
"""How all that a client sends is read. By default pydantic keeps up to 16,384 short strings of JSON for when they come
again: names of fields do, what users write does not, and is none of a reader's business once it is answered."""


class Body(BaseModel):
    """What a task route takes."""

    model_config = READ
    bare: ClassVar[str | None] = None
    """The field that a bare list stands for; None: an object is needed."""
    options: ClassVar[tuple[str, ...]] = ()
    """Fields that may stand in the query as well: clients that post a bare list have no other place for them.

    What the body says goes before what the query says.
    """

    def requests(self) -> list[Request]:
        """The requests of the task, in order. Raises Problem if fields contradict each other."""
        raise NotImplementedError

    @property
    def width(self) -> int | None:
        """How many of them may be answered at once; None: all."""
        return None

    @property
    def with_ids(self) -> bool:
        """Whether the ids of the new tokens are wanted."""
        return False

    @property
    def streams(self) -> bool:
        """Whether the answer is wanted while it is made. Raises Problem where that cannot be."""
        return False


class Batched(Body):
    """Bodies of several texts."""

    options: ClassVar[tuple[str, ...]] = ("batch_size",)
    batch_size: Count | None = Field(
        default=None,
        description="At most so many of the texts are given to the model at once; its own limit holds beside it.",
    )

    @property
    def width(self) -> int | None:
        """The batch size asked for."""
        return self.batch_size


class Texts(Batched):
    """Texts to be read."""

    bare: ClassVar[str | None] = "texts"
    texts: list[str] = Field(description="The texts, answered in this order.")

    def requests(self) -> list[Request]:
        """One a text."""
        return [{"text": text} for text in self.texts]


class Questions(Batched):
    """Questions, each with the text that holds its answer."""

    questions: list[str] = Field(description="The questions, answered in this order.")
    contexts: list[str] = Field(description="For each question the text to look for the answer in.")

    def requests(self) -> list[Request]:
        """One a question."""
        if len(self.questions) != len(self.contexts):
            raise Problem.invalid(
                "contexts",
                f"there are {len(self.questions)} questions and {len(self.contexts)} contexts; "
                "each question needs one context",
            )
        pairs = zip(self.questions, self.contexts, strict=True)
        return [{"question": question, "context": context} for question, context in pairs]


class TextsToRewrite(Texts):
    """Texts to be translated."""

    options: ClassVar[tuple[str, ...]] = ("batch_size", "max_length")
    max_length: Count = Field(default=MAX_TOKENS, description="Tokens that an answer has at most.")
    return_token_ids: bool = Field(default=False, description="Whether answers hold the ids of their tokens.")

    def requests(self) -> list[Request]:
        """One a text."""
        return [{"text": text, "max_tokens": self.max_length} for text in self.texts]

    @property
    def with_ids(self) -> bool:
        """As asked for."""
        return self.return_token_ids


class TextsToSummarize(TextsToRewrite):
    """Texts to be summarized."""

    options: ClassVar[tuple[str, ...]] = ("batch_size", "max_length", "min_length")
    min_length: Least = Field(default=0, description="Tokens that an answer has at least.")

    def requests(self) -> list[Request]:
        """One a text."""
        if not self.min_length:
            return super().requests()
        if self.min_length > self.max_length:
            raise Problem.invalid(
                "min_length", f"min_length is {self.min_length}, should be at most max_length, {self.max_length}"
            )
        return [{**request, "min_tokens": self.min_length} for request in super().requests()]


class Prompts(Body):
    """Prompts to be continued."""

    bare: ClassVar[str | None] = "prompt"
    prompt: str | list[str] = Field(description="The prompt, or a list of them, answered in this order.")
    max_tokens: Count = Field(default=MAX_TOKENS, description="Tokens that an answer has at most.")
    temperature: Temperature = Field(default=0.0, description="0 takes the most probable token each time.")
    top_p: TopP = Field(default=1.0, description="Tokens beyond this probability mass are never drawn.")
    seed: Seed = Field(default=0, description="The same seed draws the same tokens.")
    stop: Stop = Field(default=[], description="Texts that end the answer; they are no part of it.")
    stream: bool = Field(default=False, description="Server-sent events, one a piece of text, for one prompt.")
    return_token_ids: bool = Field(default=False, description="Whether answers hold the ids of their tokens.")

    def requests(self) -> list[Request]:
        """One a prompt; what is as it would be anyway is left out, so that equal requests look equal."""
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        decoding = sampling(self.max_tokens, self.temperature, self.top_p, self.seed, self.stop)
        return [{"prompt": prompt, **decoding} for prompt in prompts]

    @property
    def with_ids(self) -> bool:
        """As asked for."""
        return self.return_token_ids

    @property
    def streams(self) -> bool:
        """As asked for, of one prompt."""
        if self.stream and isinstance(self.prompt, list) and len(self.prompt) > 1:
            raise Problem.invalid("stream", "several prompts are not streamed; send them one by one")
        return self.stream


def sampling(
    max_tokens: int | None, temperature: float, top_p: float, seed: int, stop: str | Sequence[str] | None
) -> dict[str, Any]:
    """The keys of `Decoding` that differ from its defaults; greedy requests carry nothing of how to draw."""
    found: dict[str, Any] = {} if max_tokens is None else {"max_tokens": max_tokens}
    if temperature:
        found |= {"temperature": temperature, "top_p": top_p, "seed": seed}
    if stop:
        found["stop"] = [stop] if isinstance(stop, str) else list(stop)
    return found


def allowed(limits: Limits) -> dict[str, Any]:
    """The types of the fields whose bounds are this server's."""
    text = Annotated[str, Field(min_length=1, max_length=limits.max_text_chars, pattern=NOT_BLANK)]
    texts = Annotated[list[text], Field(min_length=1, max_length=limits.max_texts)]
    tokens = Annotated[int, Field(ge=1, le=limits.max_output_tokens), BeforeValidator(whole)]
    return {
        "texts": texts,
        "questions": texts,
        "contexts": texts,
        "prompt": Annotated[Union[Annotated[text, Tag(ONE)], Annotated[texts, Tag(MANY)]], ONE_OR_MANY],
        "text": text,
        "system": text | None,
        "max_tokens": tokens | None,
        "max_completion_tokens": tokens | None,
        "max_length": tokens | None,
        "min_length": Annotated[int, Field(ge=0, le=limits.max_output_tokens), BeforeValidator(whole)],
    }


B = TypeVar("B", bound=BaseModel)


def limited(body: type[B], limits: Limits, longest: int | None = None) -> type[B]:
    """The same body with the bounds of this server, under the same name.

    `longest`: tokens of an answer where the request names no number, as far as the limits allow.
    """
    types = allowed(limits)
    made: dict[str, Any] = {}
    for name, field in body.model_fields.items():
        kind, default = types.get(name), field.default
        if longest is not None and name in LENGTHS:
            kind = Annotated[int, Field(ge=1, le=limits.max_output_tokens), BeforeValidator(whole)]
            default = min(longest, limits.max_output_tokens)
        if kind is not None:
            made[name] = (kind, Field(default=default, description=field.description))
    return create_model(body.__name__, __base__=body, __doc__=body.__doc__, __module__=body.__module__, **made)
