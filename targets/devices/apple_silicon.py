"""A Mac with Apple's own processor, whose GPU (Metal, "mps") shares the machine's memory."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

from targets import machine
from targets.api import Found, UserError
from targets.registry import devices

KEYS = ("machdep.cpu.brand_string", "hw.memsize", "hw.physicalcpu")


class AppleSilicon:
    """macOS on arm64. `system` and `processor` say what runs here; a test may say otherwise."""

    name = "apple_silicon"
    rank = 30

    def __init__(
        self, system: Callable[[], str] = platform.system, processor: Callable[[], str] = platform.machine
    ) -> None:
        self.system = system
        self.processor = processor

    def detect(self, root: Path) -> Found | None:
        """Processor, memory and cores by sysctl. Raises UserError where a Mac answers nothing to it."""
        here = (self.system(), self.processor()) == ("Darwin", "arm64")
        if not (here if machine.is_live(root) else (root / "commands/sysctl").exists()):
            return None
        answer, reason = machine.command(root, "sysctl", "-n", *KEYS)
        lines = answer.splitlines()
        if len(lines) != len(KEYS):
            raise UserError(
                f"sysctl must tell {', '.join(KEYS)}, but {reason or f'answered {answer!r}'}; try it by hand"
            )
        model, memory, cores = lines
        return Found(
            kind=self.name,
            profile="apple-silicon",
            model=model,
            memory_mb=int(memory) // machine.MB,
            cores=int(cores),
            native=frozenset({"float32", "float16"}),
            facts={
                "power_mode": "none: only Jetson boards have named power modes",
                **({"macos": platform.mac_ver()[0]} if here else {}),
            },
        )


devices.register(AppleSilicon.name)(AppleSilicon())
