"""The runner of every engine behind HTTP: concurrent requests, chats that fit, diagnoses of lost servers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from targets.api import Answer, Evidence, Floats, Labels, Request, Tick, Unsupported, no_tick
from targets.chat import fit
from targets.closing import Closing
from targets.generation import ContextOverflow, Decoding, GeneratorTask, Message, Say, answer
from targets.growing_text import GrowingText
from targets.remote.client import ServerTrouble
from targets.remote.process import ServerProcess

Content: TypeAlias = "str | list[Message]"
"""A prompt, or the turns of a chat."""

MOST = 64
"""Requests that are sent at a time."""
SPARE = 8
"""Tokens that a tokenizer may put around a prompt."""
CHAT_SPARE = 128
"""Tokens that a template may put around a chat (some bring a system prompt of their own)."""
TURN_SPARE = 16


@dataclass(frozen=True)
class Reply:
    """What an engine answered, in its own counts; the end token is not among `output_tokens`."""

    text: str
    output_tokens: int
    tokens: int
    finish: str
    token_ids: list[int] | None = None


class Engine(Protocol):
    """A served model, by its protocol."""

    @property
    def context(self) -> int | None:
        """Tokens it holds, where that is known."""
        ...

    @property
    def at_once(self) -> int | None:
        """The most requests it is sent at a time; None for any number."""
        ...

    def ask(self, content: Content, decoding: Decoding, ticks: Ticks | None) -> Reply:
        """One answer; streamed where there are ticks. Raises ContextOverflow where the server says so."""
        ...

    def count(self, content: Content) -> int:
        """Tokens of a prompt or chat as the model reads it. Raises ContextOverflow where it is too long to count."""
        ...

    def tokens(self, content: Content) -> list[int]:
        """Their ids. Raises Unsupported where the protocol does not tell."""
        ...

    def evidence(self) -> Evidence:
        """What was asked for and what runs."""
        ...

    def close(self) -> None:
        """Close connections, and undo what was set up on the server."""
        ...


class RemoteGenerator(Closing):
    """A GeneratorRunner (see targets/generation.py) of an engine behind HTTP.

    A tick makes a call stream. A batch is that many concurrent requests. `remote`: where the server is if it was there
    before, None if it is our `process`.
    """

    def __init__(
        self, task: GeneratorTask, engine: Engine, *, process: ServerProcess | None = None, remote: str | None = None
    ) -> None:
        self.task = task
        self.engine = engine
        self.process = process
        self.remote = remote
        self._pool = ThreadPoolExecutor(engine.at_once or MOST)  # threads come as they are needed, and stay connected

    @property
    def labels(self) -> Labels:
        """None: texts have no labels."""
        return {}

    def run(self, batch: Sequence[Request], tick: Tick = no_tick) -> list[Answer]:
        """Answer a batch, in order.

        Raises:
            ServerDied: the server that was started here has ended.
            ServerTrouble: the server does not answer as it should.
            ContextOverflow: a prompt and its answer do not fit.
        """
        ticks = [None if tick is no_tick else Ticks(tick) for _ in batch]
        if len(batch) == 1:
            return [self._guarded(batch[0], ticks[0])]
        running = [self._pool.submit(self._guarded, *pair) for pair in zip(batch, ticks, strict=True)]
        wait(running)  # all of them: none is left behind when one fails
        return [each.result() for each in running]

    @property
    def context(self) -> int | None:
        """Tokens that the served model holds, where that is known."""
        return self.engine.context

    def stream(self, request: Request, say: Say, tick: Tick = no_tick) -> Answer:
        """Answer one request, and say its text while it comes. Raises as `run` does."""
        text = GrowingText(say, Decoding.of(request, self.task.max_tokens).stop)
        made = self._guarded(request, Ticks(tick, text))
        text.end(made["text"])
        return made

    def tokens(self, request: Request) -> list[int]:
        """The ids of the prompt as the model reads them."""
        return self.engine.tokens(self.task.messages(request) if self.task.chat else self.task.prompt(request))

    def logits(self, batch: Sequence[Request]) -> list[list[Floats]]:
        """No server here gives all logits of a prompt: at most the most likely tokens of an answer."""
        raise Unsupported("an engine behind HTTP gives the probabilities of some tokens at most, not all logits")

    def evidence(self) -> Evidence:
        """What was asked for and what runs."""
        return self.engine.evidence()

    def close(self) -> None:
        """Close connections and stop the server that was started here; a second call does nothing."""
        self._pool.shutdown()
        try:
            self.engine.close()
        finally:
            if self.process is not None:
                self.process.stop()

    def _guarded(self, request: Request, ticks: Ticks | None) -> Answer:
        try:
            return self._answer(request, ticks)
        except ServerTrouble as trouble:
            death = self.process.died() if self.process is not None else None
            if death is not None:
                raise death from trouble
            raise

    def _answer(self, request: Request, ticks: Ticks | None) -> Answer:
        decoding = Decoding.of(request, self.task.max_tokens)
        content: Content = self.task.messages(request) if self.task.chat else self.task.prompt(request)
        kept, reply = self._reply(self._fitted(content, decoding), decoding, ticks)
        context = self.engine.context
        if context is not None and reply.tokens + decoding.max_tokens > context:
            raise ContextOverflow.of(reply.tokens, decoding.max_tokens, context)
        return answer(
            reply.text,
            reply.token_ids,
            output_tokens=reply.output_tokens,
            tokens=reply.tokens,
            finish=reply.finish,
            dropped_turns=0 if isinstance(kept, str) else len(content) - len(kept),
        )

    def _reply(self, content: Content, decoding: Decoding, ticks: Ticks | None) -> tuple[Content, Reply]:
        """What was sent and its answer: a chat that the server finds too long loses its oldest turns."""
        while True:
            try:
                return content, self.engine.ask(content, decoding, ticks)
            except ContextOverflow:
                shorter = None if isinstance(content, str) else without_oldest(content)
                if shorter is None:
                    raise
                content = shorter

    def _fitted(self, content: Content, decoding: Decoding) -> Content:
        """The prompt, or what fits of a chat; counted only where it may be too long even if each byte is a token."""
        context, output = self.engine.context, decoding.max_tokens
        if context is None or at_most(content) + output <= context:
            return content
        if isinstance(content, str):
            tokens = self.engine.count(content)
            if tokens + output > context:
                raise ContextOverflow.of(tokens, output, context)
            return content
        return fit(content, lambda kept: self._counted(list(kept)), output, context)[0]

    def _counted(self, messages: list[Message]) -> int:
        """Tokens of a chat; more than the context where it is too long even to be counted and can be shortened."""
        try:
            return self.engine.count(messages)
        except ContextOverflow:
            if self.engine.context is None or without_oldest(messages) is None:
                raise
            return self.engine.context + 1


def at_most(content: Content) -> int:
    """Tokens that a prompt or chat can have: one a byte, and what tokenizer and template put around it."""
    if isinstance(content, str):
        return len(content.encode()) + SPARE
    return CHAT_SPARE + sum(len(turn["content"].encode()) + TURN_SPARE for turn in content)


def without_oldest(messages: Sequence[Message]) -> list[Message] | None:
    """The chat without its oldest exchange after the system prompt; None where only the last turn is left."""
    start = 1 if messages[0]["role"] == "system" else 0
    later = [index for index in range(start + 1, len(messages)) if messages[index]["role"] == "user"]
    return [*messages[:start], *messages[later[0] :]] if later else None


class Ticks:
    """Ticks up to a count: tokens that arrive together, or without a text, are neither lost nor counted twice.

    `text`: where the text of the answer goes as it grows, if anyone listens.
    """

    def __init__(self, tick: Tick, text: GrowingText | None = None) -> None:
        self._tick = tick
        self.text = text
        self.done = 0

    def upto(self, count: int) -> None:
        """Tick until `count` tokens have been."""
        while self.done < count:
            self.done += 1
            self._tick()

    def heard(self, pieces: Sequence[str]) -> None:
        """Pass on what has come so far."""
        if self.text is not None:
            self.text.upto("".join(pieces))
