"""Model folders: nothing broken, foreign or pickled is let through, and the digest follows what matters."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.models import Model, custom, provision
from suites.meta.model_files import folder, safetensors
from targets import model_folder
from targets.api import UserError


def own(path: Path) -> Model:
    return custom("sentiment", str(path))


def refusal(path: Path, trust_pickle: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        provision(own(path), path.parent / "cache", trust_pickle=trust_pickle)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_a_whole_folder_is_provisioned(tmp_path: Path) -> None:
    """A complete folder is used where it stands, and its digest is a sha256."""
    path = folder(tmp_path / "mine")
    files = provision(own(path), tmp_path / "cache")
    assert (files.name, files.path, files.source, files.trust_pickle) == ("mine", path, "path", False)
    assert len(files.digest) == 64


FOLDER_MISTAKES: list[tuple[dict[str, str | bytes | None], str]] = [
    ({"config__json": None}, "m: no config.json"),
    ({"config__json": "{\n,}"}, "m/config.json:2: not JSON"),
    ({"config__json": "[]"}, "m/config.json: should be a JSON object"),
    ({"tokenizer__json": None}, "m: no tokenizer (tokenizer.json, vocab.txt, vocab.json)"),
    ({"model__safetensors": None}, "m: no weights: model.safetensors is needed, found none"),
    (
        {"model__safetensors": None, "adapter_model__safetensors": safetensors()},
        "m: no weights: model.safetensors is needed, found adapter_model.safetensors",
    ),
    ({"model__safetensors": b""}, "m/model.safetensors: not a safetensors file with tensors"),
    ({"model__safetensors": b"\x80\x02}q\x00X\x06\x00" + bytes(99)}, "m/model.safetensors: not a safetensors file"),
    (
        {"model__safetensors": safetensors()[:40]},
        "truncated weights: m/model.safetensors has 40 bytes, its header alone needs",
    ),
    (
        {"model__safetensors": safetensors()[:-1]},
        "truncated weights: m/model.safetensors has 85 bytes, its header needs 86",
    ),
    (
        {"model__safetensors": safetensors() + b"x"},
        "damaged weights: m/model.safetensors has 87 bytes, its header needs 86",
    ),
    (
        {"model__safetensors": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"},
        "m/model.safetensors: a pointer of Git LFS instead of weights; run `git lfs pull`",
    ),
    (
        {"model__safetensors": None, "pytorch_model__bin": b"\x80\x02}."},
        "m: pickle format refused: pytorch_model.bin can run any code when it is loaded; convert it to",
    ),
    (
        {"config__json": '{"architectures": ["BertForMaskedLM"]}'},
        "m: is a BertForMaskedLM; sentiment needs a model with the",
    ),
]


@pytest.mark.parametrize(("files", "sentence"), FOLDER_MISTAKES)
def test_broken_folders_are_refused(tmp_path: Path, files: dict[str, str | bytes | None], sentence: str) -> None:
    """A folder that is incomplete, damaged, pickled or made for another task is refused in one sentence."""
    message = refusal(folder(tmp_path / "m", **files))
    assert message.startswith(sentence)
    assert "\n" not in message


@given(cut=st.integers(0, len(safetensors()) - 1))
def test_no_truncation_passes(cut: int) -> None:
    """Weights cut at any byte are refused."""
    with TemporaryDirectory() as place:
        path = Path(place, "model.safetensors")
        path.write_bytes(safetensors()[:cut])
        with pytest.raises(UserError):
            model_folder.check_safetensors(path)


def test_trusted_pickles_pass(tmp_path: Path) -> None:
    """A pickled model passes when its author is trusted, and is marked as one; safetensors beside it are preferred."""
    path = folder(tmp_path / "m", model__safetensors=None, pytorch_model__bin=b"\x80\x02}.")
    assert provision(own(path), tmp_path, trust_pickle=True).trust_pickle
    folder(path)
    assert not provision(own(path), tmp_path, trust_pickle=True).trust_pickle
    assert not provision(own(path), tmp_path, trust_pickle=False).trust_pickle


def test_every_shard_is_checked(tmp_path: Path) -> None:
    """Of weights in shards, each must be there and whole."""
    index = json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}})
    files: dict[str, Any] = {"model__safetensors": None, "model__safetensors__index__json": index}
    path = folder(tmp_path / "m", **files, one__safetensors=safetensors())
    assert refusal(path).startswith("m: missing weights: two.safetensors, which model.safetensors.index.json names")
    folder(path, **files, two__safetensors=safetensors()[:-1])
    assert refusal(path).startswith("truncated weights: m/two.safetensors")
    folder(path, **files, two__safetensors=safetensors())
    assert provision(own(path), tmp_path).digest
    folder(path, **files | {"model__safetensors__index__json": '{"weight_map": {}}'})
    assert refusal(path).startswith("m/model.safetensors.index.json: no weight_map")


def test_digest_follows_what_matters(tmp_path: Path) -> None:
    """The digest changes with config, tokenizer and weights, and with nothing else: not with place, README or date."""
    first = folder(tmp_path / "one")
    same = folder(tmp_path / "two", README__md="hello", training__json="{}")
    assert model_folder.digest(first) == model_folder.digest(same)
    seen = {model_folder.digest(first)}
    changes = {
        "config.json": b'{"x": 1}',
        "tokenizer.json": b'{"x": 1}',
        "model.safetensors": safetensors(20),
        "vocab.txt": b"a",
    }
    for name, content in changes.items():
        (same / name).write_bytes(content)
        seen.add(model_folder.digest(same))
    assert len(seen) == 1 + len(changes)
