"""What a target can do to its process, done for real. Run in a host, or as the fake engine's techniques."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from fixtures.guest import Guest, evidence, peak_memory_mb
from targets.api import Evidence

Deed: TypeAlias = Callable[[Any], Any]


def say(words: str) -> None:
    """A last line on stderr, for the diagnosis to quote."""
    print(words, file=sys.stderr, flush=True)


def segfault(_: object) -> None:
    """Read address 0: the kernel sends SIGSEGV."""
    say("about to read address 0")
    ctypes.string_at(0)


def leave(_: object) -> None:
    """End the process as a library that calls exit() does."""
    say("leaving with 3")
    os._exit(3)


def killed(_: object) -> None:
    """SIGKILL, as the kernel's out-of-memory killer sends it."""
    say("about to be killed")
    os.kill(os.getpid(), signal.SIGKILL)


def wait(_: object) -> None:
    """Never answer."""
    say("waiting for ever")
    time.sleep(3600)


def hold(_: object) -> None:
    """Never answer, in native code that does not let Python's other threads run."""
    say("holding Python's lock")
    ctypes.PyDLL(None).sleep(3600)


def exhaust(_: object) -> None:
    """Ask for more address space than this process may have."""
    resource.setrlimit(resource.RLIMIT_AS, (2**31, resource.getrlimit(resource.RLIMIT_AS)[1]))
    np.ones(2**33, dtype=np.uint8)


def refuse(_: object) -> None:
    """What a loader does with a file that it does not understand."""
    raise ValueError("these weights have 3 heads, the config says 2")


def breed(_: object) -> int:
    """Start a helper that would outlive its parent by far, in another program without our hooks; its process id."""
    return subprocess.Popen(["sleep", "3600"]).pid


def modules(_: object) -> list[str]:
    """The top-level packages that this process has imported."""
    return sorted({name.partition(".")[0] for name in sys.modules})


def stranger(_: object) -> object:
    """Return what nobody outside of this process can read."""
    module = types.ModuleType("only_there")
    sys.modules["only_there"] = module
    module.__dict__["Stranger"] = type("Stranger", (), {"__module__": "only_there"})
    return module.__dict__["Stranger"]()


def told(_: object, name: str) -> str:
    """An environment variable of the host, "" where it has none."""
    return os.environ.get(name, "")


class Hoarder:
    """A target whose proof takes 200 MB, and gives them back."""

    def evidence(self) -> Evidence:
        """Nothing is proved."""
        fill(200)
        return Evidence({}, {})

    def close(self) -> None:
        """Nothing is held."""


def fill(megabytes: int) -> None:
    """Touch this much memory, and let it go."""
    assert max(bytearray(b"x") * (megabytes * 2**20)) == ord("x")


def peaks(guest: Guest) -> tuple[float, float, float]:
    """The target's peak in MB before its proof, after it, and after 100 MB of its own."""
    hoarder: Any = Hoarder()
    guest.runner = hoarder
    before = peak_memory_mb(guest)
    evidence(guest)
    after = peak_memory_mb(guest)
    fill(100)
    return before, after, peak_memory_mb(guest)


def named(deed: object) -> str:
    """A deed's name as a test's id: the same in every process."""
    return str(getattr(deed, "__name__", deed))
