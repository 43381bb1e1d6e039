"""A double of the OpenAI protocol for the harness's own tests: no model, words by arithmetic.

No accuracy or speed of anything is ever reported from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from suites.meta.hostile_server import Asked, Says, says

WORDS = ("red", "green", "blue", "grey", "white")


@dataclass
class OpenAiDouble:
    """Call it with a request (see hostile_server.serving).

    A prompt has a token a word. After `ends_after` words the end token comes; it is counted if `counts_end`, and comes
    as an event without text if `shows_end`. `flaw` is done to every answer.
    """

    owner: str = "someone"
    model: str = "small"
    key: str | None = None
    context: int | None = None
    takes: frozenset[str] | None = None
    """Fields it knows beyond the standard; None: it ignores what it does not know."""
    tells_usage: bool = True
    ends_after: int = 1000
    counts_end: bool = False
    shows_end: bool = False
    cached: int = 0
    ids_of_ends: tuple[str, ...] = ()
    flaw: Callable[[Says], Says] = lambda said: said

    def __call__(self, asked: Asked) -> Says:
        """The answer to one request."""
        if self.key is not None and asked.key != f"Bearer {self.key}":
            return says({"error": {"message": "Incorrect API key provided"}}, 401)
        if asked.path == "/v1/models":
            row = {"id": self.model, "object": "model", "owned_by": self.owner}
            return says({"object": "list", "data": [row | ({"max_model_len": self.context} if self.context else {})]})
        if asked.path == "/extras/tokenize":
            words = asked.body["input"].split()
            known = len(words) == 1 and words[0] in self.ids_of_ends
            return says({"tokens": [7] if known else [1] * 2 * len(words)})
        return self.flaw(self._answer(asked))

    def _answer(self, asked: Asked) -> Says:
        body, chat = asked.body, asked.path == "/v1/chat/completions"
        if body["model"] != self.model:
            return says({"error": {"message": f"The model `{body['model']}` does not exist"}}, 404)
        if self.takes is not None and (unknown := set(body) - STANDARD - self.takes):
            return says({"detail": [f"extra fields not permitted: {', '.join(sorted(unknown))}"]}, 400)
        prompt = " ".join(turn["content"] for turn in body["messages"]) if chat else body["prompt"]
        size = len(prompt.split()) + (4 if chat else 0)
        if self.context and size + body["max_tokens"] > self.context:
            sentence = f"This model's maximum context length is {self.context} tokens, your prompt has {size}"
            return says({"error": {"message": sentence, "code": 400}}, 400)
        count = min(body["max_tokens"], self.ends_after)
        start = sum(prompt.encode())
        words = [f" {WORDS[place % len(WORDS)]}" for place in range(start, start + count)]
        why = "stop" if count < body["max_tokens"] else "length"
        usage = {
            "prompt_tokens": size,
            "completion_tokens": count + (why == "stop" and self.counts_end),
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }
        if not body["stream"]:
            part = {"message": {"content": "".join(words)}} if chat else {"text": "".join(words)}
            return says({"choices": [{**part, "finish_reason": why}], "usage": usage})
        told = usage if self.tells_usage and "stream_options" in body else None
        return Says(lines=tuple(self._events(words, why, told, chat)), kind="text/event-stream")

    def _events(self, words: list[str], why: str, usage: Any, chat: bool) -> list[bytes]:
        words = [*words, ""] if self.shows_end and why == "stop" else words
        parts = [{"delta": {"content": word}} if chat else {"text": word} for word in words]
        parts = [{"delta": {"role": "assistant", "content": ""}}, *parts] if chat else parts
        events: list[Any] = [{"choices": [{**part, "finish_reason": None}]} for part in parts]
        events.append({"choices": [{**({"delta": {}} if chat else {"text": ""}), "finish_reason": why}]})
        events += [{"choices": [], "usage": usage}] if usage else []
        return [f"data: {json.dumps(event)}\n\n".encode() for event in events] + [b"data: [DONE]\n\n"]


STANDARD = {"model", "prompt", "messages", "max_tokens", "temperature", "top_p", "seed", "stop", "stream"}
