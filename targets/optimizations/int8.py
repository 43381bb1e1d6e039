"""INT8, dynamic: weights of the linear layers in 8 bits, activations quantized as they come."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targets.api import Device
from targets.onnx.graph import INTEGER, found
from targets.optimization import Optimization
from targets.registry import optimizations


class Int8(Optimization):
    """PyTorch's dynamic quantization, or ONNX Runtime's through Optimum."""

    def torch_place(self, device: Device) -> str:
        """PyTorch's dynamically quantized linear layers exist for the CPU only."""
        return "cpu"

    def rewrite_torch(self, model: Any, features: Mapping[str, Any]) -> Any:
        """Replace every linear layer; GPT-2's are called Conv1D and hold their weights transposed."""
        import torch

        for name, layer in list(model.named_modules()):
            if type(layer).__name__ == "Conv1D":
                model.set_submodule(name, as_linear(layer))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deprecated")  # torch.ao is, and has no heir on the CPU
            return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8, inplace=True)

    def torch_proof(self, module: Any) -> dict[str, tuple[str, str]]:
        """No linear layer is left in floating point."""
        import torch

        layers = [layer for layer in module.modules() if type(layer).__name__ in ("Linear", "Conv1D")]
        left = sum(isinstance(getattr(layer, "weight", None), torch.nn.Parameter) for layer in layers)
        return {"linear layers": ("int8", "int8" if layers and not left else f"{left} of {len(layers)} in float")}

    def convert_onnx(self, source: Path, target: Path, device: Device) -> None:
        """Quantize with the instruction set of this machine in mind."""
        from optimum.onnxruntime import ORTQuantizer
        from optimum.onnxruntime.configuration import AutoQuantizationConfig

        kind = AutoQuantizationConfig.arm64 if platform.machine() == "aarch64" else AutoQuantizationConfig.avx2
        for path in sorted(source.glob("*.onnx")):
            quantizer = ORTQuantizer.from_pretrained(source, file_name=path.name)
            quantizer.quantize(
                save_dir=target, quantization_config=kind(is_static=False, per_channel=False), file_suffix=""
            )

    def onnx_proof(self, operators: Mapping[str, int]) -> dict[str, tuple[str, str]]:
        """The graph multiplies integers."""
        return {"integer products": ("present", found(operators, INTEGER))}


def as_linear(layer: Any) -> Any:
    """A linear layer of the same weights."""
    import torch

    inputs, outputs = layer.weight.shape
    made = torch.nn.Linear(inputs, outputs, device="meta")
    made.weight = torch.nn.Parameter(layer.weight.T.contiguous(), requires_grad=False)
    made.bias = layer.bias
    return made


optimizations.register("int8")(
    Int8(
        name="int8",
        group="quantization",
        summary="dynamic 8-bit quantization of the linear layers",
        backends=frozenset({"huggingface", "onnxruntime"}),
        dtype="int8",
        needs=frozenset({"quantization", "int8"}),
        families=frozenset(),
        max_drop=0.02,
        min_agreement=0.95,
        max_kl=1e-2,
    )
)
