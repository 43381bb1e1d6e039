"""torchao: weights of the linear layers in 8 bits, as tensor subclasses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from targets.api import Device, Requirement
from targets.optimization import Optimization
from targets.registry import optimizations

INSTALL = "pip install '.[quantization]'"


class TorchAoInt8(Optimization):
    """Quantized while it is loaded; activations stay in floating point."""

    def load_torch(self, load: Callable[..., Any], device: Device) -> Any:
        """In half precision around the quantized weights where the device is a GPU."""
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        place = self.torch_place(device)
        dtype = "float16" if place == "cuda" else "float32"
        return load(place, dtype, quantization_config=TorchAoConfig(Int8WeightOnlyConfig()), device_map=place)

    def torch_proof(self, module: Any) -> dict[str, tuple[str, str]]:
        """Every linear layer's weight but the head's is torchao's own tensor."""
        import torch

        head = module.get_output_embeddings()
        layers = [part for part in module.modules() if isinstance(part, torch.nn.Linear) and part is not head]
        plain = sum(not type(part.weight.data).__module__.startswith("torchao.") for part in layers)
        found = f"{plain} of {len(layers)} in float" if plain or not layers else "torchao"
        return {"linear weights": ("torchao", found)}


optimizations.register("torchao-int8")(
    TorchAoInt8(
        name="torchao-int8",
        group="quantization",
        summary="8-bit weights by torchao",
        backends=frozenset({"huggingface"}),
        families=frozenset({"causal"}),
        tasks=frozenset({"generation"}),
        needs=frozenset({"quantization"}),
        requires=(Requirement("torchao", INSTALL), Requirement("accelerate", INSTALL)),
        max_drop=0.1,
        min_agreement=0.0,
        max_kl=1e-2,
    )
)
