"""A server as a child process: started on a free port, waited for, stopped; its last words stand in every diagnosis."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from targets.remote.client import HttpClient, Refused, TimedOut, Unreachable

LOOK_S = 0.05
STOP_S = 5.0
LOG_LINES = 8
LOG_TAIL = 1 << 14
"""Bytes at a log's end that are looked through for its last lines."""


class ServerDied(RuntimeError):
    """A server that was started here ended; the message is the diagnosis."""


def free_port() -> int:
    """A loopback port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess:
    """A running child and its log.

    It stays in the process group of its parent, so that whoever ends the group ends the server as well.

    Args:
        name: what diagnoses call it.
        command: program and arguments.
        environment: the whole environment of the child; None for one's own.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        with tempfile.NamedTemporaryFile(prefix=f"{name}-", suffix=".log", delete=False) as log:
            self.log = Path(log.name)
            try:
                self._process = subprocess.Popen(
                    list(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
                )
            except OSError:
                self.log.unlink()
                raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def wait(self, client: HttpClient, path: str, timeout_s: float) -> float:
        """Wait until a GET of the path succeeds; returns the seconds it took.

        Raises:
            ServerDied: it ended, or is not ready in time and was stopped.
        """
        began = time.monotonic()
        while True:
            self.check()
            try:
                client.get(path)
            except (Unreachable, TimedOut):
                pass
            except Refused as refusal:
                if refusal.status != 503:  # "still loading"
                    raise
            else:
                self.check()  # else another server has taken the port
                return time.monotonic() - began
            if time.monotonic() - began > timeout_s:
                words = self.last_words()
                self.stop()
                raise ServerDied(f"{self.name} was not ready within {timeout_s:g} s and was stopped; {words}")
            time.sleep(LOOK_S)

    def check(self) -> None:
        """Raises ServerDied if it has ended."""
        code = self._process.poll()
        if code is not None:
            how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
            raise ServerDied(f"{self.name} ended with {how}; {self.last_words()}")

    def died(self, within_s: float = 1.0) -> ServerDied | None:
        """The diagnosis if it has ended or ends now: a broken connection is seen before the exit is."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        try:
            self.check()
        except ServerDied as death:
            return death
        return None

    def last_words(self) -> str:
        """The last lines of its log."""
        if not self.log.exists():
            return "its log is gone"
        lines = [line for line in self._tail().splitlines() if line.strip()][-LOG_LINES:]
        return "last lines of its log:\n" + ("\n".join(f"  {line[:200]}" for line in lines) or "  (nothing)")

    def stop(self) -> None:
        """End it, politely and then by force, and remove the log; a second call does nothing."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self.log.unlink(missing_ok=True)

    def _tail(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - LOG_TAIL))
            return log.read().decode(errors="replace")
