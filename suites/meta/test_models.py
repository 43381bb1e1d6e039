"""Models of one's own and how every kind gets onto the disk."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import catalogue, models
from fixtures.devices import planned
from fixtures.models import Model, custom, fits, own_gguf, provision, served
from suites.meta.model_files import SHA, folder, gguf, safetensors
from targets.api import Device, ModelFiles, Unavailable, UserError
from targets.gguf import file as gguf_file


def device(budget: int) -> Device:
    nothing: frozenset[str] = frozenset()
    return Device("here", "cpu", "any", 1, 1, 2 * budget, budget, 1, supports=nothing, native=nothing)


def own(path: Path) -> Model:
    return custom("sentiment", str(path))


def test_a_folder_of_ones_own_becomes_a_model(tmp_path: Path) -> None:
    """An existing folder is a model by path, under a name that fits into a case id."""
    path = folder(tmp_path / "my (best) models/v2: ärger")
    assert own(path) == Model("v2-rger", "sentiment", "path", path=path)


@given(st.text(min_size=1, max_size=20))
def test_every_folder_name_becomes_safe(name: str) -> None:
    """Whatever a folder is called, its model's name consists of letters, digits, '.', '_' and '-'."""
    assert catalogue.NAME.fullmatch(models._free_name("sentiment", name))


def test_a_catalogue_name_is_not_taken(tmp_path: Path) -> None:
    """A folder called like a model of the catalogue gets another name, so that limits for that model are not for it."""
    assert own(folder(tmp_path / "embedded")).name == "own-embedded"


@pytest.mark.parametrize(
    ("text", "name", "repo", "revision"),
    [
        ("org/name", "name", "org/name", None),
        ("bert-base-uncased", "bert-base-uncased", "bert-base-uncased", None),
        ("org/name@v1.0", "name", "org/name", "v1.0"),
        (f"org/na.me_x@{SHA}", "na.me_x", "org/na.me_x", SHA),
        ("org/name@refs/pr/2", "name", "org/name", "refs/pr/2"),
    ],
)
def test_an_id_of_the_hub_becomes_a_model(text: str, name: str, repo: str, revision: str | None) -> None:
    """NAME, ORG/NAME and either with @REVISION are models of the Hub."""
    assert custom("qa", text) == Model(name, "qa", "hub", repo=repo, revision=revision)


@pytest.mark.parametrize(
    "text", ["./mine", "../mine", "/no/such/folder", "~/no/such", "a/b/c", "mine/", "a b", "a@", "@v1", ""]
)
def test_a_path_where_nothing_is_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks like a path and is none is refused, rather than looked up on the Hub."""
    (folder := tmp_path / "here").mkdir()
    monkeypatch.chdir(folder)
    if text == "":
        text = "mine\\folder"
    with pytest.raises(UserError, match=r"^--model qa=.*: no such folder; give one that exists, or ORG/NAME"):
        custom("qa", text)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    """A file in place of a folder is named."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors())
    with pytest.raises(UserError, match=r"is a file; the folder with config\.json, tokenizer and weights is needed"):
        own(path)


def test_a_gguf_file_is_no_folder(tmp_path: Path) -> None:
    """A GGUF file given as --model is sent to its own option."""
    (path := tmp_path / "model.gguf").touch()
    with pytest.raises(UserError, match=r"^--model sentiment=.*: is a GGUF file; give it as --gguf "):
        own(path)


def test_a_gguf_of_ones_own_becomes_a_model(tmp_path: Path) -> None:
    """A GGUF file is a model called by its stem, used where it stands, with the sha256 of its bytes."""
    pytest.importorskip("gguf")
    path = gguf(tmp_path / "my Llama 3B (1).Q4_K_M.gguf")
    model = own_gguf("chat", path)
    assert (model.name, model.format, model.size_mb) == ("my-Llama-3B-1-.Q4_K_M", "gguf", None)
    files = provision(model, tmp_path)
    assert (files.name, files.path, files.source, files.format) == (model.name, path, "gguf", "gguf")
    assert files.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_digest_of_a_gguf_follows_its_bytes(tmp_path: Path) -> None:
    """A GGUF that is replaced by another of the same size under the same name has another digest."""
    pytest.importorskip("gguf")
    path = gguf(tmp_path / "m.gguf")
    first = provision(own_gguf("chat", path), tmp_path).digest
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert provision(own_gguf("chat", path), tmp_path).digest != first


def test_a_split_gguf_is_a_model_of_all_its_parts(tmp_path: Path) -> None:
    """The digest of a split model changes with its last part; its first part alone is refused."""
    pytest.importorskip("gguf")
    first = gguf(tmp_path / "m-00001-of-00002.gguf")
    with pytest.raises(UserError, match="1 of its 2 parts are missing"):
        provision(own_gguf("chat", first), tmp_path)
    second = gguf(tmp_path / "m-00002-of-00002.gguf")
    before = provision(own_gguf("chat", first), tmp_path).digest
    second.write_bytes(second.read_bytes()[:-1] + b"x")
    assert provision(own_gguf("chat", first), tmp_path).digest != before


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "no such file"), (b"PK\x03\x04rest", "not a GGUF file"), (b"GGUF\x03\0\0\0", "truncated GGUF")],
)
def test_a_broken_gguf_is_refused(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    """A GGUF that is missing, something else or cut is refused when it is provisioned."""
    pytest.importorskip("gguf")
    path = tmp_path / "m.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        provision(own_gguf("generation", path), tmp_path)


def test_a_gguf_without_the_library_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library that reads GGUF headers such a model is unavailable, with the command that installs it."""
    pytest.importorskip("gguf")
    path = gguf(tmp_path / "m.gguf")
    gguf_file._sizes.cache_clear()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(Unavailable, match=r"needs gguf, which is not installed: pip install '\.\[llama\]'"):
        provision(own_gguf("chat", path), tmp_path)


@pytest.mark.parametrize(("engine", "name"), [("ollama", "llama3.2:1b"), ("openai", "meta/Llama-3 8B")])
def test_a_served_model_keeps_its_name(tmp_path: Path, engine: str, name: str) -> None:
    """A served model is asked for by the name it has there, is called by one fit for a case id, and has no files."""
    model = served("chat", engine, name)
    assert catalogue.NAME.fullmatch(model.name)
    assert model.format == engine
    assert fits(model, device(0)) is None
    expected = ModelFiles(name, Path(), "", "served", format=engine)
    assert provision(model, tmp_path) == expected


def test_what_cannot_fit_is_told_before_it_is_fetched() -> None:
    """A model needs 1.2 times its weights and 300 MB; one byte less memory, and the reason has both numbers."""
    model = Model("big", "chat", "hub", repo="a/b", size_mb=1000.0)
    assert fits(model, device(1500)) is None
    reason = fits(model, device(1499))
    assert reason is not None
    assert reason.startswith("big needs about 1500 MB (1000 MB of weights), a target may use 1499 MB on here; ")


def test_what_is_on_the_disk_is_left_to_the_target(tmp_path: Path) -> None:
    """Of a model whose size is not known beforehand nothing is foretold."""
    for model in (own(folder(tmp_path / "m")), own_gguf("chat", tmp_path / "m.gguf")):
        assert fits(model, device(1)) is None


def test_the_catalogue_fits_the_boards_it_is_for() -> None:
    """An 8 GB board takes every model of 4 bits and none of 6 from 7 billion weights on; a 16 GB board takes all."""
    for name, model in catalogue.catalogue()["generation"].items():
        too_large = bool(re.search("-[78]b-q6_k$", name))
        assert (fits(model, planned("jetson-orin-nano")) is not None) == too_large, name
        assert fits(model, planned("jetson-orin-nx")) is None, name


def test_tasks_of_one_family_share_a_random_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model for two tasks with one embedded model and one head is built once; another head is another."""
    lender = folder(tmp_path / "t5")
    lent = {"embedded": Model("embedded", "any", "embedded", path=lender)}
    monkeypatch.setattr(models, "catalogue", lambda: dict.fromkeys(("summarization", "translation", "ner"), lent))
    places = {
        task: models._built(Model("small", task, "architecture", config="bert-base"), tmp_path)
        for task in ("summarization", "translation", "ner")
    }
    assert places["summarization"] == places["translation"] != places["ner"]


@pytest.mark.parametrize(
    ("task", "name", "allowed"),
    [
        ("chat", "GPT2LMHeadModel", True),
        ("generation", "LlamaForCausalLM", True),
        ("generation", "T5ForConditionalGeneration", False),
        ("translation", "T5ForConditionalGeneration", True),
        ("summarization", "BertForMaskedLM", False),
    ],
)
def test_a_model_is_of_its_tasks_classes(tmp_path: Path, task: str, name: str, allowed: bool) -> None:
    """A model whose config names a class of another kind is refused, with the kinds that its task takes."""
    path = folder(tmp_path / "m", config__json=json.dumps({"architectures": [name]}))
    if allowed:
        assert provision(custom(task, str(path)), tmp_path).path == path
        return
    with pytest.raises(UserError, match=f"is a {name}; {task} needs a model with the head For"):
        provision(custom(task, str(path)), tmp_path)


def test_embedded_models_that_are_not_there_are_named(tmp_path: Path) -> None:
    """A checkout without the embedded models says how to get them."""
    with pytest.raises(UserError, match=r"nowhere: the embedded model is not there; .*`make models`"):
        provision(Model("embedded", "ner", "embedded", path=tmp_path / "nowhere"), tmp_path)


def test_no_framework_is_imported() -> None:
    """Reading the catalogue and provisioning a folder import neither torch nor transformers nor the Hub's library."""
    code = (
        "import sys; from fixtures import datasets, models; models.catalogue(); models.custom('qa', 'a/b')\n"
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'datasets', 'onnxruntime', 'gguf', 'llama_cpp'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(models.__file__).parents[1])
