"""Which target serves a task: what was asked for, else the fastest that is installed and has what was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from targets.api import Task, UserError
from targets.availability import missing
from targets.registry import backends, import_plugins, optimizations, tasks

EMBEDDED = "embedded"
"""The name of the models that come with the project."""
FASTEST = {
    "encoder": ("onnxruntime", "huggingface"),
    "seq2seq": ("onnxruntime", "huggingface"),
    "causal": ("llama-cpp-python", "onnxruntime", "huggingface"),
}
"""Backends in the order of their speed with the embedded models, one request at a time on one CPU thread: ONNX Runtime
answers in 0.4 ms (sentiment) and 5 to 15 ms (T5, 8 to 40 tokens), PyTorch in 1.1 and 28 to 37 ms; llama.cpp writes 24
tokens in 7 ms (Q8_0), ONNX Runtime in 31, PyTorch in 81."""
USUAL = ("as-is", "q8_0", "fp32", "f16")
"""Optimizations that are taken where none is asked for, the first that exists: of a GGUF file what it is, of a GGUF
made here eight bits (a fiftieth of the score at most, and half the memory traffic), and nothing changed of all else."""

Choice = tuple[str, str, str, str]
"""Task, backend, optimization, model."""


def choose(given: Mapping[str, Any]) -> dict[str, Choice]:
    """The target of every task to be served.

    Args:
        given: `tasks` (names; all if absent), `backend` and `optimization` for all of them, TASK_model, TASK_backend
            and TASK_optimization for one, `targets` (modules that register more).

    Raises:
        UserError: unknown names, a model that is not there, or a combination that does not exist.
    """
    import_plugins(given.get("targets", ()))
    wanted = given.get("tasks") or tuple(tasks)
    for name in [*wanted, *(task for task in tasks if any(f"{task}_{kind}" in given for kind in KINDS))]:
        tasks[name]  # raises with the known names
        if name not in wanted:
            raise UserError(f"--{name}-... is given, but --tasks leaves {name} out: name it there, or drop the option")
    return {name: _target(tasks[name], given) for name in wanted}


KINDS = ("model", "backend", "optimization")


def _target(task: Task, given: Mapping[str, Any]) -> Choice:
    model = str(given.get(f"{task.name}_model", EMBEDDED))
    backend = given.get(f"{task.name}_backend", given.get("backend"))
    optimization = given.get(f"{task.name}_optimization", given.get("optimization"))
    found = _format(task.name, model)
    if optimization is not None:
        optimizations[optimization]  # raises with the known names
    for name in _backends(task, backend):
        for technique in (optimization,) if optimization else (*USUAL, *optimizations):
            if technique in optimizations and exists(task, name, technique, found):
                return task.name, name, technique, model
    raise UserError(_refusal(task, backend, optimization, found))


def exists(task: Task, backend: str, optimization: str, model_format: str) -> bool:
    """Whether an engine runs a task with a technique on a model of a format, on some kind of device."""
    engine, technique = backends[backend], optimizations[optimization]
    return (
        task.name in engine.tasks
        and model_format in engine.formats
        and backend in technique.backends
        and any(technique.applies(task, model_format, kind) for kind in technique.kinds or ("any",))
    )


def _backends(task: Task, asked: str | None) -> Iterator[str]:
    """What was asked for; else what is installed, the fastest first, and at last the fastest even if it is not."""
    if asked is not None:
        backends[asked]  # raises with the known names
        yield asked
        return
    listed = [name for name in (*FASTEST[task.family], *backends) if task.name in backends[name].tasks]
    yield from (name for name in dict.fromkeys(listed) if missing(name) is None)
    yield from listed[:1]  # its absence is then told with the way to get it


def _format(task: str, model: str) -> str:
    if model == EMBEDDED:
        return "safetensors"
    path = Path(model).expanduser()
    if path.is_dir():
        return "safetensors"
    if path.suffix == ".gguf" and path.is_file():
        return "gguf"
    raise UserError(
        f"--{task}-model {model}: no such folder or .gguf file; give one, or {EMBEDDED} for the model that comes along"
    )


def _refusal(task: Task, backend: str | None, optimization: str | None, model_format: str) -> str:
    """Why nothing was found, and what there is."""
    asked = " with ".join(name for name in (backend, optimization) if name)
    who = f"{asked} does not serve" if asked else "nothing here serves"
    every = [
        f"{name} with {', '.join(found)}"
        for name, engine in backends.items()
        if task.name in engine.tasks
        and (found := [technique for technique in optimizations if exists(task, name, technique, model_format)])
    ]
    return (
        f"{who} {task.name} from a model in the format {model_format}; these do: {'; '.join(every) or 'none'}."
        f" Set --{task.name}-backend and --{task.name}-optimization, or leave {task.name} out of --tasks"
    )
