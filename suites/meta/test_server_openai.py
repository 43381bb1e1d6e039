"""The routes in OpenAI's shape, on a real socket, with an engine that answers by arithmetic."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from suites.meta.live_server import PATIENCE_S, Live, run
from suites.meta.small_llama import small_device
from suites.meta.talking_engine import CONTEXT
from targets.api import ModelFiles, UserError
from targets.generation import ContextOverflow
from targets.registry import backends, optimizations, tasks
from targets.server.openai import answers as openai_answers

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "hello you"}]
PATHS = pytest.mark.parametrize(("path", "body"), [(CHAT, {"messages": HELLO}), (COMPLETIONS, {"prompt": "once"})])


def post(path: str, body: Any) -> Any:
    """The response to one body."""

    async def use(live: Live) -> Any:
        return await live.web.post(path, json=body)

    return run(use)


def streamed(path: str, body: Any) -> list[Any]:
    """The events of one stream; the last one is the mark of its end, if there is one."""

    async def use(live: Live) -> list[str]:
        return await live.events(path, {**body, "stream": True})

    return [line if line == "[DONE]" else json.loads(line) for line in run(use)]


def text_of(choice: Any) -> str:
    return str(choice.get("text") or (choice.get("message") or choice.get("delta") or {}).get("content") or "")


def test_a_conversation_is_answered() -> None:
    """An answer has the shape that clients expect, with the engine's own counts and reason to end."""
    turns = [{"role": "developer", "content": "Be kind."}, *HELLO]
    response = post(CHAT, {"model": "small", "messages": turns})
    found = response.json()
    TypeAdapter(openai_answers.ChatCompletion).validate_json(response.content)
    assert found["choices"][0]["message"]["content"] == "2 hello you"
    assert found["choices"][0]["finish_reason"] == "stop"
    assert found["usage"] == {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
    assert found["model"] == "small"


def test_prompts_are_continued_in_order() -> None:
    """A list of prompts has a choice each, in order, and usage over all; sixteen tokens unless told otherwise."""
    response = post(COMPLETIONS, {"prompt": ["once upon", "twice"]})
    found = response.json()
    TypeAdapter(openai_answers.Completion).validate_json(response.content)
    assert [choice["index"] for choice in found["choices"]] == [0, 1]
    assert found["usage"] == {"prompt_tokens": 3, "completion_tokens": 32, "total_tokens": 35}
    assert {choice["finish_reason"] for choice in found["choices"]} == {"length"}


@PATHS
@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_says_what_a_whole_answer_says(path: str, body: Any, usage: bool) -> None:
    """The pieces joined are the text; usage comes where it was asked for, in the last event before the mark."""
    whole = post(path, body).json()
    *events, mark = streamed(path, {**body, **({"stream_options": {"include_usage": True}} if usage else {})})
    assert mark == "[DONE]"
    if usage:
        last = events.pop()
        assert (last["choices"], last["usage"]) == ([], whole["usage"])
        assert all(event["usage"] is None for event in events)
    assert not any(event.get("usage") for event in events)
    choices = [event["choices"][0] for event in events]
    assert "".join(map(text_of, choices)) == text_of(whole["choices"][0])
    assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)
    assert choices[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert len({(event["id"], event["created"], event["model"]) for event in events}) == 1
    if path == CHAT:
        assert choices[0]["delta"] == {"role": "assistant", "content": ""}


def test_tokens_are_sent_as_they_come() -> None:
    """Each piece reaches the client before the engine makes the next one."""

    async def use(live: Live) -> None:
        gate = live.generation.gate = asyncio.Semaphore(0)
        body = {"prompt": "once", "stream": True, "max_tokens": 3}
        gate.release()
        async with live.web.stream("POST", COMPLETIONS, json=body) as response:
            lines = (line async for line in response.aiter_lines() if line)
            for word in ("one", " two", " three"):
                line = await asyncio.wait_for(anext(lines), PATIENCE_S)
                assert json.loads(line[6:])["choices"][0]["text"] == word
                gate.release()
            assert [line async for line in lines][-1] == "data: [DONE]"

    run(use)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, {"max_tokens": CONTEXT // 4}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5, "max_tokens": 5}, {"max_tokens": 5}),
        ({"temperature": 0, "seed": 3, "top_p": 0.5}, {"max_tokens": CONTEXT // 4}),
        (
            {"temperature": 1, "seed": 3, "top_p": 0.5},
            {"max_tokens": CONTEXT // 4, "temperature": 1.0, "top_p": 0.5, "seed": 3},
        ),
        ({"temperature": 1, "seed": -1}, {"seed": 2**31 - 1}),
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"stop": ["x", "y"], "ignore_eos": True}, {"stop": ["x", "y"], "ignore_eos": True}),
        ({"n": 1, "tools": [], "logprobs": False, "response_format": {"type": "text"}, "top_k": -1}, {}),
        ({"frequency_penalty": 0, "presence_penalty": 0.0, "repetition_penalty": 1.0, "logit_bias": {}}, {}),
        ({"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"}, {}),
    ],
)
def test_parameters_reach_the_target(given: dict[str, Any], asked: dict[str, Any]) -> None:
    """What is served becomes the keys that targets know; what is off, or without effect, is taken."""

    async def use(live: Live) -> Any:
        response = await live.web.post(CHAT, json={"messages": HELLO, **given})
        assert response.status_code == 200, response.text
        return live.chat.asked[-1]

    assert run(use).items() >= asked.items()


def test_a_sample_without_a_seed_is_a_new_one() -> None:
    """Where no seed is named, each request draws by another."""

    async def use(live: Live) -> set[int]:
        for _ in range(4):
            await live.web.post(CHAT, json={"messages": HELLO, "temperature": 1})
        return {asked["seed"] for asked in live.chat.asked}

    assert len(run(use)) == 4


@pytest.mark.parametrize(
    ("path", "given", "param"),
    [
        (CHAT, {"n": 2}, "n"),
        (CHAT, {"n": True}, "n"),
        (CHAT, {"logprobs": 0}, "logprobs"),
        (CHAT, {"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
        (CHAT, {"tools": [{"type": "function"}]}, "tools"),
        (CHAT, {"logprobs": True}, "logprobs"),
        (CHAT, {"response_format": {"type": "json_object"}}, "response_format"),
        (CHAT, {"frequency_penalty": 0.5}, "frequency_penalty"),
        (CHAT, {"top_k": 40}, "top_k"),
        (CHAT, {"temprature": 1}, "temprature"),
        (CHAT, {"max_tokens": 2, "max_completion_tokens": 3}, "max_tokens"),
        (CHAT, {"max_tokens": 1000}, "max_tokens"),
        (CHAT, {"temperature": 3}, "temperature"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        (CHAT, {"messages": [{"role": "user", "content": "x" * 201}]}, "messages"),
        (CHAT, {"messages": [*HELLO, {"role": "assistant", "content": "yes"}]}, "messages"),
        (COMPLETIONS, {"prompt": [1, 2]}, "prompt[0]"),
        (COMPLETIONS, {"echo": True}, "echo"),
        (COMPLETIONS, {"logprobs": 0}, "logprobs"),
        (COMPLETIONS, {"best_of": 2}, "best_of"),
        (COMPLETIONS, {"suffix": "x"}, "suffix"),
        (COMPLETIONS, {"prompt": ["a", "b"], "stream": True}, "stream"),
    ],
)
def test_what_would_change_the_answer_is_refused(path: str, given: dict[str, Any], param: str) -> None:
    """A parameter that cannot be served is refused by name, as a problem and as OpenAI's error."""
    response = post(path, {"messages": HELLO, **given} if path == CHAT else {"prompt": "once", **given})
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    found = response.json()
    assert found["status"] == 400
    assert found["error"]["param"] == param
    assert found["error"]["message"] == found["detail"]
    assert found["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("stream", [True, False])
def test_a_prompt_too_long_has_its_code(stream: bool) -> None:
    """A prompt beyond the context is refused with OpenAI's code for it before anything is streamed."""
    response = post(CHAT, {"messages": [{"role": "user", "content": "long"}], "stream": stream})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert f"the context holds {CONTEXT}" in response.json()["error"]["message"]


def test_models_are_listed_and_found() -> None:
    """Both routes' model is one row with its context, can be asked for by name, and no other one can."""

    async def use(live: Live) -> Any:
        rows = await live.web.get("/v1/models")
        return rows.json(), (await live.web.get("/v1/models/small")).json(), await live.web.get("/v1/models/sm/all")

    rows, row, missing = run(use)
    TypeAdapter(openai_answers.ServedModels).validate_python(rows)
    assert rows["data"] == [row]
    assert (row["id"], row["max_model_len"]) == ("small", CONTEXT)
    assert missing.status_code == 404
    refused = post(CHAT, {"model": "gpt-4o", "messages": HELLO})
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "model_not_found"


def test_a_stream_that_fails_says_so() -> None:
    """An engine that dies after some tokens is told as an error event, and no mark of an end comes."""
    *_, before, last = streamed(CHAT, {"messages": [{"role": "user", "content": "die now please"}]})
    assert text_of(before["choices"][0])
    assert last["error"]["type"] == "server_error"
    assert last["status"] == 503


def test_a_client_that_leaves_ends_the_generation() -> None:
    """When the client hangs up in the middle, the engine's stream is closed, and the request counts as such."""

    async def use(live: Live) -> str:
        gate = live.chat.gate = asyncio.Semaphore(1)
        async with live.web.stream("POST", CHAT, json={"messages": HELLO, "stream": True}) as response:
            await anext(response.aiter_lines())
        await asyncio.wait_for(live.chat.left.wait(), PATIENCE_S)
        gate.release()
        live.chat.gate = None
        await live.web.post(CHAT, json={"messages": HELLO})
        return (await live.web.get("/metrics")).text

    metrics = run(use)
    assert 'nlp_requests_total{status="499",task="chat"} 1.0' in metrics
    assert 'nlp_requests_total{status="200",task="chat"} 1.0' in metrics


@pytest.mark.parametrize("task", ["chat", "generation"])
def test_our_own_client_understands_the_server(task: str) -> None:
    """The suite's OpenAI backend runs on this server: whole = streamed, counts, pinned lengths, stops, overflows."""
    model = ModelFiles("small", Path(), "", "openai", format="openai")

    def ask(text: str) -> dict[str, Any]:
        return dict(tasks[task].ask(text))

    def use(url: str) -> None:
        device = small_device(openai={"url": url, "timeout_s": PATIENCE_S})
        with backends["openai"].load(model, Path(), tasks[task], optimizations["as-is"], device) as found:
            runner: Any = found
            pieces, ticks = list[str](), list[int]()
            request = {**ask("hello there"), "max_tokens": 8, "ignore_eos": True}
            (whole,) = runner.run([request], lambda: ticks.append(1))
            assert runner.stream(request, pieces.append) == whole == runner.run([request])[0]
            assert "".join(pieces) == whole["text"]
            assert len(ticks) == len(pieces) == whole["output_tokens"] == 8
            stop = whole["text"][4:9]
            stopped = runner.run([{**request, "stop": [stop]}])[0]
            assert (stopped["text"], stopped["finish"]) == (whole["text"].partition(stop)[0], "stop")
            with pytest.raises(ContextOverflow, match="context length is exceeded"):
                runner.run([{**ask("long"), "max_tokens": 8}])
            with pytest.raises(UserError, match="empty"):
                runner.run([ask("")])

    async def main(live: Live) -> None:
        await asyncio.to_thread(use, live.url)

    run(main)
