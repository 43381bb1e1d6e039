"""Models of a real shape with seeded random weights: speed and memory do not depend on what the weights say."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from targets.api import UserError
from targets.model_folder import CONFIG, digest, tokenizer_files


@dataclass(frozen=True)
class Shape:
    """A published shape. `config`: the transformers class whose defaults hold where `sizes` says nothing.

    `length`: tokens that it reads, and that its tokenizer says it reads.
    """

    config: str
    length: int
    sizes: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")


CONFIGS = {
    "distilbert-base": Shape("DistilBertConfig", 512, {"max_position_embeddings": 512}),
    "bert-base": Shape(
        "BertConfig", 512, {"max_position_embeddings": 512}, inputs=("input_ids", "token_type_ids", "attention_mask")
    ),
    "t5-small": Shape("T5Config", 512),
    "gpt2": Shape("GPT2Config", 1024),
    # stories110M, the table in the README of llama2.c: 12 layers, tied embeddings
    "llama-110m": Shape(
        "LlamaConfig",
        1024,
        {
            "vocab_size": 32000,
            "hidden_size": 768,
            "intermediate_size": 2048,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "num_key_value_heads": 12,
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
        },
    ),
    # Llama-3.2-1B, its config.json; the context is cut to 2048 and so needs none of its scaling of positions
    "llama-1b": Shape(
        "LlamaConfig",
        2048,
        {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "rope_theta": 500000.0,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
        },
        dtype="float16",
    ),
}
"""The defaults of DistilBertConfig, BertConfig, T5Config and GPT2Config are the published base, t5-small and gpt2."""
SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
"""Ids that go with the lent tokenizer."""
RECORD = "architecture.json"
NO_SIZES: Mapping[str, int] = {}


def build(
    config: str, head: str, seed: int, out: Path, tokenizer_from: Path, sizes: Mapping[str, int] = NO_SIZES
) -> None:
    """Write a model with safetensors in its shape's number format to `out`, all of it or nothing.

    Labels, special tokens and tokenizer are those of the small model in `tokenizer_from`. Its vocabulary is smaller
    than the configuration's (checked), so every id it makes has an embedding; texts become more tokens than with the
    published vocabulary, and the model computes on them as it would on those. A generator's answers hold ids that the
    lent tokenizer has no text for.

    Args:
        config: a name in `CONFIGS`.
        head: the Auto class suffix, for example "SequenceClassification".
        seed: of the weights; the same seed gives the same weights under the same version of torch.
        out: the folder to make; replaced if it exists.
        tokenizer_from: a folder with config.json and tokenizer.
        sizes: settings that replace the configuration's own, for tests.

    Raises:
        UserError: the vocabulary has ids that the configuration has no embedding for.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        _save_model(config, head, seed, draft, tokenizer_from, sizes)
        _save_tokenizer(config, draft, tokenizer_from)
        record = {"config": config, "head": head, "seed": seed, "digest": digest(draft)}
        (draft / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        draft.replace(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def is_whole(folder: Path) -> bool:
    """Whether a folder is what `build` wrote, to the last byte."""
    try:
        recorded = json.loads((folder / RECORD).read_text(encoding="utf-8"))["digest"]
        return bool(recorded == digest(folder))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _save_model(config: str, head: str, seed: int, draft: Path, tokenizer_from: Path, sizes: Mapping[str, int]) -> None:
    import torch
    import transformers

    shape = CONFIGS[config]
    small = json.loads((tokenizer_from / CONFIG).read_text(encoding="utf-8"))
    labels = {int(index): label for index, label in small.get("id2label", {}).items()}
    options: dict[str, Any] = {name: small[name] for name in SPECIAL if small.get(name) is not None}
    options.setdefault("pad_token_id", 0)
    if labels:
        options |= {"id2label": labels, "label2id": {label: index for index, label in labels.items()}}
    settings = getattr(transformers, shape.config)(**{**shape.sizes, **options, **sizes})
    needed = _vocabulary(tokenizer_from)
    if needed > settings.vocab_size:
        raise UserError(f"{tokenizer_from}: ids up to {needed - 1}, but {config} has {settings.vocab_size} embeddings")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        auto = getattr(transformers, f"AutoModelFor{head}")
        model = auto.from_config(settings, dtype=getattr(torch, shape.dtype))
    model.save_pretrained(draft, safe_serialization=True)


def _vocabulary(folder: Path) -> int:
    """One more than the largest id of a tokenizer."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids = [*tokenizer["model"]["vocab"].values(), *(token["id"] for token in tokenizer.get("added_tokens", ()))]
    return int(max(ids)) + 1


def _save_tokenizer(config: str, draft: Path, tokenizer_from: Path) -> None:
    for path in tokenizer_files(tokenizer_from):
        shutil.copyfile(path, draft / path.name)
    path = draft / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    shape = CONFIGS[config]
    settings |= {"model_max_length": shape.length, "model_input_names": list(shape.inputs)}
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
