"""Streams: tokens come when they are made, each to whom they are for, and who leaves frees the engine."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from fixtures import report
from fixtures.serving import gauges
from fixtures.serving.chat_client import Chat, chat
from fixtures.serving.checking import LEAST_TOKENS, LONG, Has
from fixtures.serving.client import Client, events
from fixtures.serving.server import Server

TRIES = 5


@dataclass(frozen=True)
class Stream:
    """Pieces of an answer: when it was asked for, when each came, and how many tokens it has."""

    sent: float
    at: Sequence[float]
    tokens: int

    @property
    def share(self) -> float:
        """The part of the whole time that lay between the first and the last piece."""
        return (self.at[-1] - self.at[0]) / (self.at[-1] - self.sent)

    @property
    def moments(self) -> int:
        """How many moments they came at, in hundredths of a millisecond: those read at once have one."""
        return len({round(each, 5) for each in self.at})

    def __str__(self) -> str:
        gap = statistics.median(b - a for a, b in pairwise(self.at)) * 1e3
        first, last = ((each - self.sent) * 1e3 for each in (self.at[0], self.at[-1]))
        return (
            f"{self.tokens} tokens in {len(self.at)} pieces, the first after {first:.1f} ms, the last after {last:.1f}"
            f" ms ({gap:.2f} ms between two, median)"
        )


def check(ask: Callable[[], Stream]) -> None:
    """Assert that pieces come one by one from early on: at best of a few times, since this client may have to wait."""
    found = [ask() for _ in range(TRIES)]
    best = max(found, key=lambda each: each.share)
    report.attach_text("pieces", "\n".join(map(str, found)))
    assert best.tokens >= LEAST_TOKENS, f"{best}: too short an answer to tell a stream from a burst"
    assert len(best.at) >= best.tokens / 3, f"{best}: pieces of several tokens"
    assert best.share >= 0.5, f"{best}: they came in one burst at the end"
    assert best.moments >= len(best.at) / 2, f"{best}: at {best.moments} moments only"


def test_chat_streams_token_by_token(chatting: Chat, long: dict[str, Any]) -> None:
    """Over the WebSocket each token comes when it is made: the pieces are spread over the time the answer takes."""

    def ask() -> Stream:
        turn = chatting.ask(LONG["content"], **long)
        chatting.turn({"type": "reset"})
        assert turn.text
        return Stream(turn.sent, turn.at[:-1], turn.end["output_tokens"])

    check(ask)


def test_generate_streams_token_by_token(served: Server, has: Has) -> None:
    """The same by server-sent events from /generate."""
    has("generate")
    body = {"prompt": "Once there was a mouse", "max_tokens": 256, "temperature": 1.5, "seed": 3, "stream": True}

    def ask() -> Stream:
        with Client(served.url, served.headers) as client:
            sent = time.perf_counter()
            found = list(events(client.stream("/generate", body)))
        return Stream(sent, [at for at, frame in found if frame["type"] == "token"], found[-1][1]["output_tokens"])

    check(ask)


def test_completions_stream_token_by_token(served: Server, long: dict[str, Any]) -> None:
    """The same from /v1/chat/completions."""
    body = {"messages": [LONG], **long, "stream": True, "stream_options": {"include_usage": True}}

    def ask() -> Stream:
        with Client(served.url, served.headers) as client:
            sent = time.perf_counter()
            *chunks, _ = events(client.stream("/v1/chat/completions", body))
        said = [at for at, chunk in chunks for choice in chunk["choices"] if choice["delta"].get("content")]
        return Stream(sent, said, chunks[-1][1]["usage"]["completion_tokens"])

    check(ask)


def whole_answer(chatting: Chat, long: dict[str, Any]) -> tuple[float, int]:
    """Seconds that the long answer takes when nobody ends it, and its tokens; the chat is as new afterwards."""
    turn = chatting.ask(LONG["content"], **long)
    chatting.turn({"type": "reset"})
    return turn.at[-1] - turn.sent, turn.end["output_tokens"]


def test_cancel_frees_the_engine(served: Server, chatting: Chat, long: dict[str, Any]) -> None:
    """A cancelled answer ends within a few tokens, says so, and leaves the engine to the next request at once."""
    chatting.ask("Hello.")
    chatting.turn({"type": "reset"})
    length_s, tokens = whole_answer(chatting, long)
    before = gauges.read(served)
    chatting.say({"type": "message", "text": LONG["content"], **long})
    chatting.hear()
    cancelled = chatting.turn({"type": "cancel"})
    took = cancelled.at[-1] - cancelled.sent
    assert cancelled.end["type"] == "done", f"got {cancelled.end}"
    assert cancelled.end["finish"] == "cancelled", f"got {cancelled.end}"
    followed = len(cancelled.pieces)
    told = (
        f"after the cancel {followed} of {tokens} tokens in {took * 1e3:.1f} ms (whole answer {length_s * 1e3:.0f} ms)"
    )
    report.attach_text("cancel", told)
    assert followed < tokens / 2, told
    assert took < length_s / 2, told
    assert len(chatting.ask("Hello.").pieces) > 0
    depth = gauges.read(served).sum("nlp_queue_depth", task="chat")
    assert depth == 0, f"{depth:.0f} requests still wait"
    assert gauges.read(served).since(before, "nlp_engine_restarts_total", task="chat") == 0, "the engine was restarted"


def test_leaving_frees_the_engine(served: Server, chatting: Chat, long: dict[str, Any]) -> None:
    """A client that hangs up in the middle of a long answer costs the next one no more than a few tokens."""
    chatting.ask("Hello.")
    chatting.turn({"type": "reset"})
    length_s, tokens = whole_answer(chatting, long)
    waits = []
    for _ in range(5):
        with chat(served.url, served.headers) as leaving:
            leaving.say({"type": "message", "text": LONG["content"], **long})
            leaving.hear()
            leaving.hang_up()
        turn = chatting.ask("Hello.")
        waits.append(turn.at[0] - turn.sent)
        chatting.turn({"type": "reset"})
    told = f"next first token after {max(waits) * 1e3:.1f} ms at most, the answer left takes {length_s * 1e3:.0f} ms"
    report.attach_text("after hanging up", f"{told} for {tokens} tokens")
    assert statistics.median(waits) < length_s / 2, told


def test_streams_of_many_do_not_mix(served: Server, has: Has) -> None:
    """Sixteen chats streaming at once: the pieces of each are its own answer, that which it gets alone."""
    has("chat")
    texts = [f"My lucky number is {number}." for number in range(30, 46)]
    wanted = {}
    for text in texts:
        with chat(served.url, served.headers) as alone:
            wanted[text] = alone.ask(text).text
    found: dict[str, str] = {}

    def speak(text: str, ready: threading.Barrier) -> None:
        with chat(served.url, served.headers) as mine:
            ready.wait()
            found[text] = mine.ask(text).text

    ready = threading.Barrier(len(texts))
    threads = [threading.Thread(target=speak, args=(text, ready), daemon=True) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == wanted
    assert len(set(wanted.values())) > 8, f"the answers {set(wanted.values())} are too alike to tell a mix-up"
