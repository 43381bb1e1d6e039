"""ONNX Runtime's transformer fusions, used by every optimization that rewrites a graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

FUSED = (
    "Attention",
    "MultiHeadAttention",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "EmbedLayerNormalization",
    "FastGelu",
    "BiasGelu",
    "Gelu",
    "QuickGelu",
)
"""Operators that only a fusion makes (domain com.microsoft)."""
INTEGER = ("MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QLinearMatMul", "QAttention", "QGemm")
"""Operators that multiply integer matrices."""


def optimize(source: Path, target: Path, level: int) -> None:
    """Write every graph of `source` to `target` at Optimum's level O1, O2 or O3."""
    from optimum.onnxruntime import AutoOptimizationConfig, ORTOptimizer

    optimizer = ORTOptimizer.from_pretrained(source, file_names=sorted(path.name for path in source.glob("*.onnx")))
    config = getattr(AutoOptimizationConfig, f"O{level}")()
    optimizer.optimize(save_dir=target, optimization_config=config, file_suffix="", one_external_file=True)


def found(operators: Mapping[str, int], names: tuple[str, ...]) -> str:
    """Whether a graph has at least one of these operators."""
    return "present" if any(operators.get(name) for name in names) else "none"
