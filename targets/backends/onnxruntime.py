"""ONNX Runtime, exported and loaded through Optimum."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.api import Device, Evidence, Floats, ModelFiles, Requirement, Runner, Task, Unavailable
from targets.artifacts import artifact, versions
from targets.encoder import EncoderRunner
from targets.encoding import EncoderTask, as_encoder
from targets.generation import GeneratorTask
from targets.onnx.evidence import evidence
from targets.onnx.export import convert, export
from targets.optimization import Optimization
from targets.registry import backends
from targets.transformers_generator import MAX_ROWS, TransformersGenerator

INSTALL = "pip install '.[onnxruntime]'"
CPU = "CPUExecutionProvider"


class OnnxRuntime:
    """The ONNX graph of a model, on the execution provider of the device."""

    name = "onnxruntime"
    requires: tuple[Requirement, ...] = (
        Requirement("onnxruntime", INSTALL),
        Requirement("optimum.onnxruntime", INSTALL),
        Requirement("onnx", INSTALL),
    )
    tasks = frozenset({"sentiment", "ner", "qa", "summarization", "translation", "generation", "chat"})
    formats = frozenset({"safetensors"})
    preload: tuple[str, ...] = (
        "onnxruntime",
        "transformers.models.auto",
        "optimum.onnxruntime.modeling",  # the classes behind optimum's lazy names: half a second of imports a load
        "optimum.onnxruntime.modeling_decoder",
        "optimum.onnxruntime.modeling_seq2seq",
        "transformers.generation.utils",
        "transformers.models.distilbert",
        "transformers.models.t5",
    )

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
        """Sessions on the provider that the optimization or the profile names."""
        import onnxruntime
        import transformers
        from optimum import onnxruntime as optimum

        settings = device.backends.get("onnxruntime", {})
        provider = optimization.onnx_provider(device) or settings.get("providers", [CPU])[0]
        if provider not in onnxruntime.get_available_providers():
            raise Unavailable(
                f"onnxruntime {onnxruntime.__version__} has no {provider} (it has "
                f"{', '.join(onnxruntime.get_available_providers())}): install a build for this device"
            )
        options = session_options(device, settings, several=task.family == "seq2seq")
        tokenizer = transformers.AutoTokenizer.from_pretrained(artifact, use_fast=True, local_files_only=True)
        generates = isinstance(task, GeneratorTask)
        loaded = getattr(optimum, f"ORTModelFor{task.head}").from_pretrained(
            artifact,
            provider=provider,
            session_options=options,
            use_io_binding=generates and provider != CPU,  # the KV cache stays on the GPU between steps
            **({"use_merged": False} if task.family == "seq2seq" else {"file_name": "model.onnx"}),
        )
        proof = partial(evidence, sessions(loaded), provider, options, optimization)
        if not isinstance(task, GeneratorTask):
            return encoder(as_encoder(task), tokenizer, loaded, proof)
        runner = TransformersGenerator(
            task=task,
            model=loaded,
            tokenizer=tokenizer,
            options=optimization.generate_options(loaded),
            evidence=lambda: proof(runner.facts()),
            close=release,
            rows=optimization.rows or MAX_ROWS,
        )
        return runner


def encoder(task: EncoderTask, tokenizer: Any, loaded: Any, proof: Callable[[Mapping[str, Any]], Evidence]) -> Runner:
    """A runner of one forward pass."""
    return EncoderRunner(
        task=task,
        tokenizer=tokenizer,
        labels={int(index): label for index, label in loaded.config.id2label.items()},
        forward=Forward(loaded.session),
        evidence=lambda: proof({}),
        close=release,
    )


def sessions(loaded: Any) -> list[Any]:
    """The sessions of a model: one, or an encoder's and its decoders'."""
    parts = (loaded.encoder, loaded.decoder, loaded.decoder_with_past) if hasattr(loaded, "decoder") else (loaded,)
    return [part.session for part in parts if part is not None]


def release() -> None:
    """Collect the sessions that the runner held."""
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


def session_options(device: Device, settings: Mapping[str, Any], several: bool) -> Any:
    """As many threads as every other backend gets, and the profile's graph optimization level.

    `spinning`: whether threads that wait do so in a loop, as they do by default, which is good for one engine and bad
    for its neighbours. `several`: whether a model has several sessions, which work one after another: each has threads
    of its own, and those of one that is done would wait in a loop, for 50 ms on an Intel processor, on the cores that
    the next one needs. On 2 cores an answer of the embedded T5 took 1.9 times as long.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = device.threads
    options.inter_op_num_threads = 1
    level = settings.get("optimization_level", "all").upper()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    if not settings.get("spinning", True):
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if several:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


backends.register("onnxruntime")(OnnxRuntime())
