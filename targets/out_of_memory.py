"""How running out of memory looks in Python, PyTorch, CUDA and C++."""

from __future__ import annotations

PHRASES = ("out of memory", "bad_alloc", "can't allocate", "cannot allocate", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, and nothing else."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(phrase in text for phrase in PHRASES)
