"""Chats that do the server no good: floods of frames, too many at once, and those that are cut off."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import ExitStack, suppress

import pytest

from fixtures.serving import gauges, process_tree
from fixtures.serving.chat_client import chat
from fixtures.serving.fault_table import FaultTable
from fixtures.serving.programs import await_that
from fixtures.serving.server import Server

pytestmark = pytest.mark.usefixtures("local")

BACK_S = 20.0
CHATS = 64
LONG = {"type": "message", "text": "Tell me something.", "max_tokens": 256, "temperature": 1.5, "seed": 3}
"""A hot model seldom finds its end token."""


def test_frames_beyond_measure(sturdy: Server, faults: FaultTable) -> None:
    """A chat that is flooded with frames, or sent what is none, is told why and closed; another one goes on."""
    law = "flood: 1008; 2 MB frame: 1009; binary: 1003; another chat is answered as before"
    floods: dict[str, list[str | bytes]] = {
        "binary": [b"\x00\x01"],
        "many": ['{"type": "cancel"}'] * 500,
        "huge": [json.dumps({"type": "message", "text": "a" * 2**21})],
    }
    with faults.trying("WebSocket floods", law) as row, chat(sturdy.url) as other:
        wanted = other.ask("What is my number?").text
        codes = {}
        for name, frames in floods.items():
            with chat(sturdy.url) as bad:
                codes[name] = bad.closed_with(frames)
        other.turn({"type": "reset"})
        row.seen = f"closed with {codes}"
        assert codes == {"binary": 1003, "many": 1008, "huge": 1009}
        assert other.ask("What is my number?").text == wanted


def test_more_chats_than_there_are(sturdy: Server, faults: FaultTable) -> None:
    """Beyond its chats the server says so and closes; those that it has go on, and a place that is left is given."""
    law = f"{CHATS} are served, the others closed with 1013 and a reason; afterwards there is room again"
    with faults.trying("100 chats at once", law) as row, ExitStack() as stack:
        chats = [stack.enter_context(chat(sturdy.url)) for _ in range(100)]
        first = [each.hear() for each in chats[CHATS:]]
        answers = [each.ask("Hello.", max_tokens=4).text for each in chats[:CHATS]]
        codes = Counter(each.closed_with() for each in chats[CHATS:])
        row.seen = f"{len(answers)} answered; the others closed with {dict(codes)}"
        assert {(frame["type"], frame["status"]) for frame in first} == {("error", 503)}
        assert codes == {1013: 100 - CHATS}
        chats[0].socket.close()
        await_that(lambda: greeted(sturdy), "a place that was left is given", BACK_S)


def greeted(server: Server) -> bool:
    """Whether a new chat is answered."""
    with chat(server.url) as new:
        frame = {"type": "message", "text": "Hello.", "max_tokens": 4}
        with suppress(OSError):  # it may be closed already
            new.say(frame)
        return bool(new.hear()["type"] == "token")


def test_leaving_in_mid_token(sturdy: Server, faults: FaultTable) -> None:
    """Fifty chats cut off in the middle of an answer free the engine: the next one is answered, nothing is left."""
    law = "the next chat is answered, nothing waits, no engine was restarted, all descriptors are back"
    with faults.trying("50 chats cut off in mid-token", law) as row:
        before = process_tree.descriptors(sturdy)
        restarted = gauges.read(sturdy).sum("nlp_engine_restarts_total")
        with ExitStack() as stack:
            chats = [stack.enter_context(chat(sturdy.url)) for _ in range(50)]
            for each in chats:
                each.say(
                    {"type": "message", "text": "Tell me something.", "max_tokens": 256, "temperature": 1.5, "seed": 3}
                )
            chats[0].hear()
            for each in chats:
                each.hang_up()
        began = time.perf_counter()
        with chat(sturdy.url) as after:
            text = after.ask("Hello.").text
        took = time.perf_counter() - began
        await_that(lambda: gauges.read(sturdy).sum("nlp_queue_depth", task="chat") == 0, "nothing waits", BACK_S)
        process_tree.settled(sturdy, before)
        row.seen = f"the next answer ({text!r}) took {took * 1e3:.0f} ms"
        assert gauges.read(sturdy).sum("nlp_engine_restarts_total") == restarted
