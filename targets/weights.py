"""The weights of a model folder as arrays on disk, read without a framework."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.api import UserError

DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "F64": np.float64}
"""numpy's types of what safetensors stores; bfloat16, which numpy lacks, as its bits."""


def tensors(folder: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and weights of every tensor, mapped from disk; files as `model_folder.check` left them.

    Raises:
        UserError: no safetensors file (pickled weights are not read here), or a type that is no float.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder}: no .safetensors file to make a GGUF of; save the model again with safetensors")
    for path in files:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if entry["dtype"] not in DTYPES:
                raise UserError(f"{path}: {name} is {entry['dtype']}, should be one of {', '.join(DTYPES)}")
            dtype, shape = np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"])
            yield name, np.memmap(path, dtype, "r", 8 + length + entry["data_offsets"][0], shape)


def float32(tensor: NDArray[Any]) -> NDArray[np.float32]:
    """The weights in single precision, in memory; uint16 are the bits of bfloat16."""
    if tensor.dtype == np.uint16:  # bfloat16 is the upper half of a float32
        return (tensor.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(tensor, dtype=np.float32)
