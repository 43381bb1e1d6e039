"""Minutes of mixed load: memory and descriptors stay where they are. `--soak MINUTES` says how many."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from fixtures import report
from fixtures.serving import process_tree, table
from fixtures.serving.chat_client import chat
from fixtures.serving.endpoints import ENDPOINTS
from fixtures.serving.leak import Growth, LeakWatch
from fixtures.serving.ledger import Ledger
from fixtures.serving.lesson import learn, sample
from fixtures.serving.plan import Call, steady
from fixtures.serving.run import StartServer
from fixtures.serving.server import Server

SHORT_S = 60.0
"""Without --soak. A leak of a few MB a minute, some hundred bytes a request, is seen in that."""
WARM_S = 20.0
"""Load before the first look: allocators grow, pools open, the cache fills."""
CONNECTIONS = 6
TEXTS = 24
MOST_BLIND_MB_PER_MIN = 12.0
"""If even such a leak could not have been told from nothing, the soak has shown nothing."""
MOST_DESCRIPTORS = 3
CHAT_PAUSE_S = 0.3


@pytest.mark.slow
@pytest.mark.usefixtures("local")
def test_soak(own_server: StartServer, serving: Ledger, pytestconfig: pytest.Config) -> None:
    """Under minutes of mixed load memory does not grow, no descriptor is kept, and every answer is well-formed."""
    minutes = pytestconfig.getoption("soak")
    seconds = 60 * minutes if minutes else SHORT_S
    with own_server("--cache-mb", "1") as server, chats_that_come_and_go(server):
        calls = mixed(server)
        base = serving.plan(
            server,
            calls,
            stages=steady(CONNECTIONS, WARM_S),
            open_loop=False,
            connections=CONNECTIONS,
            requests=None,
            fresh=True,  # so that the cache is full, and forgets, all the time
        )
        serving.load(server, base, "soak: warming up")
        with LeakWatch(lambda: process_tree.held(server)) as watch:
            loaded = serving.load(server, replace(base, stages=steady(CONNECTIONS, seconds), warm_s=0.0), "soak")
    growth = Growth(watch.samples)
    slope = growth.memory_mb_per_min
    told = (
        f"{len(loaded.figures.seen.due)} requests in {seconds:.0f} s: memory {slope.value or 0:+.2f}"
        f" [{slope.low:+.2f}, {slope.high:+.2f}] MB/min, descriptors {growth.descriptors:+d};"
        f" a leak from {growth.blind_mb_per_min:.1f} MB/min on would have been seen"
    )
    report.attach_text("growth", told)
    report.attach_png("memory over time", growth.picture("soak with mixed load"))
    serving.figures["soak"] = told
    assert loaded.figures.seen.ok.all(), f"{told}\n{table.error_table(loaded.figures)}"
    assert slope.value is not None, slope.reason
    assert growth.blind_mb_per_min <= MOST_BLIND_MB_PER_MIN, f"{told}: too noisy to show anything; use --soak 5"
    assert slope.low is not None
    assert slope.low <= 0, f"{told}: memory grows"
    assert growth.descriptors <= MOST_DESCRIPTORS, f"{told}: descriptors are kept"


def mixed(server: Server) -> list[Call]:
    """Calls to every endpoint, in turn."""
    every = [learn(server, endpoint, sample(endpoint, TEXTS), named=True) for endpoint in ENDPOINTS.values()]
    return [call for row in zip(*every, strict=True) for call in row]


@contextmanager
def chats_that_come_and_go(server: Server) -> Iterator[None]:
    """Beside the load: chats that are opened, asked, and left, every other one in the middle of an answer."""
    over = threading.Event()
    errors: list[BaseException] = []

    def talk() -> None:
        number = 0
        while not over.wait(CHAT_PAUSE_S):
            number += 1
            with chat(server.url, server.headers) as mine:
                if number % 2:
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
