"""A chat beside llama.cpp's own chat program: whoever tries a model there must meet the same one here."""

from __future__ import annotations

import pytest

from fixtures import llama_cli
from fixtures.own_gguf import own_gguf
from fixtures.provision import Target

pytestmark = pytest.mark.tasks("chat")

MESSAGES = 3
TOKENS = 16


def test_answers_are_those_of_llama_cli(target: Target) -> None:
    """Most greedy answers are those of llama-cli on the same file: rounding may turn one, a wrong template all."""
    own = own_gguf(target)
    if llama_cli.find() is None:
        pytest.skip("no llama-cli on PATH or in LLAMA_CPP_DIR: build it with llama.cpp (`make llama-tools`)")
    threads = target.session.device.threads
    texts = [text.splitlines()[0] for text in target.subject.texts[:MESSAGES]]
    differ = {}
    for text in texts:
        ours = target.run([{**target.task.ask(text), "max_tokens": TOKENS}])[0]["text"].strip()
        theirs = llama_cli.answer(own.path, text, TOKENS, threads, own.gpu_layers)
        if ours != theirs:
            differ[text] = (ours, theirs)
    assert 2 * len(differ) < len(texts), f"answers here and by llama-cli: {differ}"
