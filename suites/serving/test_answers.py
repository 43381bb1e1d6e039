"""What the server answers, against the runner that it serves: called directly, with nothing in between."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.serving.chat_client import chat
from fixtures.serving.client import Client, Reply, events
from fixtures.serving.direct import Direct
from fixtures.serving.endpoints import ENDPOINTS, Endpoint
from fixtures.serving.lesson import sample
from fixtures.serving.likeness import ROUNDING, difference, tolerance, unlike
from fixtures.serving.server import Server
from targets.registry import tasks

COUNT = 24
LISTED = [name for name in ENDPOINTS if name != "chat"]
"""Endpoints that take several inputs a request; a conversation comes alone."""
BARE = ("sentiment", "ner", "summarize", "translate", "generate")
"""Endpoints that take a bare list of texts."""
ODD = (
    "?",
    "🙂🙃 naïve café — “quoted”",
    "東京は夜の七時。",
    "مرحبا بالعالم",
    "e\u0301\u0301\u0301 combining",
    "null \x00 byte",
    "\u202eright to left",
    "a" * 1000,
    "word " * 2_000,
    "line\nbreaks\r\nand\ttabs",
    '{"text": "JSON in JSON"}',
    "<script>alert(1)</script> %s {} ${x}",
    "\u2028\u2029\ufeff marks",
)


def posted(client: Client, path: str, body: Any) -> Any:
    """The answer to a body. Fails where there is none."""
    reply: Reply = client.post(path, body)
    assert reply.status == 200, f"{path} answered {reply.status} {reply.content[:300]!r} to {body!r:.200}"
    return reply.json()


def test_same_as_the_runner(endpoint: Endpoint, served: Server, direct: Direct) -> None:
    """Every answer is the one that the runner gives when it is called directly, to the last number."""
    requests = sample(endpoint, COUNT)
    expected = direct.answers(endpoint.task, requests)
    with Client(served.url, served.headers) as client:
        for request, wanted in zip(requests, expected, strict=True):
            found = posted(client, endpoint.path, endpoint.body(request))
            wrong = unlike(wanted, found, ROUNDING)
            assert wrong is None, f"{endpoint.path} of {request!r:.200}: {wrong}"


@pytest.mark.parametrize("name", LISTED)
def test_lists_are_answered_in_order(name: str, served: Server, has: Any) -> None:
    """A list of texts gets the answers that its texts get one by one, in their order, whatever batch size is asked."""
    endpoint = has(name)
    requests = sample(endpoint, COUNT)
    within = tolerance(served.facts()["tasks"][endpoint.task]["optimization"])
    with Client(served.url, served.headers) as client:
        alone = [posted(client, endpoint.path, endpoint.body(each))["results"][0] for each in requests]
        sizes = ({}, {"batch_size": 1}, {"batch_size": 5}) if endpoint.name != "generate" else ({},)
        for size in sizes:
            together = posted(client, endpoint.path, merged(endpoint, requests) | size)["results"]
            wrong = difference(alone, together, within, "results")
            assert wrong is None, f"{endpoint.path} of {COUNT} texts with {size or 'no batch size'}: {wrong}"


def merged(endpoint: Endpoint, requests: list[dict[str, Any]]) -> dict[str, Any]:
    """One body for several requests."""
    bodies = [endpoint.body(request) for request in requests]
    first = bodies[0]
    return {
        key: [each for body in bodies for each in body[key]] if isinstance(value, list) else value
        for key, value in first.items()
    }


@pytest.mark.parametrize("name", BARE)
def test_bare_lists(name: str, served: Server, has: Any) -> None:
    """A bare list of texts, as the classic lab client posts it, is answered like the same list in an object."""
    endpoint = has(name)
    texts = [endpoint.varied(request) for request in sample(endpoint, 3)]
    key = next(key for key, value in endpoint.body(sample(endpoint, 1)[0]).items() if isinstance(value, list))
    with Client(served.url, served.headers) as client:
        bare, whole = posted(client, endpoint.path, texts), posted(client, endpoint.path, {key: texts})
    assert bare == whole
    assert len(bare["results"]) == len(texts)


def test_answers_are_well_formed(endpoint: Endpoint, served: Server) -> None:
    """Answers keep the laws of their task: spans quote the text, probabilities sum to one, counts agree."""
    task = tasks[endpoint.task]
    with Client(served.url, served.headers) as client:
        for request in sample(endpoint, COUNT):
            body = endpoint.body(request) | ({"return_token_ids": True} if returns_ids(endpoint) else {})
            found = posted(client, endpoint.path, body)
            if "choices" in found:
                continue_with = {"max_tokens": body["max_tokens"], "messages": body["messages"]}
                assert not chat_problems(continue_with, found), f"{chat_problems(continue_with, found)} in {found}"
            else:
                wrong = task.problems(request, found["results"][0])
                assert not wrong, f"{endpoint.path} of {request!r:.200}: {wrong}"


def returns_ids(endpoint: Endpoint) -> bool:
    """Whether answers of the route can hold the ids of their tokens."""
    return endpoint.generates and endpoint.name in LISTED


def chat_problems(request: dict[str, Any], found: Any) -> list[str]:
    """What is wrong with a chat completion by the standard."""
    (choice,), usage = found["choices"], found["usage"]
    wrong = []
    if choice["finish_reason"] not in ("stop", "length"):
        wrong.append(f"finish_reason is {choice['finish_reason']!r}")
    if usage["completion_tokens"] > request["max_tokens"]:
        wrong.append(f"{usage['completion_tokens']} tokens, {request['max_tokens']} were asked for")
    if usage["total_tokens"] != usage["prompt_tokens"] + usage["completion_tokens"]:
        wrong.append(f"the total of {usage} is no sum")
    if choice["message"]["role"] != "assistant":
        wrong.append(f"{choice['message']['role']} speaks")
    return wrong


@pytest.mark.parametrize("text", ODD, ids=lambda text: ascii(text)[1:21])
def test_odd_texts(text: str, endpoint: Endpoint, served: Server) -> None:
    """Texts of any script and with any character are answered, or refused with a problem that says why."""
    request = with_text(endpoint, text)
    with Client(served.url, served.headers) as client:
        reply = client.post(endpoint.path, endpoint.body(request))
        assert reply.status == 200 or 400 <= reply.status < 500, f"got {reply.status} {reply.content[:300]!r}"
        assert reply.trouble is None, reply.trouble
        if reply.status == 200 and not endpoint.generates:
            wrong = tasks[endpoint.task].problems(request, reply.json()["results"][0])
            assert not wrong, f"{endpoint.path} of {text!r:.100}: {wrong}"


def with_text(endpoint: Endpoint, text: str) -> dict[str, Any]:
    """A request of an endpoint with this text as the one that varies."""
    if endpoint.task == "chat":
        return {"messages": [{"role": "user", "content": text}], "max_tokens": 8}
    found = sample(endpoint, 1)[0]
    old = endpoint.varied(found)
    return {key: text if value == old else value for key, value in found.items()}


def test_every_way_to_a_generation_is_one(served: Server, has: Any) -> None:
    """A prompt is continued alike by /generate, by its stream, and by /v1/completions, whole and streamed."""
    has("generate")
    with Client(served.url, served.headers) as client:
        for request in sample(ENDPOINTS["generate"], 6):
            body = {"prompt": request["prompt"], "max_tokens": 24}
            whole = posted(client, "/generate", body)["results"][0]
            frames = [frame for _, frame in events(client.stream("/generate", {**body, "stream": True}))]
            pieces = "".join(frame["text"] for frame in frames if frame["type"] == "token")
            assert (pieces, frames[-1]["type"], frames[-1]["text"]) == (whole["text"], "done", whole["text"])
            asked = {**body, "temperature": 0}
            completed = posted(client, "/v1/completions", asked)["choices"][0]["text"]
            streamed = completion_stream(client, "/v1/completions", asked, lambda choice: choice["text"])
            assert (completed, streamed) == (whole["text"], whole["text"])


def test_every_way_to_a_chat_is_one(served: Server, has: Any) -> None:
    """A message is answered alike by /v1/chat/completions, by its stream, and over WebSocket."""
    has("chat")
    with Client(served.url, served.headers) as client, chat(served.url, served.headers) as conversation:
        for request in sample(ENDPOINTS["chat"], 6):
            last = request["messages"][-1]
            body = {"messages": [last], "max_tokens": 24, "temperature": 0}
            whole = posted(client, "/v1/chat/completions", body)["choices"][0]["message"]["content"]
            streamed = completion_stream(
                client, "/v1/chat/completions", body, lambda choice: choice["delta"].get("content", "")
            )
            conversation.turn({"type": "reset"})
            spoken = conversation.ask(last["content"], max_tokens=24)
            assert (streamed, spoken.text) == (whole, whole), f"to {last}"


def completion_stream(client: Client, path: str, body: dict[str, Any], piece: Any) -> str:
    """The text of a streamed completion, whose last event is its mark, and whose counts agree with what came."""
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    *chunks, mark = [event for _, event in events(client.stream(path, asked))]
    assert mark is None, f"the stream ends with {mark}, should end with [DONE]"
    assert chunks[-1]["usage"]["completion_tokens"] <= body["max_tokens"]
    return "".join(piece(choice) for chunk in chunks for choice in chunk["choices"])
