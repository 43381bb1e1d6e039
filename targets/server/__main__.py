"""`python -m targets.server --help`: serves the tasks over HTTP and WebSocket.

Exit codes: 0 after an orderly stop, 1 if requests had to be cut off, 2 for what the user can mend, 3 if the application
did not start.
"""

# Worker processes import this module again (multiprocessing's `__mp_main__`): what it needs is imported in functions.

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from targets.server.settings import Settings


def leave(_number: int, _frame: FrameType | None) -> None:
    """A signal before anything was accepted. As process 1 of a container it would else be ignored."""
    raise SystemExit(0)


def run(settings: Settings) -> int:
    """Serve with these settings until a signal comes; returns the exit code. Raises UserError for what was wrong."""
    import logging

    from targets.server.app import create_app
    from targets.server.guards.api_key import read_keys
    from targets.server.guards.connection import ConnectionLimits
    from targets.server.guards.drain import Drain
    from targets.server.guards.listening import allow_descriptors, bind
    from targets.server.guards.logs import configure
    from targets.server.guards.protect import protect
    from targets.server.guards.serve import serve

    configure(settings.log_level)
    limits = settings.limits
    allow_descriptors(limits.max_connections)
    keys = read_keys(settings.api_key_file) if settings.api_key_file else ()
    listener = bind(settings.host, settings.port)
    if not keys and settings.host not in ("127.0.0.1", "::1", "localhost"):
        told = "anybody who reaches this address may ask: there is no --api-key-file"
        logging.getLogger("targets.server").warning(told, extra={"fields": {"host": settings.host}})
    app = create_app(settings)
    drain = Drain()
    guarded = protect(
        app,
        drain,
        max_body_bytes=limits.max_body_bytes,
        keys=keys,
        cors_origins=settings.cors_origins,
        routes={str(getattr(route, "path", "")) for route in app.routes},
    )
    connections = ConnectionLimits(limits.max_connections)
    return serve(
        guarded, listener, drain, connections, max_message_bytes=limits.max_body_bytes, shutdown_s=settings.shutdown_s
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    from targets.api import UserError

    try:
        from targets.server.settings import parse

        return run(parse(sys.argv[1:] if arguments is None else arguments, os.environ))
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
