"""What can go wrong with an engine, told apart by whose fault it is and whether asking again helps."""

from __future__ import annotations


class EngineDied(Exception):
    """The process that held the request ended or hung. It restarts by itself; the same request may kill it again.

    `begun`: whether it had begun with the request; one that still waited is not at fault.
    """

    def __init__(self, message: str, *, begun: bool = True) -> None:
        super().__init__(message)
        self.begun = begun


class EngineBusyStarting(Exception):
    """The engine is not ready: it starts, restarts, or has been stopped. `retry_after_s`: when to ask again."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TargetRefused(Exception):
    """The target does not take this request, as the message says: the client's fault, and safe to be shown to it."""


class UpstreamFailed(Exception):
    """The server that an engine asks did not answer as it should. The message names it: not for a client's eyes."""

    def __init__(self, message: str, kind: str = "ServerTrouble") -> None:
        super().__init__(message)
        self.kind = kind


class TargetFailed(Exception):
    """The target raised. The message may quote the request: it is for no log and no client; `kind` names the class."""

    def __init__(self, message: str, kind: str = "Exception") -> None:
        super().__init__(message)
        self.kind = kind
