"""The device at hand: the machine found, joined with its profile; or a planned one, made of the profile alone."""

from __future__ import annotations

from pathlib import Path

from targets.api import Device, Found, UserError
from targets.profiles import Profile, profile
from targets.registry import devices


def detect(root: Path = Path("/")) -> Device:
    """The machine below `root`, of the first kind that finds itself there."""
    for _, kind in sorted(devices.items(), key=lambda item: item[1].rank):
        found = kind.detect(root)
        if found:
            return join(found, profile(found.profile))
    raise UserError(f"no device kind found itself in {root}; known kinds: {', '.join(sorted(devices))}")


def planned(name: str, root: Path = Path("/")) -> Device:
    """The device that `--device NAME` means: this machine where it is one, else a plan made of the profile alone.

    A machine may be several: `cpu` on a board with a GPU is that board's real processor.
    """
    wanted = profile(name)
    found = devices[wanted.kind].detect(root)
    if found and found.profile == name:
        return join(found, wanted)
    threads = int(wanted.backends.get("llama_cpp", {}).get("n_threads", 1))
    assumed = Found(
        kind=wanted.kind,
        profile=name,
        model=f"{name} (not this machine)",
        memory_mb=wanted.plan.memory_mb,
        cores=threads,
        native=wanted.plan.native,
        facts={"power_mode": "not readable: the device is not this machine"},
    )
    return join(assumed, wanted, detected=False)


def join(found: Found, profile: Profile, detected: bool = True) -> Device:
    """What was found and what the profile allows it; no engine gets more threads than there are cores."""
    settings = {
        engine: {key: min(value, found.cores) if key == "n_threads" else value for key, value in options.items()}
        for engine, options in profile.backends.items()
    }
    return Device(
        name=profile.name,
        kind=found.kind,
        model=found.model,
        cores=found.cores,
        threads=found.cores,
        memory_mb=found.memory_mb,
        memory_budget_mb=profile.budget_mb(found.memory_mb),
        max_batch=profile.max_batch,
        supports=profile.supports,
        native=found.native,
        torch_device=profile.torch_device,
        flash_attention=profile.flash_attention,
        power_mode=found.power_mode,
        backends=settings,
        facts=found.facts,
        detected=detected,
    )
