"""The socket that the server listens on, and what the kernel does for each of its connections."""

from __future__ import annotations

import errno
import resource
import socket

from targets.api import UserError

UNREAD_S = 30
"""Seconds that sent data may stay unacknowledged, or unsent because the client does not read (tcp(7),
TCP_USER_TIMEOUT). It ends answers to clients that have vanished or stopped reading, streams above all."""
PROBES = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""A connection silent for 30 s is asked three times, 10 s apart: a client that vanished while its answer is computed,
or between two chat messages, is known after a minute. (The kernel's own default is over two hours.)"""
OTHER_FILES = 256
"""Descriptors beside the connections: workers, pipes, models, Redis, and the clients that are turned away."""
BACKLOG = 2048
"""Connections that the kernel holds until they are accepted. asyncio accepts all of them before it looks at the first,
so that a flood needs descriptors for as many at a time, where the hard limit has them."""
REMEDIES = {
    errno.EADDRINUSE: "another program listens there; choose another port with --port, or 0 for any free one",
    errno.EACCES: "ports below 1024 need rights; choose a larger one with --port",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address; choose 127.0.0.1 or 0.0.0.0 with --host",
}


def bind(host: str, port: int, *, unread_s: float = UNREAD_S) -> socket.socket:
    """A bound TCP socket that does not listen yet: until the server does, clients are refused and need not wait.

    Accepted connections inherit its options.

    Raises:
        UserError: the host is unknown, or the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UserError(f"--host {host} is no address of this machine: {error}.") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in {**PROBES, "TCP_USER_TIMEOUT": int(unread_s * 1e3)}.items():
            if hasattr(socket, name):  # Linux; elsewhere the system's own defaults hold
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        listener.bind(address)
    except OSError as error:
        listener.close()
        why = REMEDIES.get(error.errno or 0, error.strerror)
        raise UserError(f"cannot listen on {host} port {port}: {why}.") from None
    listener.setblocking(False)
    return listener


def url(listener: socket.socket) -> str:
    """Where a bound socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def allow_descriptors(connections: int) -> None:
    """Raise the soft limit of open files to what the connections need.

    Raises:
        UserError: the hard limit is too low for them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OTHER_FILES
    unlimited = hard == resource.RLIM_INFINITY
    if not unlimited and needed > hard:
        allowed = max(hard - OTHER_FILES, 0)
        raise UserError(
            f"{connections} connections need {needed} open files, and this process may open {hard}: "
            f"allow at most {allowed} with --max-connections, or raise the limit (ulimit -Hn)."
        )
    best = needed + BACKLOG if unlimited else min(needed + BACKLOG, hard)
    if soft != resource.RLIM_INFINITY and soft < best:
        resource.setrlimit(resource.RLIMIT_NOFILE, (best, hard))
