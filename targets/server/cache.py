"""Answers kept for those who ask the same again.

A key is made of everything that determines an answer: the task, the model's digest, the backend, the optimization, and
the whole request with its parameters. What is kept is JSON, whoever keeps it: nothing read from a cache is executed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import OrderedDict
from typing import Protocol

from targets.api import Answer, Request

FORMAT = 1
"""To be raised when answers change their form: replicas of two versions can share a Redis."""
ENTRY_BYTES = 200
"""What an OrderedDict takes at most for an entry beside key and value: 66 to 199 bytes were measured, depending on how
full its table is (CPython 3.10 and 3.11, 64-bit; 500 to 40,000 entries, growing and then replaced one by one)."""


class Cache(Protocol):
    """Keeps answers for a while, or not: it may forget at any time, and never fails."""

    @property
    def available(self) -> bool:
        """Whether it can be asked now; if not, `get` finds nothing."""

    async def get(self, key: str) -> bytes | None:
        """What was kept under this key."""

    async def put(self, key: str, value: bytes) -> None:
        """Keep a value."""

    async def close(self) -> None:
        """Give every resource back."""


class Served(Protocol):
    """What is to be known of a loaded target: `engine.EngineFacts`."""

    @property
    def task(self) -> str:
        """The task's name."""

    @property
    def digest(self) -> str:
        """The sha256 of the model's files."""

    @property
    def backend(self) -> str:
        """The engine's name."""

    @property
    def optimization(self) -> str:
        """The optimization's name."""


class MemoryCache:
    """Keeps the most recently used answers in this process, up to `max_bytes` with all that Python needs for them."""

    available = True

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, key: str) -> bytes | None:
        """What was kept under this key; it is now the last to be forgotten."""
        value = self._kept.get(key)
        if value is not None:
            self._kept.move_to_end(key)
        return value

    async def put(self, key: str, value: bytes) -> None:
        """Keep a value, and forget the least recently used ones until it fits. One that never would is not kept."""
        self._forget(key)
        size = cost(key, value)
        if size > self.max_bytes:
            return
        while self.bytes + size > self.max_bytes:
            self._forget(next(iter(self._kept)))
        self._kept[key] = value
        self.bytes += size

    async def close(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self.bytes = 0

    def _forget(self, key: str) -> None:
        value = self._kept.pop(key, None)
        if value is not None:
            self.bytes -= cost(key, value)


def cost(key: str, value: bytes) -> int:
    """Bytes of memory that an entry takes."""
    return sys.getsizeof(key) + sys.getsizeof(value) + ENTRY_BYTES


def identity(served: Served) -> str:
    """What determines a target's answers beside the request, as one string."""
    return canonical([FORMAT, served.task, served.digest, served.backend, served.optimization])


def key(identity: str, request: Request) -> str:
    """The name under which the answer to a request is kept: 64 hexadecimal digits.

    Raises:
        ValueError, TypeError: the request cannot be written as JSON (a value that is not finite, for example).
    """
    return hashlib.sha256(f"{identity}\n{canonical(request)}".encode("ascii")).hexdigest()


def canonical(value: object) -> str:
    """The one way to write a value as JSON: keys sorted, no spaces, only ASCII (lone surrogates are escaped too)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def pack(answer: Answer) -> bytes:
    """An answer as it is kept."""
    return json.dumps(answer, separators=(",", ":")).encode("ascii")


def unpack(value: bytes) -> Answer | None:
    """The kept answer; None for what is none: others can write into a shared store too."""
    try:
        found = json.loads(value)
    except ValueError:  # of JSON or of UTF-8
        return None
    return found if isinstance(found, dict) else None
