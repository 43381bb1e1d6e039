"""What a llama.cpp server that was started here really loaded, from its file and its log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from targets.gguf.file import GgufInfo
from targets.llama.evidence import layers_asked
from targets.llama.load import OFFLOADED
from targets.llama.settings import LlamaSettings
from targets.optimization import Optimization

NO_GPU = re.compile(r"no usable GPU found|compiled without (GPU|CUDA)", re.IGNORECASE)


def proof(
    info: GgufInfo, settings: LlamaSettings, optimization: Optimization, log: Path, server: str
) -> tuple[dict[str, tuple[str, str]], dict[str, Any]]:
    """Facts as (asked for, found), and details with notes.

    Layers on the GPU are a fact where the log tells of any, or where some were asked for and the log does not say that
    the build has no GPU; else they are a note.
    """
    said = log.read_text(errors="replace")
    facts = {"file type": (optimization.gguf_type or info.file_type, info.stored_type)}
    asked, found, notes = layers_asked(info, settings), OFFLOADED.search(said), []
    if found:
        facts["layers on the GPU"] = (str(asked), found[1])
    elif asked:
        notes.append(
            f"{asked} layers were to go to the GPU, but {server} says of none that it did"
            + (": this build has no GPU support" if NO_GPU.search(said) else "")
        )
    details = {
        "file": info.path.name,
        "architecture": info.architecture,
        "parameters": info.parameters,
        "bits_per_weight": round(info.bits_per_weight, 3),
        "size_mb": round(info.size_mb, 2),
        "threads": settings.threads,
        "trained context": info.context_length,
        "layers": info.layers,
        "flash attention": settings.flash_attention,
        "gpu layers": {"asked": asked, "offloaded": int(found[1]) if found else None},
        "notes": notes,
    }
    return facts, details
