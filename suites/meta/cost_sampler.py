"""A pytest plugin (`-p suites.meta.cost_sampler`) that tells in which of the suite's files a run's time passes.

Every PERIOD_S a thread looks at the main thread, and gives the time since its last look to the innermost file of this
repository there: what a file calls elsewhere (scipy, matplotlib) is its own, and the wait for a host is the host's.
At the end COST_FILE holds {case: {file: seconds}} as JSON; what belongs to no case is under "".
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from types import FrameType

import pytest

from fixtures.collection import case_of

ROOT = Path(__file__).resolve().parents[2]
PERIOD_S = 0.002


class Sampler:
    """Seconds of the thread that made it, by what it was said to work on and by file."""

    def __init__(self) -> None:
        self.now = ""
        self.seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._watched = threading.get_ident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="cost", daemon=True)

    def start(self) -> Sampler:
        """Begin to look."""
        self._thread.start()
        return self

    def close(self) -> None:
        """The last look."""
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        """Looks that come late, since C code kept the interpreter's lock, count for more."""
        last = time.perf_counter()
        while not self._stop.wait(PERIOD_S):
            frame = sys._current_frames().get(self._watched)
            now = time.perf_counter()
            self.seconds[self.now][innermost(frame)] += now - last
            last = now


def innermost(frame: FrameType | None) -> str:
    """The innermost file of this repository, relative to it; "" where there is none."""
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(f"{ROOT}{os.sep}") and "site-packages" not in path:
            return Path(path).relative_to(ROOT).as_posix()
        frame = frame.f_back
    return ""


SAMPLER = pytest.StashKey[Sampler]()


def pytest_configure(config: pytest.Config) -> None:
    """From here on."""
    config.stash[SAMPLER] = Sampler().start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """What a test takes, its fixtures included, is its case's."""
    sampler, case = item.config.stash[SAMPLER], case_of(item)
    sampler.now = case.id if case else ""
    try:
        return (yield)
    finally:
        sampler.now = ""


def pytest_unconfigure(config: pytest.Config) -> None:
    """To the file."""
    if SAMPLER not in config.stash:  # options that make no sense end a run before it begins
        return
    sampler = config.stash[SAMPLER]
    sampler.close()
    Path(os.environ["COST_FILE"]).write_text(json.dumps(sampler.seconds, indent=1))
