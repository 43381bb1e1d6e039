"""A model's folder in Hugging Face layout: whether it is complete, whole and safe to load, and its digest."""

from __future__ import annotations

import hashlib
import json
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

from targets import artifacts
from targets.api import UserError
from targets.located import parse_json, read_text

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
"""Files of which each holds a whole vocabulary."""
TOKENIZER_EXTRAS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
)
PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
LONGEST_HEADER = 100_000_000
"""Bytes: the format's own bound on its header (docs of safetensors, "Format")."""
LFS_POINTER = b"version https://git-lfs"


def check(folder: Path, trust_pickle: bool = False) -> bool:
    """Refuse a folder that cannot be loaded as it is; returns whether its weights are pickled.

    Raises:
        UserError: no config, tokenizer or weights; truncated weights; pickled weights that are not trusted.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model folder; one with {CONFIG}, a tokenizer and {WEIGHTS} is needed")
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder}: no {CONFIG}; a model folder in Hugging Face layout (save_pretrained) is needed")
    if not isinstance(parse_json(folder / CONFIG, read_text(folder / CONFIG)), dict):
        raise UserError(f"{folder / CONFIG}: should be a JSON object")
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise UserError(f"{folder}: no tokenizer ({', '.join(TOKENIZERS[:3])}); save it into the folder as well")
    shards = _shards(folder)
    for shard in shards:
        check_safetensors(shard)
    return not shards and _is_pickled(folder, trust_pickle)


def check_safetensors(path: Path) -> None:
    """Refuse a .safetensors file whose size differs from what its header accounts for.

    The format: 8 bytes little-endian length of the header, the header as JSON, the tensors' bytes one after the other.

    Raises:
        UserError: truncated, with bytes too many, or no safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start + file.read(len(LFS_POINTER) - 8) == LFS_POINTER:
            raise UserError(f"{path}: a pointer of Git LFS instead of weights; run `git lfs pull` in its repository")
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if 2 <= length <= LONGEST_HEADER and size < 8 + length:
            raise UserError(
                f"truncated weights: {path} has {size} bytes, its header alone needs {8 + length}; copy it again"
            )
        file.seek(8)
        needed = 8 + length + _data_bytes(path, file.read(length) if length <= LONGEST_HEADER else b"")
    if size != needed:
        kind = "truncated" if size < needed else "damaged"
        raise UserError(f"{kind} weights: {path} has {size} bytes, its header needs {needed}; copy it again")


def architectures(folder: Path) -> list[str]:
    """The classes that the config names, in order; empty if it names none."""
    found = json.loads(read_text(folder / CONFIG)).get("architectures")
    return [str(name) for name in found] if isinstance(found, list) else []


def digest(folder: Path) -> str:
    """The sha256 over names and contents of config, tokenizer and weights; other files do not change it."""
    files = {path.name: _file_digest(path, _stamp(path)) for path in _files(folder)}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of its tokenizer, by name."""
    return [path for name in sorted({*TOKENIZERS, *TOKENIZER_EXTRAS}) if (path := folder / name).is_file()]


def _files(folder: Path) -> list[Path]:
    weights = sorted(folder.glob("*.safetensors")) or [path for glob in PICKLES for path in sorted(folder.glob(glob))]
    index = [path for path in (folder / INDEX, folder / "pytorch_model.bin.index.json") if path.is_file()]
    return [folder / CONFIG, *tokenizer_files(folder), *index, *weights]


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=1024)
def _file_digest(path: Path, _stamp: tuple[int, int]) -> str:
    """Remembered as long as size and time of change stay: weights of a gigabyte are read once a process."""
    return artifacts.digest(path)


def _shards(folder: Path) -> list[Path]:
    """The safetensors files that would be loaded; empty if there are none."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        return []
    index = parse_json(folder / INDEX, read_text(folder / INDEX))
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{folder / INDEX}: no weight_map from tensor names to files; save the model again")
    shards = [folder / name for name in dict.fromkeys(names.values())]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise UserError(f"{folder}: missing weights: {', '.join(missing)}, which {INDEX} names; copy all shards")
    return shards


def _is_pickled(folder: Path, trusted: bool) -> bool:
    pickles = sorted(path.name for glob in PICKLES for path in folder.glob(glob))
    if not pickles:
        others = ", ".join(sorted(path.name for path in folder.glob("*.safetensors"))) or "none"
        wanted = f"{WEIGHTS} is needed, found {others}"
        raise UserError(f"{folder}: no weights: {wanted} (pickled ones are read with --trust-pickle only)")
    if not trusted:
        raise UserError(
            f"{folder}: pickle format refused: {pickles[0]} can run any code when it is loaded; convert it to"
            f" {WEIGHTS}, or pass --trust-pickle if you trust its author"
        )
    return True


def _data_bytes(path: Path, header: bytes) -> int:
    """The bytes of all tensors, by their header."""
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        last: Any = max(ends)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise UserError(
            f"{path}: not a safetensors file with tensors; save the model again with safetensors"
        ) from error
    if not isinstance(last, int):
        raise UserError(f"{path}: not a safetensors file: data_offsets should be whole numbers")
    return last
