"""Models of a real shape with seeded random weights: speed and memory do not depend on what the weights say."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targets.api import UserError
from targets.model_folder import CONFIG, digest, tokenizer_files

CONFIGS = {"distilbert-base": "DistilBert", "bert-base": "Bert"}
"""Names to the prefix of their transformers classes, whose default configuration has the published sizes."""
MAX_LENGTH = 512
RECORD = "architecture.json"
NO_SIZES: Mapping[str, int] = {}


def build(
    config: str, head: str, seed: int, out: Path, tokenizer_from: Path, sizes: Mapping[str, int] = NO_SIZES
) -> None:
    """Write a model with FP32 safetensors to `out`, all of it or nothing.

    Labels and tokenizer are those of the small model in `tokenizer_from`. Its vocabulary is smaller than the
    configuration's 30522 entries (checked), so every id it makes has an embedding; texts become more tokens than with
    the published vocabulary, and the model computes on them as it would on those.

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

    small = json.loads((tokenizer_from / CONFIG).read_text(encoding="utf-8"))
    labels = {int(index): label for index, label in small.get("id2label", {}).items()}
    options: dict[str, Any] = {"pad_token_id": small.get("pad_token_id", 0), "max_position_embeddings": MAX_LENGTH}
    if labels:
        options |= {"id2label": labels, "label2id": {label: index for index, label in labels.items()}}
    settings = getattr(transformers, f"{CONFIGS[config]}Config")(**options, **sizes)
    needed = _vocabulary(tokenizer_from)
    if needed > settings.vocab_size:
        raise UserError(f"{tokenizer_from}: ids up to {needed - 1}, but {config} has {settings.vocab_size} embeddings")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, f"{CONFIGS[config]}For{head}")(settings)
    model.to(torch.float32).save_pretrained(draft, safe_serialization=True)


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
    inputs = (
        ["input_ids", "token_type_ids", "attention_mask"] if config == "bert-base" else ["input_ids", "attention_mask"]
    )
    settings |= {"model_max_length": MAX_LENGTH, "model_input_names": inputs}
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
