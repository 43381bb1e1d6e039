"""ONNX Runtime, exported and loaded through Optimum."""

from __future__ import annotations

import gc
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.api import Device, Evidence, Floats, ModelFiles, Requirement, Runner, Task, Unavailable
from targets.artifacts import artifact, versions
from targets.encoder import EncoderRunner
from targets.encoding import as_encoder
from targets.optimization import Optimization
from targets.registry import backends

INSTALL = "pip install '.[onnxruntime]'"
EXPORT_TASKS = {
    "SequenceClassification": "text-classification",
    "TokenClassification": "token-classification",
    "QuestionAnswering": "question-answering",
}
"""Optimum's names of what Transformers calls a head."""


class OnnxRuntime:
    """The ONNX graph of a model, on the execution provider of the device."""

    name = "onnxruntime"
    requires: tuple[Requirement, ...] = (
        Requirement("onnxruntime", INSTALL),
        Requirement("optimum.onnxruntime", INSTALL),
        Requirement("onnx", INSTALL),
    )
    tasks = frozenset({"sentiment", "ner", "qa"})
    formats = frozenset({"safetensors"})
    preload: tuple[str, ...] = ("onnxruntime", "transformers.models.auto", "optimum.onnxruntime")

    def build(self, model: ModelFiles, task: Task, optimization: Optimization, device: Device, cache: Path) -> Path:
        """The exported graph, converted if the optimization says so; both cached."""
        facts = {
            "model": model.digest,
            "head": task.head,
            **versions("torch", "transformers", "optimum", "optimum-onnx", "onnx"),
        }
        plain = artifact(cache, f"onnx-{task.name}-{model.name}", facts, lambda folder: export(model, task, folder))
        if not optimization.converts_onnx:
            return plain
        facts |= {"optimization": optimization.name, "kind": device.kind}
        facts |= versions("onnxruntime", "onnxruntime-gpu")
        name = f"onnx-{task.name}-{model.name}-{optimization.name}"
        return artifact(cache, name, facts, lambda folder: convert(optimization, plain, folder, device))

    def load(self, model: ModelFiles, artifact: Path, task: Task, optimization: Optimization, device: Device) -> Runner:
        """One session on the provider that the optimization or the profile names."""
        import onnxruntime
        import transformers
        from optimum import onnxruntime as optimum

        settings = device.backends.get("onnxruntime", {})
        provider = optimization.onnx_provider(device) or settings.get("providers", ["CPUExecutionProvider"])[0]
        if provider not in onnxruntime.get_available_providers():
            raise Unavailable(
                f"onnxruntime {onnxruntime.__version__} has no {provider} (it has "
                f"{', '.join(onnxruntime.get_available_providers())}): install a build for this device"
            )
        options = session_options(device, settings.get("optimization_level", "all"))
        loaded = getattr(optimum, f"ORTModelFor{task.head}").from_pretrained(
            artifact, file_name="model.onnx", provider=provider, session_options=options, use_io_binding=False
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(artifact, use_fast=True, local_files_only=True)
        session = loaded.session
        return EncoderRunner(
            task=as_encoder(task),
            tokenizer=tokenizer,
            labels={int(index): label for index, label in loaded.config.id2label.items()},
            forward=Forward(session),
            evidence=lambda: evidence(session, artifact / "model.onnx", provider, options, optimization),
            close=release,
        )


def release() -> None:
    """Collect the session that the runner held."""
    gc.collect()


class Forward:
    """Features to the session's inputs; `run` copies its outputs to the host, so the device is idle when it returns."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.inputs = [node.name for node in session.get_inputs()]

    def __call__(self, features: Mapping[str, NDArray[np.int64]]) -> Sequence[Floats]:
        """One forward pass."""
        outputs: Sequence[Floats] = self.session.run(None, {name: features[name] for name in self.inputs})
        return outputs


def session_options(device: Device, level: str) -> Any:
    """As many threads as every other backend gets, and the profile's graph optimization level."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = device.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level.upper()}")
    return options


def export(model: ModelFiles, task: Task, folder: Path) -> None:
    """Export in FP32, with the tokenizer and configuration beside it."""
    from optimum.exporters.onnx import main_export

    main_export(
        str(model.path), folder, task=EXPORT_TASKS[task.head], do_validation=False, local_files_only=True, device="cpu"
    )


def convert(optimization: Optimization, plain: Path, folder: Path, device: Device) -> None:
    """The converted graph, with everything else of the plain export."""
    shutil.copytree(plain, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.onnx*", "manifest.json"))
    optimization.convert_onnx(plain, folder, device)


def evidence(session: Any, path: Path, provider: str, options: Any, optimization: Optimization) -> Evidence:
    """The session's first provider, where the nodes of a profiled run were placed, and the file's operators."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    operators = Counter(node.op_type for node in graph.node)
    placed = placement(session, path, options)
    proof = optimization.onnx_proof(operators)
    return Evidence(
        requested={
            "provider": provider,
            "most nodes on": provider,
            **{fact: want for fact, (want, _) in proof.items()},
        },
        actual={
            "provider": session.get_providers()[0],
            "most nodes on": placed.most_common(1)[0][0] if placed else "nothing was profiled",
            **{fact: found for fact, (_, found) in proof.items()},
        },
        details={"nodes": dict(placed), "operators": dict(operators)},
    )


def placement(session: Any, path: Path, options: Any) -> Counter[str]:
    """Executed nodes by execution provider, from ONNX Runtime's own profile of one run on another session."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        profiled = onnxruntime.SessionOptions()
        profiled.intra_op_num_threads = options.intra_op_num_threads
        profiled.graph_optimization_level = options.graph_optimization_level
        profiled.enable_profiling = True
        profiled.profile_file_prefix = str(Path(folder) / "profile")
        other = onnxruntime.InferenceSession(path, profiled, providers=session.get_providers())
        other.run(None, {node.name: np.ones((1, 8), dtype=np.int64) for node in other.get_inputs()})
        events = json.loads(Path(other.end_profiling()).read_text())
    return Counter(
        event["args"]["provider"] for event in events if event.get("cat") == "Node" and event["args"].get("provider")
    )


backends.register("onnxruntime")(OnnxRuntime())
