"""What the service raises, as problems: whose fault it is, and when to try again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect

from targets.server.batching.batcher import Closed, DeadlinePassed, QueueFull
from targets.server.engine.errors import EngineBusyStarting, EngineDied, TargetFailed, TargetRefused, UpstreamFailed
from targets.server.http.problems import Problem
from targets.server.service import TaskNotServed

CLIENT_CLOSED_REQUEST = 499
"""What nginx calls it when a client did not wait; nobody reads it but the metrics and the access log."""

FAULTS: dict[type[Exception], Callable[[Any], Problem]] = {
    QueueFull: lambda error: Problem.later(429, str(error), error.retry_after_s),
    DeadlinePassed: lambda error: Problem(504, str(error)),
    Closed: lambda error: Problem.later(503, str(error)),
    EngineBusyStarting: lambda error: Problem.later(503, str(error), error.retry_after_s),
    EngineDied: lambda error: Problem.later(503, str(error)),
    TargetRefused: lambda error: Problem(422, str(error)),
    UpstreamFailed: lambda _: Problem(
        502, "the server behind this engine did not answer as it should; the log says how"
    ),
    TargetFailed: lambda _: Problem(500, "the model failed on this request; the server's log says how"),
    TaskNotServed: lambda error: Problem(404, str(error)),
    ClientDisconnect: lambda _: Problem(CLIENT_CLOSED_REQUEST, "the client left before its answer"),
}
"""By the exception's class: what the client is told."""


def problem_of(error: Exception) -> Problem:
    """The problem that an exception is: those of `FAULTS` in their words, a Problem as it is, all else a 500."""
    if isinstance(error, Problem):
        return error
    told = next((FAULTS[kind] for kind in type(error).__mro__ if kind in FAULTS), None)
    return told(error) if told else Problem(500, "the server failed on this request; its log says how")
