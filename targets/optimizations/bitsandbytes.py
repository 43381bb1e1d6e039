"""bitsandbytes: weights of the linear layers in 8 bits (LLM.int8(), Dettmers et al. 2022) or 4 (NF4, QLoRA, 2023)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from targets.api import Device, Requirement
from targets.optimization import Optimization
from targets.registry import optimizations

INSTALL = "pip install '.[quantization]'"


@dataclass(frozen=True, kw_only=True)
class BitsAndBytes(Optimization):
    """Quantized while it is loaded. `layer`: the class that replaces a linear layer."""

    settings: tuple[tuple[str, Any], ...]
    layer: str

    def load_torch(self, load: Callable[..., Any], device: Device) -> Any:
        """In half precision around the quantized layers where the device has it."""
        from transformers import BitsAndBytesConfig

        place = self.torch_place(device)
        dtype = "float16" if place == "cuda" else "float32"
        compute = {"bnb_4bit_compute_dtype": dtype} if "load_in_4bit" in dict(self.settings) else {}
        return load(
            place, dtype, quantization_config=BitsAndBytesConfig(**dict(self.settings), **compute), device_map=place
        )

    def torch_proof(self, module: Any) -> dict[str, tuple[str, str]]:
        """Every linear layer but the head is bitsandbytes' own."""
        import torch

        head = module.get_output_embeddings()
        layers = [part for part in module.modules() if isinstance(part, torch.nn.Linear) and part is not head]
        kinds = "+".join(sorted({type(part).__name__ for part in layers}))
        return {"linear layers": (self.layer, kinds or "none")}

    def torch_details(self, module: Any) -> dict[str, Any]:
        """What the weights take, in MB (2**20 bytes)."""
        return {"footprint_mb": module.get_memory_footprint() / 2**20}


for name, bits, settings, layer, bound in (
    ("bnb-int8", "8-bit", (("load_in_8bit", True),), "Linear8bitLt", 1e-2),
    ("bnb-nf4", "4-bit (NF4)", (("load_in_4bit", True), ("bnb_4bit_quant_type", "nf4")), "Linear4bit", 5e-2),
):
    optimizations.register(name)(
        BitsAndBytes(
            name=name,
            group="quantization",
            summary=f"{bits} weights by bitsandbytes",
            backends=frozenset({"huggingface"}),
            families=frozenset({"causal"}),
            tasks=frozenset({"generation"}),
            needs=frozenset({"quantization"}),
            requires=(Requirement("bitsandbytes", INSTALL), Requirement("accelerate", INSTALL)),
            max_drop=0.1,
            min_agreement=0.0,
            max_kl=bound,
            settings=settings,
            layer=layer,
        )
    )
