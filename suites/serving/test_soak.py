"""Five minutes of mixed load, or `--soak MINUTES`: memory and descriptors stay where they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from fixtures import report
from fixtures.serving import process_tree, table
from fixtures.serving.chat_client import chat
from fixtures.serving.client import Client, events
from fixtures.serving.endpoints import ENDPOINTS
from fixtures.serving.leak import Growth, LeakWatch
from fixtures.serving.ledger import Ledger
from fixtures.serving.lesson import learn, sample
from fixtures.serving.plan import Call, Plan, steady
from fixtures.serving.run import StartServer
from fixtures.serving.server import Server

MINUTES = 5.0
"""Without --soak."""
WARM_S, MOST_WARM = 20.0, 9
"""Load before the first look, in rounds: allocators grow, pools open, the cache fills."""
SETTLED_MB, SETTLED_ROUNDS = 0.05, 2
"""By how much memory may grow in a round that counts as settled, and how many of those in a row end it."""
CONNECTIONS = 6
TEXTS = 24
MOST_BLIND_MB_PER_MIN = 6.0
"""If even such a leak could not have been told from nothing, the soak has shown nothing."""
MOST_DESCRIPTORS = 3
CHAT_PAUSE_S = 0.3
STREAM = {"prompt": "Once there was a mouse", "max_tokens": 128, "temperature": 1.5, "stream": True}


LOOKS = ("soak", "soak: one more look")
"""What settles seems to grow until it has settled; a leak goes on. So what grows is watched for as long again."""


@pytest.mark.slow
@pytest.mark.usefixtures("local")
def test_soak(own_server: StartServer, serving: Ledger, pytestconfig: pytest.Config) -> None:
    """Under minutes of mixed load no request leaves memory behind or a descriptor open, and answers are well-formed."""
    seconds = 60 * (pytestconfig.getoption("soak") or MINUTES)
    with own_server("--cache-mb", "1") as server, chats_that_come_and_go(server):
        base = serving.plan(
            server,
            mixed(server),
            stages=steady(CONNECTIONS, WARM_S),
            open_loop=False,
            connections=CONNECTIONS,
            requests=None,
            fresh=True,  # so that the cache is full, and forgets, all the time
        )
        load = replace(base, stages=steady(CONNECTIONS, seconds), warm_s=0.0)
        began = f"after {warm(server, serving, base):.0f} s of warming up"
        most_blind = MOST_BLIND_MB_PER_MIN
        for look in LOOKS:
            growth, told = watched(server, serving, load, look)
            serving.figures[look] = f"{told}, {began}"
            assert growth.blind_mb_per_min <= most_blind, f"{told}: too noisy to show anything; soak for longer"
            assert growth.descriptors <= MOST_DESCRIPTORS, f"{told}: descriptors are kept"
            if not growth.grows:
                return
            began = "after that"
            most_blind = growth.memory_mb_per_min.value or 0.0  # what was seen is cleared by who would see it only
    pytest.fail(f"{told}: memory grows")


def watched(server: Server, serving: Ledger, plan: Plan, name: str) -> tuple[Growth, str]:
    """How memory moved under this load, all of whose answers must be right, and that in words."""
    with LeakWatch(lambda: process_tree.held(server)) as watch:
        loaded = serving.load(server, plan, name)
    growth, requests = Growth(watch.samples), len(loaded.figures.seen.due)
    slope, kept = growth.memory_mb_per_min, growth.bytes_per_request(requests)
    assert slope.value is not None, slope.reason
    assert kept.low is not None, kept.reason
    told = (
        f"{requests} requests in {plan.seconds:.0f} s: memory {slope.value:+.2f} [{slope.low:+.2f}, {slope.high:+.2f}]"
        f" MB/min, {kept.value:+.0f} [{kept.low:+.0f}, {kept.high:+.0f}] bytes a request, descriptors"
        f" {growth.descriptors:+d}; a leak from {growth.blind_mb_per_min:.1f} MB/min on would have been seen"
    )
    report.attach_text(name, told)
    report.attach_png(f"{name}, memory over time", growth.picture(f"{name}, mixed load"))
    assert loaded.figures.seen.ok.all(), f"{told}\n{table.error_table(loaded.figures)}"
    return growth, told


def warm(server: Server, serving: Ledger, base: Plan) -> float:
    """Load until memory stands still, or for so many rounds: seconds of load."""
    held, settled = process_tree.held(server).memory_mb, 0
    for number in range(1, MOST_WARM + 1):
        serving.load(server, base, f"soak: warming up, round {number}")
        before, held = held, process_tree.held(server).memory_mb
        settled = settled + 1 if held - before < SETTLED_MB else 0
        if settled == SETTLED_ROUNDS:
            break
    return number * WARM_S


def mixed(server: Server) -> list[Call]:
    """Calls to every endpoint, in turn."""
    every = [learn(server, endpoint, sample(endpoint, TEXTS), named=True) for endpoint in ENDPOINTS.values()]
    return [call for row in zip(*every, strict=True) for call in row]


@contextmanager
def chats_that_come_and_go(server: Server) -> Iterator[None]:
    """Beside the load: chats and streams that are opened, asked, and left, most of them in the middle of an answer."""
    over = threading.Event()
    errors: list[BaseException] = []

    def talk() -> None:
        number = 0
        while not over.wait(CHAT_PAUSE_S):
            number += 1
            if number % 3 == 0:
                with Client(server.url, server.headers) as reader:
                    next(events(reader.stream("/generate", STREAM)))
                continue
            with chat(server.url, server.headers) as mine:
                if number % 3 == 1:
                    assert mine.ask("Hello.", max_tokens=16).end["type"] == "done"
                else:
                    mine.say({"type": "message", "text": "Tell me something.", "max_tokens": 128, "temperature": 1.5})
                    mine.hear()
                    mine.hang_up()

    def guarded() -> None:
        try:
            talk()
        except BaseException as error:  # a thread's boundary: it is raised again below
            errors.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if errors:
        raise errors[0]
