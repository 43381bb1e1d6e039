"""Planted faults as targets: `pytest --targets=suites.meta.faults --backend=faulty-sentiment,faulty-ner,faulty-qa`.

Each entry of the catalogue becomes an optimization of a backend that loads the real model with the huggingface backend
and then breaks it. As a program, `python -m suites.meta.faults RESULTS.json` prints which checks caught which fault.
"""

from __future__ import annotations

import sys
from pathlib import Path

from suites.meta import generator_faults  # noqa: F401 - files its faults
from suites.meta.fault_catalogue import FAULTS
from suites.meta.fault_table import table
from targets.api import Device, ModelFiles, Runner, Task, UserError
from targets.backends.huggingface import HuggingFace
from targets.optimization import Optimization
from targets.registry import backends, optimizations


class Faulty(HuggingFace):
    """PyTorch FP32, broken after loading. One backend a task, because a fault is made for certain tasks."""

    def __init__(self, task: str) -> None:
        self.name = f"faulty-{task}"
        self.tasks = frozenset({task})

    def load(self, model: ModelFiles, artifact: Path, task: Task, optimization: Optimization, device: Device) -> Runner:
        """The real runner, with the fault that bears the optimization's name."""
        real = super().load(model, artifact, task, optimizations["fp32"], device)
        return FAULTS[optimization.name].plant(real)


class Planted(Optimization):
    """A fault in an optimization's place, with the contract it claims to keep."""


def register() -> None:
    """File the backends and the faults."""
    for task in sorted({task for fault in FAULTS.values() for task in fault.tasks}):
        backends.register(f"faulty-{task}")(Faulty(task))
    for fault in FAULTS.values():
        optimizations.register(fault.name)(
            Planted(
                name=fault.name,
                group="fault",
                summary=fault.summary,
                backends=frozenset(f"faulty-{task}" for task in fault.tasks),
                kinds=fault.kinds,
                max_drop=fault.max_drop,
                min_agreement=fault.min_agreement,
                logit_tolerance=fault.logit_tolerance,
                max_kl=fault.max_kl,
                families=frozenset(),
            )
        )


def main(arguments: list[str]) -> int:
    """Print the table of a run."""
    if len(arguments) != 1:
        print("usage: python -m suites.meta.faults RESULTS.json", file=sys.stderr)
        return 2
    try:
        print(table(Path(arguments[0])))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
register()
