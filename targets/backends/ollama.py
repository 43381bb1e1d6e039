"""Ollama: a model that it has pulled, or our own GGUF lent to it for the time of a case."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from targets.api import Device, ModelFiles, Requirement, Runner, Task, Unavailable
from targets.artifacts import digest
from targets.generation import as_generator
from targets.gguf.file import inspect
from targets.gguf.model import gguf_file
from targets.llama.settings import CONTEXT, LlamaSettings
from targets.optimization import Optimization
from targets.registry import backends
from targets.remote.client import READ_S, HttpClient, Refused, TimedOut, Unreachable
from targets.remote.generator import RemoteGenerator
from targets.remote.ollama import OllamaEngine

URL = "http://127.0.0.1:11434"
LOAD_S = 600.0
"""Loading a model of many GB from a memory card takes minutes, in which Ollama is silent."""
PLAIN_TEMPLATE = "{{ .Prompt }}"
"""The template of a model for which Ollama has recognised none."""


class Ollama:
    """Ollama at --ollama-url."""

    name = "ollama"
    requires: tuple[Requirement, ...] = ()  # a server, which `build` and `load` ask for
    tasks = frozenset({"generation", "chat"})
    formats = frozenset({"ollama", "safetensors", "gguf"})
    preload: tuple[str, ...] = ()

    def build(self, model: ModelFiles, task: Task, optimization: Optimization, device: Device, cache: Path) -> Path:
        """The GGUF file that is lent to Ollama; nothing for a model of its own."""
        with closing(client_of(device)) as client:
            pulled(client)  # nothing is made for a server that is not there
        return model.path if model.format == "ollama" else gguf_file(model, optimization, cache)

    def load(self, model: ModelFiles, artifact: Path, task: Task, optimization: Optimization, device: Device) -> Runner:
        """Have Ollama load the model."""
        settings = device.backends.get("ollama", {})
        with ExitStack() as undo:
            client = client_of(device)
            undo.callback(client.close)
            if model.format == "ollama":
                engine = offered(client, model.name, device)
            else:
                engine = lent(client, artifact, model, task, optimization, device)
            undo.callback(engine.close)
            engine.preload()
            undo.pop_all()
        client.be_patient(float(settings.get("timeout_s", READ_S)))
        return RemoteGenerator(as_generator(task), engine, remote=client.url)


def client_of(device: Device) -> HttpClient:
    """A client of the device's Ollama, as patient as loading needs."""
    return HttpClient(device.backends.get("ollama", {}).get("url", URL), timeout_s=LOAD_S)


def pulled(client: HttpClient) -> set[str]:
    """The models that Ollama has. Raises Unavailable if there is no Ollama."""
    try:
        found = client.get("/api/tags")
        return {full_name(row["name"]) for row in found["models"]}
    except (Unreachable, TimedOut) as error:
        raise Unavailable(f"no Ollama at {client.url}: start it with `ollama serve`, or give --ollama-url") from error
    except (Refused, KeyError, TypeError) as error:
        raise Unavailable(f"{client.url} is no Ollama (it has no list at /api/tags): give --ollama-url") from error


def full_name(name: str) -> str:
    """The name with its tag."""
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


def show(client: HttpClient, name: str) -> dict[str, Any]:
    """What Ollama tells of a model."""
    found: dict[str, Any] = client.post("/api/show", {"model": name})
    return found


def own_context(shown: dict[str, Any]) -> int:
    """The context that the model was trained for; the default where it is not told."""
    found = [value for key, value in (shown.get("model_info") or {}).items() if key.endswith(".context_length")]
    return int(found[0]) if found else CONTEXT


def profile_context(device: Device) -> int:
    """The context that every llama.cpp on this device gets."""
    return int(device.backends.get("llama_cpp", {}).get("n_ctx", CONTEXT))


def offered(client: HttpClient, name: str, device: Device) -> OllamaEngine:
    """A model that Ollama has. Raises Unavailable if it has not."""
    if full_name(name) not in pulled(client):
        raise Unavailable(f"Ollama at {client.url} has no model {name!r}: get it with `ollama pull {name}`")
    shown = show(client, name)
    wanted = device.backends.get("ollama", {}).get("num_ctx", profile_context(device))
    return engine_of(client, name, min(own_context(shown), int(wanted)), device, shown)


def lent(
    client: HttpClient, file: Path, model: ModelFiles, task: Task, optimization: Optimization, device: Device
) -> OllamaEngine:
    """Our GGUF as a model of Ollama's, deleted on close.

    Raises:
        Unavailable: Ollama does not recognise its chat template.
    """
    info = inspect(file)
    settings = LlamaSettings.of(info, optimization, device)
    pulled(client)
    name = re.sub(r"[^a-z0-9._-]", "-", f"suite-{model.name}-{optimization.name}-{os.getpid()}".lower()) + ":latest"
    blob = f"sha256:{digest(file)}"
    try:
        client.call("HEAD", f"/api/blobs/{blob}")
    except Refused:
        with file.open("rb") as content:
            client.call("POST", f"/api/blobs/{blob}", content)
    client.post("/api/create", {"model": name, "files": {"model.gguf": blob}, "stream": False})

    def remove() -> None:
        client.call("DELETE", "/api/delete", {"model": name})

    try:
        shown = show(client, name)
        if as_generator(task).chat and shown.get("template", PLAIN_TEMPLATE).strip() == PLAIN_TEMPLATE:
            raise Unavailable(f"Ollama does not recognise the chat template of {file.name}, so chats would have none")
    except BaseException:
        remove()
        raise
    level = {"file type": (optimization.gguf_type, quantization(shown))} if optimization.gguf_type else {}
    return engine_of(client, name, settings.context, device, shown, level, remove)


def engine_of(
    client: HttpClient,
    name: str,
    context: int,
    device: Device,
    shown: dict[str, Any],
    facts: dict[str, tuple[str, str]] | None = None,
    done: Callable[[], None] = lambda: None,
) -> OllamaEngine:
    """The engine of a model that Ollama has; on a CPU it gets as many threads as every other backend."""

    def proved() -> tuple[dict[str, tuple[str, str]], dict[str, Any]]:
        place = placement(client, name)
        known = {**(facts or {})}
        if device.torch_device != "cpu":
            known["device"] = ("gpu", "gpu" if place.get("size_vram") else "cpu")
        return known, {"url": client.url, "model": name, **(shown.get("details") or {}), **place}

    threads = device.threads if device.torch_device == "cpu" else None
    return OllamaEngine(client, name, context=context, threads=threads, proof=proved, done=done)


def placement(client: HttpClient, name: str) -> dict[str, Any]:
    """How many bytes of a loaded model there are, and how many on the GPU, from /api/ps; empty if it is not loaded."""
    rows = client.get("/api/ps")["models"]
    row: dict[str, Any] = next((row for row in rows if full_name(row["name"]) == full_name(name)), {})
    return {key: row[key] for key in ("size", "size_vram") if key in row}


def quantization(shown: dict[str, Any]) -> str:
    """The level that Ollama reads in a file."""
    return str((shown.get("details") or {}).get("quantization_level", "unknown"))


backends.register("ollama")(Ollama())
