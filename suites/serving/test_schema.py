"""The server against its own OpenAPI document: whatever comes, it answers as the document says."""

from __future__ import annotations

import json

from fixtures import report
from fixtures.serving.client import Client
from fixtures.serving.endpoints import ENDPOINTS, Endpoint
from fixtures.serving.fuzz import fuzz
from fixtures.serving.ledger import Ledger
from fixtures.serving.lesson import sample
from fixtures.serving.server import Server

EXAMPLES = 30
"""Requests that are drawn for each operation and mode, beside those at the bounds of its schema: a minute in all."""
SECONDS = 240.0
WRONG: tuple[tuple[str, dict[str, object]], ...] = (
    ("an unknown field", {"colour": "blue"}),
    ("a number for a text", {"texts": [3], "prompt": 3, "questions": [3], "messages": 3}),
    ("an empty list", {"texts": [], "prompt": [], "questions": [], "messages": []}),
    ("null", {"texts": None, "prompt": None, "questions": None, "messages": None}),
    ("too long a text", {"texts": ["a" * 20_001], "prompt": "a" * 20_001, "questions": ["a" * 20_001], "messages": []}),
    ("too many texts", {"texts": ["a"] * 65, "prompt": ["a"] * 65, "questions": ["a"] * 65, "messages": []}),
    ("a length of nothing", {"max_length": 0, "max_tokens": 0, "batch_size": 0}),
)
"""What is wrong with a request, and fields that make it so; those that an endpoint does not have are left out."""


def test_fuzzing(served: Server, serving: Ledger) -> None:
    """Whatever is sent, by the schema or against it: never a 500, every status and content type is a documented one."""
    found = fuzz(served, serving.build / "schemathesis", examples=EXAMPLES, seconds=SECONDS)
    report.attach_text("schemathesis", f"{found.text}\n\n{found.failures}")
    serving.figures["schema fuzzing"] = found.text
    assert found.summary["operations"]["tested"] == found.summary["operations"]["total"], found.text
    assert found.summary["test_cases"]["generated"] >= EXAMPLES * len(ENDPOINTS) / 2, f"too few: {found.text}"
    wrong = [f"{each['title']} ({each['count']}): {each['operations']}" for each in found.summary["failures"]]
    wrong += [f"{each['title']} ({each['count']})" for each in found.summary["errors"]]
    assert not wrong, f"{found.text}\n" + "\n".join(wrong) + f"\n{found.failures}"


def test_every_route_is_documented(served: Server) -> None:
    """Each endpoint is in the OpenAPI document with a body, an answer and its problems, all as problem+json."""
    status, content = served.ask("/openapi.json")
    assert status == 200
    paths = json.loads(content)["paths"]
    for endpoint in ENDPOINTS.values():
        if endpoint.task not in served.facts()["tasks"]:
            continue
        responses = paths[endpoint.path]["post"]["responses"]
        assert {"200", "422", "429", "503"} <= responses.keys(), f"{endpoint.path} documents {sorted(responses)}"
        for code, told in responses.items():
            kinds = set(told["content"])
            wanted = {"application/problem+json"} if code != "200" else {"application/json"}
            assert wanted <= kinds, f"{endpoint.path} documents {code} as {kinds}, should be {wanted}"


def test_bad_requests_are_told_why(endpoint: Endpoint, served: Server) -> None:
    """A request that is wrong gets a 4xx problem whose detail names the field, and nothing of its text."""
    body = endpoint.body(sample(endpoint, 1)[0])
    with Client(served.url, served.headers) as client:
        for what, fields in WRONG:
            changed = {key: value for key, value in fields.items() if key in body or what == "an unknown field"}
            if not changed:
                continue
            reply = client.post(endpoint.path, {**body, **changed})
            assert 400 <= reply.status < 500, f"{what} got {reply.status} {reply.content[:200]!r}"
            assert reply.trouble is None, f"{what}: {reply.trouble}"
            detail = reply.json()["detail"]
            assert any(name in detail for name in changed), f"{what}: {detail!r} names none of {sorted(changed)}"
            assert "aaaaaaaa" not in reply.content.decode(), f"{what}: the problem quotes the text"


def test_wrong_paths_and_methods(served: Server) -> None:
    """An unknown path is a 404, another method a 405 that says which are allowed, each as a problem."""
    with Client(served.url, served.headers) as client:
        for method, path, status in (("GET", "/sentimental", 404), ("GET", "/sentiment", 405), ("PUT", "/health", 405)):
            reply = client.ask(method, path)
            assert reply.status == status, f"{method} {path} got {reply.status}"
            assert reply.trouble is None, reply.trouble
            assert status == 404 or reply.headers.get("allow"), f"{method} {path} got no Allow"
