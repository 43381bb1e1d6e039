"""Chats: what one connection says stays there, tokens come one by one, and who leaves frees the engine."""

from __future__ import annotations

import json
from contextlib import ExitStack

from fixtures import report
from fixtures.serving.chat_client import Chat, Turn, chat
from fixtures.serving.checking import Has
from fixtures.serving.client import Client
from fixtures.serving.server import Server

LONG = {"role": "user", "content": "Tell me something."}
LEAST_TOKENS, TRIES = 32, 5
QUESTION = "What is my number?"
PEOPLE = 8
BAD = ("{", "[]", "null", '"text"', '{"type": "shout"}', '{"type": "message"}', '{"type": "message", "text": 3}')
"""Frames that are none."""


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
