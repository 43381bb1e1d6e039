"""The loading fallback chain: fp32, then fp16, then 8 bits, then the processor; the first that memory allows."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from targets.api import Device
from targets.optimization import Optimization
from targets.out_of_memory import is_out_of_memory
from targets.registry import optimizations


class Fallback(Optimization):
    """Tries in order, and goes on after running out of memory only: any other failure is told as it is.

    A rung that the device's memory budget cannot hold is not tried: on a board that shares its memory between processor
    and GPU the kernel would kill the process, and tell nothing.
    """

    def load_torch(self, load: Callable[..., Any], device: Device) -> Any:
        """The model of the first rung that fits.

        Raises:
            MemoryError: none does; the message says why each failed.
        """
        story: list[dict[str, str]] = []
        for rung, attempt in rungs(load, device):
            if isinstance(attempt, str):
                story.append({"rung": rung, "outcome": attempt})
                continue
            try:
                model = attempt()
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                story.append({"rung": rung, "outcome": str(error).split("\n")[0]})
                gc.collect()
                continue
            model.loading = [*story, {"rung": rung, "outcome": "loaded"}]
            return model
        failures = "; ".join(f"{step['rung']}: {step['outcome']}" for step in story)
        raise MemoryError(f"out of memory at every step of the fallback chain: {failures}")

    def torch_proof(self, module: Any) -> dict[str, tuple[str, str]]:
        """Some rung held."""
        return {"loading": ("loaded", module.loading[-1]["outcome"])}

    def torch_details(self, module: Any) -> dict[str, Any]:
        """The rung that held, and why each before it failed."""
        *failed, held = module.loading
        why = "".join(f"; {step['rung']} failed: {step['outcome']}" for step in failed)
        note = f"the fallback chain holds at {held['rung']}{why}"
        return {"loading": copy.deepcopy(module.loading), "notes": [note]}


def rungs(load: Callable[..., Any], device: Device) -> list[tuple[str, Callable[[], Any] | str]]:
    """Names in order, each with an attempt, or with the reason why there is none.

    The processor is a rung of its own only where it is not the device anyway; beyond its memory the system swaps.
    """
    place = device.torch_device
    missing = [module for module in ("bitsandbytes", "accelerate") if find_spec(module) is None]
    found: list[tuple[str, Callable[[], Any] | str]] = [
        (f"fp32 on {place}", lambda: bounded(load, device, place, "float32", 32)),
        (f"fp16 on {place}", lambda: bounded(load, device, place, "float16", 16)),
    ]
    if missing:
        found.append((f"8-bit on {place}", f"not tried: {missing[0]} is not installed (pip install '.[quantization]')"))
    else:
        found.append((f"8-bit on {place}", lambda: eight_bits(load, device, place)))
    if place != "cpu":
        found.append(("fp32 on cpu", lambda: load("cpu", "float32")))
    return found


def bounded(load: Callable[..., Any], device: Device, place: str, dtype: str, bits: int, **options: Any) -> Any:
    """The loaded model, if its weights alone do not pass the budget already."""
    needed = load.parameters * bits / 8 / 2**20  # type: ignore[attr-defined]
    if needed > device.memory_budget_mb:
        raise MemoryError(f"its weights need {needed:.0f} MB, and the budget is {device.memory_budget_mb} MB")
    return load(place, dtype, **options)


def eight_bits(load: Callable[..., Any], device: Device, place: str) -> Any:
    """By bitsandbytes."""
    from transformers import BitsAndBytesConfig

    dtype = "float16" if place == "cuda" else "float32"
    settings = BitsAndBytesConfig(load_in_8bit=True)
    return bounded(load, device, place, dtype, 8, quantization_config=settings, device_map=place)


optimizations.register("fallback")(
    Fallback(
        name="fallback",
        group="loading",
        summary="the first of fp32, fp16, 8 bits and the processor that fits",
        backends=frozenset({"huggingface"}),
        families=frozenset({"causal"}),
        tasks=frozenset({"generation"}),
        max_drop=0.1,
        min_agreement=0.0,
        max_kl=1e-2,
    )
)
