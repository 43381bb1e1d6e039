"""WebSocket /chat, on a real socket, with an engine that answers by arithmetic: answers and what is remembered."""

from __future__ import annotations

import asyncio

from suites.meta.chat_kit import Client, chatting, connect, said
from suites.meta.live_server import PATIENCE_S, Live
from targets.server.chat.conversation import Conversation


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
