"""WebSocket /chat, on a real socket, with an engine that answers by arithmetic."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import websockets

from suites.meta.live_server import LIMITS, PATIENCE_S, Live, run
from targets.server.chat.conversation import Conversation
from targets.server.chat.session import Manners
from targets.server.guards.rate import TokenBucket


class Client:
    """A client of /chat."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket

    async def tell(self, kind: str, **more: Any) -> None:
        """Send a frame."""
        await self.socket.send(json.dumps({"type": kind, **more}))

    async def hear(self) -> Any:
        """The next frame."""
        return json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE_S))

    async def ask(self, text: str, **more: Any) -> tuple[list[str], Any]:
        """The pieces that answer a message, and the frame that ends the answer."""
        await self.tell("message", text=text, **more)
        return await self.answer()

    async def answer(self) -> tuple[list[str], Any]:
        """The pieces up to the end of an answer, and that."""
        pieces: list[str] = []
        while (frame := await self.hear())["type"] == "token":
            pieces.append(frame["text"])
        return pieces, frame

    async def closed(self) -> int | None:
        """The code with which the server closes the connection."""
        await asyncio.wait_for(self.socket.wait_closed(), PATIENCE_S)
        return self.socket.close_code


def connect(live: Live) -> websockets.connect:
    """A connection to /chat."""
    return websockets.connect(live.url.replace("http", "ws") + "/chat", proxy=None)


def chatting(use: Callable[[Live, Client], Awaitable[Any]], manners: Manners | None = None, **changes: Any) -> Any:
    """What `use` makes of a client that has connected."""

    async def main(live: Live) -> Any:
        async with connect(live) as socket:
            return await use(live, Client(socket))

    return run(main, manners, **changes)


def said(live: Live, number: int = -1) -> list[str]:
    """The contents of the messages that the engine was given."""
    return [turn["content"] for turn in live.chat.asked[number]["messages"]]


def test_an_answer_comes_token_by_token() -> None:
    """The pieces joined are the text of the last frame, which has the counts and says how the answer ended."""

    async def use(live: Live, client: Client) -> None:
        pieces, done = await client.ask("hello you", max_tokens=20, temperature=0.5, seed=1, stop=["z"])
        assert pieces == ["1", " hello", " you"]
        told = {"type": "done", "text": "1 hello you", "finish": "stop", "output_tokens": 3, "tokens": 2}
        assert done == {**told, "truncated": False, "dropped_turns": 0}
        asked = live.chat.asked[0]
        assert asked == {**asked, "max_tokens": 20, "temperature": 0.5, "seed": 1, "stop": ["z"]}

    chatting(use)


def test_a_chat_remembers_until_it_is_reset() -> None:
    """Earlier turns are part of each question; a reset forgets them, and sets the system prompt of what follows."""

    async def use(live: Live, client: Client) -> None:
        await client.ask("one")
        await client.ask("two")
        assert said(live) == ["one", "1 one", "two"]
        await client.tell("reset", system="Be brief.")
        assert await client.hear() == {"type": "reset"}
        await client.ask("three")
        assert said(live) == ["Be brief.", "three"]
        await client.tell("reset")
        assert await client.hear() == {"type": "reset"}
        await client.ask("four")
        assert said(live) == ["four"]

    chatting(use)


def test_chats_do_not_share_their_memory() -> None:
    """What one connection says is never part of another one's questions."""

    async def use(live: Live, client: Client) -> None:
        async with connect(live) as socket:
            other = Client(socket)
            await asyncio.gather(client.ask("mine"), other.ask("theirs"))
            await asyncio.gather(client.ask("more"), other.ask("again"))
        assert sorted([said(live, -1), said(live, -2)]) == [["mine", "1 mine", "more"], ["theirs", "1 theirs", "again"]]

    chatting(use)


def test_an_answer_is_cancelled_in_the_middle() -> None:
    """Cancelling ends the engine's stream at once, tells what was said, remembers it, and the chat goes on."""

    async def use(live: Live, client: Client) -> None:
        gate = live.chat.gate = asyncio.Semaphore(2)
        await client.tell("message", text="tell me more and more")
        assert [(await client.hear())["text"] for _ in range(2)] == ["1", " tell"]
        await client.tell("cancel")
        assert await client.hear() == {"type": "done", "text": "1 tell", "finish": "cancelled", "dropped_turns": 0}
        await asyncio.wait_for(live.chat.left.wait(), PATIENCE_S)
        live.chat.gate = None
        assert (await client.ask("go on"))[1]["finish"] == "stop"
        assert said(live) == ["tell me more and more", "1 tell", "go on"]
        await client.tell("cancel")  # of nothing: it says nothing
        assert (await client.ask("and"))[1]["finish"] == "stop"
        assert gate.locked()

    chatting(use)


def test_cancelled_before_its_first_token_nothing_is_remembered() -> None:
    """A question that was cancelled before anything was said is as if it had not been asked."""

    async def use(live: Live, client: Client) -> None:
        live.chat.gate = asyncio.Semaphore(0)
        await client.tell("message", text="never mind")
        await client.tell("cancel")
        assert (await client.hear())["text"] == ""
        live.chat.gate = None
        await client.ask("now")
        assert said(live) == ["now"]

    chatting(use)


def test_a_reset_ends_the_answer_under_way() -> None:
    """A reset in the middle of an answer ends it first, and forgets it too."""

    async def use(live: Live, client: Client) -> None:
        live.chat.gate = asyncio.Semaphore(1)
        await client.tell("message", text="tell me more")
        await client.hear()
        await client.tell("reset")
        assert [(await client.hear())["type"] for _ in range(2)] == ["done", "reset"]
        live.chat.gate = None
        await client.ask("new")
        assert said(live) == ["new"]

    chatting(use)


def test_one_answer_at_a_time() -> None:
    """A message in the middle of an answer is refused, and the answer goes on."""

    async def use(live: Live, client: Client) -> None:
        gate = live.chat.gate = asyncio.Semaphore(1)
        await client.tell("message", text="hello you")
        assert (await client.hear())["text"] == "1"
        await client.tell("message", text="me too")
        refused = await client.hear()
        assert (refused["type"], refused["status"]) == ("error", 409)
        gate.release()
        gate.release()
        pieces, done = await client.answer()
        assert (pieces, done["text"]) == ([" hello", " you"], "1 hello you")

    chatting(use)


def test_forgotten_turns_are_said() -> None:
    """Turns that the model could not read any more are told and forgotten, so that the next question is short."""

    async def use(live: Live, client: Client) -> None:
        for text in ("one", "two"):
            await client.ask(text)
        assert (await client.ask("drop it"))[1]["dropped_turns"] == 2
        await client.ask("last")
        assert said(live) == ["two", "3 two", "drop it", "5 drop it", "last"]

    chatting(use)


def test_memory_is_bounded() -> None:
    """However long a chat is, its memory is not: the oldest exchanges go, whole, and their number is known."""
    memory, dropped = Conversation(most_chars=40), 0
    for number in range(20):
        messages, more = memory.ask(f"question {number}")
        dropped += more
        assert sum(len(turn["content"]) for turn in messages) <= 40
        assert [turn["role"] for turn in messages] == (["user", "assistant"] * len(messages))[: len(messages)]
        memory.learn(f"question {number}", "yes", 0)
    messages, more = memory.ask("x")
    assert len(messages) - 1 == 2 * 20 - dropped - more


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
