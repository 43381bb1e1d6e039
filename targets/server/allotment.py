"""What of the machine one engine gets, where several live beside each other, and beside the server itself.

An idle engine's threads cost nothing as long as they sleep, so every engine may have all cores; what must not happen is
that they wait in a loop (OMP_WAIT_POLICY=PASSIVE, ONNX Runtime's `allow_spinning` off). Measured on 2 cores beside a
process that takes 40 % of one, DistilBERT-base, 16 texts of 16 tokens, best and median of 9 interleaved rounds, in ms:

    threads           INT8         FP32
    1                 241, 299     291, 447
    2, sleeping       209, 353     288, 400
    2, in a loop      272, 414     336, 556

A model of a few million weights is another case: its passes are shorter than the waking of a thread. The embedded
Llama (Q8_0) wrote 24 tokens in 7 ms with one thread and in 19 with two, T5 (FP32) a translation in 6 and in 68.
"""

from __future__ import annotations

from targets.api import Device

SMALL_MB = 32
"""MB (2**20 bytes) of weights up to which an engine gets one thread: the embedded models have 2 to 14, DistilBERT-base
as INT8 has 64."""
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
