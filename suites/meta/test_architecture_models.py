"""Random generators of a published shape: the right classes, sizes and special tokens."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from suites.meta.tiny_models import tiny
from targets import architecture, model_folder
from targets.registry import tasks

GENERATORS = {
    "t5-small": ("summarization", "T5ForConditionalGeneration", {"d_model": 32, "d_ff": 64, "num_layers": 1}),
    "gpt2": ("generation", "GPT2LMHeadModel", {"n_embd": 32, "n_layer": 1, "n_head": 2}),
    "llama-110m": ("chat", "LlamaForCausalLM", {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64}),
    "llama-1b": ("generation", "LlamaForCausalLM", {"hidden_size": 64, "num_hidden_layers": 1, "head_dim": 2}),
}
PARAMETERS = {"t5-small": 60.5, "gpt2": 124.4, "llama-110m": 109.5, "llama-1b": 1235.8}
"""Millions, as published, where embeddings that are one count once."""


@pytest.mark.parametrize("config", sorted(GENERATORS))
def test_random_generators_load(config: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A random generator is of its task's class and format, and speaks the lender's vocabulary and special tokens."""
    import torch
    import transformers

    task, name, sizes = GENERATORS[config]
    lender = tiny("t5" if config == "t5-small" else "llama", tmp_path_factory)
    architecture.build(config, tasks[task].head, 0, tmp_path / "m", lender, sizes)
    model_folder.check(tmp_path / "m")
    model = getattr(transformers, f"AutoModelFor{tasks[task].head}").from_pretrained(tmp_path / "m", dtype="auto")
    written = json.loads((tmp_path / "m" / "tokenizer_config.json").read_text())
    lent = json.loads((lender / "config.json").read_text())
    assert model_folder.architectures(tmp_path / "m") == [name] == [type(model).__name__]
    assert model.dtype == getattr(torch, architecture.CONFIGS[config].dtype)
    assert written["model_max_length"] == architecture.CONFIGS[config].length
    for key in ("eos_token_id", "pad_token_id"):
        assert getattr(model.generation_config, key) == lent[key]


@pytest.mark.parametrize("config", sorted(PARAMETERS))
def test_shapes_are_the_published_ones(config: str) -> None:
    """Built on the meta device, which holds no numbers, each shape has the published number of parameters."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    shape = architecture.CONFIGS[config]
    auto = getattr(transformers, f"AutoModelFor{tasks[GENERATORS[config][0]].head}")
    with torch.device("meta"):
        model = auto.from_config(getattr(transformers, shape.config)(**shape.sizes))
    assert model.num_parameters() / 1e6 == pytest.approx(PARAMETERS[config], rel=0.002)


@pytest.mark.parametrize("config", ["llama-110m", "llama-1b"])
def test_llama_rows_suit_every_quantization(config: str) -> None:
    """Every matrix of the Llama shapes has rows of a multiple of 256, which llama.cpp's K-quants need."""
    sizes: dict[str, Any] = dict(architecture.CONFIGS[config].sizes)
    assert math.gcd(256, sizes["hidden_size"], sizes["intermediate_size"]) == 256
