"""Problems as clients in OpenAI's shape expect them: still problem details (RFC 9457), with `error` beside the rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from targets.generation import ContextOverflow
from targets.server.http.event_stream import FORESEEN
from targets.server.http.faults import problem_of
from targets.server.http.problems import Problem

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
"""OpenAI's names of errors by status, where they are not invalid_request_error (4xx) or server_error (5xx)."""


@contextmanager
def shaped() -> Iterator[None]:
    """What is foreseen to go wrong within is raised as a problem in OpenAI's shape."""
    try:
        yield
    except FORESEEN as error:
        raise of_openai(problem_of(error)) from error


def of_openai(problem: Problem, code: str | None = None) -> Problem:
    """The same problem with OpenAI's error in its document, where it has none yet; 422 is 400 there."""
    if "error" in problem.extra:
        return problem
    status = 400 if problem.status == 422 else problem.status
    detail = problem.detail
    if ContextOverflow.SIGN in detail:
        code, detail = "context_length_exceeded", f"the model's context length is exceeded: {detail}"
    kind = KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    field = next((each["field"] for each in problem.extra.get("errors", ())), None)
    error: dict[str, Any] = {"message": detail, "type": kind, "param": field, "code": code}
    return Problem(status, detail, headers=problem.headers, extra={**problem.extra, "error": error})
