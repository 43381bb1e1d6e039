"""BF16: half the bytes with FP32's range, where the hardware computes it natively."""

from targets.optimization import Optimization
from targets.registry import optimizations


class Bf16(Optimization):
    """Weights and arithmetic in bfloat16 (8 bits of mantissa)."""


optimizations.register("bf16")(
    Bf16(
        name="bf16",
        group="precision",
        summary="half precision (bfloat16)",
        backends=frozenset({"huggingface", "vllm", "tensorrt-llm"}),
        dtype="bfloat16",
        families=frozenset(),
        max_drop=0.02,
        min_agreement=0.95,
        max_kl=5e-3,
    )
)
