"""From settings to the order of a worker: which files, on which device, with what imported before."""

from __future__ import annotations

from functools import cache
from itertools import chain
from pathlib import Path

from targets import detection
from targets.api import Device
from targets.availability import missing
from targets.registry import backends, optimizations
from targets.server.engine.worker import Order
from targets.server.menu import EMBEDDED
from targets.server.settings import ServedTask, Settings

FOLDERS = {"summarization": "t5", "translation": "t5", "generation": "llama", "chat": "llama"}
"""Where the embedded model of a task lies, if not in a folder of the task's own name."""


@cache
def here() -> Device:
    """This machine; it is looked at once, which may take seconds where tools of a vendor are asked."""
    return detection.detect()


def order_of(served: ServedTask, settings: Settings, device: Device) -> Order:
    """What the processes of an engine are told."""
    model = Path(served.model).expanduser()
    if served.model == EMBEDDED:
        model = settings.models / FOLDERS.get(served.task, served.task)
        name = EMBEDDED
    else:
        name = model.stem if model.is_file() else model.resolve().name
    return Order(
        task=served.task,
        backend=served.backend,
        optimization=served.optimization,
        name=name,
        model=model,
        device=device,
        artifacts=settings.artifacts,
        targets=settings.targets,
    )


def unavailable(served: ServedTask, device: Device) -> str | None:
    """Why this machine cannot serve it, as far as can be told without loading anything; None if nothing is known."""
    technique = optimizations[served.optimization]
    if technique.kinds and device.kind not in technique.kinds:
        return f"{technique.name} exists on {', '.join(sorted(technique.kinds))} only; this device is {device.kind}"
    return missing(served.backend) or technique.unavailable(device)


def preload_of(settings: Settings) -> list[str]:
    """What the fork server imports once for all engines."""
    return list(chain.from_iterable(backends[served.backend].preload for served in settings.tasks.values()))
