"""What an optimization is: a technique, where it applies, and what it may cost."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from targets.api import Device, Requirement, Task


@dataclass(frozen=True, kw_only=True)
class Optimization(abc.ABC):
    """A technique: a name, where it applies, and what it may cost by its own contract. One file each.

    `needs`: names that must be in the device's `supports`. `dtype`: the number format it computes in, which the device
    must have natively. `kinds`: the device kinds it exists on (empty: all).
    `max_drop`: the largest allowed loss of the primary score against the FP32 reference, absolute.
    `min_agreement`: the smallest allowed share of examples answered as the reference does (see `agreement`).
    `logit_tolerance`: the largest allowed absolute difference of a logit from the reference's; None where the technique
    changes the arithmetic and only the contract above holds. `max_kl`: for generators, the largest allowed mean
    Kullback-Leibler divergence (nats a token) of the next-token distribution from the reference's; None: no promise.
    `families` and `tasks`: the task families and tasks it is made for (empty: all). `formats`: the model formats it
    applies to.
    """

    name: str
    group: str
    summary: str
    backends: frozenset[str]
    max_drop: float
    min_agreement: float
    logit_tolerance: float | None = None
    needs: frozenset[str] = frozenset()
    dtype: str = "float32"
    kinds: frozenset[str] = frozenset()
    max_kl: float | None = None
    families: frozenset[str] = frozenset({"encoder"})
    tasks: frozenset[str] = frozenset()
    formats: frozenset[str] = frozenset({"safetensors"})
    requires: tuple[Requirement, ...] = ()
    """Modules it needs beyond its backends' own."""
    rows: int | None = None
    """How many requests it answers at once at most (speculative decoding: 1); None leaves it to the backend."""
    gguf_type: str | None = None
    """The llama.cpp quantization its GGUF is made with (for example "Q4_K_M"); None leaves it to the backend."""

    def applies(self, task: Task, model_format: str, kind: str) -> bool:
        """Whether it exists for a task, with models of a format, on a kind of device."""
        return (
            (not self.families or task.family in self.families)
            and (not self.tasks or task.name in self.tasks)
            and model_format in self.formats
            and (not self.kinds or kind in self.kinds)
        )

    def agreement(self, family: str) -> float:
        """What `min_agreement` means for a task family.

        A generator's answer is many tokens, and behind the first that differs all may: equal answers are promised by
        what changes no arithmetic (1.0); all else promises a near distribution, `max_kl`.
        """
        return self.min_agreement if family == "encoder" or self.min_agreement == 1.0 else 0.0

    def unavailable(self, device: Device) -> str | None:
        """Why this technique cannot run on the device, or None."""
        for requirement in self.requires:
            if find_spec(requirement.module) is None:
                return f"{self.name} needs {requirement.module}, which is not installed: {requirement.install}"
        missing = self.needs - device.supports
        if missing:
            return f"{self.name} needs {', '.join(sorted(missing))}, which {device.name} does not offer"
        if self.dtype not in device.native:
            return f"{device.model} does not compute {self.dtype} natively (it has {', '.join(sorted(device.native))})"
        return None

    @property
    def weights_dtype(self) -> str:
        """The format that unconverted weights are loaded in."""
        return self.dtype if self.dtype in ("float16", "bfloat16") else "float32"

    def torch_place(self, device: Device) -> str:
        """The torch device type it runs on."""
        return device.torch_device

    def torch_options(self, device: Device) -> dict[str, Any]:
        """Extra arguments for `from_pretrained`."""
        return {}

    def load_torch(self, load: Callable[..., Any], device: Device) -> Any:
        """The loaded PyTorch module. `load(place, dtype, **options)` loads in a dtype to a torch device type."""
        return load(self.torch_place(device), self.weights_dtype, **self.torch_options(device))

    def rewrite_torch(self, model: Any, features: Mapping[str, Any]) -> Any:
        """The loaded PyTorch module, changed. `features`: example inputs as tensors on the module's device."""
        return model

    def torch_proof(self, module: Any) -> dict[str, tuple[str, str]]:
        """Facts that show the technique at work in a module that has run: name to (wanted, found)."""
        kept = tuple(getattr(module, "_keep_in_fp32_modules", None) or ()) if self.weights_dtype == "float16" else ()
        dtypes = {
            str(parameter.dtype).removeprefix("torch.")
            for name, parameter in module.named_parameters()
            if not any(part in kept for part in name.split("."))  # T5 overflows in some layers, which stay as they are
        }
        return {"dtype": (self.weights_dtype, "+".join(sorted(dtypes)))}

    def torch_details(self, module: Any) -> dict[str, Any]:
        """What else is worth telling of a module that has run, in JSON's types."""
        return {}

    def release_torch(self) -> None:  # noqa: B027 - most techniques leave nothing behind
        """Give back what a rewritten module leaves in the process when it is dropped."""

    def convert_onnx(self, source: Path, target: Path, device: Device) -> None:
        """Write to `target` a graph of the same name for each .onnx file in `source` (both are directories)."""
        raise NotImplementedError(f"{self.name} makes no ONNX artifact")

    @property
    def converts_onnx(self) -> bool:
        """Whether this technique makes another ONNX artifact than the plain export."""
        return type(self).convert_onnx is not Optimization.convert_onnx

    def onnx_provider(self, device: Device) -> str | None:
        """The execution provider it insists on; None leaves it to the device profile."""
        return None

    def onnx_proof(self, operators: Mapping[str, int]) -> dict[str, tuple[str, str]]:
        """Facts that show the technique in every ONNX file, from its operator counts: name to (wanted, found)."""
        return {}

    def generate_options(self, model: Any) -> dict[str, Any]:
        """Extra arguments for Transformers' `generate` (`model`: the loaded model)."""
        return {}

    def llama_options(self, device: Device, layers: int) -> dict[str, Any]:
        """Settings of llama.cpp that it changes: n_gpu_layers (of `layers`), type_k, type_v, flash_attn, and so on."""
        return {}
