from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from targets import registry
from targets.api import UserError
from targets.registry import Registry, did_you_mean, import_plugins

PLUGIN = """
from plants import plants
plants.register({name!r})({value!r})
"""


@pytest.fixture
def garden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path with a module `plants` (a registry) whose package `beds` holds plugins."""
    (tmp_path / "beds").mkdir()
    (tmp_path / "beds" / "__init__.py").touch()
    (tmp_path / "plants.py").write_text("from targets.registry import Registry\nplants = Registry('plant', 'beds')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def plant(garden: Path, file: str, name: str, value: str = "green") -> None:
    (garden / "beds" / f"{file}.py").write_text(PLUGIN.format(name=name, value=value))


def plants() -> Registry[str]:
    import plants as module  # type: ignore[import-not-found]

    found: Registry[str] = module.plants
    return found


def test_a_file_in_the_folder_is_enough(garden: Path) -> None:
    """Whatever stands in the package is registered on first use, without being named anywhere."""
    plant(garden, "rose", "rose", "red")
    plant(garden, "oak", "oak")
    assert dict(plants().items()) == {"oak": "green", "rose": "red"}
    assert plants()["rose"] == "red"
    assert "oak" in plants()
    assert "elm" not in plants()


def test_register_gives_the_thing_back(garden: Path) -> None:
    """A registered class or function keeps its name: the decorator returns what it was given."""
    thing = object()
    assert Registry[object]("thing", "beds").register("name")(thing) is thing


def test_duplicates_raise(garden: Path) -> None:
    """Two things of one name are a mistake in the project, told with the name, not a silent replacement."""
    plant(garden, "rose", "rose")
    plant(garden, "tulip", "rose")
    with pytest.raises(ValueError, match="plant 'rose' is registered twice"):
        plants()["rose"]


def test_a_miss_says_what_is_near(garden: Path) -> None:
    """An unknown name is the user's error; it names the nearest known one and all that is known."""
    plant(garden, "rose", "rose")
    plant(garden, "oak", "oak")
    with pytest.raises(UserError, match=r"unknown plant 'rosa'\. Did you mean 'rose'\? Known: oak, rose\."):
        plants()["rosa"]
    with pytest.raises(UserError, match=r"unknown plant 'xyz'\. Known: oak, rose\."):
        plants()["xyz"]


def test_a_half_walked_registry_stays_an_error(garden: Path) -> None:
    """If a file of the folder cannot be imported, every use fails: no part of the matrix is missing in silence."""
    plant(garden, "a_rose", "rose")
    (garden / "beds" / "b_weed.py").write_text("raise RuntimeError('not today')\n")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not today"):
            list(plants())
    (garden / "beds" / "b_weed.py").write_text("")
    assert list(plants()) == ["rose"]


def test_an_empty_registry_says_so() -> None:
    """Where nothing is known the hint does not pretend otherwise."""
    assert did_you_mean("rose", []) == " Known: none."


def test_plugins_register_their_own(garden: Path) -> None:
    """--targets imports modules outside of the project, which register what they bring."""
    (garden / "mine.py").write_text(PLUGIN.format(name="palm", value="tall"))
    import_plugins(["mine"])
    assert plants()["palm"] == "tall"


def test_a_missing_plugin_is_one_sentence(garden: Path) -> None:
    """A plugin that is not there, or whose package is not, is the user's error."""
    for name in ("nowhere", "nowhere.at.all", "beds.nowhere"):
        with pytest.raises(UserError, match=f"--targets {name}: no such module"):
            import_plugins([name])


def test_a_plugin_that_lacks_something_tells_what(garden: Path) -> None:
    """A plugin that is there but imports what is not says so itself: the sentence about --targets would mislead."""
    (garden / "mine.py").write_text("import a_library_that_is_not_there\n")
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_not_there"):
        import_plugins(["mine"])


@pytest.mark.parametrize(
    ("known", "names"),
    [
        (registry.tasks, {"sentiment", "ner", "qa"}),
        (registry.backends, {"huggingface", "onnxruntime"}),
        (registry.optimizations, {"fp32", "fp16", "bf16", "int8", "torchscript", "torch-compile", "graph-o2"}),
        (registry.devices, {"jetson", "cuda", "apple_silicon", "cpu"}),
    ],
    ids=lambda value: value.noun if isinstance(value, Registry) else "",
)
def test_things_are_filed_under_their_own_name(known: Registry[object], names: set[str]) -> None:
    """Each thing's name is the one it is registered under, and what the README promises is there."""
    assert names <= set(known)
    for name, thing in known.items():
        assert getattr(thing, "name", None) == name


def test_optimizations_name_backends_that_exist() -> None:
    """An optimization applies to at least one backend, and none that is unknown; its contract is a share."""
    for name, optimization in registry.optimizations.items():
        assert optimization.backends, name
        assert all(backend in registry.backends for backend in optimization.backends), name
        assert 0 <= optimization.max_drop <= 1, name
        assert 0 <= optimization.min_agreement <= 1, name
        assert optimization.min_agreement > 0 or "encoder" not in optimization.families, name
        assert optimization.summary, name
