"""TensorRT-LLM by its server, trtllm-serve."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from targets.api import Device, ModelFiles, Requirement, Runner, Task, Unavailable
from targets.openai.dialects import DIALECTS
from targets.openai.server import Launch, context_for, launch, memory_share
from targets.optimization import Optimization
from targets.registry import backends
from targets.remote.process import free_port

PROGRAM = "trtllm-serve"
INSTALL = "use NVIDIA's TensorRT-LLM container, or pip install tensorrt-llm where it has wheels for the device"


class TensorRtLlm:
    """TensorRT-LLM without reuse of KV blocks between requests."""

    name = "tensorrt-llm"
    requires: tuple[Requirement, ...] = (Requirement(PROGRAM, INSTALL, find=lambda: shutil.which(PROGRAM)),)
    tasks = frozenset({"generation", "chat"})
    formats = frozenset({"safetensors"})
    preload: tuple[str, ...] = ()

    def build(self, model: ModelFiles, task: Task, optimization: Optimization, device: Device, cache: Path) -> Path:
        """It loads the model's own directory."""
        return model.path

    def load(self, model: ModelFiles, artifact: Path, task: Task, optimization: Optimization, device: Device) -> Runner:
        """Start the server and wait until it has built its engine."""
        program = shutil.which(PROGRAM)
        if program is None:
            raise Unavailable(f"no {PROGRAM} is found: {INSTALL}")
        settings = device.backends.get("tensorrt_llm", {})
        port, context = free_port(), context_for(artifact, device)
        options = {
            "dtype": optimization.weights_dtype,
            "kv_cache_config": {"enable_block_reuse": False, "free_gpu_memory_fraction": memory_share(device)},
        }
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "options.yaml"
            file.write_text(json.dumps(options))  # JSON is YAML
            place = ("--host", "127.0.0.1", "--port", str(port))
            limits = ("--max_seq_len", str(context), "--max_batch_size", str(device.max_batch))
            command = (program, str(artifact), *place, *limits, "--extra_llm_api_options", str(file))
            what = Launch(self.name, command, port, DIALECTS["tensorrt_llm"], context, optimization.weights_dtype)
            return launch(what, task, settings)


backends.register("tensorrt-llm")(TensorRtLlm())
