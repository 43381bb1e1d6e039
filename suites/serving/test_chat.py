"""Chats: what one connection says stays there, tokens come one by one, and who leaves frees the engine."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise

import pytest

from fixtures import report
from fixtures.serving import gauges
from fixtures.serving.chat_client import Chat, Turn, chat
from fixtures.serving.checking import Has
from fixtures.serving.client import Client, events
from fixtures.serving.server import Server

LONG = {"max_tokens": 256, "temperature": 1.5, "seed": 3}
"""A hot model seldom finds its end token, so the answer is long; the seed makes it the same each time."""
QUESTION = "What is my number?"
PEOPLE = 8
BAD = ("{", "[]", "null", '"text"', '{"type": "shout"}', '{"type": "message"}', '{"type": "message", "text": 3}')
"""Frames that are none."""


@pytest.fixture
def chatting(served: Server, has: Has) -> Iterator[Chat]:
    """A chat with the server under test."""
    has("chat")
    with chat(served.url, served.headers) as found:
        yield found


def read_tokens(turn: Turn) -> int:
    """Tokens of everything that the model was given for an answer."""
    return int(turn.end["tokens"])


def test_memory_stays_with_its_connection(served: Server, chatting: Chat) -> None:
    """Eight chats at once, each with a number of its own: every prompt holds its own chat's turns, and no other's."""
    numbers = [str(number) for number in range(21, 21 + PEOPLE)]
    with ExitStack() as stack:
        chats = [stack.enter_context(chat(served.url, served.headers)) for _ in numbers]
        told = [each.ask(f"Remember the number {number}.").text for each, number in zip(chats, numbers, strict=True)]
        asked = [each.ask(QUESTION) for each in chats]
    for number, first, turn in zip(numbers, told, asked, strict=True):
        history = [
            {"role": "user", "content": f"Remember the number {number}."},
            {"role": "assistant", "content": first},
            {"role": "user", "content": QUESTION},
        ]
        tokens, text = completed(served, history)
        assert read_tokens(turn) == tokens, f"the prompt of chat {number} has {read_tokens(turn)} tokens, not {tokens}"
        assert turn.text == text, f"chat {number} answers {turn.text!r}; with its own turns alone it is {text!r}"
    nobody = chatting.ask(QUESTION)
    assert read_tokens(nobody) < min(map(read_tokens, asked)), "a new chat knows as much as one with a past"


def completed(server: Server, messages: list[dict[str, str]]) -> tuple[int, str]:
    """Tokens read and text said where the whole conversation is in the request."""
    body = json.dumps({"messages": messages, "temperature": 0})
    status, content = server.ask("/v1/chat/completions", body)
    assert status == 200, content[:300]
    found = json.loads(content)
    return found["usage"]["prompt_tokens"], found["choices"][0]["message"]["content"]


def test_what_was_said_is_known(chatting: Chat) -> None:
    """The second turn is answered with the first one in mind: its prompt is longer by what was said."""
    alone = chatting.ask(QUESTION)
    chatting.turn({"type": "reset"})
    chatting.ask("Remember the number 47.")
    told = chatting.ask(QUESTION)
    assert read_tokens(told) > read_tokens(alone)
    report.attach_text("remembered", f"before: {alone.text}\nafter: {told.text}")


def test_reset_forgets(served: Server, chatting: Chat) -> None:
    """After a reset, and on a new connection, nothing is known of what was said before."""
    new = chatting.ask(QUESTION)
    chatting.ask("Remember the number 58.")
    assert chatting.turn({"type": "reset"}).end == {"type": "reset"}
    again = chatting.ask(QUESTION)
    assert (again.text, read_tokens(again)) == (new.text, read_tokens(new))
    chatting.ask("Remember the number 63.")
    with chat(served.url, served.headers) as other:
        fresh = other.ask(QUESTION)
    assert (fresh.text, read_tokens(fresh)) == (new.text, read_tokens(new))


def test_completions_remember_nothing(served: Server, has: Has) -> None:
    """A chat completion knows the messages of its own request only, whatever the connection carried before."""
    has("chat")
    question = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    told = {"messages": [{"role": "user", "content": "Remember the number 71."}], "temperature": 0}
    with Client(served.url, served.headers) as client:
        first = client.post("/v1/chat/completions", question).json()
        client.post("/v1/chat/completions", told)
        again = client.post("/v1/chat/completions", question).json()
    assert again["choices"] == first["choices"]
    assert again["usage"] == first["usage"]


def spread(moments: list[float], sent: float) -> tuple[float, int]:
    """The share of the whole time that lay between the first and the last piece, and at how many moments they came."""
    whole = moments[-1] - sent
    return (moments[-1] - moments[0]) / whole, len({round(each, 5) for each in moments})


def check_spread(moments: list[float], sent: float, pieces: int, tokens: int) -> None:
    """Assert that pieces came one by one, from early on until the end."""
    share, times = spread(moments, sent)
    gaps = [(b - a) * 1e3 for a, b in pairwise(moments)]
    told = (
        f"{tokens} tokens in {pieces} pieces, the first after {(moments[0] - sent) * 1e3:.1f} ms, the last after"
        f" {(moments[-1] - sent) * 1e3:.1f} ms, {statistics.median(gaps):.2f} ms between them (median)"
    )
    report.attach_text("pieces", told)
    assert tokens >= 32, f"{told}: too short an answer to tell a stream from a burst"
    assert pieces >= tokens / 3, f"{told}: pieces of several tokens"
    assert share >= 0.5, f"{told}: they came in one burst at the end"
    assert times >= pieces / 2, f"{told}: at {times} moments only"


def test_chat_streams_token_by_token(chatting: Chat) -> None:
    """Over the WebSocket each token comes when it is made: the pieces are spread over the time the answer takes."""
    chatting.ask("Hello.")  # what a first answer pays for is no part of this
    chatting.turn({"type": "reset"})
    turn = chatting.ask("Tell me something.", **LONG)
    assert turn.text
    check_spread(list(turn.at[:-1]), turn.sent, len(turn.pieces), turn.end["output_tokens"])


def test_generate_streams_token_by_token(served: Server, has: Has) -> None:
    """The same by server-sent events from /generate."""
    has("generate")
    with Client(served.url, served.headers) as client:
        body = {"prompt": "Once there was a mouse", **LONG, "stream": True}
        sent = time.perf_counter()
        found = list(events(client.stream("/generate", body)))
    moments = [at for at, frame in found if frame["type"] == "token"]
    check_spread(moments, sent, len(moments), found[-1][1]["output_tokens"])


def test_completions_stream_token_by_token(served: Server, has: Has) -> None:
    """The same from /v1/chat/completions."""
    has("chat")
    asked = {"messages": [{"role": "user", "content": "Tell me something."}], **LONG}
    with Client(served.url, served.headers) as client:
        sent = time.perf_counter()
        body = {**asked, "stream": True, "stream_options": {"include_usage": True}}
        *chunks, _ = events(client.stream("/v1/chat/completions", body))
    moments = [at for at, chunk in chunks for choice in chunk["choices"] if choice["delta"].get("content")]
    check_spread(moments, sent, len(moments), chunks[-1][1]["usage"]["completion_tokens"])


def whole_answer(chatting: Chat) -> tuple[float, int]:
    """Seconds that the long answer takes when nobody ends it, and its tokens; the chat is as new afterwards."""
    turn = chatting.ask("Tell me something.", **LONG)
    chatting.turn({"type": "reset"})
    return turn.at[-1] - turn.sent, turn.end["output_tokens"]


def test_cancel_frees_the_engine(served: Server, chatting: Chat) -> None:
    """A cancelled answer ends within a few tokens, says so, and leaves the engine to the next request at once."""
    chatting.ask("Hello.")
    chatting.turn({"type": "reset"})
    length_s, tokens = whole_answer(chatting)
    before = gauges.read(served)
    chatting.say({"type": "message", "text": "Tell me something.", **LONG})
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


def test_leaving_frees_the_engine(served: Server, chatting: Chat) -> None:
    """A client that hangs up in the middle of a long answer costs the next one no more than a few tokens."""
    chatting.ask("Hello.")
    chatting.turn({"type": "reset"})
    length_s, tokens = whole_answer(chatting)
    waits = []
    for _ in range(5):
        with chat(served.url, served.headers) as leaving:
            leaving.say({"type": "message", "text": "Tell me something.", **LONG})
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


def test_a_bad_frame_harms_nobody(chatting: Chat) -> None:
    """What is no frame is refused in a sentence, and the chat goes on with what it remembered."""
    first = chatting.ask("Remember the number 84.")
    assert first.text
    for bad in BAD:
        end = chatting.turn(bad).end
        assert end["type"] == "error", f"{bad} got {end}"
        assert 400 <= end["status"] < 500, f"{bad} got {end}"
        assert end["detail"], f"{bad} got {end}"
    assert read_tokens(chatting.ask(QUESTION)) > read_tokens(first)
