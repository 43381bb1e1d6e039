"""What of the machine one engine gets, where several live beside each other."""

from __future__ import annotations

from targets.api import Device

SMALL_MB = 32
"""MB (2**20 bytes) of weights up to which one thread is as fast as several."""
PROOF_SHARE = 8
"""A proof may load a model a second time: only one that takes at most this part of the memory budget."""


def threads(asked: int | None, device: Device, size_mb: float) -> int:
    """Threads of an engine: as many as asked for, else one for a small model and all cores for others."""
    if asked is not None:
        return asked
    return 1 if size_mb <= SMALL_MB else device.threads


def may_prove(device: Device, size_mb: float) -> bool:
    """Whether there is memory to prove what runs."""
    return size_mb * PROOF_SHARE <= device.memory_budget_mb
