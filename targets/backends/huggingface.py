"""Hugging Face Transformers on PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.api import Device, Floats, ModelFiles, Requirement, Runner, Task
from targets.encoder import EncoderRunner
from targets.encoding import EncoderTask, as_encoder
from targets.generation import GeneratorTask
from targets.optimization import Optimization
from targets.registry import backends
from targets.torch_loading import Loader, evidence, release
from targets.transformers_generator import MAX_ROWS, TransformersGenerator

EXAMPLE = "An example for tracing."


class HuggingFace:
    """The reference engine: every other answer is held against its FP32."""

    name = "huggingface"
    requires: tuple[Requirement, ...] = (
        Requirement("torch", "pip install '.[huggingface]' (on a Jetson: NVIDIA's own torch wheel)"),
        Requirement("transformers", "pip install '.[huggingface]'"),
    )
    tasks = frozenset({"sentiment", "ner", "qa", "summarization", "translation", "generation", "chat"})
    formats = frozenset({"safetensors"})
    preload: tuple[str, ...] = (
        "torch",
        "transformers",
        "transformers.models.auto",
        "transformers.models.distilbert.modeling_distilbert",
        "transformers.models.llama.modeling_llama",
        "transformers.models.t5.modeling_t5",
        "transformers.generation.utils",
    )

    def build(self, model: ModelFiles, task: Task, optimization: Optimization, device: Device, cache: Path) -> Path:
        """PyTorch loads the model's own directory."""
        return model.path

    def load(self, model: ModelFiles, artifact: Path, task: Task, optimization: Optimization, device: Device) -> Runner:
        """Load, move to the device, and let the optimization rewrite the module."""
        import torch
        import transformers

        torch.set_num_threads(device.threads)
        tokenizer = transformers.AutoTokenizer.from_pretrained(artifact, use_fast=True, local_files_only=True)
        loader = Loader(model, artifact, task, device)
        loaded = optimization.load_torch(loader, device)
        if isinstance(task, GeneratorTask):
            return generator(task, tokenizer, loaded, loader, optimization)
        return encoder(as_encoder(task), tokenizer, loaded, loader, optimization)


def encoder(
    task: EncoderTask, tokenizer: Any, loaded: Any, loader: Loader, optimization: Optimization
) -> EncoderRunner:
    """A runner of one forward pass."""
    import torch

    labels = {int(index): label for index, label in loaded.config.id2label.items()}
    place = torch.device(loader.place)
    example = task.encode(tokenizer, [task.ask(EXAMPLE)])
    tensors = {name: torch.from_numpy(value).to(place) for name, value in example.features.items()}
    with torch.inference_mode():
        module = optimization.rewrite_torch(loaded, tensors)
    return EncoderRunner(
        task=task,
        tokenizer=tokenizer,
        labels=labels,
        forward=Forward(module, place),
        evidence=lambda: evidence(module, loader.place, optimization, {}),
        close=lambda: release(optimization),
    )


def generator(
    task: GeneratorTask, tokenizer: Any, loaded: Any, loader: Loader, optimization: Optimization
) -> TransformersGenerator:
    """A runner of `generate`."""
    details = {"parameters": loaded.num_parameters()}  # before a rewrite packs them away
    example = tokenizer(EXAMPLE, return_tensors="pt").to(loaded.device)
    module = optimization.rewrite_torch(loaded, {name: example[name] for name in ("input_ids", "attention_mask")})
    runner = TransformersGenerator(
        task=task,
        model=module,
        tokenizer=tokenizer,
        options=optimization.generate_options(module),
        evidence=lambda: evidence(module, loader.place, optimization, {**details, **runner.facts()}),
        close=lambda: release(optimization),
        rows=optimization.rows or MAX_ROWS,
    )
    return runner


class Forward:
    """Features to the device, the module's outputs back as float32 arrays."""

    def __init__(self, module: Any, place: Any) -> None:
        self.module = module
        self.place = place

    def __call__(self, features: Mapping[str, NDArray[np.int64]]) -> Sequence[Floats]:
        """One forward pass."""
        import torch

        with torch.inference_mode():
            tensors = {name: torch.from_numpy(value).to(self.place) for name, value in features.items()}
            outputs = self.module(**tensors, return_dict=False)
            return [output.float().cpu().numpy() for output in outputs]  # the copy waits for the device


backends.register("huggingface")(HuggingFace())
