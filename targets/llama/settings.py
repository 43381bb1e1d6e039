"""Settings that every engine of the llama.cpp family takes from a device's profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from targets.api import Device, UserError
from targets.gguf.file import GgufInfo
from targets.optimization import Optimization

CONTEXT = 2048
BATCH = 256


@dataclass(frozen=True)
class LlamaSettings:
    """What llama.cpp is asked for. `gpu_layers`: -1 is all; `options`: what else an optimization changes."""

    context: int
    batch: int
    threads: int
    gpu_layers: int
    flash_attention: bool
    options: Mapping[str, Any]

    @classmethod
    def of(cls, info: GgufInfo, optimization: Optimization, device: Device) -> LlamaSettings:
        """The profile's `llama_cpp` settings, changed by the optimization; the context is cut to the model's own.

        Raises:
            UserError: the context that the user has asked for is longer than the model's.
        """
        changed = optimization.llama_options(device, info.layers)
        found = {**device.backends.get("llama_cpp", {}), **changed}
        context, own = int(found.get("n_ctx", CONTEXT)), info.context_length
        if own and context > own:
            if found.get("n_ctx_asked"):
                raise UserError(
                    f"a context of {context} tokens is asked for, but {info.path.name} holds {own}; {own} is the most"
                )
            context = own
        return cls(
            context=context,
            batch=int(found.get("n_batch", BATCH)),
            threads=min(int(found.get("n_threads", device.threads)), device.threads),
            gpu_layers=int(found.get("n_gpu_layers", 0)),
            flash_attention=bool(found.get("flash_attn", device.flash_attention)),
            options={
                name: value
                for name, value in changed.items()
                if name not in ("n_ctx", "n_batch", "n_threads", "n_gpu_layers", "flash_attn")
            },
        )
