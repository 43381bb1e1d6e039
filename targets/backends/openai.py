"""Any server that speaks the OpenAI protocol: the user's own by its url, else llama_cpp.server started here."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from targets.api import Device, ModelFiles, Requirement, Runner, Task, Unavailable, UserError
from targets.generation import as_generator
from targets.gguf.file import inspect
from targets.gguf.model import gguf_file
from targets.llama.proof import proof
from targets.llama.settings import LlamaSettings
from targets.openai.dialects import DIALECTS, PLAIN
from targets.openai.engine import OpenAiEngine
from targets.openai.protocol import SHOWN, client_of, served
from targets.optimization import Optimization
from targets.registry import backends
from targets.remote.client import HttpClient
from targets.remote.generator import RemoteGenerator
from targets.remote.process import ServerProcess, free_port

SERVER = "llama_cpp.server"
NEEDED = ("llama_cpp", "fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings")
INSTALL = "pip install 'llama-cpp-python[server]', or give --openai-url"
START_S = 300.0
FRESH = """
import llama_cpp
from llama_cpp.server.__main__ import main

generate = llama_cpp.Llama.generate

def fresh(self, *arguments, **options):
    self.reset()
    return generate(self, *arguments, **options)

llama_cpp.Llama.generate = fresh
main()
"""
"""llama_cpp.server as it is, but for a reset before each answer: it offers no other way to forget the last prompt."""
REUSED = ("prefix-match hit", "full prompt already cached")
"""What its log says when it has not forgotten."""
OWN = replace(DIALECTS["me"], at_once=None, reuses=False)
"""Its dialect as it is started here."""


class OpenAi:
    """An OpenAI-compatible server."""

    name = "openai"
    requires: tuple[Requirement, ...] = ()  # with a url nothing; without one see `load`
    tasks = frozenset({"generation", "chat"})
    formats = frozenset({"openai", "safetensors", "gguf"})
    preload: tuple[str, ...] = ()

    def build(self, model: ModelFiles, task: Task, optimization: Optimization, device: Device, cache: Path) -> Path:
        """The GGUF file for a server of our own; nothing for one that is there."""
        if model.format == "openai":
            return model.path
        check_installed()
        return gguf_file(model, optimization, cache)

    def load(self, model: ModelFiles, artifact: Path, task: Task, optimization: Optimization, device: Device) -> Runner:
        """Connect to the server, or start one and wait until it has loaded the model."""
        settings = device.backends.get("openai", {})
        timeout_s = float(settings.get("timeout_s", 60))
        if model.format == "openai":
            client = client_of(settings["url"], timeout_s)
            return RemoteGenerator(as_generator(task), connected(client, model.name), remote=client.url)
        check_installed()
        return started(model, artifact, task, optimization, device, timeout_s)


def connected(client: HttpClient, model: str) -> OpenAiEngine:
    """A model of a server that is there, in the server's dialect.

    Raises:
        UserError: the server cannot be asked, or has no such model.
    """
    with ExitStack() as undo:
        undo.callback(client.close)
        offered = served(client)
        found = next((each for each in offered if each.id == model), None)
        if found is None:
            known = ", ".join(each.id for each in offered[:SHOWN]) or "none"
            raise UserError(f"{client.url} has no model {model!r}; it has {known}: choose with --openai-model")
        engine = OpenAiEngine(client, model, DIALECTS.get(found.owner, PLAIN), context=found.context)
        undo.pop_all()
    return engine


def started(
    model: ModelFiles, file: Path, task: Task, optimization: Optimization, device: Device, timeout_s: float
) -> Runner:
    """A llama_cpp.server of our own, ready to answer."""
    info = inspect(file)
    settings = LlamaSettings.of(info, optimization, device)
    port = free_port()
    process = ServerProcess(SERVER, [sys.executable, "-c", FRESH, *arguments(file, model.name, port, settings)])
    client = HttpClient(f"http://127.0.0.1:{port}", timeout_s=timeout_s)

    def proved() -> tuple[dict[str, tuple[str, str]], dict[str, Any]]:
        facts, details = proof(info, settings, optimization, process.log, SERVER)
        said = process.log.read_text(errors="replace")
        facts["reused prompts"] = ("0", str(sum(said.count(words) for words in REUSED)))
        return facts, {**details, "start_s": round(start_s, 3)}

    with ExitStack() as undo:
        undo.callback(process.stop)
        undo.callback(client.close)
        start_s = process.wait(client, "/v1/models", START_S)
        engine = OpenAiEngine(client, model.name, OWN, context=settings.context, proof=proved)
        undo.pop_all()
    return RemoteGenerator(as_generator(task), engine, process=process)


def arguments(file: Path, name: str, port: int, settings: LlamaSettings) -> list[str]:
    """The command line. Logits of all positions are not kept, and a new request does not end the one before.

    Raises:
        ValueError: an option that the server does not have.
    """
    if unknown := settings.options.keys() - {"type_k", "type_v"}:
        raise ValueError(f"{SERVER} is not told of {', '.join(sorted(unknown))}")
    values = {
        "model": file,
        "model_alias": name,
        "host": "127.0.0.1",
        "port": port,
        "n_ctx": settings.context,
        "n_batch": min(settings.batch, settings.context),
        "n_threads": settings.threads,
        "n_threads_batch": settings.threads,
        "n_gpu_layers": settings.gpu_layers,
        "flash_attn": settings.flash_attention,
        "logits_all": False,
        "interrupt_requests": False,
        **settings.options,
    }
    return [text for key, value in values.items() for text in (f"--{key}", str(value))]


def check_installed() -> None:
    """Raises Unavailable if llama_cpp.server cannot be started."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise Unavailable(f"starting {SERVER} needs {', '.join(missing)}: {INSTALL}")


backends.register("openai")(OpenAi())
