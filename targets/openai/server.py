"""A large engine's own OpenAI-compatible server, started here on a model folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from targets.api import Device, Runner, Task
from targets.generation import as_generator
from targets.llama.settings import CONTEXT
from targets.openai.dialects import Dialect
from targets.openai.engine import OpenAiEngine
from targets.openai.protocol import served
from targets.remote.client import READ_S, HttpClient
from targets.remote.generator import RemoteGenerator
from targets.remote.process import ServerProcess

START_S = 900.0
"""These servers compile and warm up before they answer; from a memory card that takes minutes."""
DTYPE = re.compile(r"dtype[='\": ]+(?:torch\.)?(float32|float16|bfloat16)")
"""How their logs tell the number format that they compute in."""


@dataclass(frozen=True)
class Launch:
    """What is started. `dtype`: the number format that was asked for."""

    name: str
    command: tuple[str, ...]
    port: int
    dialect: Dialect
    context: int
    dtype: str


def launch(what: Launch, task: Task, settings: Mapping[str, Any]) -> Runner:
    """Start the server and wait until it offers its model.

    Raises:
        ServerDied: it ended before, or was not ready in time.
    """
    process = ServerProcess(what.name, what.command)
    client = HttpClient(f"http://127.0.0.1:{what.port}", timeout_s=float(settings.get("timeout_s", READ_S)))

    def proved() -> tuple[dict[str, tuple[str, str]], dict[str, Any]]:
        told = DTYPE.search(process.log.read_text(errors="replace"))
        facts = {"dtype": (what.dtype, told[1])} if told else {}
        notes = [] if told else [f"the log of {what.name} does not tell its number format ({what.dtype} was asked for)"]
        return facts, {"start_s": round(start_s, 1), "notes": notes}

    with ExitStack() as undo:
        undo.callback(process.stop)
        undo.callback(client.close)
        start_s = process.wait(client, "/health", START_S)
        model = served(client)[0]
        engine = OpenAiEngine(client, model.id, what.dialect, context=model.context or what.context, proof=proved)
        undo.pop_all()
    return RemoteGenerator(as_generator(task), engine, process=process)


def context_for(folder: Path, device: Device) -> int:
    """The context that llama.cpp gets on this device, or the model's own if that is shorter: engines get the same."""
    config = json.loads((folder / "config.json").read_text())
    wanted = int(device.backends.get("llama_cpp", {}).get("n_ctx", CONTEXT))
    return min(wanted, int(config.get("max_position_embeddings", wanted)))


def memory_share(device: Device) -> float:
    """The share of the device's memory that a server may take at once."""
    return round(min(0.9, device.memory_budget_mb / device.memory_mb), 2)
