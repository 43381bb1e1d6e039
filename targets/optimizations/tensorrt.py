"""TensorRT as ONNX Runtime's execution provider."""

from targets.api import Device
from targets.optimization import Optimization
from targets.registry import optimizations


class TensorRt(Optimization):
    """The same graph, compiled by TensorRT on first use."""

    def onnx_provider(self, device: Device) -> str:
        """TensorRT, and nothing in its place."""
        return "TensorrtExecutionProvider"


optimizations.register("tensorrt")(
    TensorRt(
        name="tensorrt",
        group="compilation",
        summary="TensorRT execution provider of ONNX Runtime",
        backends=frozenset({"onnxruntime"}),
        kinds=frozenset({"jetson", "cuda"}),
        needs=frozenset({"onnx", "cuda"}),
        max_drop=0.005,
        min_agreement=0.99,
        logit_tolerance=0.02,
    )
)
