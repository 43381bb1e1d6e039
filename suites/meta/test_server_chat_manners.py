"""WebSocket /chat where something is amiss: bad frames and manners, faults, too many chats, disconnects, a stop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from suites.meta.chat_kit import Client, chatting, connect
from suites.meta.live_server import LIMITS, PATIENCE_S, Live, run
from targets.server.chat.session import Manners
from targets.server.guards.rate import TokenBucket


@pytest.mark.parametrize(
    ("frame", "status", "words"),
    [
        ("{", 400, "no valid JSON"),
        ("[]", 422, "should be a JSON object"),
        ("{}", 422, "unknown type of frame"),
        ('{"type": "mesage", "text": "x"}', 422, "Did you mean 'message'"),
        ('{"type": "message"}', 422, "text is missing"),
        ('{"type": "message", "text": " "}', 422, "text is blank"),
        ('{"type": "message", "text": "' + "x" * 201 + '"}', 422, "should have at most 200"),
        ('{"type": "message", "text": "x", "max_tokens": 33}', 422, "should be at most 32"),
        ('{"type": "message", "text": "x", "temprature": 1}', 422, "Did you mean 'temperature'"),
        ('{"type": "cancel", "now": true}', 422, "unknown field 'now'"),
        ('{"type": "message", "text": "long"}', 422, "the context holds 64"),
    ],
)
def test_a_bad_frame_is_told_and_the_chat_goes_on(frame: str, status: int, words: str) -> None:
    """What is wrong with a frame is said in a sentence; the next one is obeyed."""

    async def use(live: Live, client: Client) -> None:
        await client.socket.send(frame)
        error = await client.hear()
        assert (error["type"], error["status"]) == ("error", status)
        assert words in error["detail"]
        assert (await client.ask("hello"))[1]["text"] == "1 hello"

    chatting(use)


def test_an_engine_that_dies_is_told() -> None:
    """The death of an engine in the middle of an answer is an error with advice; what was asked is not remembered."""

    async def use(live: Live, client: Client) -> None:
        pieces, error = await client.ask("die now please")
        assert pieces == ["1", " die"]
        assert (error["type"], error["status"], error["retry_after"]) == ("error", 503, 1)
        assert (await client.ask("hello"))[1]["text"] == "1 hello"

    chatting(use)


def test_what_nobody_foresaw_closes_the_chat() -> None:
    """A fault of the server ends the connection with the code for that; other chats live on."""

    async def use(live: Live, client: Client) -> None:
        await client.tell("message", text="bug now please")
        assert await client.closed() == 1011
        async with connect(live) as socket:
            assert (await Client(socket).ask("hello"))[1]["text"] == "1 hello"

    chatting(use)


@pytest.mark.parametrize(
    ("manners", "content", "code", "status"),
    [
        (Manners(burst=3, per_s=0.001), ['{"type": "cancel"}'] * 5, 1008, 429),
        (Manners(frame_chars=30), ['{"type": "message", "text": "' + "x" * 30 + '"}'], 1009, 413),
        (Manners(), [b'{"type": "cancel"}'], 1003, 415),
        (Manners(idle_s=0.01), [], 1000, 408),
    ],
    ids=["flood", "large frame", "binary", "idle"],
)
def test_bad_manners_end_a_chat(manners: Manners, content: list[Any], code: int, status: int) -> None:
    """Too many frames, too large ones, ones that are no text, and silence end the chat, with reason and code."""

    async def use(live: Live, client: Client) -> None:
        for each in content:
            await client.socket.send(each)
        error = await client.hear()
        assert (error["type"], error["status"]) == ("error", status)
        assert await client.closed() == code

    chatting(use, manners)


def test_an_answer_is_no_silence() -> None:
    """A client that waits for a slow answer is not idle."""

    async def use(live: Live, client: Client) -> None:
        gate = live.chat.gate = asyncio.Semaphore(0)
        await client.tell("message", text="hello")
        await asyncio.sleep(0.1)  # five times as long as the patience
        gate.release()
        gate.release()
        assert (await client.answer())[1]["text"] == "1 hello"

    chatting(use, Manners(idle_s=0.02))


def test_one_chat_too_many_is_turned_away() -> None:
    """Beyond the limit a chat is told so and closed; when another one ends there is room again."""

    async def use(live: Live) -> None:
        open_ = [await connect(live) for _ in range(LIMITS.max_chats)]
        for socket in open_:
            assert (await Client(socket).ask("hello"))[1]["finish"] == "stop"
        async with connect(live) as socket:
            client = Client(socket)
            assert (await client.hear())["status"] == 503
            assert await client.closed() == 1013
        await open_[0].close()
        async with connect(live) as socket:
            assert (await Client(socket).ask("hello"))[1]["finish"] == "stop"
        for socket in open_[1:]:
            await socket.close()

    run(use)


@pytest.mark.parametrize("politely", [True, False])
def test_a_disconnect_in_the_middle_frees_the_engine(politely: bool) -> None:
    """A client that goes away in the middle of an answer, with or without a farewell, ends its generation."""

    async def use(live: Live, client: Client) -> str:
        live.chat.gate = asyncio.Semaphore(1)
        await client.tell("message", text="tell me more and more")
        await client.hear()
        if politely:
            await client.socket.close()
        else:
            client.socket.transport.abort()
        await asyncio.wait_for(live.chat.left.wait(), PATIENCE_S)
        live.chat.gate = None
        async with connect(live) as socket:
            assert (await Client(socket).ask("hello"))[1]["text"] == "1 hello"
        return (await live.web.get("/metrics")).text

    assert 'nlp_requests_total{status="499",task="chat"} 1.0' in chatting(use)


def test_a_server_that_stops_lets_the_answer_end() -> None:
    """A server that is told to stop in the middle of an answer finishes it, and then closes the chat as a restart."""

    async def use(live: Live, client: Client) -> None:
        gate = live.chat.gate = asyncio.Semaphore(1)
        await client.tell("message", text="hello you")
        await client.hear()
        live.stop()
        await live.server.stopping.wait()
        gate.release()
        gate.release()
        pieces, done = await client.answer()
        assert (pieces, done["finish"]) == ([" hello", " you"], "stop")
        assert await client.closed() == 1012

    chatting(use)


def test_a_bucket_fills_again() -> None:
    """So many pass at once, and then as many a second as were agreed on."""
    now = 0.0
    bucket = TokenBucket(3, 2.0, lambda: now)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now = 0.6
    assert [bucket.take() for _ in range(2)] == [True, False]
    now = 100.0
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
