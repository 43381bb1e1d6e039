"""For `--targets=suites.meta.slow_backend`: a backend that has become slower, as after a bad upgrade.

SLOW_BACKEND is its name; SLOW_SHARE is by how much of its own time each answer, and of a generator each token, comes
later.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from targets.api import Answer, Request, Runner, Tick, no_tick
from targets.registry import backends


def wait(seconds: float) -> None:
    """Work for so long. A sleep of a tenth made cases of half a ms 45 % longer: timers are late, and cores go idle."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def slowed(runner: Runner, share: float) -> Runner:
    """The runner, which from now on waits after what it does for `share` of the time that took."""
    run = runner.run

    def later(batch: Sequence[Request], tick: Tick = no_tick) -> list[Answer]:
        done = time.perf_counter()

        def late() -> None:
            nonlocal done
            wait(share * (time.perf_counter() - done))
            tick()
            done = time.perf_counter()

        answers = run(batch, late)
        wait(share * (time.perf_counter() - done))
        return answers

    setattr(runner, "run", later)  # noqa: B010 - the runner keeps everything else it has
    return runner


def plant(name: str, share: float) -> None:
    """Make every runner of a backend slow. Raises UserError for a backend that there is not."""
    backend: Any = backends[name]
    load = backend.load
    backend.load = lambda *arguments: slowed(load(*arguments), share)


if "SLOW_BACKEND" in os.environ:
    plant(os.environ["SLOW_BACKEND"], float(os.environ.get("SLOW_SHARE", "0.1")))
