"""The page at `/`: every task and the chat by hand, in one file that fetches nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

PART = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


def add(app: FastAPI) -> None:
    """The route."""
    content = resources.files("targets.server").joinpath("page/index.html").read_text(encoding="utf-8")
    headers = {
        "Content-Security-Policy": policy(content),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }

    async def page(_: Request) -> Response:
        return Response(content, media_type="text/html", headers=headers)

    app.router.add_api_route("/", page, methods=["GET"], response_class=Response, include_in_schema=False)


def policy(content: str) -> str:
    """The content security policy of a page: its own style and script by their hashes, requests to its own server."""
    allowed = {kind: f"{kind}-src {digest(part)}" for kind, part in PART.findall(content)}
    return "; ".join(
        (
            "default-src 'none'",
            *allowed.values(),
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    )


def digest(part: str) -> str:
    """A source expression (CSP 3, 2.3.1) for what stands between the tags."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'"
