"""What an engine tells of itself: what is loaded, and how long its last batch took."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from targets.api import Evidence
from targets.artifacts import versions
from targets.registry import tasks
from targets.server.engine.wire import Message
from targets.server.settings import ServedTask

ENGINES = ("torch", "transformers", "optimum-onnx", "onnxruntime", "onnxruntime-gpu", "llama-cpp-python")


@dataclass(frozen=True)
class EngineFacts:
    """What is loaded. `digest`: sha256 of the model's files; `evidence`: what was asked for and what runs.

    `evidence` is None where proving it would load a large model a second time. `versions`: of everything that an answer
    may depend on. `context`: tokens that a generator holds, where that is known. `load_s` includes the first answer,
    and not the libraries' imports.
    """

    task: str
    model: str
    digest: str
    backend: str
    optimization: str
    labels: Mapping[int, str]
    evidence: Evidence | None
    load_s: float
    family: str
    threads: int = 1
    streams: bool = False
    context: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """The sha256 of everything about the engine that determines its answers: replicas with the same are equal."""
        facts = [self.task, self.digest, self.backend, self.optimization, self.context, dict(self.versions)]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Timing:
    """Seconds a batch took in the process; `tokenize_s`, a part of `run_s`, is None where the engine does not tell."""

    run_s: float
    tokenize_s: float | None


@cache
def installed() -> Mapping[str, str]:
    """The versions of the engines here, looked up once: it reads many small files."""
    return versions(*ENGINES)


def facts_of(served: ServedTask, prepared: Message, loaded: Message, threads: int) -> EngineFacts:
    """The facts, from what the processes told."""
    return EngineFacts(
        task=served.task,
        model=prepared["files"]["name"],
        digest=prepared["files"]["digest"],
        backend=served.backend,
        optimization=served.optimization,
        labels={int(number): label for number, label in loaded["labels"].items()},
        evidence=Evidence(**loaded["evidence"]) if loaded["evidence"] else None,
        load_s=loaded["load_s"],
        family=tasks[served.task].family,
        threads=threads,
        streams=loaded["streams"],
        context=loaded["context"],
        versions=installed(),
    )
