"""torch.compile: the module compiled by Inductor for any batch size and length."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from targets.api import Device
from targets.optimization import Optimization
from targets.registry import optimizations

COMPILERS = ("c++", "g++", "clang++")


class TorchCompile(Optimization):
    """One graph with dynamic shapes, so that a new length does not compile again."""

    def unavailable(self, device: Device) -> str | None:
        """Inductor writes C++ for CPUs; without a compiler it cannot."""
        if device.kind == "cpu" and device.detected and not any(map(shutil.which, COMPILERS)):
            return "torch.compile needs a C++ compiler: apt install g++"
        return super().unavailable(device)

    def rewrite_torch(self, model: Any, features: Mapping[str, Any]) -> Any:
        """Compile lazily: the first call pays, and is reported as such."""
        import torch

        return torch.compile(model, dynamic=True)

    def torch_proof(self, module: Any) -> dict[str, tuple[str, str]]:
        """Dynamo has captured a graph in this process, and broke it nowhere."""
        from torch._dynamo.utils import counters

        graphs = counters["stats"]["unique_graphs"]
        return {"graph": ("compiled", "compiled" if graphs else "eager")}


optimizations.register("torch-compile")(
    TorchCompile(
        name="torch-compile",
        group="compilation",
        summary="torch.compile with dynamic shapes (Inductor)",
        backends=frozenset({"huggingface"}),
        max_drop=0.0,
        min_agreement=1.0,
        logit_tolerance=1e-3,
    )
)
