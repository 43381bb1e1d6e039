"""A machine without an accelerator that the suite knows: every machine is at least this."""

from __future__ import annotations

import platform
from pathlib import Path

from targets import machine
from targets.api import Found
from targets.registry import devices
from targets.sensors import clocks


class Cpu:
    """Any processor; asked last, and always found."""

    name = "cpu"
    rank = 40

    def detect(self, root: Path) -> Found:
        """The processor, the cores and the memory that this process may use."""
        facts = {"power_mode": "none: a CPU has no named power modes"}
        if machine.is_live(root):
            facts["architecture"] = platform.machine()
        governor = machine.text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        if governor:
            facts["governor"] = governor
        policy = clocks.policy(root)
        if policy:
            facts["clocks"] = policy
        memory = machine.memory_mb(root)
        if memory < machine.total_memory_mb(root):
            facts["host_memory_mb"] = str(machine.total_memory_mb(root))
        return Found(
            kind=self.name,
            profile="cpu",
            model=machine.cpu_model(root),
            memory_mb=memory,
            cores=machine.cores(root),
            native=native(machine.cpu_flags(root)),
            facts=facts,
        )


def native(flags: frozenset[str]) -> frozenset[str]:
    """Number formats with arithmetic of their own, by the names that Linux gives the extensions.

    x86: avx512_bf16, amx_bf16, avx512_fp16, amx_fp16. ARM: bf16; fphp (scalar) with asimdhp (vector) for half.
    Others convert to float32 and back, which is slower than float32 itself.
    """
    formats = {"float32", "int8"}
    if flags & {"avx512_bf16", "amx_bf16", "bf16"}:
        formats.add("bfloat16")
    if flags & {"avx512_fp16", "amx_fp16"} or flags >= {"fphp", "asimdhp"}:
        formats.add("float16")
    return frozenset(formats)


devices.register(Cpu.name)(Cpu())
