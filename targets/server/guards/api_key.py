"""Who may ask: a shared secret from a file, compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator, Sequence
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from targets.api import UserError
from targets.server.guards.refusal import refuse

OPEN = frozenset({"/health", "/ready"})
"""Asked by load balancers and orchestrators, which hold no key; they tell nothing about the texts."""
LEAST = 16
"""Characters of a key: 16 of hexadecimal digits are 64 bits, too many to be tried out over a network."""
CHALLENGE = (b"www-authenticate", b'Basic realm="edge NLP server: any user name, the key as password", Bearer')
"""Basic comes first, so that a browser asks for the key, and then sends it with the page's own requests too."""


def read_keys(file: Path) -> tuple[str, ...]:
    """The keys of a file: one a line, so that an old and a new one are good for a while; `#` begins a comment line.

    Raises:
        UserError: it cannot be read, holds no key, or a key that is too short or not of printable ASCII.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="ascii").splitlines()]
    except OSError as error:
        raise UserError(f"--api-key-file {file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"--api-key-file {file} holds other characters than ASCII: keys travel in headers.") from None
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    advice = "one key a line, made for example by `openssl rand -hex 32`"
    if not keys:
        raise UserError(f"--api-key-file {file} holds no key: write {advice}.")
    if any(len(key) < LEAST or not key.isprintable() or " " in key for key in keys):
        raise UserError(f"--api-key-file {file} holds a key shorter than {LEAST} characters or with a space: {advice}.")
    return keys


class ApiKey:
    """Lets requests with a known key pass, and those to OPEN paths; others get 401.

    The key comes as `Authorization: Bearer KEY`, as `X-API-Key: KEY`, or as the password of `Authorization: Basic`.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self.app = app
        self._digests = [digest(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] not in ("http", "websocket") or scope["path"] in OPEN:
            return await self.app(scope, receive, send)
        shown = list(presented(scope))
        if any(self._known(key) for key in shown):
            return await self.app(scope, receive, send)
        told = "This key is not known" if shown else "This server asks for a key"
        return await refuse(scope, send, 401, f"{told}; send it as 'Authorization: Bearer KEY'.", [CHALLENGE])

    def _known(self, key: bytes) -> bool:
        given = digest(key)
        # Every key is compared, each in constant time: how long it takes tells nothing about which was nearly right.
        return sum(hmac.compare_digest(given, known) for known in self._digests) > 0


def digest(key: bytes) -> bytes:
    """Of one length for keys of all lengths, which a comparison would else show."""
    return hashlib.sha256(key).digest()


def presented(scope: Scope) -> Iterator[bytes]:
    """The keys that a request shows."""
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            yield value.strip()
        elif name == b"authorization":
            scheme, _, rest = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                yield rest.strip()
            elif scheme.lower() == b"basic":
                try:
                    yield base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
                except binascii.Error:
                    continue
