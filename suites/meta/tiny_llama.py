"""Llama models for tests: the embedded one, and random ones of any shape."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import fixtures
from fixtures import devices
from targets import model_folder
from targets.api import Device, ModelFiles
from targets.optimization import Optimization
from targets.registry import backends, optimizations, tasks

EMBEDDED = Path(fixtures.__file__).parent / "zoo" / "llama"


@cache
def embedded() -> ModelFiles:
    """The embedded Llama."""
    return ModelFiles("embedded", EMBEDDED, model_folder.digest(EMBEDDED), "embedded")


def device(**settings: Any) -> Device:
    """This machine with settings of llama.cpp over its profile's; one thread, which no other process can make wait."""
    from dataclasses import replace

    found = devices.detect()
    profile = {**found.backends.get("llama_cpp", {}), "n_gpu_layers": 0, "n_threads": 1, **settings}
    return replace(found, backends={**found.backends, "llama_cpp": profile})


def llama(
    cache: Path,
    optimization: str | Optimization = "f32",
    task: str = "generation",
    model: ModelFiles | None = None,
    **settings: Any,
) -> Any:
    """A loaded runner of llama-cpp-python; what it is built of lies in `cache`."""
    model = model or embedded()
    chosen = optimizations[optimization] if isinstance(optimization, str) else optimization
    backend, place = backends["llama-cpp-python"], device(**settings)
    artifact = backend.build(model, tasks[task], chosen, place, cache)
    return backend.load(model, artifact, tasks[task], chosen, place)


def random_llama(folder: Path, dtype: str = "float16", **shape: Any) -> ModelFiles:
    """A Llama of random weights with the embedded one's tokenizer, two layers and what `shape` says of its config."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        **{
            "vocab_size": 1700,
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "bos_token_id": 2,
            "eos_token_id": 1,
            "tie_word_embeddings": True,
            **shape,
        }
    )
    transformers.LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
    for path in model_folder.tokenizer_files(EMBEDDED):
        (folder / path.name).write_bytes(path.read_bytes())
    return ModelFiles(folder.name, folder, model_folder.digest(folder), "path")
