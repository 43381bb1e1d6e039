"""The catalogue of models is right, or says where it is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fixtures import hub
from fixtures.catalogue import Model, catalogue
from fixtures.datasets import HUB
from suites.meta.model_files import SHA
from targets import architecture
from targets.api import UserError
from targets.registry import tasks


def test_catalogue_covers_every_task_from_every_source() -> None:
    """Every task has its embedded model and models of the Hub, and every shape that can be built is somewhere."""
    found = catalogue()
    assert set(found) == set(tasks)
    for known in found.values():
        assert known["embedded"].source == "embedded"
        assert {model.source for model in known.values()} >= {"embedded", "hub"}
    shapes = {model.config for known in found.values() for model in known.values()}
    assert shapes - {None} == set(architecture.CONFIGS)


def test_catalogue_pins_every_model_of_the_hub() -> None:
    """A model of the Hub has a full commit and a size, and an encoder's the public data that has its labels."""
    for model in of_the_hub():
        assert hub.FULL_SHA.fullmatch(model.revision or "")
        assert model.size_mb
        assert model.dataset in HUB or (model.dataset is None and tasks[model.task].family != "encoder")


def test_one_commit_and_size_for_one_file() -> None:
    """Entries of one repository name one commit, and those of one file of it one size."""
    commits = {(model.repo, model.revision) for model in of_the_hub()}
    assert len(commits) == len({model.repo for model in of_the_hub()})
    sizes = {(model.repo, model.file, model.size_mb) for model in of_the_hub()}
    assert len(sizes) == len({(model.repo, model.file) for model in of_the_hub()})


def test_a_level_of_more_bits_is_larger() -> None:
    """The file of 6 bits is 1.25 to 1.4 times that of 4 (6.56 to 4.8 bits a weight, some kept at more), and says so."""
    found = {name: model for name, model in catalogue()["generation"].items() if model.format == "gguf"}
    for name, model in found.items():
        level = name.rpartition("-")[2]
        assert model.file is not None
        assert level.upper() in model.file
        assert model.size_mb is not None
        if level == "q4_k_m":
            larger = found[name.replace("q4_k_m", "q6_k")].size_mb
            assert larger is not None
            assert 1.25 < larger / model.size_mb < 1.4


def test_chats_share_their_entries_with_generation() -> None:
    """A model that both tasks name is the same file in both."""
    found = catalogue()
    for name in set(found["chat"]) & set(found["generation"]):
        assert replace(found["chat"][name], task="generation") == found["generation"][name]


def test_only_random_weights_have_no_meaning() -> None:
    """Accuracy is claimed for every model but those of random weights."""
    for model in (model for known in catalogue().values() for model in known.values()):
        assert model.has_meaning == (model.source != "architecture")


def of_the_hub() -> list[Model]:
    return [model for known in catalogue().values() for model in known.values() if model.source == "hub"]


def yaml(entry: str, task: str = "ner", schema: str = "schema: 1") -> str:
    return f"{schema}\nmodels:\n  {task}:\n    mine: {entry}\n"


HUB_ENTRY = f"{{source: hub, repo: a/b, revision: {SHA[:39]}f, dataset: conll2003, size_mb: 1.5}}"
GGUF_ENTRY = f"{{source: hub, repo: a/b, revision: {SHA}, file: x.gguf, gated: true, size_mb: 1.5}}"
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
    (yaml(HUB_ENTRY.replace(", dataset: conll2003", "")), "4: mine has no dataset; source, repo, revision, size_mb"),
    (yaml(HUB_ENTRY.replace("size_mb", "file: x.gguf, size_mb")), "4: unknown key 'file' in mine."),
    (
        yaml(GGUF_ENTRY.replace("x.gguf", "x.bin"), "chat"),
        "4: file is 'x.bin', should be the name of a .gguf file",
    ),
    (yaml(GGUF_ENTRY.replace("true", "1"), "chat"), "4: gated is the number '1', should be true or false"),
    (yaml(GGUF_ENTRY.replace("gated", "pickled"), "chat"), "4: mine has pickled and file; a .gguf file is no pickle"),
    (yaml(GGUF_ENTRY.replace("size_mb: 1.5", "dataset: imbd"), "chat"), "4: mine has no size_mb; source, repo"),
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


def test_a_gguf_of_the_hub_is_read(tmp_path: Path) -> None:
    """An entry with a file is of the format GGUF; one entry may serve two tasks by way of a YAML alias."""
    path = tmp_path / "models.yaml"
    both = yaml("&shared " + GGUF_ENTRY, "generation") + "  chat:\n    mine: *shared\n"
    path.write_text(both, encoding="utf-8")
    for task in ("generation", "chat"):
        model = catalogue(path)[task]["mine"]
        assert model == Model("mine", task, "hub", repo="a/b", revision=SHA, file="x.gguf", gated=True, size_mb=1.5)
        assert model.format == "gguf"
