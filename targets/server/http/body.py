"""From the bytes of a request to a body that a route can use: JSON only, in UTF-8, of the route's own model."""

from __future__ import annotations

import math
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import Request
from starlette.types import Scope

from targets.registry import did_you_mean
from targets.server.http.mistakes import LONGEST_NAME
from targets.server.http.problems import Problem
from targets.server.http.schemas import Body

JSON = "application/json"
DEADLINE = "X-Server-Timeout"
"""The header in which a client says for how many seconds it will wait, as Google's APIs call it."""
LONGEST_NUMBER = 18
"""Digits of a number in the query that is looked at: what fits into 64 bits."""

B = TypeVar("B", bound=Body)


class Reader(Generic[B]):
    """Reads the bodies of a route. `body`: its model, with the bounds of this server."""

    def __init__(self, body: type[B]) -> None:
        self.body = body
        self._known = tuple(body.model_fields)

    async def read(self, request: Request) -> B:
        """The body of a request, and what its query adds. Raises Problem if it is not as it should be."""
        check_encoding(dict(request.scope["headers"]))
        raw = await request.body()
        try:
            if raw[:1] == b"{" and not request.scope["query_string"]:
                return self.body.model_validate_json(raw)
            return self.body.model_validate(self._joined(parsed(raw), request.scope))
        except ValidationError as error:
            raise Problem.of_validation(error, self._known) from None

    def _joined(self, value: Any, scope: Scope) -> Any:
        """A bare list as the field that it stands for, and the options of the query beside it."""
        if isinstance(value, list) and self.body.bare:
            value = {self.body.bare: value}
        options = self._options(scope)
        return options | value if isinstance(value, dict) else value

    def _options(self, scope: Scope) -> dict[str, int | str]:
        found: dict[str, int | str] = {}
        for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
            shown = name[:LONGEST_NAME]
            if name not in self.body.options:
                known = did_you_mean(name, self.body.options) if self.body.options else " This route takes none."
                raise Problem.invalid(shown, f"unknown parameter {shown!r} in the query.{known}")
            if name in found:
                raise Problem.invalid(shown, f"{shown} stands in the query more than once; give it once")
            found[name] = whole(name, value)
        return found


def whole(name: str, text: str) -> int:
    """A whole number of the query."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= LONGEST_NUMBER):
        raise Problem.invalid(name, f"{name} in the query should be an integer of at most {LONGEST_NUMBER} digits")
    return int(text)


def parsed(raw: bytes) -> Any:
    """What a body in JSON says."""
    try:
        return from_json(raw, cache_strings="keys")
    except ValueError as error:
        raise Problem(400, f"the body is no valid JSON: {error}") from None


def check_encoding(headers: dict[bytes, bytes]) -> None:
    """Refuse what is not JSON in UTF-8, as it is.

    A body without a content type is refused too: a browser sends such ones to any host without asking, on behalf of
    any page, so this keeps other people's pages from using a server on this machine.
    """
    given = headers.get(b"content-type", b"").decode("latin-1")
    if given != JSON:  # what nearly all clients send is settled by one comparison
        kind, *settings = (part.strip() for part in given.lower().split(";"))
        if kind != JSON:
            told = f"is {kind[:LONGEST_NAME]!r}" if kind else "is missing"
            raise Problem(415, f"the content type {told}, should be {JSON!r}")
        charsets = {part.partition("=")[2].strip('" ') for part in settings if part.startswith("charset")}
        if not charsets <= {"utf-8", "utf8"}:
            raise Problem(415, "the charset of the body should be utf-8: JSON has no other")
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise Problem(415, "the body is encoded (compressed, for example); send it as it is")


def deadline_s(scope: Scope, most: float) -> float:
    """For how many seconds the client waits: what its header says, and `most` without one.

    Raises Problem if it says no number of seconds from 0 to `most`, 0 excluded.
    """
    name = DEADLINE.lower().encode()
    given = next((value for key, value in scope["headers"] if key == name), None)
    if given is None:
        return most
    try:
        found = float(given)
    except ValueError:
        found = math.nan
    if not 0 < found <= most:
        raise Problem.invalid(DEADLINE, f"{DEADLINE} should be a number of seconds above 0, and {most:g} at most")
    return found
