"""What lies on the disk as a model: checked to be whole, safe and made for its task, with the digest that keys it."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from targets import artifacts, model_folder
from targets.api import ModelFiles, Unavailable, UserError
from targets.gguf import file as gguf_file
from targets.gguf.model import INSTALL
from targets.registry import tasks


def of_folder(task: str, name: str, path: Path, source: str, trust_pickle: bool = False) -> ModelFiles:
    """A folder in Hugging Face layout.

    Raises:
        UserError: its files are missing, damaged, pickled, or made for another task.
    """
    pickled = model_folder.check(path, trust_pickle)
    _check_architecture(task, path)
    return ModelFiles(name, path, model_folder.digest(path), source, trust_pickle=pickled)


def of_gguf(name: str, path: Path, source: str) -> ModelFiles:
    """A GGUF file, or the first part of a split one.

    Raises:
        Unavailable: the library that reads it is not installed.
        UserError: it is missing or damaged.
    """
    try:
        gguf_file.check(path)
    except ModuleNotFoundError as error:
        raise Unavailable(f"{path}: reading it needs {error.name}, which is not installed: {INSTALL}") from error
    return ModelFiles(name, path, _gguf_digest(path), source, format="gguf")


def _check_architecture(task: str, folder: Path) -> None:
    """Refuse a model made for something else: its head would be drawn at random, and its accuracy be noise."""
    allowed = tasks[task].architectures
    found = model_folder.architectures(folder)
    if found and not any(name.endswith(allowed) for name in found):
        raise UserError(f"{folder}: is a {found[0]}; {task} needs a model with the head {' or '.join(allowed)}")


def _gguf_digest(path: Path) -> str:
    """The sha256 of the file, or over those of all parts of a split one."""
    parts = gguf_file.shards(path)
    digests = [_file_digest(part, part.stat().st_size, part.stat().st_mtime_ns) for part in parts]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


@cache
def _file_digest(path: Path, _size: int, _changed: int) -> str:
    """Remembered as long as size and time of change stay: gigabytes are read once a process."""
    return artifacts.digest(path)
