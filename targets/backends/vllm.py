"""vLLM's server, started by an interpreter of its own where it is not installed beside the suite."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from targets.api import Device, ModelFiles, Requirement, Runner, Task, Unavailable
from targets.openai.dialects import DIALECTS
from targets.openai.server import Launch, context_for, launch, memory_share
from targets.optimization import Optimization
from targets.registry import backends
from targets.remote.process import free_port

PYTHON = "VLLM_PYTHON"
"""The environment variable that names an interpreter with vLLM; `--vllm-python` does the same."""
INSTALL = f"pip install vllm into an environment of its own, and name its interpreter by --vllm-python or {PYTHON}"


def interpreter() -> str | None:
    """The Python that has vLLM: the one of VLLM_PYTHON, else this one if it has it."""
    named = os.environ.get(PYTHON)
    if named:
        return shutil.which(named)
    return sys.executable if importlib.util.find_spec("vllm") else None


class Vllm:
    """vLLM without a prefix cache, and with its own defaults of sampling instead of the model's."""

    name = "vllm"
    requires: tuple[Requirement, ...] = (Requirement("vllm", INSTALL, find=interpreter),)
    tasks = frozenset({"generation", "chat"})
    formats = frozenset({"safetensors"})
    preload: tuple[str, ...] = ()

    def build(self, model: ModelFiles, task: Task, optimization: Optimization, device: Device, cache: Path) -> Path:
        """It loads the model's own directory."""
        return model.path

    def load(self, model: ModelFiles, artifact: Path, task: Task, optimization: Optimization, device: Device) -> Runner:
        """Start the server and wait until it has loaded, compiled and warmed up."""
        settings = device.backends.get("vllm", {})
        asked = settings.get("python")
        python = shutil.which(asked) if asked else interpreter()
        if python is None:
            raise Unavailable(f"vLLM is not installed{f' for {asked}' if asked else ''}: {INSTALL}")
        port, context = free_port(), context_for(artifact, device)
        values = {
            "model": artifact,
            "served-model-name": model.name,
            "host": "127.0.0.1",
            "port": port,
            "dtype": optimization.weights_dtype,
            "max-model-len": context,
            "max-num-seqs": device.max_batch,
            "gpu-memory-utilization": settings.get("gpu_memory_utilization", memory_share(device)),
            "generation-config": "vllm",
        }
        options = [text for key, value in values.items() for text in (f"--{key}", str(value))]
        command = (python, "-m", "vllm.entrypoints.openai.api_server", *options, "--no-enable-prefix-caching")
        what = Launch(self.name, command, port, DIALECTS["vllm"], context, optimization.weights_dtype)
        return launch(what, task, settings)


backends.register("vllm")(Vllm())
