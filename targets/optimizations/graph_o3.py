"""Graph optimization at level O3: as O2, with the GELU approximation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from targets.api import Device
from targets.onnx.graph import FUSED, found, optimize
from targets.optimization import Optimization
from targets.registry import optimizations


class GraphO3(Optimization):
    """Optimum's O3, on the same weights."""

    def convert_onnx(self, source: Path, target: Path, device: Device) -> None:
        """Fuse."""
        optimize(source, target, level=3)

    def onnx_proof(self, operators: Mapping[str, int]) -> dict[str, tuple[str, str]]:
        """The graph has operators that only a fusion makes."""
        return {"fused operators": ("present", found(operators, FUSED))}


optimizations.register("graph-o3")(
    GraphO3(
        name="graph-o3",
        group="graph",
        summary="ONNX graph optimization O3 (as O2, with the GELU approximation)",
        backends=frozenset({"onnxruntime"}),
        needs=frozenset({"onnx"}),
        max_drop=0.005,
        min_agreement=0.99,
        logit_tolerance=0.05,
    )
)
