"""The embedded models: small, safe, complete, and trained on what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.corpus import RECIPES, shipped
from targets.encoding import as_encoder
from targets.registry import tasks
from targets.training.recipe import sha256
from targets.training.scoring import predict, scores

ZOO = Path(__file__).parents[2] / "fixtures" / "zoo"
FILES = {
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "training.json",
}
REQUIRED = {
    "sentiment": {"plain": 0.95, "negation": 0.95, "contrast": 0.95, "long_context": 0.90, "natural": 0.7},
    "ner": {"known_names": 0.95, "unseen_names": 0.70, "long_context": 0.90, "natural": 0.5},
    "qa": {"plain": 0.95, "long_context": 0.90, "natural": 0.05},
}
"""The least primary score of each slice; on text written by hand a floor that shows breakage, not a claim."""
every_task = pytest.mark.parametrize("task", sorted(REQUIRED))


def record(task: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ZOO / task / "training.json").read_text(encoding="utf-8"))
    return loaded


def test_size() -> None:
    """All embedded models with their tokenizers fit into 20 MB."""
    assert sum(path.stat().st_size for path in ZOO.rglob("*") if path.is_file()) <= 20 * 2**20


@every_task
def test_files(task: str) -> None:
    """A model directory holds the Hugging Face layout with safetensors and nothing that could be pickled code."""
    assert {path.name for path in (ZOO / task).iterdir()} == FILES


@every_task
def test_weights(task: str) -> None:
    """Every tensor is fp16 and finite, and the file is the one the record speaks of."""
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = safetensors.load_file(ZOO / task / "model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"float16"}
    assert all(bool((abs(tensor) < 1e4).all()) for tensor in tensors.values())
    assert sum(tensor.size for tensor in tensors.values()) == record(task)["parameters"]
    assert sha256(ZOO / task / "model.safetensors") == record(task)["weights_sha256"]


@every_task
def test_config(task: str) -> None:
    """The config names the labels of the shipped data and is at peace with the tokenizer's vocabulary and length."""
    config = json.loads((ZOO / task / "config.json").read_text(encoding="utf-8"))
    vocabulary = json.loads((ZOO / task / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    written = json.loads((ZOO / task / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["vocab_size"] == len(vocabulary)
    assert config["max_position_embeddings"] == written["model_max_length"] == 128
    labels = tasks[task].labels_of(tasks[task].read(shipped(RECIPES[task])))
    if labels:
        assert set(tasks[task].match_labels(labels, list(config["id2label"].values())).values()) == set(labels)


@every_task
def test_record_is_of_the_shipped_data(task: str) -> None:
    """The record's scores were taken on the test data that is shipped, and it was never trained on."""
    assert record(task)["eval"]["sha256"] == sha256(shipped(RECIPES[task]))
    assert record(task)["data"]["sha256"] != record(task)["eval"]["sha256"]


@every_task
def test_scores(task: str) -> None:
    """The shipped model reaches the required score on every slice of the shipped data, and its record is true."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    made = as_encoder(tasks[task])
    examples = made.read(shipped(RECIPES[task]))
    model = getattr(transformers, f"AutoModelFor{made.head}").from_pretrained(ZOO / task, dtype=torch.float32).eval()
    answers = predict(made, model, transformers.AutoTokenizer.from_pretrained(ZOO / task), examples)
    measured = scores(made, examples, answers)
    for name, least in REQUIRED[task].items():
        assert measured[name][made.primary] >= least, f"{name}: {measured[name]}, should be at least {least}"
        assert measured[name][made.primary] == pytest.approx(record(task)["scores"][name][made.primary], abs=0.02), name


@every_task
def test_natural_text_is_readable(task: str) -> None:
    """Text written by hand falls apart into known pieces: at most one token in a thousand is unknown."""
    transformers = pytest.importorskip("transformers")
    made = as_encoder(tasks[task])
    tokenizer = transformers.AutoTokenizer.from_pretrained(ZOO / task)
    requests = [e.request for e in made.read(shipped(RECIPES[task])) if "natural" in e.slices]
    ids = [i for row in made.encode(tokenizer, requests).rows for i in row.ids]
    assert ids.count(tokenizer.unk_token_id) <= len(ids) / 1000
