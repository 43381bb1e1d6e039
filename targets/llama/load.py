"""Loading a GGUF file with llama-cpp-python: which settings hold, what llama.cpp says meanwhile, why it failed."""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from targets.api import UserError
from targets.llama.engine import LlamaEngine
from targets.llama.settings import LlamaSettings

OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
OUT_OF_MEMORY = ("failed to allocate", "unable to allocate", "out of memory", "cannot allocate")
QUIET = ("error loading model: ", "llama_model_load: ", "llama_model_load_from_file_impl: ")
"""Where llama.cpp says it in the words of its functions."""
DEBUG = 1
"""ggml's level (ggml.h) of messages for its developers: hundreds a load."""
OPTIONS = frozenset({"type_k", "type_v", "use_mmap"})
"""Options of an optimization that llama_cpp.Llama takes by the same name; types are ggml's numbers (ggml.h)."""


def load(path: Path, settings: LlamaSettings) -> LlamaEngine:
    """The loaded model.

    Raises:
        UserError: llama.cpp refuses the file; its reason is in the message.
        MemoryError: there is not enough memory for weights or context.
        ValueError: an option that is not known here.
    """
    import llama_cpp

    options = dict(settings.options)
    draft = int(options.pop("draft_model_tokens", 0))
    if unknown := options.keys() - OPTIONS:
        raise ValueError(f"llama-cpp-python is not told of {', '.join(sorted(unknown))}")
    batch = min(settings.batch, settings.context)
    with listening() as said:
        try:
            llm = llama_cpp.Llama(
                str(path),
                n_ctx=settings.context,
                n_batch=batch,
                n_threads=settings.threads,
                n_threads_batch=settings.threads,
                n_gpu_layers=settings.gpu_layers,
                flash_attn=settings.flash_attention,
                verbose=False,
                **options,
            )
        except (ValueError, RuntimeError) as error:
            raise refusal(path, said, error) from error
    sys.stderr.write("".join(said))
    return LlamaEngine(llm, settings.context, batch, draft, tuple(said))


def refusal(path: Path, said: list[str], error: Exception) -> Exception:
    """Why loading failed, in llama.cpp's words."""
    reasons = [line.strip() for line in said if any(word in line.lower() for word in ("error", *OUT_OF_MEMORY))]
    reason = reasons[0] if reasons else str(error)
    for start in QUIET:
        reason = reason.removeprefix(start)
    if any(word in "".join(said).lower() for word in OUT_OF_MEMORY):
        return MemoryError(f"{path}: out of memory while llama.cpp loaded it: {reason}")
    return UserError(f"{path}: llama.cpp cannot load it: {reason}")


def offloaded(said: tuple[str, ...]) -> int | None:
    """How many layers llama.cpp says are on the GPU; None where it says nothing of that."""
    found = OFFLOADED.search("".join(said))
    return int(found[1]) if found else None


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """Collects what llama.cpp logs meanwhile; then who listened before listens again."""
    import llama_cpp

    before, data, said = llama_cpp.llama_log_callback(), ctypes.c_void_p(), list[str]()
    llama_cpp.llama_log_get(ctypes.byref(before), ctypes.byref(data))

    def hear(level: int, text: bytes, _: object) -> None:
        if level != DEBUG:
            said.append(text.decode(errors="replace"))

    ours = llama_cpp.llama_log_callback(hear)
    llama_cpp.llama_log_set(ours, ctypes.c_void_p(0))
    try:
        yield said
    finally:
        llama_cpp.llama_log_set(before, data)
