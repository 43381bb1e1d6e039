"""Training from scratch: data in, a saved and scored model out."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.api import Example, Task, UserError
from targets.encoding import EncoderTask, Tokenizer, as_encoder
from targets.registry import tasks
from targets.training import wordpiece
from targets.training.heads import IGNORED, Head, head_of
from targets.training.model import new_model
from targets.training.scoring import predict, scores
from targets.training.settings import Settings, check

CHUNK = 512
"""Examples encoded at once."""
PARTS = 4
"""Parts a batch is computed in. All lengths are in each step: batches of one length each unlearn one another."""
TAUGHT = ("tags", "labels")
"""Names of targets that have a value for each token."""
WARMUP = 0.08
"""Share of the steps in which the learning rate rises; afterwards it falls to 0 in a line."""


def sha256(path: Path) -> str:
    """The digest of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(task: Task, path: Path, option: str) -> list[Example]:
    """Examples of a file; at least one.

    Raises:
        UserError: the file is missing, malformed or empty.
    """
    if not path.is_file():
        raise UserError(f"{option} {path}: no such file")
    examples = task.read(path)
    if not examples:
        raise UserError(f"{option} {path}: the file holds no example")
    return examples


def rows(
    task: EncoderTask, head: Head, tokenizer: Tokenizer, examples: Sequence[Example], labels: Sequence[str]
) -> list[dict[str, NDArray[np.int64]]]:
    """Features and targets of every row the examples become, cut to the row's own length."""
    result = []
    for begin in range(0, len(examples), CHUNK):
        chunk = examples[begin : begin + CHUNK]
        encoded = task.encode(tokenizer, [example.request for example in chunk])
        for index, (owner, row) in enumerate(zip(encoded.owner, encoded.rows, strict=True)):
            length = sum(row.attention_mask)
            arrays = {name: values[index] for name, values in encoded.features.items()}
            arrays.update(head.targets(chunk[owner], row, labels))
            result.append({name: values[:length] for name, values in arrays.items()})
    return result


def collate(batch: Sequence[Mapping[str, NDArray[np.int64]]]) -> dict[str, Any]:
    """Tensors (rows, longest row); targets are filled up with IGNORED, features with 0, the padding token."""
    import torch

    result = {}
    for name in batch[0]:
        width = max(len(row[name]) for row in batch)
        filled = np.full((len(batch), width), IGNORED if name in TAUGHT else 0)
        for line, row in zip(filled, batch, strict=True):
            line[: len(row[name])] = row[name]
        result[name] = torch.from_numpy(filled)
    return result


def batches(
    data: Sequence[Mapping[str, NDArray[np.int64]]], size: int, seed: int
) -> Iterator[list[Mapping[str, NDArray[np.int64]]]]:
    """Batches without end, every epoch in a new order; the rows of a batch sorted by length."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(data))
        for start in range(0, len(data), size):
            yield sorted((data[index] for index in order[start : start + size]), key=lambda row: len(row["input_ids"]))


def loss(model: Any, head: Head, tokenizer: Any, settings: Settings, piece: Sequence[Any]) -> Any:
    """The mean loss of some rows: a scalar tensor. Some tokens are masked, so that single words are not leaned on."""
    import torch

    batch = {name: tensor.to(settings.device) for name, tensor in collate(piece).items()}
    features = {name: batch.pop(name) for name in tokenizer.model_input_names}
    masked = torch.rand(features["input_ids"].shape, device=settings.device) < (settings.noise or 0)
    masked &= features["input_ids"] >= len(wordpiece.SPECIAL)
    features["input_ids"] = features["input_ids"].masked_fill(masked, tokenizer.mask_token_id)
    return head.loss(model(**features), batch)


def optimize(model: Any, loss_of: Callable[[Sequence[Any]], Any], data: Sequence[Any], settings: Settings) -> None:
    """AdamW with a linear schedule. `loss_of` gives the mean loss of some rows."""
    import torch

    assert settings.steps is not None
    assert settings.learning_rate is not None
    model.to(settings.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    warmup = max(1, round(settings.steps * WARMUP))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (settings.steps - step) / max(1, settings.steps - warmup))
    )
    part = -(-settings.batch // PARTS)
    begun = time.perf_counter()
    for step, batch in zip(range(1, settings.steps + 1), batches(data, settings.batch, settings.seed), strict=False):
        optimizer.zero_grad()
        total = 0.0
        for begin in range(0, len(batch), part):  # in parts of similar length, so that little is padding
            piece = batch[begin : begin + part]
            mean = loss_of(piece) * (len(piece) / len(batch))
            mean.backward()
            total += float(mean.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % max(1, settings.steps // 20) == 0 or step == settings.steps:
            seconds = time.perf_counter() - begun
            print(f"step {step}/{settings.steps}  loss {total:.4f}  {seconds:.0f} s", file=sys.stderr, flush=True)


def writable(out: Path) -> None:
    """Make the folder, and see that a file can be written there.

    Raises:
        UserError: it cannot.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}; name a folder that can") from error


def train(task_name: str, data: Path, held_out: Path, out: Path, settings: Settings) -> dict[str, Any]:
    """Train, save to `out` in Hugging Face layout with fp16 safetensors, score what was saved; returns training.json.

    Raises:
        UserError: bad data, labels in `held_out` that `data` lacks, or an `out` that cannot be written.
    """
    task = as_encoder(tasks[task_name])
    head = head_of(task)
    settings = settings.with_defaults(head)
    check(settings)
    examples, unseen = read(task, data, "--data"), read(task, held_out, "--eval")
    labels = head.labels(task, examples)
    if strange := sorted(set(task.labels_of(unseen)) - set(task.labels_of(examples))):
        raise UserError(
            f"--eval {held_out}: label {', '.join(strange)} does not occur in --data {data} (it has"
            f" {', '.join(task.labels_of(examples))}); use the same labels in both files"
        )
    writable(out)

    import torch
    import transformers

    torch.set_num_threads(settings.threads)
    transformers.set_seed(settings.seed)
    begun = time.perf_counter()
    assert settings.lowercase is not None
    texts = [example.request[field] for example in examples for field in task.fields]
    tokenizer = wordpiece.build(texts, settings.vocabulary, settings.lowercase, settings.max_length)
    model = new_model(task, labels, tokenizer, settings)
    taught = rows(task, head, tokenizer, examples, labels)
    optimize(model, partial(loss, model, head, tokenizer, settings), taught, settings)
    seconds = time.perf_counter() - begun
    model.to("cpu").half().save_pretrained(out)
    tokenizer.save_pretrained(out)

    saved = getattr(transformers, f"AutoModelFor{task.head}").from_pretrained(out, dtype=torch.float32).eval()
    reader = transformers.AutoTokenizer.from_pretrained(out)
    record = {
        "task": task.name,
        "data": {"file": data.name, "sha256": sha256(data), "examples": len(examples)},
        "eval": {"file": held_out.name, "sha256": sha256(held_out), "examples": len(unseen)},
        **record_of(settings, saved, seconds, out),
        "scores": scores(task, unseen, predict(task, saved, reader, unseen)),
    }
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def record_of(settings: Settings, saved: Any, seconds: float, out: Path) -> dict[str, Any]:
    """What training.json says of a saved model, whatever it was trained for."""
    return {
        "settings": asdict(settings),
        "parameters": saved.num_parameters(),
        "seconds": round(seconds, 1),
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
        "weights_sha256": sha256(out / "model.safetensors"),
    }
