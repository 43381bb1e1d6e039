"""For `--targets=suites.meta.many`: a backend with MANY_CASES synthetic techniques, to see how collection grows.

With MANY_REPORT=FILE in the environment the process writes, as it ends, which heavy libraries it had imported.
"""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path

from suites.meta.fake import Behaviour, Fake
from targets.registry import backends, optimizations

HEAVY = ("torch", "transformers", "onnxruntime", "optimum.onnxruntime", "onnx", "matplotlib", "datasets")


def report() -> None:
    """Name the heavy libraries in this process, one a line."""
    Path(os.environ["MANY_REPORT"]).write_text("".join(f"{name}\n" for name in HEAVY if name in sys.modules))


backends.register("many")(Fake("many"))
for number in range(int(os.environ.get("MANY_CASES", "0"))):
    optimizations.register(f"technique-{number:05}")(
        Behaviour(
            name=f"technique-{number:05}",
            group="synthetic",
            summary="one of many",
            backends=frozenset({"many"}),
            max_drop=0.0,
            min_agreement=1.0,
        )
    )
if "MANY_REPORT" in os.environ:
    atexit.register(report)
