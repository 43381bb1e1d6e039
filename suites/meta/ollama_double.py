"""A double of Ollama's protocol for the harness's own tests: no model, words by arithmetic, figures made to be checked.

No accuracy or speed of anything is ever reported from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from suites.meta.hostile_server import Asked, Says, says

WORDS = ("red", "green", "blue", "grey", "white")
CONTEXT = 64
MS = 1_000_000


@dataclass
class OllamaDouble:
    """Call it with a request (see hostile_server.serving).

    A prompt has a token a word. An answer goes round WORDS from a place that the prompt decides; after `ends_after`
    words comes the end token, which counts and is not sent. `flaw` is done to every answer of generate and chat.
    """

    models: list[str] = field(default_factory=lambda: ["small:latest"])
    size_vram: int = 0
    template: str = "{{ .System }} {{ .Prompt }}"
    ends_after: int = 1000
    gap_s: float = 0.0
    token_ms: float = 0.0
    flaw: Callable[[Says], Says] = lambda said: said
    blobs: set[str] = field(default_factory=set)
    created: list[Any] = field(default_factory=list)
    loaded: str = ""

    def __call__(self, asked: Asked) -> Says:
        """The answer to one request."""
        if asked.path.startswith("/api/blobs/"):
            return self._blob(asked)
        if asked.path in ("/api/generate", "/api/chat"):
            return self._answer(asked)
        return {
            "/api/tags": self._tags,
            "/api/ps": self._ps,
            "/api/show": self._show,
            "/api/create": self._create,
            "/api/delete": self._delete,
        }[asked.path](asked.body)

    def _tags(self, _: Any) -> Says:
        return says({"models": [{"name": name} for name in self.models]})

    def _ps(self, _: Any) -> Says:
        return says(
            {"models": [{"name": self.loaded, "size": 1000, "size_vram": self.size_vram}] if self.loaded else []}
        )

    def _show(self, _: Any) -> Says:
        details = {"quantization_level": "F16", "family": "llama"}
        known = {"general.architecture": "llama", "llama.context_length": CONTEXT}
        return says({"details": details, "model_info": known, "template": self.template})

    def _blob(self, asked: Asked) -> Says:
        digest = asked.path.rsplit("/", 1)[-1]
        if asked.method == "HEAD":
            return Says(b"", status=200 if digest in self.blobs else 404)
        self.blobs.add(digest)
        return Says(b"", status=201)

    def _create(self, body: Any) -> Says:
        self.created.append(body)
        self.models.append(body["model"])
        return says({"status": "success"})

    def _delete(self, body: Any) -> Says:
        self.models.remove(body["model"])
        return Says(b"")

    def _answer(self, asked: Asked) -> Says:
        body = asked.body
        name = body["model"] if ":" in body["model"] else f"{body['model']}:latest"
        if name not in self.models:
            return says({"error": f"model '{body['model']}' not found"}, 404)
        self.loaded = name
        chat = asked.path == "/api/chat"
        if not chat and "prompt" not in body:
            return says({"model": name, "response": "", "done": True, "done_reason": "load"})
        prompt = " ".join(turn["content"] for turn in body["messages"]) if chat else body["prompt"]
        size = len(prompt.split()) + (4 if chat else 0)
        options = body["options"]
        if size > options["num_ctx"] and body.get("truncate") is False:
            return says({"error": "the input length exceeds the context length"}, 400)
        words, reason, count = self._words(prompt, options)
        events = [self._event(chat, name, word) for word in words]
        last = {
            **self._event(chat, name, "" if body["stream"] else "".join(words)),
            "done": True,
            "done_reason": reason,
            "total_duration": 9 * MS,
            "load_duration": MS,
            "prompt_eval_count": size,
            "prompt_eval_duration": 2 * MS,
            "eval_count": count,
            "eval_duration": int(count * self.token_ms * MS),
        }
        if not body["stream"]:
            return self.flaw(says(last))
        lines = tuple(json.dumps(event).encode() + b"\n" for event in (*events, last))
        return self.flaw(Says(lines=lines, kind="application/x-ndjson", gap_s=self.gap_s))

    def _words(self, prompt: str, options: Any) -> tuple[list[str], str, int]:
        """The words of an answer, why it ends, and how many tokens Ollama would count."""
        start, most = sum(prompt.encode()), min(options["num_predict"], self.ends_after)
        words = []
        for place in range(start, start + most):
            words.append(f" {WORDS[place % len(WORDS)]}")
            text = "".join(words)
            for stop in options.get("stop", ()):
                if stop in text:
                    return [text[: text.index(stop)]], "stop", len(words)
        ended = most < options["num_predict"]
        return words, "stop" if ended else "length", most + ended

    def _event(self, chat: bool, name: str, text: str) -> dict[str, Any]:
        said = {"message": {"role": "assistant", "content": text}} if chat else {"response": text}
        return {"model": name, **said, "done": False}
