"""Structured logs: one JSON object a line on standard output, written so that no log can stop or slow the server.

A line has `time` (UTC, ISO 8601), `level`, `logger`, `event`, and what the caller put into `extra={"fields": {...}}`.
Of an exception it holds the type and the places it passed, never the message: a message may quote what a user wrote.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import time
import traceback
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOM = select.PIPE_BUF
"""Bytes that a pipe which reports room takes at once, without blocking the writer (POSIX pipe(7), PIPE_BUF)."""
OWN = "targets.server"
ENCODER = json.JSONEncoder(default=str)


class JsonLine(logging.Formatter):
    """Formats a record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, without its end."""
        moment = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = without_message(record.exc_info[1])
        return ENCODER.encode(line)


def without_message(error: BaseException) -> list[dict[str, Any]]:
    """An exception and its causes, the last one first: the type of each, and its frames as `file:line function`."""
    told: list[dict[str, Any]] = []
    seen: BaseException | None = error
    while seen is not None and len(told) < 8:
        frames = traceback.extract_tb(seen.__traceback__)
        places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[-12:]]
        told.append({"type": type(seen).__name__, "frames": places})
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return told


class LineWriter:
    """Writes lines to a descriptor, and drops and counts those that it does not take at once.

    A full disk, a closed pipe and a reader that has stopped reading cost lines, never a request. There is no buffer
    that could grow, or fail again when the process ends.
    """

    def __init__(self, descriptor: int) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._torn = False
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, line: str) -> None:
        """One line; its end is added here."""
        if self.dropped:
            lost = json.dumps({"level": "warning", "logger": OWN, "event": "log lines lost", "lines": self.dropped})
            if not self._put(lost):
                self.dropped += 1
                return
            self.dropped = 0
        if not self._put(line):
            self.dropped += 1

    def _put(self, line: str) -> bool:
        data = (b"\n" if self._torn else b"") + line.encode(errors="replace") + b"\n"
        for start in range(0, len(data), ROOM):
            piece = data[start : start + ROOM]
            if not self._takes(piece):
                self._torn = self._torn or start > 0
                return False
        self._torn = False
        return True

    def _takes(self, piece: bytes) -> bool:
        try:
            if not any(event & select.POLLOUT for _, event in self._poll.poll(0)):
                return False
            written = os.write(self._descriptor, piece)
        except OSError:
            return False
        self._torn = written < len(piece)
        return not self._torn


class LineHandler(logging.Handler):
    """Hands formatted records to a LineWriter."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self.writer = writer
        self.setFormatter(JsonLine())

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a record that cannot be formatted is logging's own matter."""
        try:
            line = self.format(record)
        except (TypeError, ValueError):
            self.handleError(record)
        else:
            self.writer.write(line)


def configure(level: str, descriptor: int | None = None) -> LineWriter:
    """Send every log of this process to standard output (or `descriptor`) as JSON lines.

    Args:
        level: name of the least level that this server's own loggers say; libraries speak from warnings on, at `debug`
            from info on.
        descriptor: an open file descriptor.
    """
    writer = LineWriter(sys.stdout.fileno() if descriptor is None else descriptor)
    wanted = logging.getLevelName(level.upper())
    root = logging.getLogger()
    root.handlers = [LineHandler(writer)]
    root.setLevel(logging.INFO if wanted <= logging.DEBUG else max(wanted, logging.WARNING))
    logging.getLogger(OWN).setLevel(wanted)
    logging.captureWarnings(True)
    # No line says which thread or source line it is from, so that nobody need look it up (Python's logging HOWTO,
    # "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    return writer


class Tally:
    """Says how often something happened, at most once a second a kind, so that a flood of it is no flood of lines."""

    def __init__(self, log: logging.Logger, gap_s: float = 1.0) -> None:
        self._log = log
        self._gap_s = gap_s
        self._said: dict[str, float] = {}
        self._since: dict[str, int] = {}

    def count(self, event: str, fields: Mapping[str, Any]) -> None:
        """It happened once more; `fields` are those of the latest."""
        self._since[event] = self._since.get(event, 0) + 1
        now = time.monotonic()
        if now - self._said.get(event, -self._gap_s) < self._gap_s:
            return
        self._said[event] = now
        times = self._since.pop(event)
        self._log.warning(event, extra={"fields": {**fields, "times": times}})
