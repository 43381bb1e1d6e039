"""The dialects of OpenAI-compatible servers: what each takes and means beyond the standard.

A server is known by `owned_by` in its /v1/models.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from targets.api import Unsupported
from targets.generation import Decoding
from targets.remote.client import HttpClient
from targets.remote.generator import Content

Tokenize: TypeAlias = Callable[[HttpClient, str, Content], list[int]]
"""Ids of a prompt or chat, of the model of that name; raises Unsupported where the server does not tell."""

ENDS = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<eos>", "</s>")
"""How end tokens are written; a model has some of them."""
NEVER = -1e9
"""A bias that no logit overcomes."""


def untold(client: HttpClient, _model: str, _content: Content) -> list[int]:
    """The protocol itself has no route for ids."""
    raise Unsupported(f"the server at {client.url} does not tell the ids of a prompt")


def llama_server_tokens(client: HttpClient, _model: str, content: Content) -> list[int]:
    """By llama-server's own routes."""
    if not isinstance(content, str):
        content = client.post("/apply-template", {"messages": [dict(turn) for turn in content]})["prompt"]
    found: list[int] = client.post("/tokenize", {"content": content, "add_special": True})["tokens"]
    return found


def llama_cpp_tokens(client: HttpClient, model: str, content: Content) -> list[int]:
    """By llama_cpp.server's own route, which knows prompts only."""
    if not isinstance(content, str):
        return untold(client, model, content)
    found: list[int] = client.post("/extras/tokenize", {"model": model, "input": content})["tokens"]
    return found


def vllm_tokens(client: HttpClient, model: str, content: Content) -> list[int]:
    """By vLLM's own route, which knows chats as well."""
    asked = {"prompt": content} if isinstance(content, str) else {"messages": [dict(turn) for turn in content]}
    found: list[int] = client.post("/tokenize", {"model": model, **asked})["tokens"]
    return found


@dataclass(frozen=True)
class Dialect:
    """A kind of server.

    `always`: fields of every request; `sampled`: of those that sample, to undo the server's own cutting of the
    distribution; `pinned`: of those that may not end early. `counts_end`: whether an end token is among
    completion_tokens. `salted`: whether a `cache_salt` keeps requests from sharing a prefix. `at_once`: the most
    requests it answers at a time. `reuses`: whether it keeps the last prompt, and offers no way not to. `biased`:
    whether end tokens are kept away by their bias, as it has no field for that.
    """

    name: str
    always: Mapping[str, Any] = field(default_factory=dict)
    sampled: Mapping[str, Any] = field(default_factory=dict)
    pinned: Mapping[str, Any] = field(default_factory=lambda: {"ignore_eos": True})
    tokenize: Tokenize = untold
    counts_end: bool = False
    salted: bool = False
    at_once: int | None = None
    reuses: bool = False
    biased: bool = False

    def extras(self, decoding: Decoding) -> dict[str, Any]:
        """The fields beyond the standard for one request."""
        found = {**self.always, **({} if decoding.greedy else self.sampled)}
        if decoding.ignore_eos:
            found |= self.pinned
        if self.salted:
            found["cache_salt"] = uuid.uuid4().hex
        return found


PLAIN = Dialect("unknown")
DIALECTS = {
    "llamacpp": Dialect(
        "llama-server",
        always={"cache_prompt": False},
        sampled={"top_k": 0, "min_p": 0},
        tokenize=llama_server_tokens,
        counts_end=True,
    ),
    "me": Dialect(
        "llama_cpp.server",
        always={"repeat_penalty": 1.0},  # its default of 1.1 changes greedy answers too
        sampled={"top_k": 0, "min_p": 0},
        pinned={},
        tokenize=llama_cpp_tokens,
        at_once=1,  # started as it comes, it ends a stream when the next request arrives
        reuses=True,
        biased=True,
    ),
    "vllm": Dialect(
        "vLLM",
        always={"repetition_penalty": 1.0},
        sampled={"top_k": -1, "min_p": 0},
        tokenize=vllm_tokens,
        counts_end=True,
        salted=True,
    ),
    "tensorrt_llm": Dialect("TensorRT-LLM"),
}
"""By `owned_by`."""


def end_ids(client: HttpClient, model: str, tokenize: Tokenize) -> list[int]:
    """The ids of end tokens, as far as they are written in a known way."""
    around = tokenize(client, model, "")
    found = [tokenize(client, model, text)[len(around) :] for text in ENDS]
    return sorted({ids[0] for ids in found if len(ids) == 1})
