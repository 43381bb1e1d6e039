"""POST /generate as a stream, and the page: what a browser gets."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import httpx
import pytest

from suites.meta.live_server import PATIENCE_S, Live, run
from targets.server.routes.page import digest

PROMPT = {"prompt": "once", "max_tokens": 4}


def frames(body: Any) -> list[Any]:
    """The frames that answer a body."""

    async def use(live: Live) -> list[str]:
        return await live.events("/generate", {**body, "stream": True})

    return [json.loads(line) for line in run(use)]


@pytest.mark.parametrize("ids", [True, False])
def test_a_stream_says_what_the_whole_says(ids: bool) -> None:
    """The pieces joined are the text of the last frame, which is the answer that comes without streaming."""
    body = {**PROMPT, "return_token_ids": ids}

    async def use(live: Live) -> Any:
        return (await live.web.post("/generate", json=body)).json()

    whole = run(use)
    *tokens, done = frames(body)
    assert [frame["type"] for frame in tokens] == ["token"] * 4
    assert "".join(frame["text"] for frame in tokens) == done["text"]
    assert done == {"type": "done", **whole["results"][0], "model": whole["model"]}


def test_a_failure_in_the_middle_is_a_frame() -> None:
    """An engine that dies after some tokens is told as the last frame."""
    *tokens, last = frames({"prompt": "die", "max_tokens": 4})
    assert [frame["type"] for frame in tokens] == ["token"] * 2
    assert (last["type"], last["status"], last["retry_after"]) == ("error", 503, 1)


@pytest.mark.parametrize(
    ("body", "status"), [({"prompt": "long"}, 422), ({"prompt": ["a", "b"]}, 422), ({"prompt": ["once"]}, 200)]
)
def test_a_failure_before_the_first_token_is_a_status(body: Any, status: int) -> None:
    """What goes wrong before anything is said is an ordinary problem; one prompt in a list is streamed like any."""

    async def use(live: Live) -> Any:
        return await live.web.post("/generate", json={**body, "stream": True})

    response = run(use)
    assert response.status_code == status
    assert response.headers["content-type"].startswith("text/event-stream" if status == 200 else "application/problem")


def test_what_nobody_foresaw_breaks_the_connection() -> None:
    """A fault of the server in the middle ends the connection before the answer is complete."""

    async def use(live: Live) -> str:
        with pytest.raises(httpx.RemoteProtocolError):
            await live.events("/generate", {"prompt": "bug", "stream": True})
        return (await live.web.get("/metrics")).text

    assert 'nlp_requests_total{status="500",task="generation"} 1.0' in run(use)


@pytest.mark.parametrize("pieces", [0, 1])
def test_a_client_that_leaves_ends_the_generation(pieces: int) -> None:
    """When the client hangs up, before its first token or after it, the engine's stream is closed."""

    async def use(live: Live) -> str:
        live.generation.gate = asyncio.Semaphore(pieces)
        asked = asyncio.create_task(live.events("/generate", {**PROMPT, "stream": True}))
        await asyncio.wait_for(live.generation.began.wait(), PATIENCE_S)
        asked.cancel()
        await asyncio.wait([asked])
        await asyncio.wait_for(live.generation.left.wait(), PATIENCE_S)
        return (await live.web.get("/metrics")).text

    assert 'nlp_requests_total{status="499",task="generation"} 1.0' in run(use)


def test_the_page_runs_nothing_but_its_own() -> None:
    """The page is one file without markup made of text; its policy allows its own style and script by their hashes."""

    async def use(live: Live) -> Any:
        return await live.web.get("/")

    response = run(use)
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    for kind in ("style", "script"):
        (part,) = re.findall(rf"<{kind}>(.*?)</{kind}>", response.text, re.DOTALL)
        assert f"{kind}-src {digest(part)};" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"(?:src|href)=.?(?:https?:)?//", response.text)
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|\bstyle=|\bon\w+=\"", response.text)
