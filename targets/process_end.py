"""How processes of ours end: with their parent, however it ends, and taking along what they started themselves."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading

import psutil

PR_SET_PDEATHSIG = 1
"""prctl's option (prctl.h): the signal that the kernel sends a process when the thread that started it has ended."""


def at_death_of_parent(number: signal.Signals) -> None:
    """Have the kernel send this signal to the calling process when its parent has ended; on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def follow_parent() -> None:
    """Die with the parent, and take our own children along: for a process of multiprocessing that leads its group.

    The thread is for what the kernel does not see: of a fork server's child the parent is the fork server.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the parent alone
    at_death_of_parent(signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, name="follow-parent", daemon=True).start()


def end_children() -> None:
    """End by force every child of this process, with its group: the helpers that a target started."""
    for child in psutil.Process().children():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
