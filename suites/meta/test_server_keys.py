from __future__ import annotations

import base64
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the server: pip install 'edge-nlp-suite[server]'")

from suites.meta.asgi import Echo, call, chunks, scope
from targets.api import UserError
from targets.server.guards.api_key import CHALLENGE, ApiKey, read_keys
from targets.server.guards.drain import Drain
from targets.server.guards.origin import SameOrigin
from targets.server.guards.protect import protect
from targets.server.http.body import DEADLINE

KEY = "0123456789abcdef0123456789abcdef"


def basic(user: str, key: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"authorization": f"Bearer {KEY}"}, True),
        ({"authorization": f"bearer   {KEY} "}, True),
        ({"x-api-key": KEY}, True),
        ({"x-api-key": KEY[::-1]}, True),
        ({"authorization": basic("anyone", KEY)}, True),
        ({"authorization": f"Bearer {KEY[:-1]}"}, False),
        ({"authorization": f"Bearer {KEY}0"}, False),
        ({"authorization": KEY}, False),
        ({"authorization": basic(KEY, "")}, False),
        ({"authorization": "Basic \xff\xfe"}, False),
        ({"authorization": "Basic a"}, False),
        ({"x-api-key": ""}, False),
        ({"x-api-key": "\xfc" * 32}, False),
        ({}, False),
    ],
)
def test_only_who_has_a_key_may_ask(headers: dict[str, str], allowed: bool, kind: str) -> None:
    """One of the keys, in one of three places, opens the server; whoever has none learns how to send it."""
    said = call(ApiKey(Echo(), [KEY[::-1], KEY]), scope("POST", headers=headers, kind=kind), chunks([b"x"]))
    if allowed:
        assert said.messages[0]["type"] == ("http.response.start" if kind == "http" else "websocket.accept")
        return
    assert said.problem["title"] == "Unauthorized"
    assert "Authorization: Bearer KEY" in said.problem["detail"]
    assert said.headers["www-authenticate"].encode() == CHALLENGE[1]
    assert said.received == 0, "nothing is read for a stranger"


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_probes_need_no_key(path: str) -> None:
    """A load balancer sees that the server lives without holding its key, and nothing else."""
    assert call(ApiKey(Echo(), [KEY]), scope(path=path), chunks([])).status == 200
    assert call(ApiKey(Echo(), [KEY]), scope(path=f"{path}/more"), chunks([])).status == 401


def test_keys_of_a_file(tmp_path: Path) -> None:
    """Each line is a key, but for comments and empty lines."""
    file = tmp_path / "keys"
    file.write_text(f"# old\n{KEY}\n\n  {KEY[::-1]}  \n")
    assert read_keys(file) == (KEY, KEY[::-1])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "holds no key"),
        (b"# a comment\n", "holds no key"),
        (b"short\n", "shorter than 16"),
        (b"sixteen letters and a space\n", "with a space"),
        ("schlüssel-der-lang-genug-ist\n".encode(), "other characters than ASCII"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_bad_key_file(content: bytes | None, complaint: str, tmp_path: Path) -> None:
    """A file without usable keys is refused with what to do: the server never runs open by mistake."""
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        read_keys(file)


@pytest.mark.parametrize(
    ("kind", "method", "origin", "may"),
    [
        ("http", "POST", None, True),
        ("http", "POST", "http://board:8000", True),
        ("http", "POST", "https://board:8000", True),
        ("http", "POST", "https://allowed.example", True),
        ("http", "POST", "https://evil.example", False),
        ("http", "POST", "https://board:8000.evil.example", False),
        ("http", "POST", "null", False),
        ("http", "GET", "https://evil.example", True),
        ("websocket", "", "https://evil.example", False),
        ("websocket", "", "http://board:8000", True),
        ("websocket", "", None, True),
    ],
)
def test_pages_of_other_origins(kind: str, method: str, origin: str | None, may: bool) -> None:
    """A web page of another origin can make the server work only if it was allowed to."""
    headers = {"host": "board:8000", **({"origin": origin} if origin else {})}
    app = SameOrigin(Echo(), ["https://allowed.example/"])
    said = call(app, scope(method, headers=headers, kind=kind), chunks([]))
    passed = said.messages[0]["type"] == "websocket.accept" if kind == "websocket" else said.status == 200
    assert passed or said.problem["status"] == 403
    assert passed == may


def test_cors_is_off_unless_told() -> None:
    """Without an allowed origin no answer has a CORS header; an allowed page's preflight passes without a key."""
    preflight = {"origin": "https://a.example", "access-control-request-method": "POST"}
    closed = protect(Echo(), Drain(), max_body_bytes=64, keys=[KEY])
    said = call(closed, scope("OPTIONS", headers=preflight))
    assert (said.status, [name for name in said.headers if name.startswith("access-control")]) == (401, [])
    opened = protect(Echo(), Drain(), max_body_bytes=64, keys=[KEY], cors_origins=["https://a.example"])
    said = call(opened, scope("OPTIONS", headers=preflight))
    assert (said.status, said.headers["access-control-allow-origin"]) == (200, "https://a.example")
    assert DEADLINE.lower() in said.headers["access-control-allow-headers"].lower()
    refused = call(opened, scope("POST", headers={"origin": "https://a.example"}))
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://a.example")
