"""The vocabulary of generators: how a text is asked for, and what comes back. No framework is imported here.

A request of a generator holds, beside the task's own keys, the keys of `Decoding` that differ from its defaults:
`{"prompt": "Once", "max_tokens": 16, "ignore_eos": True}`. The same mapping so travels to a host, into answers.jsonl
and over HTTP.

An answer of a generator has these keys:

- `text`: the new text, without the prompt and without a stop string.
- `token_ids`: the new tokens in order, the end token not among them; None where the engine does not tell.
- `output_tokens`: how many there are, by the engine's own count, the end token not counted.
- `tokens`: tokens of the prompt as the model read them, special tokens and chat template included.
- `finish`: "stop" (end token or stop string) or "length" (`max_tokens` or the end of the context).
- `truncated`: whether the prompt was cut to fit (seq2seq models only: they read so many tokens and no more).
- `dropped_turns`: of a chat, how many of its oldest messages were left out to fit the context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from targets.api import Answer, Request, Runner, Task, Tick, UserError, no_tick

Message: TypeAlias = Mapping[str, str]
"""One turn of a chat: `role` (system, user or assistant) and `content`."""

Say: TypeAlias = Callable[[str], None]
"""Called with each new piece of an answer's text."""

FINISHES = ("stop", "length")
"""How an answer can end."""
MAX_TOKENS = 32
"""Tokens of an answer unless the request says otherwise."""
UNFINISHED = "\ufffd"
"""What bytes become that are no whole character."""


class ContextOverflow(UserError):
    """The prompt and the tokens asked for do not fit into the model's context; the message gives the three numbers."""

    SIGN = "but the context holds"
    """By which the message is known where only that has travelled."""

    @classmethod
    def of(cls, prompt: int, output: int, context: int) -> ContextOverflow:
        """The refusal for these counts of tokens."""
        return cls(
            f"the prompt has {prompt} tokens and {output} more are asked for, {cls.SIGN} {context}; "
            "shorten the prompt, or lower max_tokens"
        )


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen and when it ends. Temperature 0 is greedy.

    `ignore_eos`: the end token is not honoured (nor chosen), so that exactly `max_tokens` come: the pinned length that
    timings need. `min_tokens`: the end token is not chosen before so many. `stop`: strings that end the answer, however
    short it is; they are not part of it.
    """

    max_tokens: int = MAX_TOKENS
    ignore_eos: bool = False
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    min_tokens: int = 0

    @classmethod
    def of(cls, request: Request, max_tokens: int = MAX_TOKENS, *, holds_back: bool = False) -> Decoding:
        """The settings of a request; `max_tokens` where it names none.

        `holds_back`: whether the engine can keep the end token from being chosen until there are `min_tokens`.

        Raises:
            UserError: a value is out of range, or is more than the engine can do.
        """
        given = {name: request[name] for name in cls.__dataclass_fields__ if name in request}
        found = cls(**{"max_tokens": max_tokens, **given, "stop": tuple(given.get("stop", ()))})
        for name, value, right, wanted in (
            ("max_tokens", found.max_tokens, found.max_tokens >= 1, "at least 1"),
            ("temperature", found.temperature, found.temperature >= 0, "0 (greedy) or more"),
            ("top_p", found.top_p, 0 < found.top_p <= 1, "above 0, and 1 at most"),
            ("stop", found.stop, all(found.stop), "strings that are not empty"),
            ("min_tokens", found.min_tokens, 0 <= found.min_tokens <= found.max_tokens, f"0 to {found.max_tokens}"),
            (
                "min_tokens",
                found.min_tokens,
                holds_back or not found.min_tokens,
                "0: this engine cannot hold an end back",
            ),
        ):
            if not right:
                raise UserError(f"{name} is {value!r}, should be {wanted}")
        return found

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature == 0


@runtime_checkable
class GeneratorTask(Task, Protocol):
    """A task that is answered token by token."""

    chat: bool
    """Whether requests hold messages, to be put into the model's chat template, and not a prompt."""
    max_tokens: int
    """Tokens of an answer where the request names no number."""

    def prompt(self, request: Request) -> str:
        """The text that the model continues or transforms. Raises UserError for an empty one; not for chats."""
        ...

    def messages(self, request: Request) -> list[Message]:
        """The turns of a chat. Raises UserError if they are malformed; for chats only."""
        ...


class GeneratorRunner(Runner, Protocol):
    """A loaded generator. `run(batch, tick)` calls `tick` once per produced token, the end token not counted.

    Where the engine streams, a call with a tick streams, and one without does not; both give the same answer. A batch
    is answered at once where the engine can (padded, or as concurrent requests). A timed prompt finds no prefix of an
    earlier one in a cache: `run` forgets it, or the server is started that way.
    """

    @property
    def context(self) -> int | None:
        """Tokens of prompt and answer together that it holds; None where there is no bound, or none is known."""
        ...

    def stream(self, request: Request, say: Say, tick: Tick = no_tick) -> Answer:
        """Answer one request, and say its text while it comes: whole characters, and nothing of a stop string.

        The pieces joined are the answer's `text`, which is that of `run`. `tick` is called as by `run`: also for tokens
        that add nothing to the text yet. An exception raised by either ends the generation at that token and comes out
        of here; the runner is then as ready as before. `token_ids` may be None where the engine tells them of whole
        answers only.
        """
        ...

    def tokens(self, request: Request) -> list[int]:
        """The ids of the prompt as the model reads them. Raises Unsupported where the engine does not tell."""
        ...


def answer(
    text: str,
    token_ids: Sequence[int] | None,
    *,
    output_tokens: int,
    tokens: int,
    finish: str,
    truncated: bool = False,
    dropped_turns: int = 0,
) -> Answer:
    """An answer with every key (see the head of this file)."""
    ids = None if token_ids is None else [int(token) for token in token_ids]
    return {
        "text": text,
        "token_ids": ids,
        "output_tokens": output_tokens,
        "tokens": tokens,
        "finish": finish,
        "truncated": truncated,
        "dropped_turns": dropped_turns,
    }


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop string, and whether there was one."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(found)], True) if found else (text, False)


def as_generator(task: Task) -> GeneratorTask:
    """The task, known to be a generator's."""
    assert isinstance(task, GeneratorTask), f"{task.name} is of the family {task.family}"
    return task


def required(request: Mapping[str, Any], key: str) -> str:
    """A text of a request that says something. Raises UserError if it is empty."""
    value = request[key]
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"the {key} is empty; at least one character that is no space is needed")
    return value
