"""The embedded Llama as a GGUF file, and a device to run it on, for tests against real servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from targets.api import Device, ModelFiles

LLAMA = Path(__file__).parents[2] / "fixtures" / "zoo" / "llama"


def small_gguf(cache: Path) -> Path:
    """The file, in half precision."""
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    from targets.gguf.model import gguf_file
    from targets.registry import optimizations

    return gguf_file(own(), optimizations["f16"], cache)


def own() -> ModelFiles:
    """The model's files."""
    return ModelFiles("llama", LLAMA, "embedded", "embedded")


def small_device(**backends: Any) -> Device:
    """One thread on a CPU, with a context of 128 tokens."""
    llama = {"n_gpu_layers": 0, "n_threads": 1, "n_batch": 64, "n_ctx": 128}
    return Device(
        name="cpu",
        kind="cpu",
        model="a CPU",
        cores=1,
        threads=1,
        memory_mb=4096,
        memory_budget_mb=2048,
        max_batch=4,
        supports=frozenset(),
        native=frozenset({"float32"}),
        backends={"llama_cpp": llama, **backends},
    )
