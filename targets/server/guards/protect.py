"""The guards around the application, from the outside in."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from targets.server.guards.access_log import AccessLog
from targets.server.guards.api_key import ApiKey
from targets.server.guards.drain import Drain, Draining
from targets.server.guards.guard import BODY_S, Guard
from targets.server.guards.origin import SameOrigin
from targets.server.guards.request_id import RequestId

ASKED = ("Authorization", "Content-Type", "X-API-Key", "X-Request-ID", "X-Server-Timeout")
TOLD = ("X-Request-ID", "Retry-After")


def protect(
    app: ASGIApp,
    drain: Drain,
    *,
    max_body_bytes: int,
    keys: Sequence[str] = (),
    cors_origins: Collection[str] = (),
    routes: Collection[str] = (),
    body_s: float = BODY_S,
) -> ASGIApp:
    """An application behind its guards.

    Args:
        app: what answers.
        drain: set when the server stops.
        max_body_bytes: largest body of a request.
        keys: keys of which one must be shown; none: anybody may ask.
        cors_origins: web pages of other origins that may ask, as `https://host:port`, or `*`.
        routes: paths that the access log may name even for requests that were refused before routing.
        body_s: seconds in which a body has to arrive.
    """
    app = Guard(app, max_body_bytes, body_s=body_s)
    if keys:  # before the body is read: nothing is stored for a stranger
        app = ApiKey(app, keys)
    app = SameOrigin(app, cors_origins)
    if cors_origins:  # around the key, since a browser's preflight carries none
        app = CORSMiddleware(
            app, list(cors_origins), allow_methods=("GET", "POST"), allow_headers=ASKED, expose_headers=TOLD
        )
    return RequestId(AccessLog(Draining(app, drain), routes))
