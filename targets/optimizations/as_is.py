"""As it is: a GGUF file or a served model of the user's own; nothing is changed, and nothing is promised of it."""

from __future__ import annotations

from targets.optimization import Optimization
from targets.registry import optimizations


class AsIs(Optimization):
    """Whatever precision it has; it has no reference to be held against."""


optimizations.register("as-is")(
    AsIs(
        name="as-is",
        group="gguf",
        summary="the file or served model as it is",
        backends=frozenset({"llama-cpp-python", "llama-server", "ollama", "openai"}),
        max_drop=1.0,
        min_agreement=0.0,
        families=frozenset({"causal"}),
        formats=frozenset({"gguf", "ollama", "openai"}),
    )
)
