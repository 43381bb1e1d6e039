from __future__ import annotations

import json
from collections.abc import Callable

import pytest

pytest.importorskip("pydantic", reason="the server: pip install 'edge-nlp-suite[server]'")

from targets.server.chat.frames import reader
from targets.server.http.body import parsed
from targets.server.http.schemas import Prompts, Questions, Texts, TextsToSummarize, limited
from targets.server.openai.bodies import ChatCompletionBody, CompletionBody
from targets.server.settings import Limits

WORDS = "my pin is 4711"
"""Short enough for pydantic to keep."""
LIMITS = Limits()


def frame(raw: str) -> object:
    """A frame of the chat, as it is read."""
    return reader(LIMITS)(raw).text  # type: ignore[union-attr]


READ: dict[str, tuple[object, Callable[[str], object]]] = {
    "texts": ({"texts": [WORDS]}, lambda raw: limited(Texts, LIMITS).model_validate_json(raw).texts[0]),
    "summaries": (
        {"texts": [WORDS]},
        lambda raw: limited(TextsToSummarize, LIMITS).model_validate_json(raw).texts[0],
    ),
    "questions": (
        {"questions": [WORDS], "contexts": [WORDS]},
        lambda raw: limited(Questions, LIMITS).model_validate_json(raw).contexts[0],
    ),
    "prompt": ({"prompt": WORDS}, lambda raw: limited(Prompts, LIMITS).model_validate_json(raw).prompt),
    "completion": ({"prompt": WORDS}, lambda raw: limited(CompletionBody, LIMITS).model_validate_json(raw).prompt),
    "chat": (
        {"messages": [{"role": "user", "content": WORDS}]},
        lambda raw: limited(ChatCompletionBody, LIMITS).model_validate_json(raw).messages[0].content,
    ),
    "parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": WORDS}]}]},
        lambda raw: limited(ChatCompletionBody, LIMITS).model_validate_json(raw).messages[0].content[0].text,  # type: ignore[union-attr]
    ),
    "frame": ({"type": "message", "text": WORDS}, frame),
    "bare": ([WORDS], lambda raw: parsed(raw.encode())[0]),
}


@pytest.mark.parametrize("kind", READ)
def test_what_users_write_is_not_kept_by_the_reader(kind: str) -> None:
    """A text that comes twice is read as two strings: none of them was kept for the other."""
    body, read = READ[kind]
    first, second = read(json.dumps(body)), read(json.dumps(body))
    assert first == second == WORDS
    assert first is not second
