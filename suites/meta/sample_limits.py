"""Files of limits, and a small vocabulary for them, that the tests of thresholds share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fixtures.thresholds import Thresholds, Vocabulary, load

TASKS, MODELS = ("sentiment", "ner"), ("embedded", "bert-base-random")
BACKENDS, OPTIMIZATIONS = ("huggingface", "onnxruntime"), ("fp32", "fp16", "int8")
CASES = [f"{t}/{m}/{b}/{o}" for t in TASKS for m in MODELS for b in BACKENDS for o in OPTIMIZATIONS]
INT8 = "sentiment/embedded/onnxruntime/int8"


def cases(device: str) -> Iterable[str]:
    """fp16 exists on jetsons only."""
    return [case for case in CASES if device.startswith("jetson") or not case.endswith("fp16")]


VOCABULARY = Vocabulary(
    devices={"jetson-orin-nano": "jetson", "jetson-orin-nx": "jetson", "cpu": "cpu"},
    tasks=TASKS,
    models=MODELS,
    backends=BACKENDS,
    optimizations=OPTIMIZATIONS,
    metrics={"accuracy": ("",), "latency_ms": ("p50", "p95", "mean"), "throughput_per_s": ("best", "batch8")},
    cases=cases,
)


def read(folder: Path, text: str, vocabulary: Vocabulary = VOCABULARY) -> Thresholds:
    """The limits of a file with this text."""
    path = folder / "thresholds.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, vocabulary)


def entries(*lines: str, device: str = "cpu") -> str:
    """A file whose entries are these lines; the first of them is line 4."""
    return "\n".join(["schema: 1", "limits:", f"  {device}:", *(f"    {line}" for line in lines), ""])


def entry(limits: str, pattern: str = "*/*/*/*") -> str:
    """An entry in one line: a pattern, a source, and what is given."""
    return f"- {{cases: {pattern!r}, source: measured, {limits}}}"
