"""Messages between server and worker: JSON, each behind its length, over a socket pair.

JSON and no pickle: a target that is broken into cannot so break into the server.
"""

from __future__ import annotations

import json
import select
import socket
import struct
from collections.abc import Iterator
from typing import Any, TypeAlias

Message: TypeAlias = dict[str, Any]

LENGTH = struct.Struct("!I")
BLOCK = 1 << 16


def pack(message: Message) -> bytes:
    """A message as it travels. Raises TypeError or ValueError for what JSON cannot hold, a number that is none too."""
    body = json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
    return LENGTH.pack(len(body)) + body


class Unpacker:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are complete with these bytes."""
        self._rest += data
        while len(self._rest) >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._rest)
            end = LENGTH.size + size
            if len(self._rest) < end:
                return
            body = bytes(self._rest[LENGTH.size : end])
            del self._rest[:end]
            yield json.loads(body)


class Channel:
    """The worker's end, which blocks."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._unpacker = Unpacker()
        self._ready: list[Message] = []

    def send(self, message: Message) -> None:
        """Send a message. Raises OSError when the server is gone."""
        self._end.sendall(pack(message))

    def receive(self) -> Message | None:
        """The next message; None when the server has closed its end."""
        while not self._ready:
            data = self._end.recv(BLOCK)
            if not data:
                return None
            self._ready += self._unpacker.feed(data)
        return self._ready.pop(0)

    def glance(self) -> Message | None:
        """A message that is there already; None if there is none."""
        readable, _, _ = select.select([self._end], [], [], 0)
        return self.receive() if self._ready or readable else None
