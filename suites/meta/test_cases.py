from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import cases
from fixtures.cases import Case, Selection, cells, existing, select, unavailable
from fixtures.devices import planned
from targets.api import Requirement, UserError
from targets.availability import importable
from targets.optimization import Optimization
from targets.registry import backends, devices, optimizations, tasks

SAFE = "safetensors"
MODELS = {
    **{task: {"small": SAFE} for task in ("ner", "qa", "summarization", "translation", "generation", "chat")},
    "sentiment": {"small": SAFE, "large": SAFE},
}
KINDS = tuple(devices)


def test_a_case_is_its_id() -> None:
    """id, repr and str are one string, by which a case is selected, limited and reported."""
    case = Case("sentiment", "embedded", "onnxruntime", "int8")
    assert case.id == repr(case) == str(case) == "sentiment/embedded/onnxruntime/int8"
    assert case.reference == Case("sentiment", "embedded", "huggingface", "fp32")
    assert case.reference.is_reference
    assert not case.is_reference


@pytest.mark.parametrize("kind", KINDS)
def test_cases_are_the_declared_product(kind: str) -> None:
    """Exactly the cells that backend and optimization both declare exist, once each, for every model."""
    found = existing(kind, MODELS)
    declared = {
        Case(task, model, backend, name)
        for task, models in MODELS.items()
        for model in models
        for backend in backends
        for name, optimization in optimizations.items()
        if task in backends[backend].tasks
        and backend in optimization.backends
        and SAFE in optimization.formats & backends[backend].formats
        and (not optimization.families or tasks[task].family in optimization.families)
        and (not optimization.tasks or task in optimization.tasks)
        and (not optimization.kinds or kind in optimization.kinds)
    }
    assert len(found) == len(set(found))
    assert set(found) == declared


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_comes_first(kind: str) -> None:
    """The cases of a task and model stand together, their reference first, so that each model is loaded once."""
    found = existing(kind, MODELS)
    groups = [(case.task, case.model) for case in found]
    starts = [index for index, group in enumerate(groups) if index == 0 or groups[index - 1] != group]
    assert len(starts) == len(set(groups))
    assert all(found[index].is_reference for index in starts)


def test_backends_stand_together() -> None:
    """Within a task and model the cases of a backend stand together."""
    order = [(case.task, case.model, case.backend) for case in existing("cpu", MODELS)]
    changes = sum(a != b for a, b in pairwise(order))
    assert changes == len(set(order)) - 1


def subset(names: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(names), unique=True).map(tuple)


@given(
    st.builds(
        Selection, subset(list(tasks)), subset(["huggingface", "onnxruntime"]), subset(["fp32", "int8", "torchscript"])
    )
)
def test_selection_narrows_and_never_drops_a_name(wanted: Selection) -> None:
    """What is selected is all that exists and fits; each name asked for has a case, or the selection is an error."""
    every = existing("cpu", MODELS)
    try:
        found = select("cpu", MODELS, wanted)
    except UserError as error:
        assert re.search("is not declared for|has no case with", str(error))  # noqa: PT017 - either outcome is a law
        asked = set(product(wanted.tasks or tasks, wanted.backends or backends, wanted.optimizations or optimizations))
        assert asked - {(case.task, case.backend, case.optimization) for case in every}
        return
    assert found == [case for case in every if case in set(found)]
    for names, attribute in (
        (wanted.tasks, "task"),
        (wanted.backends, "backend"),
        (wanted.optimizations, "optimization"),
    ):
        assert not names or {getattr(case, attribute) for case in found} == set(names)


def test_nothing_asked_is_everything() -> None:
    """Without a selection every existing case is selected."""
    assert select("cpu", MODELS, Selection()) == existing("cpu", MODELS)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Selection(tasks=("sentimant",)), r"unknown task 'sentimant'\. Did you mean 'sentiment'\?"),
        (Selection(backends=("onnx",)), r"unknown backend 'onnx'"),
        (Selection(optimizations=("fp23",)), r"unknown optimization 'fp23'\. Did you mean 'fp32'\?"),
        (
            Selection(backends=("onnxruntime",), optimizations=("torchscript",)),
            r"torchscript is not declared for onnxruntime; it applies to huggingface",
        ),
        (
            Selection(backends=("huggingface", "onnxruntime"), optimizations=("torchscript",)),
            r"backend onnxruntime has no case with torchscript; it runs .*int8",
        ),
        (
            Selection(optimizations=("fp32", "graph-o2"), backends=("huggingface",)),
            r"graph-o2 is not declared for huggingface; it applies to onnxruntime",
        ),
    ],
)
def test_what_does_not_exist_is_an_error_that_says_why(wanted: Selection, message: str) -> None:
    """An unknown name, or a combination that is not declared, is never a silent pass."""
    with pytest.raises(UserError, match=message):
        select("cpu", MODELS, wanted)


def test_a_technique_of_another_device_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a technique exists on certain device kinds only, elsewhere it has no case, and asking for it says so."""
    bound = {name: replace(each, kinds=frozenset({"cuda"})) if name == "bf16" else each for name, each in known()}
    monkeypatch.setattr(cases, "optimizations", bound)
    assert "bf16" in {name for _, _, name in cells("cuda")}
    assert "bf16" not in {name for _, _, name in cells("cpu")}
    with pytest.raises(UserError, match="optimization bf16 exists on cuda only; this device is cpu"):
        select("cpu", MODELS, Selection(optimizations=("bf16",)))


def known() -> list[tuple[str, Optimization]]:
    return list(optimizations.items())


def test_a_task_without_a_model_has_no_case() -> None:
    """A task for which no model is provided is left out, and does not fail the others."""
    assert {case.task for case in existing("cpu", {"ner": {"small": SAFE}})} == {"ner"}


def test_a_missing_requirement_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend whose module is not installed has cases, which are skipped with the command that installs it."""
    lacking = SimpleNamespace(requires=(Requirement("no_such_module", "pip install it"),))
    monkeypatch.setattr("targets.availability.backends", {"huggingface": lacking})
    reason = unavailable(Case("ner", "small", "huggingface", "fp32"), planned("cpu"))
    assert reason == "huggingface needs no_such_module, which is not installed: pip install it"


def test_what_a_device_lacks_is_the_reason() -> None:
    """A technique that the device does not offer, or a number format it does not have, is a reason to skip."""
    bare = replace(planned("cuda"), supports=frozenset(), native=frozenset({"float32"}))
    case = Case("ner", "small", "huggingface", "int8")
    assert "does not offer" in (unavailable(case, bare) or "")
    able = replace(bare, supports=planned("cuda").supports | {"half"})
    half = unavailable(Case("ner", "small", "huggingface", "bf16"), able)
    assert half is not None
    assert "does not compute bfloat16 natively (it has float32)" in half
    assert unavailable(case.reference, able) is None


@pytest.mark.parametrize(
    ("module", "there"),
    [("numpy", True), ("numpy.linalg", True), ("no_such_module", False), ("no_such_module.inner", False)],
)
def test_importable(module: str, there: bool) -> None:
    """Whether a module can be found is told, also inside a package that is missing."""
    assert importable(module) == there


def test_looking_for_a_module_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module inside a package is found without importing the package, which may take 200 MB."""
    (tmp_path / "heavy_package").mkdir()
    (tmp_path / "heavy_package/__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "heavy_package/inner.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert importable("heavy_package.inner")
    assert not importable("heavy_package.other")
    assert not importable("heavy_package.inner.deeper")
