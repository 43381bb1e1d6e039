"""TorchScript: the module traced with its attention mask, and frozen."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from targets.api import Device
from targets.optimization import Optimization
from targets.registry import optimizations


class TorchScript(Optimization):
    """Python is out of the loop; the graph is what one example traced."""

    def torch_options(self, device: Device) -> dict[str, Any]:
        """Eager attention: the SDPA path decides in Python on the mask's values, which a trace would bake in."""
        return {"attn_implementation": "eager"}

    def rewrite_torch(self, model: Any, features: Mapping[str, Any]) -> Any:
        """Trace with every input by name, so that the mask cannot be dropped."""
        import torch

        model.config.return_dict = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated; the tracer warns of each Python branch it takes
            traced = torch.jit.trace(model, example_kwarg_inputs=dict(features), strict=False)
            return Traced(torch.jit.freeze(traced), model)

    def torch_proof(self, module: Any) -> dict[str, tuple[str, str]]:
        """What runs is a script module whose graph reads the mask."""
        import torch

        inputs = " ".join(value.debugName() for value in module.script.graph.inputs() if value.uses())
        return {
            "module": ("script", "script" if isinstance(module.script, torch.jit.ScriptModule) else "eager"),
            "attention mask": ("read by the graph", "read by the graph" if "attention_mask" in inputs else "ignored"),
        }

    def release_torch(self) -> None:
        """Torch keeps the class of every traced module, and with it the weights: 9 MB a load for a model of 2 MB."""
        import torch

        torch._C._jit_clear_class_registry()


class Traced:
    """A frozen script module called like the module it was traced from. `origin` answers for the parameters."""

    def __init__(self, script: Any, origin: Any) -> None:
        self.script = script
        self.parameters = origin.parameters

    def __call__(self, return_dict: bool = False, **features: Any) -> Any:
        """The outputs as a tuple, which is all a script returns."""
        return self.script(**features)


optimizations.register("torchscript")(
    TorchScript(
        name="torchscript",
        group="compilation",
        summary="traced with the attention mask and frozen (torch.jit)",
        backends=frozenset({"huggingface"}),
        max_drop=0.0,
        min_agreement=1.0,
        logit_tolerance=1e-3,
    )
)
