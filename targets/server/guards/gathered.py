"""A transport whose writes of one turn of the event loop go out as one.

uvicorn writes the headers of an answer and its body one after the other, and each would be a system call and a packet
of its own. Together they cost one; and who is killed between the two leaves no answer that has begun, which a proxy
could not ask for again.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Gathered:
    """Around a transport, for which it stands: what is not said here is that one's."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write at the end of this turn."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def write_eof(self) -> None:
        """Nothing more will be written."""
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Close once all is written."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close now; what has not been written is lost."""
        self._parts.clear()
        self._transport.abort()

    def _flush(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            self._transport.write(b"".join(parts))
