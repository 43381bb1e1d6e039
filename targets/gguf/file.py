"""GGUF files: what is in one, and whether it is whole, from its header alone.

The layout (docs/gguf.md of ggml): magic, version, counts; metadata as key, type, value; name, shape, type and offset of
each tensor; then the data, aligned. A model may be split into files named `...-00001-of-00003.gguf`.
"""

from __future__ import annotations

import difflib
import mmap
import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from targets.api import UserError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
"""struct's codes of the value types; 8 is a string, 9 an array."""
STRING, ARRAY = 8, 9
SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Tensor:
    """One tensor: its shape as in the file (row length first), its ggml type, and where its data begin."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True)
class Header:
    """What stands before the data. Of arrays `metadata` has the number of elements only."""

    metadata: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    data_start: int


@dataclass(frozen=True)
class GgufInfo:
    """What a model file says of itself.

    `parameters` and `bits_per_weight` are over all tensors (of all its shards); `tensor_types` counts tensors by type;
    `file_type` is the level that it was quantized to ("Q4_K_M"), "unknown" where it does not say. `fallbacks` counts
    matrices that are stored in another type than their level's, because a K-quant needs rows of a multiple of 256.
    """

    path: Path
    architecture: str
    name: str
    context_length: int
    layers: int
    vocabulary: int
    parameters: int
    bits_per_weight: float
    size_mb: float
    tensor_types: Mapping[str, int]
    file_type: str
    tokenizer: str
    chat_template: bool
    fallbacks: Mapping[str, int] = field(default_factory=dict)

    @property
    def stored_type(self) -> str:
        """The file type, or that of most matrices where none of them could be stored at the level that it names."""
        matrices = {kind: count for kind, count in self.tensor_types.items() if kind != "F32"} or self.tensor_types
        if "_K" in self.file_type and not any(kind.endswith("_K") for kind in matrices):
            return max(matrices, key=lambda kind: matrices[kind])
        return self.file_type


def check(path: Path) -> GgufInfo:
    """Refuse a file that llama.cpp could not load as a model, and say what it is otherwise.

    Raises:
        UserError: no such file, a folder, not a GGUF, truncated, of an unsupported version or an unknown architecture,
            without tensors or without a tokenizer.
    """
    info = inspect(path)
    known = _architectures()
    if info.architecture not in known:
        near = difflib.get_close_matches(info.architecture, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(
            f"{path}: the architecture {info.architecture!r} is none of the {len(known)} that llama.cpp is known to run"
            f" ({hint}a newer gguf and llama-cpp-python may know it); give another model"
        )
    if not info.vocabulary:
        raise UserError(f"{path}: holds no tokenizer (tokenizer.ggml.tokens); convert the whole model folder to GGUF")
    return info


def inspect(path: Path) -> GgufInfo:
    """What the file says of itself.

    Raises:
        UserError: it cannot be read as a GGUF file that is whole.
    """
    metadata, sized = contents(path)
    tensors = [tensor for tensor, _ in sized]
    if not tensors:
        raise UserError(f"{path}: holds no tensors (a vocabulary alone); give the file with the weights")
    parameters = sum(prod(tensor.shape) for tensor in tensors)
    arch = str(metadata.get("general.architecture", ""))
    return GgufInfo(
        path=path,
        architecture=arch,
        name=str(metadata.get("general.name", path.stem)),
        context_length=_count(metadata, f"{arch}.context_length"),
        layers=_count(metadata, f"{arch}.block_count"),
        vocabulary=_count(metadata, "tokenizer.ggml.tokens"),
        parameters=parameters,
        bits_per_weight=8 * sum(size for _, size in sized) / parameters,
        size_mb=sum(file.stat().st_size for file in shards(path)) / 2**20,
        tensor_types=dict(Counter(_type_name(tensor.type) for tensor in tensors).most_common()),
        file_type=_file_type(metadata.get("general.file_type")),
        tokenizer=str(metadata.get("tokenizer.ggml.model", "none")),
        chat_template="tokenizer.chat_template" in metadata,
        fallbacks=_fallbacks(metadata, tensors),
    )


def contents(path: Path) -> tuple[Mapping[str, Any], list[tuple[Tensor, int]]]:
    """The metadata of a file, and its tensors (of all its shards) with the bytes of each.

    Raises:
        UserError: it cannot be read as a GGUF file that is whole.
    """
    headers = [_whole(file) for file in shards(path)]
    return headers[0].metadata, [(tensor, _bytes(tensor)) for header in headers for tensor in header.tensors]


def shards(path: Path) -> list[Path]:
    """The files of a model: itself, or all parts of a split one, of which `path` should be the first.

    Raises:
        UserError: not the first part, or a part is missing.
    """
    match = SHARD.search(path.name)
    if not match:
        return [path]
    start = path.name[: match.start()]
    parts = [path.with_name(f"{start}-{i:05}-of-{match[2]}.gguf") for i in range(1, int(match[2]) + 1)]
    if int(match[1]) != 1:
        raise UserError(f"{path}: part {int(match[1])} of a split model; give its first part, {parts[0].name}")
    missing = [part.name for part in parts[1:] if not part.is_file()]
    if missing and path.is_file():
        raise UserError(f"{path}: {len(missing)} of its {len(parts)} parts are missing, first {missing[0]}; copy them")
    return parts


def _whole(path: Path) -> Header:
    """The header of a file, of which every byte that it speaks of is there."""
    if path.is_dir():
        found = ", ".join(sorted(file.name for file in path.glob("*.gguf"))[:3])
        raise UserError(f"{path}: a folder, should be a .gguf file" + (f", for example {found}" if found else ""))
    if not path.is_file():
        raise UserError(f"{path}: no such file; a model in GGUF format is needed")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
        if start == LFS_POINTER:
            raise UserError(f"{path}: a pointer of Git LFS instead of weights; run `git lfs pull` in its repository")
        if start[:4] != MAGIC:
            raise UserError(f"{path}: not a GGUF file: begins with {start[:8]!r}, should begin with {MAGIC!r}")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = _Reader(path, data).header()
    needed = max((header.data_start + tensor.offset + _bytes(tensor) for tensor in header.tensors), default=0)
    if size < needed:
        raise UserError(f"truncated GGUF: {path} has {size} bytes, its header needs {needed}; copy it again")
    return header


class _Reader:
    """A walk through the bytes of a header."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at = path, data, 4

    def header(self) -> Header:
        """Everything before the data."""
        try:
            return self._header()
        except (struct.error, IndexError, OverflowError) as error:  # a damaged length can lead beyond any address
            raise UserError(
                f"truncated GGUF: {self.path} has {len(self.data)} bytes and ends within its header, after which the"
                " weights should follow; copy it again"
            ) from error

    def _header(self) -> Header:
        version = self.number("<I")
        if version not in VERSIONS:
            other = " (big-endian)" if version in (v << 24 for v in VERSIONS) else ""
            raise UserError(
                f"{self.path}: GGUF version {version}{other}, should be 2 or 3; convert the model again with a current"
                " convert_hf_to_gguf.py"
            )
        tensors, pairs = self.number("<Q"), self.number("<Q")
        metadata = {}
        for _ in range(pairs):
            key = self.string()
            metadata[key] = self.value(self.number("<I"))
        found = tuple(self.tensor() for _ in range(tensors))
        align = _count(metadata, "general.alignment") or 32
        return Header(metadata, found, -(-self.at // align) * align)

    def number(self, code: str) -> Any:
        """One value of a fixed size."""
        (value,) = struct.unpack_from(code, self.data, self.at)
        self.at += struct.calcsize(code)
        return value

    def string(self) -> str:
        """A string with its length before it; damaged bytes do not stop the walk."""
        length = self.number("<Q")
        if length > len(self.data) - self.at:
            raise IndexError(length)
        self.at += length
        return bytes(self.data[self.at - length : self.at]).decode(errors="replace")

    def value(self, kind: int) -> Any:
        """A metadata value; of an array, how many elements it has."""
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self.skip(self.number("<I"), self.number("<Q"))
        if kind not in SCALARS:
            raise UserError(f"{self.path}: damaged GGUF: unknown value type {kind} at byte {self.at}; copy it again")
        return self.number(SCALARS[kind])

    def skip(self, kind: int, count: int) -> int:
        """Step over an array; returns its length."""
        if kind in SCALARS:
            self.at += count * struct.calcsize(SCALARS[kind])
            return count
        for _ in range(count):
            if kind == STRING:
                (length,) = struct.unpack_from("<Q", self.data, self.at)
                self.at += 8 + length
            else:
                self.value(kind)
        return count

    def tensor(self) -> Tensor:
        """One entry of the table of tensors."""
        name = self.string()
        shape = tuple(self.number("<Q") for _ in range(self.number("<I")))
        kind, offset = self.number("<I"), self.number("<Q")
        if kind not in _sizes():
            raise UserError(f"{self.path}: tensor {name} has the type {kind}, which this gguf does not know; update it")
        return Tensor(name, shape, kind, offset)


def _count(metadata: Mapping[str, Any], key: str) -> int:
    value = metadata.get(key)
    return value if isinstance(value, int) and value > 0 else 0


@cache
def _sizes() -> Mapping[int, tuple[int, int]]:
    """(weights, bytes) of a block, by ggml type."""
    from gguf import constants

    return {int(kind): size for kind, size in constants.GGML_QUANT_SIZES.items()}


def _architectures() -> list[str]:
    from gguf import constants

    return sorted(set(constants.MODEL_ARCH_NAMES.values()))


def _bytes(tensor: Tensor) -> int:
    weights, size = _sizes()[tensor.type]
    return prod(tensor.shape) // weights * size


def _type_name(kind: int) -> str:
    from gguf import constants

    return str(constants.GGMLQuantizationType(kind).name)


def _file_type(number: int | None) -> str:
    from gguf import constants

    known = {int(member): member.name for member in constants.LlamaFileType}
    name = str(known.get(-1 if number is None else number, "unknown"))
    return name.removeprefix("MOSTLY_").removeprefix("ALL_")


def _fallbacks(metadata: Mapping[str, Any], tensors: list[Tensor]) -> dict[str, int]:
    if "_K" not in _file_type(metadata.get("general.file_type")):
        return {}
    kinds = (_type_name(tensor.type) for tensor in tensors if len(tensor.shape) > 1 and tensor.shape[0] % 256)
    return dict(Counter(kinds))
