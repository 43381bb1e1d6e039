"""Everything that can go wrong with a request, as RFC 9457 problem details: one clear sentence each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from http.client import responses
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.responses import Response
from starlette.types import Scope

from targets.server.http.mistakes import mistakes

MEDIA_TYPE = "application/problem+json"
RETRY_S = 1.0
"""Advice to clients where nobody knows better: a worker with an embedded model is back by then."""


class Problem(Exception):
    """A request that is not answered.

    `detail`: a sentence for whoever sent the request; nothing of their texts stands in it. `headers` go into the
    response, `extra` into the document. `type` is always about:blank: what a program needs to know is the status, and
    of a 422 the list `errors`.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    @classmethod
    def invalid(cls, field: str, detail: str) -> Problem:
        """One field that is not as it should be."""
        return cls(422, detail, extra={"errors": [{"field": field, "detail": detail}]})

    @classmethod
    def later(cls, status: int, detail: str, after_s: float = RETRY_S) -> Problem:
        """What may work later: with Retry-After, in whole seconds, at least one."""
        return cls(status, detail, headers={"Retry-After": str(max(1, math.ceil(after_s)))})

    @classmethod
    def of_validation(cls, error: ValidationError, known: Sequence[str] = ()) -> Problem:
        """What pydantic found (see `of_mistakes`)."""
        return cls.of_mistakes(error.errors(include_url=False), known)

    @classmethod
    def of_mistakes(cls, errors: Sequence[ErrorDetails], known: Sequence[str] = ()) -> Problem:
        """What pydantic found, in sentences: 400 if it is no JSON at all. `known`: the fields that there are."""
        found = mistakes(errors, known)
        if found[0].kind == "json_invalid":
            return cls(400, found[0].detail)
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        told = [{"field": each.field, "detail": each.detail} for each in found]
        return cls(422, found[0].detail + more, extra={"errors": told})

    def document(self, request_id: str | None) -> dict[str, Any]:
        """The problem as RFC 9457 has it."""
        title = responses.get(self.status, "Client Closed Request")  # 499 is nginx's own
        told = {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail}
        return told | ({} if request_id is None else {"instance": request_id}) | self.extra

    def response(self, scope: Scope) -> Response:
        """The problem as the answer to a request, whose id it names."""
        request_id = scope.get("state", {}).get("request_id")
        return Response(json.dumps(self.document(request_id)).encode(), self.status, self.headers, MEDIA_TYPE)
