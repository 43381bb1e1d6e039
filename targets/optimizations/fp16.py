"""FP16: half the bytes, where the hardware computes it natively (elsewhere it is emulated, and slower)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from targets.api import Device
from targets.optimization import Optimization
from targets.registry import optimizations


class Fp16(Optimization):
    """Weights and arithmetic in IEEE half precision."""

    def convert_onnx(self, source: Path, target: Path, device: Device) -> None:
        """Weights and operators to float16; inputs and outputs keep their types."""
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16

        for path in sorted(source.glob("*.onnx")):
            graph = convert_float_to_float16(onnx.load(path), keep_io_types=True)
            onnx.save(graph, target / path.name)

    def onnx_proof(self, operators: Mapping[str, int]) -> dict[str, tuple[str, str]]:
        """The casts at the borders of the half-precision graph."""
        return {"casts": ("present", "present" if operators.get("Cast") else "none")}


optimizations.register("fp16")(
    Fp16(
        name="fp16",
        group="precision",
        summary="half precision (IEEE float16)",
        backends=frozenset({"huggingface", "onnxruntime", "vllm", "tensorrt-llm"}),
        dtype="float16",
        needs=frozenset({"half"}),
        families=frozenset(),
        max_drop=0.01,
        min_agreement=0.98,
        max_kl=1e-4,
        logit_tolerance=0.1,
    )
)
