"""Hugging Face Transformers on PyTorch."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.api import Device, Evidence, Floats, ModelFiles, Requirement, Runner, Task, Unavailable
from targets.encoder import EncoderRunner
from targets.encoding import as_encoder
from targets.optimization import Optimization
from targets.registry import backends

EXAMPLE = "An example for tracing."


class HuggingFace:
    """The reference engine: every other answer is held against its FP32."""

    name = "huggingface"
    requires: tuple[Requirement, ...] = (
        Requirement("torch", "pip install '.[huggingface]' (on a Jetson: NVIDIA's own torch wheel)"),
        Requirement("transformers", "pip install '.[huggingface]'"),
    )
    tasks = frozenset({"sentiment", "ner", "qa"})
    formats = frozenset({"safetensors"})
    preload: tuple[str, ...] = (
        "torch",
        "transformers",
        "transformers.models.auto",
        "transformers.models.distilbert.modeling_distilbert",
    )

    def build(self, model: ModelFiles, task: Task, optimization: Optimization, device: Device, cache: Path) -> Path:
        """PyTorch loads the model's own directory."""
        return model.path

    def load(self, model: ModelFiles, artifact: Path, task: Task, optimization: Optimization, device: Device) -> Runner:
        """Load, move to the device, and let the optimization rewrite the module."""
        import torch
        import transformers

        task = as_encoder(task)
        torch.set_num_threads(device.threads)
        place = torch.device(optimization.torch_place(device))
        if place.type == "cuda" and not torch.cuda.is_available():
            raise Unavailable(
                f"{device.name} has a GPU, but torch {torch.__version__} cannot use it: install a CUDA build of torch"
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(artifact, use_fast=True, local_files_only=True)
        options = {"dtype": getattr(torch, optimization.weights_dtype), **optimization.torch_options(device)}
        loaded = getattr(transformers, f"AutoModelFor{task.head}").from_pretrained(
            artifact, use_safetensors=not model.trust_pickle, local_files_only=True, **options
        )
        labels = {int(index): label for index, label in loaded.config.id2label.items()}
        loaded = loaded.eval().to(place)
        example = task.encode(tokenizer, [task.ask(EXAMPLE)])
        tensors = {name: torch.from_numpy(value).to(place) for name, value in example.features.items()}
        with torch.inference_mode():
            module = optimization.rewrite_torch(loaded, tensors)
        return EncoderRunner(
            task=task,
            tokenizer=tokenizer,
            labels=labels,
            forward=Forward(module, place),
            evidence=lambda: evidence(module, place, optimization),
            close=lambda: release(optimization),
        )


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


def evidence(module: Any, place: Any, optimization: Optimization) -> Evidence:
    """The device of every parameter, and what the optimization can show for itself."""
    devices = {parameter.device.type for parameter in module.parameters()} or {place.type}
    proof = optimization.torch_proof(module)
    return Evidence(
        requested={"device": place.type, **{fact: wanted for fact, (wanted, _) in proof.items()}},
        actual={"device": "+".join(sorted(devices)), **{fact: found for fact, (_, found) in proof.items()}},
        details={"module": type(module).__name__},
    )


def release(optimization: Optimization) -> None:
    """Collect what the runner held; hand cached GPU memory back."""
    import torch

    optimization.release_torch()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


backends.register("huggingface")(HuggingFace())
