"""FP32: the weights in single precision; on PyTorch the reference, on ONNX Runtime the plain export."""

from targets.optimization import Optimization
from targets.registry import optimizations


class Fp32(Optimization):
    """Nothing changed."""


optimizations.register("fp32")(
    Fp32(
        name="fp32",
        group="precision",
        summary="single precision, nothing changed",
        backends=frozenset({"huggingface", "onnxruntime"}),
        families=frozenset(),
        max_drop=0.0,
        min_agreement=1.0,
        max_kl=1e-6,
        logit_tolerance=1e-3,
    )
)
