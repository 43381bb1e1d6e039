"""Ollama's own protocol (its docs/api.md): answers with their counts and durations, and its models."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from targets.api import Evidence, Unsupported, UserError
from targets.generation import ContextOverflow, Decoding
from targets.remote.client import CutOff, Garbled, HttpClient, Refused
from targets.remote.generator import Content, Reply, Ticks

Json = dict[str, Any]

ROUTES = {True: "/api/generate", False: "/api/chat"}
"""By whether the content is a prompt."""
COUNTS = ("eval_count", "eval_duration", "prompt_eval_duration", "load_duration", "total_duration", "prompt_eval_count")
TOO_LONG = re.compile(r"exceeds?.{0,30}context|context.{0,3}(length|window|size)", re.IGNORECASE)
STAY = "30m"
"""How long a model stays loaded after a request: longer than any case."""
DISAGREE = 0.1
ENOUGH_MS = 50.0
"""Durations below this are too short to be compared with our clock."""
RELOAD_S = 0.5
"""A load_duration above this is a load; below, Ollama has found the model loaded."""


class OllamaEngine:
    """See remote_generator.Engine.

    Args:
        name: the model's name there.
        context: `num_ctx`, the same for every request, as another one would load the model again.
        threads: `num_thread`; None leaves it to Ollama.
        proof: returns (wanted, found) by fact, and details, beyond what the answers tell.
        done: called on close.
    """

    at_once = None

    def __init__(
        self,
        client: HttpClient,
        name: str,
        *,
        context: int,
        threads: int | None,
        proof: Callable[[], tuple[dict[str, tuple[str, str]], Json]],
        done: Callable[[], None] = lambda: None,
    ) -> None:
        self.client = client
        self.name = name
        self.context = context
        self._threads = {} if threads is None else {"num_thread": threads}
        self._proof = proof
        self._done: Callable[[], None] | None = done
        self._last: Json = {}
        self._miscounted = ""
        self._notes = dict.fromkeys(
            ["Ollama keeps the last prompts and takes equal beginnings from them; its protocol cannot switch that off"]
        )

    def preload(self) -> None:
        """Load the model with the options of all later requests, so that none of them loads it."""
        body = {"model": self.name, "stream": False, "keep_alive": STAY, "options": self._fixed()}
        self._post("/api/generate", body)

    def ask(self, content: Content, decoding: Decoding, ticks: Ticks | None) -> Reply:
        """One answer, streamed where there are ticks."""
        began = time.perf_counter_ns()
        text, last, span_ms = self._hear(content, decoding, ticks)
        self._clock(last, span_ms, (time.perf_counter_ns() - began) / 1e6)
        count = self._count(last, decoding, ticks)
        if ticks:
            ticks.upto(count)
        if decoding.ignore_eos and count < decoding.max_tokens:
            self._note("answers end before max_tokens: Ollama has no way to go on after the end token")
        return Reply(
            text=text,
            output_tokens=count,
            tokens=last["prompt_eval_count"],
            finish="length" if last.get("done_reason") == "length" else "stop",
        )

    def count(self, content: Content) -> int:
        """Tokens of a prompt or chat, by the count of an answer of one token."""
        last = self._hear(content, Decoding(max_tokens=1), None)[1]
        return int(last["prompt_eval_count"])

    def tokens(self, content: Content) -> list[int]:
        """Ollama has no route for ids."""
        raise Unsupported("Ollama does not tell the ids of a prompt")

    def evidence(self) -> Evidence:
        """What is proved from outside, and whether counts agree with what came."""
        facts, details = self._proof()
        facts |= {"tokens counted": ("as they came", self._miscounted or "as they came")}
        return Evidence(
            {fact: wanted for fact, (wanted, _) in facts.items()},
            {fact: found for fact, (_, found) in facts.items()},
            {
                **details,
                "context": self.context,
                "pins_length": False,
                "last answer": self._last,
                "notes": list(self._notes),
            },
        )

    def close(self) -> None:
        """Undo what was set up, once, and close connections."""
        done, self._done = self._done, None
        try:
            if done is not None:
                done()
        finally:
            self.client.close()

    def _fixed(self) -> Json:
        return {"num_ctx": self.context, **self._threads}

    def _body(self, content: Content, decoding: Decoding, stream: bool) -> Json:
        own = {"temperature": 0, "top_k": 1} if decoding.greedy else {"top_k": 0, "min_p": 0.0}
        options = {
            **self._fixed(),
            "num_predict": decoding.max_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "seed": decoding.seed,
            "repeat_penalty": 1.0,
            **own,
            **({"stop": list(decoding.stop)} if decoding.stop else {}),
        }
        asked: Json = {"messages": [dict(turn) for turn in content]} if not isinstance(content, str) else {}
        if isinstance(content, str):
            asked = {"prompt": content, "raw": True}  # raw: no template around a prompt
        refusing = {"truncate": False, "shift": False}  # a long prompt is an error then, where Ollama knows these
        return {"model": self.name, **asked, **refusing, "stream": stream, "keep_alive": STAY, "options": options}

    def _hear(self, content: Content, decoding: Decoding, ticks: Ticks | None) -> tuple[str, Json, float]:
        """The text, the last object with its counts, and ms from the first to the last token (0 unless streamed)."""
        route = ROUTES[isinstance(content, str)]
        body = self._body(content, decoding, stream=ticks is not None)
        if ticks is None:
            found = self._post(route, body)
            return text_in(found), self._final(route, found), 0.0
        pieces: list[str] = []
        stamps: list[int] = []
        try:
            with closing(self.client.lines(route, body)) as lines:
                for line in lines:
                    found = self._object(route, line)
                    if piece := text_in(found):
                        pieces.append(piece)
                        ticks.upto(len(pieces))
                        stamps.append(time.perf_counter_ns())
                        ticks.heard(pieces)
                    if found.get("done"):
                        span_ms = (stamps[-1] - stamps[0]) / 1e6 if stamps else 0.0
                        return "".join(pieces), self._final(route, found), span_ms
        except Refused as refusal:
            raise self._explained(refusal) from None
        raise CutOff(f"{self.client.url}{route}: the stream ended before the answer did, after {len(pieces)} tokens")

    def _post(self, route: str, body: Json) -> Json:
        try:
            found = self.client.post(route, body)
        except Refused as refusal:
            raise self._explained(refusal) from None
        return self._checked(route, found)

    def _object(self, route: str, line: bytes) -> Json:
        try:
            found = json.loads(line)
        except ValueError as error:
            start = line[:60].decode(errors="replace")
            raise Garbled(f"{self.client.url}{route}: a line of the stream is no JSON: {start!r}") from error
        return self._checked(route, found)

    def _checked(self, route: str, found: Any) -> Json:
        if not isinstance(found, dict):
            raise Garbled(f"{self.client.url}{route}: an answer should be an object, is {str(found)[:60]!r}")
        if found.get("error"):
            raise self._explained(Refused(f"{self.client.url}{route}", 500, str(found["error"])))
        return found

    def _explained(self, refusal: Refused) -> UserError:
        if refusal.status == 404 and "model" in refusal.told:
            return UserError(
                f"Ollama at {self.client.url} has no model {self.name!r}: get it with `ollama pull {self.name}`"
            )
        if TOO_LONG.search(refusal.told):
            return ContextOverflow(f"Ollama finds the prompt too long for {self.context} tokens: {refusal.told}")
        return refusal

    def _final(self, route: str, last: Json) -> Json:
        missing = [name for name in ("eval_count", "prompt_eval_count") if not isinstance(last.get(name), int)]
        if missing or not last.get("done"):
            raise Garbled(
                f"{self.client.url}{route}: the answer ends without {', '.join(missing) or 'done'}, which Ollama tells"
            )
        return last

    def _count(self, last: Json, decoding: Decoding, ticks: Ticks | None) -> int:
        """Tokens of the answer: eval_count, without the end token that Ollama counts but does not send."""
        count = int(last["eval_count"])
        ended = last.get("done_reason") != "length" and not decoding.stop
        if ended and not (ticks and ticks.done == count):
            count -= 1
        if ticks and ticks.done > count:
            self._miscounted = f"{count} by eval_count, {ticks.done} in the stream"
        if count > decoding.max_tokens:
            self._miscounted = f"{count} by eval_count, at most {decoding.max_tokens} were asked for"
        return count

    def _clock(self, last: Json, span_ms: float, whole_ms: float) -> None:
        """Hold Ollama's durations (ns) against our clock."""
        self._last = {name: last[name] for name in COUNTS if name in last}
        said_ms = last.get("eval_duration", 0) / 1e6
        if span_ms > ENOUGH_MS and abs(said_ms - span_ms) > DISAGREE * span_ms:
            self._note(
                f"eval_duration disagrees with our clock: {said_ms:.0f} ms for {last['eval_count']} tokens, but"
                f" {span_ms:.0f} ms passed between the first and the last"
            )
        if (loaded_s := last.get("load_duration", 0) / 1e9) > RELOAD_S:
            self._note(f"the model was loaded again within a request: {loaded_s:.1f} s of {whole_ms / 1e3:.1f} s")

    def _note(self, sentence: str) -> None:
        key = sentence.split(":")[0]  # one of a kind, with the figures of its first time
        if not any(note.startswith(key) for note in self._notes):
            self._notes[sentence] = None


def text_in(found: Json) -> str:
    """The text of an object: of a completion or a message, thinking included."""
    message = found.get("message") if isinstance(found.get("message"), dict) else found
    assert message is not None
    return str(message.get("thinking") or "") + str(message.get("response") or message.get("content") or "")
