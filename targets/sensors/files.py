"""Sensors in files of sysfs and procfs: held open, read anew each time, scaled to the unit of their channel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from targets.probe import Reading

NUMBER_BYTES = 64
TABLE_BYTES = 65536


class File:
    """A file that the kernel writes anew for each read from its start; the descriptor is kept, for opening costs more.

    A device that was unbound answers ENODEV on a kept descriptor. In a recorded tree a file that was removed or
    replaced has no link left: it is opened again by its path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def number(self) -> float:
        """The number that the file holds. Raises OSError (EAGAIN while asleep) or ValueError, each with the path."""
        content = self._read(NUMBER_BYTES)
        try:
            return float(content)
        except ValueError:
            raise ValueError(f"{self.path}: {content[:40].decode(errors='replace').strip()!r} is no number") from None

    def text(self) -> bytes:
        """The whole content. Raises OSError with the path."""
        return self._read(TABLE_BYTES, whole=True)

    def close(self) -> None:
        """Give the descriptor back; the next read opens the file again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self, size: int, whole: bool = False) -> bytes:
        try:
            if self._descriptor >= 0 and not os.fstat(self._descriptor).st_nlink:
                self.close()
            if self._descriptor < 0:
                self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            content = os.pread(self._descriptor, size, 0)
            while whole and (more := os.pread(self._descriptor, size, len(content))):
                content += more  # tables such as vmstat come a page at a time
            return content
        except OSError as error:
            self.close()
            raise OSError(error.errno, error.strerror, str(self.path)) from None


@dataclass(frozen=True)
class Value:
    """One channel from files: `combine` of their numbers (one file: the number itself), times `factor`."""

    channel: str
    files: tuple[File, ...]
    factor: float = 1.0
    combine: Callable[[list[float]], float] = sum

    @property
    def channels(self) -> tuple[str, ...]:
        """Its one channel."""
        return (self.channel,)

    def read(self) -> Reading:
        """The value now. Raises OSError or ValueError."""
        return {self.channel: self.combine([file.number() for file in self.files]) * self.factor}

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
            file.close()


def value(channel: str, path: Path, factor: float = 1.0) -> Value:
    """The channel that one file holds."""
    return Value(channel, (File(path),), factor)


def first(channel: str, paths: Iterable[Path], factor: float = 1.0) -> Value:
    """The channel from the first of several places that exists; the last place where none does.

    `os.access`, because `Path.exists` raises below a folder that only root may enter.
    """
    places = list(paths)
    return value(channel, next((path for path in places if os.access(path, os.F_OK)), places[-1]), factor)


@dataclass(frozen=True)
class Absent:
    """A channel that nothing here can give, with the reason in words."""

    channel: str
    reason: str

    @property
    def channels(self) -> tuple[str, ...]:
        """The channel."""
        return (self.channel,)

    def read(self) -> Reading:
        """Raises ValueError with the reason."""
        raise ValueError(self.reason)

    def close(self) -> None:
        """There is nothing to give back."""


class Table:
    """Several channels from one text file; each `pick` finds its value, or raises ValueError or IndexError."""

    def __init__(self, path: Path, picks: Mapping[str, Callable[[bytes], float]]) -> None:
        self.file = File(path)
        self.picks = picks

    @property
    def channels(self) -> tuple[str, ...]:
        """What it looks for."""
        return tuple(self.picks)

    def read(self) -> Reading:
        """Those channels whose line is there. Raises OSError where there is no file."""
        content = self.file.text()
        reading: Reading = {}
        for channel, pick in self.picks.items():
            try:
                reading[channel] = pick(content)
            except (ValueError, IndexError):
                continue
        if not reading:
            raise ValueError(f"{self.file.path}: none of the lines that {', '.join(self.picks)} stand in")
        return reading

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def field(content: bytes, key: bytes, index: int = 0) -> float:
    """The number that stands `index` words after `key`, which begins a line. Raises ValueError without such a line."""
    start = 0 if content.startswith(key) else content.index(b"\n" + key) + 1
    start += len(key)
    end = content.find(b"\n", start)
    return float(content[start : end if end >= 0 else len(content)].split()[index])


class Wrapping:
    """The sum of counters that start again at 0 after their range, as one counter that only grows.

    A counter that wraps more than once between two reads is under-counted: RAPL's wraps after minutes at the least.
    """

    def __init__(self, channel: str, counters: Iterable[tuple[Path, float]], factor: float) -> None:
        self.channels: tuple[str, ...] = (channel,)
        self.factor = factor
        self._counters = [(File(path), span) for path, span in counters]
        self._last: list[float] = []
        self._wrapped = 0.0

    def read(self) -> Reading:
        """The sum so far, times `factor`. Raises OSError or ValueError."""
        now = [file.number() for file, _ in self._counters]
        for index, before in enumerate(self._last):
            self._wrapped += self._counters[index][1] if now[index] < before else 0.0
        self._last = now
        return {self.channels[0]: (sum(now) + self._wrapped) * self.factor}

    def close(self) -> None:
        """Close the files; the sum so far is kept."""
        for file, _ in self._counters:
            file.close()
