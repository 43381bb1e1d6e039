from __future__ import annotations

import contextlib
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.meta.tiny_llama import EMBEDDED, embedded, random_llama
from targets import weights
from targets.api import ModelFiles, UserError
from targets.gguf import file as gguf_file
from targets.gguf import model as gguf_model
from targets.registry import optimizations

gguf = pytest.importorskip("gguf", reason="pip install '.[llama]'")

LEVELS = ("f32", "f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0", "q3_k_m", "q2_k")


def write(path: Path, architecture: str = "llama", tokens: int = 3, tensors: int = 2) -> Path:
    """A small GGUF file that says of itself what it is told to."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("small")
    writer.add_context_length(64)
    writer.add_block_count(1)
    if tokens:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list([f"token{number}" for number in range(tokens)])
    for number in range(tensors):
        writer.add_tensor(f"blk.{number}.ffn_up.weight", np.zeros((4, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("small") / "small.gguf").read_bytes()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf")


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Sizes, names and kinds of a GGUF are those that the gguf library wrote."""
    info = gguf_file.check(write(tmp_path / "a.gguf"))
    assert (info.architecture, info.name, info.context_length, info.layers) == ("llama", "small", 64, 1)
    assert (info.parameters, info.bits_per_weight, info.tensor_types) == (256, 16.0, {"F16": 2})
    assert (info.vocabulary, info.tokenizer, info.chat_template, info.file_type) == (3, "gpt2", False, "unknown")


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "not a GGUF file: begins with b''"),
        (b"PK\x03\x04 and so on", r"not a GGUF file: begins with b'PK\\x03\\x04 and', should begin with b'GGUF'"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"GGUF", "truncated GGUF: .* has 4 bytes and ends within its header"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "GGUF version 1, should be 2 or 3"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), r"GGUF version 50331648 \(big-endian\), should be 2 or 3"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "holds no tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60), "ends within its header"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, wanted: str) -> None:
    """What is no GGUF, or none that llama.cpp reads, is refused in one sentence that says what it is."""
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(UserError, match=wanted):
        gguf_file.check(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    """A path that leads nowhere, or to a folder, is told as such, and the file in the folder is named."""
    with pytest.raises(UserError, match="no such file"):
        gguf_file.check(tmp_path / "none.gguf")
    write(tmp_path / "within.gguf")
    with pytest.raises(UserError, match=r"a folder, should be a \.gguf file, for example within\.gguf"):
        gguf_file.check(tmp_path)


def test_an_unknown_architecture_is_refused_with_the_nearest(tmp_path: Path) -> None:
    """An architecture that llama.cpp does not know is refused, and the nearest known one named."""
    with pytest.raises(UserError, match=r"'lama' is none of the \d+ .*did you mean 'llama'\?"):
        gguf_file.check(write(tmp_path / "a.gguf", architecture="lama"))


def test_a_file_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    """Weights without a vocabulary are no model."""
    with pytest.raises(UserError, match="holds no tokenizer"):
        gguf_file.check(write(tmp_path / "a.gguf", tokens=0))


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_every_cut_is_told(small: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A file cut at any byte is refused as truncated; where the header is whole, with the bytes there and needed."""
    path = tmp_path_factory.getbasetemp() / "cut.gguf"
    size = data.draw(st.integers(8, len(small) - 1), "bytes")
    path.write_bytes(small[:size])
    with pytest.raises(UserError, match=f"truncated GGUF: .* has {size} bytes"):
        gguf_file.check(path)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_damage_is_refused_or_read(small: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever byte of a header is damaged, reading it ends with a result or a sentence, never a stack."""
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    place = data.draw(st.integers(4, 420), "place")
    value = data.draw(st.integers(0, 255), "value")
    path.write_bytes(small[:place] + bytes([value]) + small[place + 1 :])
    with contextlib.suppress(UserError):
        assert gguf_file.check(path).path == path


def test_parts_of_a_split_model(tmp_path: Path) -> None:
    """A split model is all its parts together; a part that is missing, or not the first, is told."""
    first, second = (write(tmp_path / f"m-0000{i}-of-00002.gguf") for i in (1, 2))
    assert gguf_file.check(first).parameters == 2 * 256
    with pytest.raises(UserError, match=r"part 2 of a split model; give its first part, m-00001-of-00002\.gguf"):
        gguf_file.check(second)
    second.unlink()
    with pytest.raises(UserError, match=r"1 of its 2 parts are missing, first m-00002-of-00002\.gguf"):
        gguf_file.check(first)


def test_levels_are_as_asked(cache: Path) -> None:
    """Every level has the file type asked for, no fallback, and fewer bits a weight than the one before."""
    pytest.importorskip("llama_cpp", reason="pip install '.[llama]'")
    infos = [gguf_file.check(gguf_model.gguf_file(embedded(), optimizations[level], cache)) for level in LEVELS]
    assert [info.file_type.lower() for info in infos] == list(LEVELS)
    assert [info.stored_type.lower() for info in infos] == list(LEVELS)
    assert not any(info.fallbacks for info in infos)
    bits = [info.bits_per_weight for info in infos]
    assert bits == sorted(bits, reverse=True)
    assert len({info.parameters for info in infos}) == 1
    reader = gguf.GGUFReader(infos[0].path)
    assert infos[0].parameters == sum(int(tensor.n_elements) for tensor in reader.tensors)


def test_a_level_that_does_not_fit_the_rows_is_told(tmp_path: Path) -> None:
    """Where rows are no multiple of 256, K-quants fall back to another type, and the file's facts say so."""
    pytest.importorskip("llama_cpp", reason="pip install '.[llama]'")
    pytest.importorskip("transformers", reason="pip install '.[huggingface]'")
    model = random_llama(tmp_path / "narrow", hidden_size=64, intermediate_size=256)
    info = gguf_file.check(gguf_model.gguf_file(model, optimizations["q4_k_m"], tmp_path))
    assert info.fallbacks["Q5_0"] > 0
    wide = random_llama(tmp_path / "wide", hidden_size=64, intermediate_size=96)
    info = gguf_file.check(gguf_model.gguf_file(wide, optimizations["q4_k_m"], tmp_path))
    assert info.file_type == "Q4_K_M"
    assert info.stored_type == "Q5_0"


def test_a_file_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    """Nothing is made of a model that is a GGUF file already."""
    path = write(tmp_path / "own.gguf")
    model = ModelFiles("own", path, "digest", "path", format="gguf")
    assert gguf_model.gguf_file(model, optimizations["as-is"], tmp_path / "cache") == path
    assert not (tmp_path / "cache").exists()


def test_weights_are_read_as_they_were_saved(tmp_path: Path) -> None:
    """Half, brain and single precision come out as the numbers that PyTorch saved."""
    torch = pytest.importorskip("torch", reason="pip install '.[huggingface]'")
    from safetensors.torch import save_file

    values = torch.randn(4, 8)
    saved = {name: values.to(getattr(torch, name)) for name in ("float16", "bfloat16", "float32")}
    save_file(saved, tmp_path / "model.safetensors")
    for name, tensor in weights.tensors(tmp_path):
        assert (weights.float32(tensor) == saved[name].float().numpy()).all()


def refused(folder: Path, change: dict[str, Any]) -> str:
    """What converting the embedded model says after a change of files: name to changed JSON values."""
    shutil.copytree(EMBEDDED, folder)
    for name, values in change.items():
        found = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**found, **values}))
    with pytest.raises(UserError) as caught:
        gguf_model.convert(folder, folder / "model.gguf")
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"config.json": {"architectures": ["GPT2LMHeadModel"]}}, "is a GPT2LMHeadModel"),
        ({"config.json": {"attention_bias": True}}, "attention_bias"),
        ({"config.json": {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}}, "scaled rope"),
        ({"config.json": {"num_hidden_layers": 99}}, "have no model.layers."),
        ({"config.json": {"vocab_size": 10}}, "but the model's vocabulary ends at 9"),
        ({"tokenizer.json": {"model": {"type": "WordPiece"}}}, "no byte-level BPE"),
        ({"tokenizer.json": {"pre_tokenizer": {"type": "Whitespace"}}}, "pre-tokenizer is none of"),
        ({"tokenizer.json": {"normalizer": {"type": "Lowercase"}}}, "pre-tokenizer is none of"),
    ],
)
def test_what_is_not_converted_is_refused(tmp_path: Path, change: dict[str, Any], wanted: str) -> None:
    """A model that would come out wrong is refused, with the way to convert it."""
    message = refused(tmp_path / "model", change)
    assert wanted in message
    assert "\n" not in message
