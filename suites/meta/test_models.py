"""Models: the catalogue is right or says where it is not, and nothing broken, foreign or pickled is let through."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import hub, models
from fixtures.datasets import HUB
from fixtures.models import Model, catalogue, custom, provision
from targets import architecture, model_folder
from targets.api import Unavailable, UserError
from targets.registry import tasks

SHA = "0123456789" * 4


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


def own(path: Path) -> Model:
    return custom("sentiment", str(path))


def refusal(path: Path, trust_pickle: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        provision(own(path), path.parent / "cache", trust_pickle=trust_pickle)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_catalogue_covers_every_task_from_every_source() -> None:
    """Every task has its embedded model, both random shapes, and at least one model of the Hub."""
    found = catalogue()
    assert set(found) == set(tasks)
    for known in found.values():
        assert known["embedded"].source == "embedded"
        assert {known[f"{name}-random"].config for name in architecture.CONFIGS} == set(architecture.CONFIGS)
        assert any(model.source == "hub" for model in known.values())


def test_catalogue_pins_every_model_of_the_hub() -> None:
    """A model of the Hub has a full commit, a known dataset and a size."""
    for model in (model for known in catalogue().values() for model in known.values() if model.source == "hub"):
        assert hub.FULL_SHA.fullmatch(model.revision or "")
        assert model.dataset in HUB
        assert model.size_mb


def test_only_random_weights_have_no_meaning() -> None:
    """Accuracy is claimed for every model but those of random weights."""
    for model in (model for known in catalogue().values() for model in known.values()):
        assert model.has_meaning == (model.source != "architecture")


def yaml(entry: str, task: str = "ner", schema: str = "schema: 1") -> str:
    return f"{schema}\nmodels:\n  {task}:\n    mine: {entry}\n"


HUB_ENTRY = f"{{source: hub, repo: a/b, revision: {SHA[:39]}f, dataset: conll2003, size_mb: 1.5}}"
CATALOGUE_MISTAKES = [
    ("", "1: the file is empty"),
    ("schema: 1\nmodels: [", "2: not YAML"),
    (yaml("{source: embedded, path: x}", schema="schema: 2"), "1: schema is the number '2', should be 1"),
    (yaml("{source: embedded, path: x}", schema="version: 1"), "1: unknown key 'version' in the file."),
    (yaml("{source: embedded, path: x}", task="nerr"), "3: unknown key 'nerr' in models. Did you mean 'ner'?"),
    (yaml("{source: embeded, path: x}"), "4: source is 'embeded', which is not known. Did you mean 'embedded'?"),
    (yaml("{path: x}"), "4: mine has no source; it should be one of embedded, architecture, hub"),
    (yaml("{source: embedded}"), "4: mine has no path; source, path are needed"),
    (yaml("{source: embedded, path: x, sead: 1}"), "4: unknown key 'sead' in mine."),
    (yaml("{source: architecture, config: bert-base, sed: 1}"), "4: unknown key 'sed' in mine. Did you mean 'seed'?"),
    (
        yaml("{source: architecture, config: bert-bas, seed: 1}"),
        "4: config is 'bert-bas', which is not known. Did you mean",
    ),
    (
        yaml("{source: architecture, config: bert-base, seed: 0.5}"),
        "4: seed is the number '0.5', should be a whole number",
    ),
    (yaml("{source: architecture, config: bert-base, seed: no}"), "4: seed is the truth value 'no', should be a whole"),
    (yaml(HUB_ENTRY.replace("a/b", "a/b/c")), "4: repo is 'a/b/c', should be ORG/NAME"),
    (yaml(HUB_ENTRY.replace(f"{SHA[:39]}f", "main")), "4: revision is 'main', should be a full commit (40 hex)"),
    (
        yaml(HUB_ENTRY.replace("conll2003", "conll")),
        "4: dataset is 'conll', which is not known. Did you mean 'conll2003'?",
    ),
    (yaml(HUB_ENTRY.replace("1.5", "0")), "4: size_mb is the number '0', should be a number of MB above 0"),
    (yaml(HUB_ENTRY).replace("mine", "my/model"), "4: the name 'my/model' should consist of letters, digits"),
    (yaml(HUB_ENTRY) + f"    mine: {HUB_ENTRY}\n", "5: 'mine' stands on line 4 already"),
]


@pytest.mark.parametrize(("content", "sentence"), CATALOGUE_MISTAKES)
def test_mistakes_in_the_catalogue_are_named(tmp_path: Path, content: str, sentence: str) -> None:
    """A mistake in the catalogue is refused with file, line, key and what was allowed."""
    path = tmp_path / "models.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        catalogue(path)
    assert str(caught.value).startswith(f"{path}:{sentence}")


def test_a_catalogue_of_ones_own_is_read(tmp_path: Path) -> None:
    """An entry becomes a model with exactly what it says; paths start at the catalogue's folder."""
    path = tmp_path / "models.yaml"
    path.write_text(yaml(HUB_ENTRY) + "    small: {source: embedded, path: zoo/ner}\n", encoding="utf-8")
    found = catalogue(path)["ner"]
    expected = Model("mine", "ner", "hub", repo="a/b", revision=f"{SHA[:39]}f", dataset="conll2003", size_mb=1.5)
    assert found == {"mine": expected, "small": Model("small", "ner", "embedded", path=tmp_path / "zoo/ner")}


def test_a_folder_of_ones_own_becomes_a_model(tmp_path: Path) -> None:
    """An existing folder is a model by path, under a name that fits into a case id."""
    path = folder(tmp_path / "my (best) models/v2: ärger")
    assert own(path) == Model("v2-rger", "sentiment", "path", path=path)


@given(st.text(min_size=1, max_size=20))
def test_every_folder_name_becomes_safe(name: str) -> None:
    """Whatever a folder is called, its model's name consists of letters, digits, '.', '_' and '-'."""
    assert models.NAME.fullmatch(models._free_name("sentiment", name))


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


def test_embedded_models_that_are_not_there_are_named(tmp_path: Path) -> None:
    """A checkout without the embedded models says how to get them."""
    with pytest.raises(UserError, match=r"nowhere: the embedded model is not there; .*`make models`"):
        provision(Model("embedded", "ner", "embedded", path=tmp_path / "nowhere"), tmp_path)


def pinned(**changes: Any) -> Model:
    return Model(**{"name": "m", "task": "qa", "source": "hub", "repo": "org/name", "revision": SHA} | changes)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hub, and no network: to ask it is a failure of the test."""
    library = pytest.importorskip("huggingface_hub")
    pytest.importorskip("huggingface_hub.utils")
    monkeypatch.setattr(pytest.importorskip("huggingface_hub.constants"), "HF_HUB_CACHE", str(tmp_path / "hub"))
    real = library.snapshot_download

    def local_only(*args: Any, local_files_only: bool, **kwargs: Any) -> str:
        if not local_files_only:
            raise library.utils.LocalEntryNotFoundError("no network here") from ConnectionError("unplugged")
        return str(real(*args, local_files_only=True, cache_dir=library.constants.HF_HUB_CACHE, **kwargs))

    monkeypatch.setattr(library, "snapshot_download", local_only)
    return tmp_path / "hub" / "models--org--name" / "snapshots" / SHA


@pytest.mark.parametrize("offline", [True, False])
def test_a_pinned_model_in_the_cache_needs_no_network(hub_cache: Path, offline: bool) -> None:
    """A pinned revision that is whole in the cache is used, with or without --offline, and the network is not asked."""
    folder(hub_cache)
    assert provision(pinned(), hub_cache, offline=offline).path == hub_cache


@pytest.mark.parametrize(
    ("offline", "sentence"),
    [
        (
            True,
            "org/name is not, or not whole, in the Hugging Face cache, and the run is --offline: `hf download org/name",
        ),
        (
            False,
            "org/name: the Hugging Face Hub cannot be reached (ConnectionError); connect, or run `hf download org/name",
        ),
    ],
)
@pytest.mark.parametrize("partly", [True, False])
def test_a_model_out_of_reach_is_unavailable(hub_cache: Path, offline: bool, sentence: str, partly: bool) -> None:
    """Without network, a model not or only in part in the cache is unavailable, with the command that gets it."""
    if partly:
        folder(hub_cache, model__safetensors=None)
    with pytest.raises(Unavailable) as caught:
        provision(pinned(), hub_cache, offline=offline)
    assert str(caught.value).startswith(sentence)
    assert f"--revision {SHA}" in str(caught.value)


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        ("GatedRepoError", Unavailable, "org/name is gated: accept its terms at https://huggingface.co/org/name, then"),
        ("RepositoryNotFoundError", UserError, "org/name: no such repository on the Hub, or a private one"),
        (
            "RevisionNotFoundError",
            UserError,
            "org/name: no revision 'v9'; see https://huggingface.co/org/name/commits/main",
        ),
        ("HfHubHTTPError", Unavailable, "org/name: the Hugging Face Hub cannot be reached (HfHubHTTPError)"),
    ],
)
def test_refusals_of_the_hub_become_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str, kind: type[Exception], sentence: str
) -> None:
    """Gated, unknown and unreachable are told apart."""
    library = pytest.importorskip("huggingface_hub")
    pytest.importorskip("huggingface_hub.utils")
    requests = pytest.importorskip("requests")

    def refuse(*args: Any, **kwargs: Any) -> str:
        raise getattr(library.utils, error)("a text\nof many lines", response=requests.Response())

    monkeypatch.setattr(library, "snapshot_download", refuse)
    with pytest.raises(kind) as caught:
        provision(pinned(revision="v9"), tmp_path)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_a_download_larger_than_the_disk_is_refused(hub_cache: Path) -> None:
    """A model that does not fit on the disk is not begun."""
    with pytest.raises(
        UserError, match=r"org/name needs 1000000000 MB and 500 MB to spare, .* MB free; make room or set"
    ):
        provision(pinned(size_mb=1e9), hub_cache)


def test_a_hub_name_that_cannot_be_is_named(tmp_path: Path) -> None:
    """A name that the Hub does not allow is bad input, not an unreachable network."""
    pytest.importorskip("huggingface_hub")
    with pytest.raises(UserError, match="org/na--me: not a name the Hub can have"):
        provision(custom("qa", "org/na--me"), tmp_path, offline=True)


SIZES = {
    "distilbert-base": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "vocab_size": 200},
    "bert-base": {
        **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"intermediate_size": 32, "vocab_size": 200},
    },
}


@pytest.fixture(scope="module")
def lender(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer with the labels of a model."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from targets.training import wordpiece

    path: Path = tmp_path_factory.mktemp("lender")
    wordpiece.build(["a plain sentence"], 150, lowercase=True, max_length=64).save_pretrained(path)
    (path / "model.safetensors").write_bytes(safetensors())
    labels = {"0": "bad", "1": "fair", "2": "good"}
    (path / "config.json").write_text(json.dumps({"id2label": labels, "pad_token_id": 0}), encoding="utf-8")
    return path


def built(config: str, seed: int, out: Path, lender: Path) -> str:
    architecture.build(config, "SequenceClassification", seed, out, lender, SIZES[config])
    model_folder.check(out)
    return model_folder.digest(out)


def test_random_weights_follow_their_seed(tmp_path: Path, lender: Path) -> None:
    """The same seed gives the same bytes, another seed others, and a rebuild replaces what was there."""
    first, again, other = (
        built("distilbert-base", seed, tmp_path / f"m{i}", lender) for i, seed in enumerate([3, 3, 4])
    )
    assert first == again != other
    assert built("distilbert-base", 4, tmp_path / "m0", lender) == other
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m0", "m1", "m2"]


@pytest.mark.parametrize("config", sorted(SIZES))
def test_random_models_run_with_the_lent_tokenizer(tmp_path: Path, lender: Path, config: str) -> None:
    """A random model loads in FP32, with the lender's labels, 512 tokens, and the inputs of its own kind."""
    import torch
    import transformers

    built(config, 0, tmp_path / "m", lender)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    inputs = tokenizer(["a plain sentence", "a"], padding=True, return_tensors="pt")
    assert ("token_type_ids" in inputs) == (config == "bert-base")
    assert model(**inputs).logits.shape == (2, 3)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    assert (tokenizer.model_max_length, model.config.max_position_embeddings) == (512, 512)


def test_a_vocabulary_too_large_is_refused(tmp_path: Path, lender: Path) -> None:
    """A tokenizer whose ids the model has no embedding for is refused, and nothing is left behind."""
    with pytest.raises(UserError, match=r"ids up to \d+, but distilbert-base has 20 embeddings"):
        architecture.build(
            "distilbert-base", "TokenClassification", 0, tmp_path / "m", lender, {"vocab_size": 20, "dim": 12}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_random_model_is_built_again(tmp_path: Path, lender: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model must be built when it is not there, half there, or has a byte changed; and then no more."""
    small = partial(architecture.build, sizes=SIZES["distilbert-base"])
    monkeypatch.setattr(architecture, "build", small)
    lent = {"embedded": Model("embedded", "sentiment", "embedded", path=lender)}
    monkeypatch.setattr(models, "catalogue", lambda: {"sentiment": lent})
    model = Model("random", "sentiment", "architecture", config="distilbert-base", seed=1)

    def build() -> Path:
        assert models.needs_build(model, tmp_path)
        models.build(model, tmp_path)
        assert not models.needs_build(model, tmp_path)
        return provision(model, tmp_path).path

    weights = build() / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (build() / "tokenizer.json").unlink()
    shutil.rmtree(build())
    build()


def test_a_random_model_needs_its_lender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the embedded model, whose tokenizer it takes, a random model says what is missing."""
    missing = Model("embedded", "qa", "embedded", path=tmp_path / "zoo")
    monkeypatch.setattr(models, "catalogue", lambda: {"qa": {"embedded": missing}})
    with pytest.raises(UserError, match="zoo: the embedded model is not there"):
        models.needs_build(Model("x", "qa", "architecture", config="bert-base"), tmp_path)


def test_no_framework_is_imported() -> None:
    """Reading the catalogue and provisioning a folder import neither torch nor transformers nor the Hub's library."""
    code = (
        "import sys; from fixtures import datasets, models; models.catalogue(); models.custom('qa', 'a/b')\n"
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'datasets', 'onnxruntime'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(models.__file__).parents[1])
