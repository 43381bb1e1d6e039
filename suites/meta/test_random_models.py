"""Models of random weights: the same seed gives the same bytes, and what is damaged is built again."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from fixtures import models
from fixtures.models import Model, provision
from suites.meta.model_files import safetensors
from targets import architecture, model_folder
from targets.api import UserError

SIZES = {
    "distilbert-base": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "vocab_size": 200},
    "bert-base": {
        **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"intermediate_size": 32, "vocab_size": 200},
    },
}


@pytest.fixture(scope="module")
def lender(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer with the labels of a model."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from targets.training import wordpiece

    path: Path = tmp_path_factory.mktemp("lender")
    wordpiece.build(["a plain sentence"], 150, lowercase=True, max_length=64).save_pretrained(path)
    (path / "model.safetensors").write_bytes(safetensors())
    labels = {"0": "bad", "1": "fair", "2": "good"}
    (path / "config.json").write_text(json.dumps({"id2label": labels, "pad_token_id": 0}), encoding="utf-8")
    return path


def built(config: str, seed: int, out: Path, lender: Path) -> str:
    architecture.build(config, "SequenceClassification", seed, out, lender, SIZES[config])
    model_folder.check(out)
    return model_folder.digest(out)


def test_random_weights_follow_their_seed(tmp_path: Path, lender: Path) -> None:
    """The same seed gives the same bytes, another seed others, and a rebuild replaces what was there."""
    first, again, other = (
        built("distilbert-base", seed, tmp_path / f"m{i}", lender) for i, seed in enumerate([3, 3, 4])
    )
    assert first == again != other
    assert built("distilbert-base", 4, tmp_path / "m0", lender) == other
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m0", "m1", "m2"]


@pytest.mark.parametrize("config", sorted(SIZES))
def test_random_models_run_with_the_lent_tokenizer(tmp_path: Path, lender: Path, config: str) -> None:
    """A random model loads in FP32, with the lender's labels, 512 tokens, and the inputs of its own kind."""
    import torch
    import transformers

    built(config, 0, tmp_path / "m", lender)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    inputs = tokenizer(["a plain sentence", "a"], padding=True, return_tensors="pt")
    assert ("token_type_ids" in inputs) == (config == "bert-base")
    assert model(**inputs).logits.shape == (2, 3)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    assert (tokenizer.model_max_length, model.config.max_position_embeddings) == (512, 512)


def test_a_vocabulary_too_large_is_refused(tmp_path: Path, lender: Path) -> None:
    """A tokenizer whose ids the model has no embedding for is refused, and nothing is left behind."""
    with pytest.raises(UserError, match=r"ids up to \d+, but distilbert-base has 20 embeddings"):
        architecture.build(
            "distilbert-base", "TokenClassification", 0, tmp_path / "m", lender, {"vocab_size": 20, "dim": 12}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_random_model_is_built_again(tmp_path: Path, lender: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model must be built when it is not there, half there, or has a byte changed; and then no more."""
    small = partial(architecture.build, sizes=SIZES["distilbert-base"])
    monkeypatch.setattr(architecture, "build", small)
    lent = {"embedded": Model("embedded", "sentiment", "embedded", path=lender)}
    monkeypatch.setattr(models, "catalogue", lambda: {"sentiment": lent})
    model = Model("random", "sentiment", "architecture", config="distilbert-base", seed=1)

    def build() -> Path:
        assert models.needs_build(model, tmp_path)
        models.build(model, tmp_path)
        assert not models.needs_build(model, tmp_path)
        return provision(model, tmp_path).path

    weights = build() / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (build() / "tokenizer.json").unlink()
    shutil.rmtree(build())
    build()


def test_a_random_model_needs_its_lender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the embedded model, whose tokenizer it takes, a random model says what is missing."""
    missing = Model("embedded", "qa", "embedded", path=tmp_path / "zoo")
    monkeypatch.setattr(models, "catalogue", lambda: {"qa": {"embedded": missing}})
    with pytest.raises(UserError, match="zoo: the embedded model is not there"):
        models.needs_build(Model("x", "qa", "architecture", config="bert-base"), tmp_path)
