"""Graph optimization at level O2: extended and transformer fusions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from targets.api import Device
from targets.onnx.graph import FUSED, found, optimize
from targets.optimization import Optimization
from targets.registry import optimizations


class GraphO2(Optimization):
    """Optimum's O2, on the same weights."""

    def convert_onnx(self, source: Path, target: Path, device: Device) -> None:
        """Fuse."""
        optimize(source, target, level=2)

    def onnx_proof(self, operators: Mapping[str, int]) -> dict[str, tuple[str, str]]:
        """The graph has operators that only a fusion makes."""
        return {"fused operators": ("present", found(operators, FUSED))}


optimizations.register("graph-o2")(
    GraphO2(
        name="graph-o2",
        group="graph",
        summary="ONNX graph optimization O2 (extended and transformer fusions)",
        backends=frozenset({"onnxruntime"}),
        needs=frozenset({"onnx"}),
        families=frozenset(),
        max_drop=0.0,
        min_agreement=1.0,
        max_kl=1e-6,
        logit_tolerance=1e-3,
    )
)
