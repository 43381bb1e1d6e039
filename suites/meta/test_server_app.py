"""The server's routes around a service whose answers are made up: what is asked, answered, and documented."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from suites.meta.server_kit import MODEL, READ, FakeService, ask, made_up, post, serve, settings
from targets.api import UserError
from targets.server.app import create_app
from targets.server.guards.api_key import OPEN
from targets.server.http import answers
from targets.server.http.openapi import TASK_PROBLEMS
from targets.server.routes.tasks import ROUTES

BODIES: dict[str, Any] = {
    "/sentiment": {"texts": ["good", "bad"]},
    "/ner": {"texts": ["Ada", "Bonn"]},
    "/qa": {"questions": ["who?", "where?"], "contexts": ["Ada", "Bonn"]},
    "/summarize": {"texts": ["long", "longer"]},
    "/translate": {"texts": ["one", "two"]},
    "/generate": {"prompt": ["once", "twice"]},
}
routes = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)


@routes
def test_each_text_gets_its_own_answer(route: Any) -> None:
    """Answers come in the order of the request, in the shape that the document promises, with what answered."""
    response = post(route.path, BODIES[route.path])
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    found = response.json()
    assert found["model"] == MODEL
    TypeAdapter(answers.Answers[route.answer]).validate_json(response.content)
    asked = list(BODIES[route.path].values())[-1]
    told = [made_up(route.task, {"text": each, "context": each, "prompt": each}) for each in asked]
    hidden = ("token_ids", "dropped_turns")
    assert found["results"] == [{key: each[key] for key in each if key not in hidden} for each in told]


@pytest.mark.parametrize("path", ["/sentiment", "/ner", "/summarize", "/translate", "/generate"])
def test_a_bare_list_is_a_body(path: str) -> None:
    """A list alone is taken for the texts, and answered as they are."""
    (texts,) = BODIES[path].values()
    assert post(path, texts).json() == post(path, BODIES[path]).json()


@pytest.mark.parametrize(
    ("path", "body", "query", "request_", "width"),
    [
        ("/sentiment", {"texts": ["a"], "batch_size": 3}, {}, {"text": "a"}, 3),
        ("/sentiment", ["a"], {"batch_size": 3}, {"text": "a"}, 3),
        ("/sentiment", {"texts": ["a"], "batch_size": 3}, {"batch_size": 4}, {"text": "a"}, 3),
        ("/sentiment", {"texts": ["a"], "batch_size": 3.0}, {}, {"text": "a"}, 3),
        ("/sentiment", {"texts": ["a"]}, {"batch_size": 10**17}, {"text": "a"}, 10**17),
        ("/sentiment", {"texts": ["a"], "batch_size": None}, {}, {"text": "a"}, None),
        ("/qa", {"questions": ["q"], "contexts": ["c"]}, {"batch_size": 1}, {"question": "q", "context": "c"}, 1),
        ("/summarize", ["a"], {"max_length": 9}, {"text": "a", "max_tokens": 9}, None),
        ("/summarize", {"texts": ["a"], "min_length": 5}, {}, {"text": "a", "max_tokens": 16, "min_tokens": 5}, None),
        ("/summarize", {"texts": ["a"], "min_length": 0}, {}, {"text": "a", "max_tokens": 16}, None),
        ("/translate", {"texts": ["a"], "max_length": 9}, {}, {"text": "a", "max_tokens": 9}, None),
        ("/generate", {"prompt": "a"}, {}, {"prompt": "a", "max_tokens": 16}, None),
        ("/generate", {"prompt": "a", "seed": 7, "top_p": 0.5}, {}, {"prompt": "a", "max_tokens": 16}, None),
        ("/generate", {"prompt": "a", "stop": "x"}, {}, {"prompt": "a", "max_tokens": 16, "stop": ["x"]}, None),
        (
            "/generate",
            {"prompt": "a", "stop": ["x", "y"]},
            {},
            {"prompt": "a", "max_tokens": 16, "stop": ["x", "y"]},
            None,
        ),
        (
            "/generate",
            {"prompt": "a", "temperature": 1e-300, "max_tokens": 2},
            {},
            {"prompt": "a", "max_tokens": 2, "temperature": 0.01, "top_p": 1.0, "seed": 0},
            None,
        ),
    ],
)
def test_what_is_asked_reaches_the_target(path: str, body: Any, query: Any, request_: Any, width: int | None) -> None:
    """Options stand in the body or in the query, and become the keys that targets know; the length is bounded."""

    async def use(web: httpx.AsyncClient, service: FakeService) -> Any:
        response = await web.post(path, json=body, params=query)
        assert response.status_code == 200, response.text
        return service.asked

    ((_, requests, within_s, at_once),) = serve(use)
    assert requests == [request_]
    assert within_s == 5.0
    assert at_once == width


@pytest.mark.parametrize("path", ["/summarize", "/translate", "/generate"])
def test_token_ids_come_when_asked_for(path: str) -> None:
    """The ids of an answer's tokens are told only to those who ask."""
    plain, told = post(path, BODIES[path]), post(path, {**BODIES[path], "return_token_ids": True})
    assert all("token_ids" not in each for each in plain.json()["results"])
    assert all(each["token_ids"] == [1] for each in told.json()["results"])


def test_a_clients_patience_is_passed_on() -> None:
    """The header X-Server-Timeout is the deadline of a request."""

    async def use(web: httpx.AsyncClient, service: FakeService) -> float:
        await web.post("/sentiment", json=["a"], headers={"X-Server-Timeout": "0.25"})
        found: float = service.asked[0][2]
        return found

    assert serve(use) == 0.25


def test_a_client_that_hangs_up_is_not_worked_for() -> None:
    """When the connection ends before the answer, what was asked for is cancelled."""

    async def use(web: httpx.AsyncClient, service: FakeService) -> list[Any]:
        service.hold = asyncio.Event()
        body = [{"type": "http.request", "body": b'["a"]'}, {"type": "http.disconnect"}]
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/sentiment", "query_string": b"", "headers": headers}
        sent: list[Any] = []

        async def receive() -> Any:
            return body.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        await web._transport.app(scope, receive, send)  # type: ignore[attr-defined]
        await service.cancelled.wait()
        return sent

    assert serve(use)[0]["status"] == 499


def test_bytes_that_are_no_ascii_travel_whole() -> None:
    """Texts in any script come back as they were sent."""
    texts = ["größer als", "日本語", "🙂", "a\u0000b"]
    found = post("/sentiment", texts).json()["results"]
    assert [each["label"] for each in found] == texts


def test_health_needs_no_model() -> None:
    """The server is alive while its models load."""
    response = ask("GET", "/health", prepare=unready)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_ready_says_which_model_is_missing() -> None:
    """Until every model is loaded, /ready is 503 with Retry-After and the state of each task; then 200."""
    waiting = ask("GET", "/ready", prepare=unready)
    assert waiting.status_code == 503
    assert int(waiting.headers["retry-after"]) >= 1
    assert waiting.json()["tasks"]["ner"]["state"] == "starting"
    assert "ner is starting" in waiting.json()["detail"]
    ready = ask("GET", "/ready")
    TypeAdapter(answers.Readiness).validate_json(ready.content)
    assert ready.json()["tasks"]["ner"]["backend"] == "onnxruntime"


def unready(service: FakeService) -> None:
    service.ready = False


def test_requests_are_counted_by_their_status() -> None:
    """Prometheus reads how many requests of a task were answered how, refused ones included."""

    async def use(web: httpx.AsyncClient, service: FakeService) -> httpx.Response:
        for body in (["a"], ["b"], [""]):
            await web.post("/ner", json=body)
        return await web.get("/metrics")

    response = serve(use)
    assert response.headers["content-type"].startswith("text/plain; version=")
    lines = response.text.splitlines()
    assert 'nlp_requests_total{status="200",task="ner"} 2.0' in lines
    assert 'nlp_requests_total{status="422",task="ner"} 1.0' in lines


def test_models_that_cannot_be_loaded_end_the_start() -> None:
    """Whoever runs the application gets the error with which its service did not start."""

    async def main() -> None:
        service: Any = FakeService(settings())
        service.broken = UserError("no such model")
        app = create_app(service.settings, service)
        async with app.router.lifespan_context(app):
            pytest.fail("it started")

    with pytest.raises(UserError, match="no such model"):
        asyncio.run(main())


def test_only_served_tasks_have_routes() -> None:
    """A task that is not served is an unknown path, and no part of the document."""
    only = {"qa": settings().tasks["qa"]}

    async def use(web: httpx.AsyncClient, service: FakeService) -> tuple[int, Any]:
        return (await web.post("/ner", json=["a"])).status_code, (await web.get("/openapi.json")).json()

    status, document = serve(use, tasks=only)
    assert status == 404
    assert "/qa" in document["paths"]
    assert "/ner" not in document["paths"]


def test_the_document_is_whole() -> None:
    """Every reference leads somewhere, and every operation tells its answer, its problems and when to try again."""
    document = ask("GET", "/openapi.json").json()
    defined = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= defined
    for route in ROUTES:
        told = document["paths"][route.path]["post"]
        assert set(told["responses"]) == {"200", "431", *map(str, TASK_PROBLEMS)}
        events = {"text/event-stream"} if "stream" in route.body.model_fields else set()
        assert told["responses"]["200"]["content"].keys() == {"application/json"} | events
        for status, response in told["responses"].items():
            if status != "200":
                assert response["content"].keys() == {"application/problem+json"}
        assert "Retry-After" in told["responses"]["429"]["headers"]
        assert told["requestBody"]["required"]
        assert all(option in {each["name"] for each in told["parameters"]} for option in route.body.options)


def test_a_key_is_documented_where_one_is_needed(tmp_path: Any) -> None:
    """With an API key, the document names it, and 401 for those without."""

    async def use(web: httpx.AsyncClient, service: FakeService) -> Any:
        return (await web.get("/openapi.json")).json()

    told = serve(use, api_key_file=tmp_path / "key")
    assert told["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert told["paths"]["/ner"]["post"]["security"] == [{"key": []}]
    assert "401" in told["paths"]["/ner"]["post"]["responses"]
    assert told["paths"]["/metrics"]["get"]["security"] == [{"key": []}]
    for path in OPEN:
        assert "security" not in told["paths"][path]["get"]
        assert "401" not in told["paths"][path]["get"]["responses"]


def references(part: Any) -> list[str]:
    """Every $ref in a document."""
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [found for value in part.values() for found in references(value)]
    return [found for value in part for found in references(value)] if isinstance(part, list) else []


def test_the_fakes_answers_are_well_formed() -> None:
    """What this file's service makes up has the keys that every answer has."""
    assert all(made_up(route.task, {"text": "a", "context": "a"}).keys() >= READ.keys() for route in ROUTES)


def test_a_chat_asked_as_a_page_says_what_it_speaks() -> None:
    """GET /chat without an upgrade is told that it speaks WebSocket, not that it is not there."""
    response = ask("GET", "/chat")
    assert (response.status_code, response.headers["upgrade"]) == (426, "websocket")
    assert response.json()["detail"] == "/chat speaks WebSocket only"
