"""Imported last by the fork server of the engines: fills the registries, and sees to the engines' end.

The server ends its engines itself, when they have finished what was accepted. So SIGTERM, which a service manager may
send to every process of a service, does nothing here; another signal tells that the server is gone.
"""

from __future__ import annotations

import gc
import os
import signal
from types import FrameType

from targets.process_end import at_death_of_parent, end_children
from targets.registry import backends, optimizations, tasks


def end(_signal: int, _frame: FrameType | None) -> None:
    """End every engine with the helpers it started, then this process."""
    end_children()
    os._exit(0)


for registry in (tasks, backends, optimizations):
    list(registry)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGUSR2, end)
at_death_of_parent(signal.SIGUSR2)
gc.collect()
gc.freeze()  # what is here by now is never garbage, and forks share it
