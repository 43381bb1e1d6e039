"""Everything that can be wrong with a request gets a problem document (RFC 9457) with one sentence, and never a 500."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import given, strategies
from pydantic import TypeAdapter

from suites.meta.server_kit import FakeService, ask, post
from targets.server.batching.batcher import Closed, DeadlinePassed, QueueFull
from targets.server.engine.errors import EngineBusyStarting, EngineDied, TargetFailed, TargetRefused
from targets.server.http.answers import ProblemDetails
from targets.server.http.faults import problem_of
from targets.server.routes.tasks import ROUTES

QA = {"questions": ["q"], "contexts": ["c"]}


def problem(response: Any, status: int) -> Any:
    """The document of a response, which is well-formed and has this status."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    TypeAdapter(ProblemDetails).validate_json(response.content)
    found = response.json()
    assert found["status"] == status
    return found


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/sentiment", {}, "texts is missing"),
        ("/sentiment", {"texts": "a"}, "texts should be a list, is a string"),
        ("/sentiment", {"texts": None}, "texts should be a list, is null"),
        ("/sentiment", {"texts": []}, "texts has 0 items, should have at least 1"),
        ("/sentiment", [], "texts has 0 items, should have at least 1"),
        ("/sentiment", {"texts": ["a", 1]}, "texts[1] should be a string, is an integer"),
        ("/sentiment", {"texts": [["a"]]}, "texts[0] should be a string, is a list"),
        ("/sentiment", {"texts": ["a", ""]}, "texts[1] has 0 characters, should have at least 1"),
        ("/sentiment", {"texts": [" \n\u0085\ufeff"]}, "texts[0] is blank; at least one character that is no space"),
        ("/sentiment", {"texts": ["a"] * 5}, "texts has 5 items, should have at most 4"),
        ("/sentiment", {"texts": ["a" * 51]}, "texts[0] has 51 characters, should have at most 50"),
        ("/sentiment", {"texts": ["a"], "batch": 3}, "unknown field 'batch'. Did you mean 'batch_size'? Known: batch_"),
        ("/sentiment", {"texts": ["a"], "batch_size": 0}, "batch_size is 0, should be at least 1"),
        ("/sentiment", {"texts": ["a"], "batch_size": "8"}, "batch_size should be an integer, is a string"),
        ("/sentiment", {"texts": ["a"], "batch_size": True}, "batch_size should be an integer, is true or false"),
        ("/sentiment", {"texts": ["a"], "batch_size": 1.5}, "batch_size should be an integer, is a number"),
        ("/sentiment", "a", "body should be an object, is a string"),
        ("/sentiment", True, "body should be an object, is true or false"),
        ("/sentiment", 3, "body should be an object, is an integer"),
        ("/sentiment", {"texts": [1, 2, 3]}, "texts[0] should be a string, is an integer (and 2 more)"),
        ("/qa", ["a"], "body should be an object, is a list"),
        ("/qa", {"questions": ["a", "b"], "contexts": ["c"]}, "there are 2 questions and 1 contexts; each question"),
        ("/qa", {"questions": ["a"]}, "contexts is missing"),
        ("/summarize", {"texts": ["a"], "max_length": 17}, "max_length is 17, should be at most 16"),
        ("/summarize", {"texts": ["a"], "max_length": 10**300}, "max_length is a number of very many digits, should"),
        ("/summarize", {"texts": ["a"], "min_length": -1}, "min_length is -1, should be at least 0"),
        ("/summarize", {"texts": ["a"], "min_length": 9, "max_length": 5}, "min_length is 9, should be at most max_le"),
        ("/summarize", {"texts": ["a"], "max_length": None}, "max_length should be an integer, is null"),
        ("/generate", {"prompt": 3}, "prompt should be a string or a list of strings, is an integer"),
        ("/generate", {"prompt": []}, "prompt has 0 items, should have at least 1"),
        ("/generate", {"prompt": ["a", ""]}, "prompt[1] has 0 characters, should have at least 1"),
        ("/generate", {"prompt": "a", "temperature": -1}, "temperature is -1, should be at least 0"),
        ("/generate", {"prompt": "a", "top_p": 0}, "top_p is 0, should be above 0"),
        ("/generate", {"prompt": "a", "seed": 2**31}, "seed is 2147483648, should be at most 2147483647"),
        ("/generate", {"prompt": "a", "stop": [""]}, "stop[0] has 0 characters, should have at least 1"),
        ("/generate", {"prompt": "a", "stop": ["a"] * 5}, "stop has 5 items, should have at most 4"),
        ("/generate", {"prompt": "a", "max_tokens": 0}, "max_tokens is 0, should be at least 1"),
    ],
)
def test_fields_that_are_not_as_they_should_be(path: str, body: Any, told: str) -> None:
    """A wrong field is a 422 that names it, says what is wrong and what is allowed, and is listed under errors."""
    found = problem(post(path, body), 422)
    assert found["detail"].startswith(told)
    assert found["errors"][0]["detail"] in found["detail"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the body is no valid JSON: EOF"),
        (b'{"texts": ["a"]', "the body is no valid JSON: EOF"),
        (b'{"texts": ["a"]} x', "the body is no valid JSON: trailing characters"),
        (b"['a']", "the body is no valid JSON"),
        (b'{"texts": ["\xff"]}', "the body is no valid JSON"),
        (b'{"texts": ["\\ud800"]}', "the body is no valid JSON"),
        (b'["\\udfff"]', "the body is no valid JSON"),
        (b"[" * 100_000, "the body is no valid JSON: recursion limit"),
        (b'{"texts": ["a"], "batch_size": ' + b"9" * 5000 + b"}", "the body is no valid JSON: number out of range"),
        ('{"texts": ["a"]}'.encode("utf-16"), "the body is no valid JSON"),
    ],
)
def test_what_is_no_json(content: bytes, told: str) -> None:
    """A body that is not JSON in UTF-8 is a 400 that says where it ends to be."""
    found = problem(ask("POST", "/sentiment", content=content, headers={"content-type": "application/json"}), 400)
    assert found["detail"].startswith(told)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(number: str) -> None:
    """What JSON does not know as a number, or no float holds, is refused."""
    body = f'{{"prompt": "a", "temperature": {number}}}'
    response = ask("POST", "/generate", content=body, headers={"content-type": "application/json"})
    assert "temperature is not finite" in problem(response, 422)["detail"]


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({}, "the content type is missing, should be 'application/json'"),
        ({"content-type": "text/plain"}, "the content type is 'text/plain', should be 'application/json'"),
        ({"content-type": "application/x-www-form-urlencoded"}, "the content type is 'application/x-www-form"),
        ({"content-type": "application/json; charset=latin-1"}, "the charset of the body should be utf-8"),
        ({"content-type": "application/json", "content-encoding": "gzip"}, "the body is encoded (compressed"),
    ],
)
def test_bodies_of_another_kind(headers: dict[str, str], told: str) -> None:
    """What is not JSON by its headers is a 415 that says what is taken."""
    found = problem(ask("POST", "/sentiment", content=b'["a"]', headers=headers), 415)
    assert found["detail"].startswith(told)


@pytest.mark.parametrize(
    "kind", ["application/json; charset=UTF-8", "Application/JSON", 'application/json;charset="utf-8"']
)
def test_json_by_another_spelling(kind: str) -> None:
    """The content type may be written in any case, and may say what JSON is in anyway."""
    assert ask("POST", "/sentiment", content=b' ["a"]', headers={"content-type": kind}).status_code == 200


@pytest.mark.parametrize(
    ("path", "query", "told"),
    [
        (
            "/sentiment",
            "batch=3",
            "unknown parameter 'batch' in the query. Did you mean 'batch_size'? Known: batch_size.",
        ),
        ("/generate", "n=1", "unknown parameter 'n' in the query. This route takes none."),
        ("/sentiment", "batch_size=3&batch_size=4", "batch_size stands in the query more than once; give it once"),
        ("/sentiment", "batch_size=a", "batch_size in the query should be an integer of at most 18 digits"),
        ("/sentiment", "batch_size=", "batch_size in the query should be an integer"),
        ("/sentiment", "batch_size=٣", "batch_size in the query should be an integer"),
        ("/sentiment", "batch_size=1_0", "batch_size in the query should be an integer"),
        ("/sentiment", "batch_size=-1", "batch_size is -1, should be at least 1"),
        ("/sentiment", "batch_size=" + "9" * 400, "batch_size in the query should be an integer"),
        ("/summarize", "max_length=99", "max_length is 99, should be at most 16"),
    ],
)
def test_queries_that_are_not_as_they_should_be(path: str, query: str, told: str) -> None:
    """The query is as strict as the body: an option is known, stands there once, and is a number in range."""
    assert problem(post(f"{path}?{query}", ["a"]), 422)["detail"].startswith(told)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon", "5.1", ""])
def test_patience_is_a_number_of_seconds(seconds: str) -> None:
    """A deadline that is no number of seconds up to the server's own is refused."""
    found = problem(post("/sentiment", ["a"], headers={"X-Server-Timeout": seconds}), 422)
    assert found["detail"] == "X-Server-Timeout should be a number of seconds above 0, and 5 at most"


def test_paths_that_do_not_exist() -> None:
    """An unknown path is a 404 that names the nearest one."""
    assert "Did you mean '/sentiment'?" in problem(post("/sentimant", ["a"]), 404)["detail"]
    problem(post("/sentiment/", ["a"]), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/sentiment", "POST"), ("DELETE", "/ner", "POST"), ("POST", "/health", "GET"), ("BREW", "/qa", "POST")],
)
def test_methods_that_a_path_does_not_take(method: str, path: str, allowed: str) -> None:
    """A wrong method is a 405 with Allow."""
    response = ask(method, path)
    assert allowed in problem(response, 405)["detail"]
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (QueueFull(256, 1.2), 429, "2"),
        (QueueFull(256, 0.0), 429, "1"),
        (DeadlinePassed(), 504, None),
        (Closed(), 503, "1"),
        (EngineDied("the process was ended by SIGKILL"), 503, "1"),
        (EngineBusyStarting("ner restarts", 3.5), 503, "4"),
        (TargetRefused("the prompt has 900 tokens and 9 more are asked for"), 422, None),
        (TargetFailed("'the secret text' cannot be read", "ValueError"), 500, None),
    ],
)
def test_what_the_service_raises(error: Exception, status: int, retry: str | None) -> None:
    """Each failure of the service has its status, and Retry-After where another try may help."""
    response = post("/sentiment", ["a"], prepare=lambda service: setattr(service, "error", error))
    found = problem(response, status)
    assert response.headers.get("retry-after") == retry
    assert "secret" not in found["detail"]


def test_what_nobody_foresaw() -> None:
    """An error that nothing expects is a 500 that tells nothing of it."""

    def break_it(service: FakeService) -> None:
        service.error = ZeroDivisionError("the secret text")

    assert "secret" not in json.dumps(problem(post("/sentiment", ["a"], prepare=break_it), 500))
    assert problem_of(ZeroDivisionError("the secret text")).status == 500


JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text(), inner),
    max_leaves=8,
)
NAMES = sorted({name for route in ROUTES for name in route.body.model_fields})


@hypothesis.settings(deadline=None)  # the first request makes the application
@given(
    path=strategies.sampled_from([route.path for route in ROUTES]),
    body=JSON | strategies.dictionaries(strategies.sampled_from(NAMES), JSON, max_size=4),
)
def test_no_body_is_a_500(path: str, body: Any) -> None:
    """Whatever JSON is sent, it is answered, or refused as the client's fault."""
    response = ask("POST", path, content=json.dumps(body).encode(), headers={"content-type": "application/json"})
    assert response.status_code in (200, 400, 422), response.text
    if response.status_code != 200:
        problem(response, response.status_code)
