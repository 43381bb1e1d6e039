"""Files of models for tests: small, whole, and by their format's definition."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

SHA = "0123456789" * 4
"""A full commit."""


def safetensors(size: int = 16) -> bytes:
    """A file of one float32 tensor of `size` bytes, by the format's definition."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def folder(path: Path, **files: str | bytes | None) -> Path:
    """A complete model folder; `files` (with __ for a dot) are added, or taken away where None."""
    content: dict[str, str | bytes | None] = {
        "config.json": "{}",
        "tokenizer.json": "{}",
        "model.safetensors": safetensors(),
        **{name.replace("__", "."): value for name, value in files.items()},
    }
    path.mkdir(parents=True, exist_ok=True)
    for name, value in content.items():
        if value is not None:
            (path / name).write_bytes(value.encode() if isinstance(value, str) else value)
    return path


def gguf(path: Path, architecture: str = "llama") -> Path:
    """The smallest file that passes for a model: a token, and a tensor of 32 weights. Needs the library gguf."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture)
    writer.add_token_list(["a"])
    writer.add_tensor("token_embd.weight", np.arange(32, dtype=np.float32).reshape(1, 32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
