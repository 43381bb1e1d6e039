"""What llama.cpp really loaded, beside what was asked for."""

from __future__ import annotations

from typing import Any

from targets.api import Evidence
from targets.artifacts import versions
from targets.gguf.file import GgufInfo
from targets.llama.engine import LlamaEngine
from targets.llama.load import offloaded
from targets.llama.settings import LlamaSettings


def evidence(info: GgufInfo, settings: LlamaSettings, engine: LlamaEngine, level: str) -> Evidence:
    """File type (`level` was asked for), threads and GPU layers as asked for and as found; the rest as details."""
    import llama_cpp

    requested = {"file type": level, "threads": str(settings.threads)}
    actual = {"file type": info.stored_type, "threads": str(llama_cpp.llama_n_threads(engine.llm.ctx))}
    on_gpu, asked = offloaded(engine.said), layers_asked(info, settings)
    if llama_cpp.llama_supports_gpu_offload():
        requested["layers on the GPU"] = str(asked)
        actual["layers on the GPU"] = "unknown" if on_gpu is None else str(on_gpu)
    details: dict[str, Any] = {
        "file": info.path.name,
        "model": info.name,
        "architecture": info.architecture,
        "file type": {"asked": level, "stored": info.file_type},
        "tensor types": dict(info.tensor_types),
        "parameters": info.parameters,
        "bits_per_weight": round(info.bits_per_weight, 3),
        "size_mb": round(info.size_mb, 2),
        "context": settings.context,
        "trained context": info.context_length,
        "layers": info.layers,
        "gpu layers": {"asked": asked, "offloaded": on_gpu},
        "flash attention": settings.flash_attention,
        "KV cache": {name: settings.options.get(f"type_{name}", "default") for name in "kv"},
        "mmap": settings.options.get("use_mmap", True),
        "system": llama_cpp.llama_print_system_info().decode().strip(" |"),
        "notes": notes(info, asked),
        **versions("llama-cpp-python"),
    }
    if engine.draft_tokens:
        drafted, accepted = engine.drafts.proposed, engine.drafts.accepted
        rate = accepted / drafted if drafted else None
        details["acceptance"] = {"drafted": drafted, "accepted": accepted, "rate": rate}
    return Evidence(requested, actual, details)


def layers_asked(info: GgufInfo, settings: LlamaSettings) -> int:
    """Layers that should be on the GPU; llama.cpp counts the output as one more."""
    return info.layers + 1 if settings.gpu_layers < 0 else min(settings.gpu_layers, info.layers + 1)


def notes(info: GgufInfo, asked: int) -> list[str]:
    """What a reader of the numbers should know, a sentence each."""
    import llama_cpp

    found = []
    if asked and not llama_cpp.llama_supports_gpu_offload():
        found.append(
            f"{asked} layers were to go to the GPU, but this llama-cpp-python was built without GPU support: all run on"
            " the CPU (reinstall it with CMAKE_ARGS=-DGGML_CUDA=on)"
        )
    if info.fallbacks:
        kinds = ", ".join(f"{count} in {kind}" for kind, count in info.fallbacks.items())
        found.append(
            f"{info.file_type} needs rows of a multiple of 256 weights; matrices that have not are stored {kinds}"
        )
    return found
