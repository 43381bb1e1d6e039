"""Graph optimization and INT8 together: fused first, then quantized."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from targets.api import Device
from targets.onnx.graph import FUSED, INTEGER, found, optimize
from targets.optimization import Optimization
from targets.registry import optimizations


class GraphInt8(Optimization):
    """O2's fusions with dynamically quantized matrix products."""

    def convert_onnx(self, source: Path, target: Path, device: Device) -> None:
        """Quantize the fused graph with ONNX Runtime's own call: Optimum's quantizer stumbles over fused graphs."""
        from onnx import TensorProto
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with tempfile.TemporaryDirectory() as folder:
            optimize(source, Path(folder), level=2)
            for path in sorted(Path(folder).glob("*.onnx")):
                quantize_dynamic(
                    path,
                    target / path.name,
                    weight_type=QuantType.QInt8,
                    reduce_range=True,  # 7-bit weights: AVX2's int8 products saturate with 8
                    extra_options={"DefaultTensorType": TensorProto.FLOAT, "MatMulConstBOnly": True},
                )

    def onnx_proof(self, operators: Mapping[str, int]) -> dict[str, tuple[str, str]]:
        """The graph is fused, and multiplies integers."""
        return {
            "fused operators": ("present", found(operators, FUSED)),
            "integer products": ("present", found(operators, INTEGER)),
        }


optimizations.register("graph-int8")(
    GraphInt8(
        name="graph-int8",
        group="graph",
        summary="ONNX graph optimization O2, then dynamic INT8",
        backends=frozenset({"onnxruntime"}),
        dtype="int8",
        needs=frozenset({"onnx", "quantization", "int8"}),
        families=frozenset(),
        max_drop=0.02,
        min_agreement=0.95,
        max_kl=1e-2,
    )
)
