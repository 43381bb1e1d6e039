"""Training of generators: one model of several tasks, saved and scored as the encoders' is."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from targets.api import Example, UserError
from targets.generation import GeneratorTask
from targets.training import bytelevel
from targets.training.generator_heads import Lesson, fits, head_of
from targets.training.generator_scoring import answers_of
from targets.training.recipe import collate, optimize, read, record_of, sha256, writable
from targets.training.scoring import scores
from targets.training.settings import Settings, check


@dataclass(frozen=True)
class Part:
    """A task with its training data and the held-out data it is scored on."""

    task: GeneratorTask
    data: Path
    held_out: Path


def train_generator(parts: Sequence[Part], out: Path, settings: Settings) -> dict[str, Any]:
    """Train one model on all parts, save to `out` with fp16 safetensors, score what was saved; returns training.json.

    Raises:
        UserError: tasks of different kinds, bad data or settings, or an `out` that cannot be written.
    """
    head = head_of([part.task for part in parts])
    settings = settings.with_defaults(head)
    check(settings)
    taught = [(part, read(part.task, part.data, "--data")) for part in parts]
    unseen = [(part, read(part.task, part.held_out, "--eval")) for part in parts]
    writable(out)

    import torch
    import transformers

    torch.set_num_threads(settings.threads)
    transformers.set_seed(settings.seed)
    begun = time.perf_counter()
    lessons = [Lesson(part.task, example) for part, examples in taught for example in examples]
    reads_first = parts[0].task.family == "seq2seq"
    texts = (text for lesson in lessons for text in lesson.texts)
    tokenizer = bytelevel.build(texts, settings.vocabulary, settings.max_length, reads_first)
    for part, examples in unseen:
        if not all(fits(Lesson(part.task, example), tokenizer) for example in examples):
            raise UserError(
                f"--max-length {settings.max_length}: a prompt of --eval {part.held_out} and an answer of"
                f" {part.task.max_tokens} tokens do not fit; a greater length is needed"
            )
    model = head.new_model(tokenizer, settings)
    rows = [head.row(lesson, tokenizer) for lesson in lessons]
    optimize(model, partial(loss, model, settings.device), rows, settings)
    seconds = time.perf_counter() - begun
    model.to("cpu").half().save_pretrained(out)
    tokenizer.save_pretrained(out, save_jinja_files=False)

    saved = getattr(transformers, f"AutoModelFor{parts[0].task.head}").from_pretrained(out, dtype=torch.float32).eval()
    reader = transformers.AutoTokenizer.from_pretrained(out)
    record = {
        "tasks": {
            part.task.name: {"data": facts(part.data, known), "eval": facts(part.held_out, examples)}
            | {"scores": scores(part.task, examples, answers_of(part.task, saved, reader, examples))}
            for (part, known), (_, examples) in zip(taught, unseen, strict=True)
        },
        **record_of(settings, saved, seconds, out),
    }
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def facts(path: Path, examples: Sequence[Example]) -> dict[str, Any]:
    """What training.json says of a file."""
    return {"file": path.name, "sha256": sha256(path), "examples": len(examples)}


def loss(model: Any, device: str, rows: Sequence[Any]) -> Any:
    """The mean cross-entropy of the taught tokens of some rows: a scalar tensor."""
    return model(**{name: tensor.to(device) for name, tensor in collate(rows).items()}).loss
