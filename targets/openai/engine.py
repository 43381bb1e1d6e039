"""A model behind an OpenAI-compatible server: answers whole or as events, counted by what the server tells."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from typing import Any

from targets.api import Evidence, Unsupported
from targets.generation import ContextOverflow, Decoding
from targets.openai.dialects import NEVER, Dialect, end_ids
from targets.openai.protocol import explained
from targets.openai.stream import Heard
from targets.remote.client import CutOff, HttpClient, Refused
from targets.remote.generator import Content, Reply, Ticks

ROUTES = {True: "/v1/completions", False: "/v1/chat/completions"}
"""By whether the content is a prompt."""
STANDARD = {"model", "prompt", "messages", "max_tokens", "temperature", "top_p", "seed", "stop", "stream"}
TOO_LONG = re.compile(r"context.{0,3}(length|window|size)|exceeds? the.{0,20}context|longer than the.{0,30}model", re.I)
REMEMBERED = 512
"""Prompts whose number of tokens is kept, for servers that do not tell it in streams."""


class OpenAiEngine:
    """See remote_generator.Engine. `proof` returns (wanted, found) by fact, and details, beyond what is known here."""

    def __init__(
        self,
        client: HttpClient,
        model: str,
        dialect: Dialect,
        *,
        context: int | None = None,
        proof: Callable[[], tuple[dict[str, tuple[str, str]], dict[str, Any]]] = lambda: ({}, {}),
    ) -> None:
        self.client = client
        self.context = context
        self.at_once = dialect.at_once
        self._model = model
        self._dialect = dialect
        self._proof = proof
        self._bare = False
        self._pins = True
        self._cached = 0
        self._notes: dict[str, None] = {}
        self._prompts: dict[str, int] = {}
        self._bias = dict.fromkeys(map(str, end_ids(client, model, dialect.tokenize)), NEVER) if dialect.biased else {}
        if dialect.reuses:
            self._note(f"{dialect.name} keeps the last prompt, and offers no way to forget it before the next")

    def ask(self, content: Content, decoding: Decoding, ticks: Ticks | None) -> Reply:
        """One answer, streamed where there are ticks; fields that the server does not take are left out."""
        try:
            return self._reply(content, decoding, ticks)
        except Refused as refusal:
            if refusal.status not in (400, 422) or self._bare:
                raise explained(refusal, self.client, self._model) from None
            return self._without_extras(refusal, content, decoding, ticks)

    def count(self, content: Content) -> int:
        """Tokens of a prompt or chat: by the server's tokenizer, or where it has no route for that by its own count."""
        try:
            return len(self.tokens(content))
        except Unsupported:
            return self._prompt_tokens(content)

    def tokens(self, content: Content) -> list[int]:
        """Their ids."""
        return self._dialect.tokenize(self.client, self._model, content)

    def evidence(self) -> Evidence:
        """What is proved from outside, and how many tokens of a prompt the server took from a cache."""
        facts, details = self._proof()
        known = {
            "url": self.client.url,
            "server": self._dialect.name,
            "model": self._model,
            "context": self.context,
            "pins_length": self._pins,
        }
        return Evidence(
            {name: wanted for name, (wanted, _) in facts.items()},
            {name: found for name, (_, found) in facts.items()},
            {**known, "cached_tokens": self._cached, **details, "notes": [*self._notes, *details.get("notes", ())]},
        )

    def close(self) -> None:
        """Close connections."""
        self.client.close()

    def _without_extras(self, refusal: Refused, content: Content, decoding: Decoding, ticks: Ticks | None) -> Reply:
        """Once more with standard fields only; a server that refuses those as well is refused itself."""
        extras = ", ".join(sorted(set(self._body(content, decoding, ticks is not None)) - STANDARD))
        self._bare = True
        try:
            reply = self._reply(content, decoding, ticks)
        except Refused:
            self._bare = False
            raise explained(refusal, self.client, self._model) from None
        self._note(f"the server does not take all of {extras}, so none is sent ({refusal.told[:100]})")
        return reply

    def _body(self, content: Content, decoding: Decoding, stream: bool) -> dict[str, Any]:
        asked = {"prompt": content} if isinstance(content, str) else {"messages": [dict(turn) for turn in content]}
        body = {
            "model": self._model,
            **asked,
            "max_tokens": decoding.max_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "seed": decoding.seed,
            "stream": stream,
        }
        if decoding.stop:
            body["stop"] = list(decoding.stop)
        if self._bare:
            return body
        if stream:
            body["stream_options"] = {"include_usage": True}
        if decoding.ignore_eos and self._bias:
            body["logit_bias"] = self._bias
        return body | self._dialect.extras(decoding)

    def _reply(self, content: Content, decoding: Decoding, ticks: Ticks | None) -> Reply:
        heard = self._hear(content, decoding, ticks)
        usage = heard.usage or self._counted(heard, content, decoding)
        self._cached = max(self._cached, (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
        length = heard.last["finish_reason"] == "length"
        count = usage["completion_tokens"] - (not length and self._dialect.counts_end and self._at_end(heard, decoding))
        if ticks:
            ticks.upto(count)
        if decoding.ignore_eos and count < decoding.max_tokens:
            self._pins = False
            self._note("answers end before max_tokens: the server honours the end token though asked not to")
        return Reply(
            text=heard.text.rstrip("\N{REPLACEMENT CHARACTER}") if length else heard.text,
            output_tokens=count,
            tokens=usage["prompt_tokens"],
            finish="length" if length else "stop",
        )

    def _hear(self, content: Content, decoding: Decoding, ticks: Ticks | None = None) -> Heard:
        """The answer: at once, or with ticks as a stream."""
        try:
            return self._heard(content, decoding, ticks)
        except Refused as refusal:
            if TOO_LONG.search(refusal.told):
                raise ContextOverflow(f"{self.client.url} finds the prompt too long: {refusal.told}") from None
            raise

    def _heard(self, content: Content, decoding: Decoding, ticks: Ticks | None) -> Heard:
        route = ROUTES[isinstance(content, str)]
        where = f"{self.client.url}{route}"
        body = self._body(content, decoding, stream=ticks is not None)
        if ticks is None:
            return Heard(where).whole(self.client.post(route, body))
        with closing(self.client.lines(route, body)) as lines:
            heard = Heard(where).stream(lines, ticks)
        if not heard.events:
            self._hear(content, decoding)  # some servers tell a refusal only to those who do not stream
            raise CutOff(f"{where}: the stream ended before it began")
        return heard

    def _at_end(self, heard: Heard, decoding: Decoding) -> bool:
        """Whether it was an end token that stopped the answer, and not a stop string."""
        if "stop_reason" in heard.last:  # vLLM: a string or an id that was asked for, None for the model's own end
            return not isinstance(heard.last["stop_reason"], str)
        if decoding.stop:
            self._note("whether an end token or a stop string ended an answer is not told: its count may hold one more")
        return not decoding.stop

    def _counted(self, heard: Heard, content: Content, decoding: Decoding) -> dict[str, Any]:
        """The usage of a stream that told none: asked for once more, whole, unless its events leave no doubt."""
        self._note("streams tell no usage: tokens are counted by their events, or by asking again")
        if heard.last["finish_reason"] == "length":
            return {"prompt_tokens": self._prompt_tokens(content), "completion_tokens": decoding.max_tokens}
        if heard.text.isascii() and not decoding.stop:  # then each token came as an event of its own
            return {"prompt_tokens": self._prompt_tokens(content), "completion_tokens": heard.seen}
        usage: dict[str, Any] = self._hear(content, decoding).usage or {}
        return usage

    def _prompt_tokens(self, content: Content) -> int:
        """Tokens of a prompt or chat by the count of an answer of one token; asked for once."""
        key = json.dumps(content)
        if key not in self._prompts:
            if len(self._prompts) >= REMEMBERED:
                self._prompts.clear()
            usage = self._hear(content, Decoding(max_tokens=1)).usage or {}
            self._prompts[key] = usage["prompt_tokens"]
        return self._prompts[key]

    def _note(self, sentence: str) -> None:
        self._notes[sentence] = None
