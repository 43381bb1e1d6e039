"""How tests ask a generator of llama.cpp, what it is compared with, and by what measure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suites.meta.tiny_llama import EMBEDDED, llama
from targets.api import Runner

PROMPTS = (
    "Once there was a kind mouse named David. David lived in the forest and liked to",
    "Every Wednesday Priya looks after the heavy oven. First Priya cleans the door, then",
    "The future of AI in education",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what is built of models lies."""
    return tmp_path_factory.mktemp("llama")


@pytest.fixture(scope="module")
def runner(cache: Path) -> Iterator[Any]:
    """The embedded model in single precision."""
    with llama(cache) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def chat(cache: Path) -> Iterator[Any]:
    """The same, for chats."""
    with llama(cache, task="chat") as loaded:
        yield loaded


def in_transformers() -> tuple[Any, Any]:
    """The embedded model in Transformers: (model, tokenizer)."""
    torch = pytest.importorskip("torch", reason="pip install '.[huggingface]'")
    transformers = pytest.importorskip("transformers", reason="pip install '.[huggingface]'")
    torch.set_num_threads(1)  # as llama.cpp here
    model = transformers.AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32, local_files_only=True)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(EMBEDDED, local_files_only=True)


def ask(runner: Runner, prompt: str = PROMPTS[0], **keys: Any) -> dict[str, Any]:
    (found,) = runner.run([{"prompt": prompt, **keys}])
    return dict(found)


def log_softmax(logits: Any) -> Any:
    exact = np.asarray(logits, dtype=np.float64)
    exact = exact - exact.max(axis=-1, keepdims=True)
    return exact - np.log(np.exp(exact).sum(axis=-1, keepdims=True))


def divergence(right: Any, found: Any) -> float:
    """Mean Kullback-Leibler divergence a token, in nats."""
    right, found = log_softmax(right), log_softmax(found)
    return float((np.exp(right) * (right - found)).sum(axis=-1).mean())
