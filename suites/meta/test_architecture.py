from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("targets", "fixtures", "suites")
"""From the bottom up: each may import itself and those before it."""
SIBLINGS = ("tasks", "backends", "optimizations", "devices", "probes")
LAZY = {"torch", "transformers", "tokenizers", "onnx", "onnxruntime", "optimum", "llama_cpp", "datasets", "matplotlib"}
LAZY |= {"pynvml", "jtop", "mlperf_loadgen"}
"""Imported inside functions only: collecting must stay fast, and no extra is needed to collect."""
MODULES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
CORE = [path for path in MODULES if path.relative_to(ROOT).parts[0] != "suites"]


def named(node: ast.AST) -> list[str]:
    """The modules that a node imports: for `from a import b` both a and a.b, since b may be a module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        return [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def imports(path: Path) -> set[str]:
    """Every import of a module, inside functions too."""
    return {name for node in ast.walk(ast.parse(path.read_text())) for name in named(node)}


def at_import(body: list[ast.stmt]) -> Iterator[str]:
    """What is imported when the module is: not inside functions, nor for type checkers only."""
    for node in body:
        yield from named(node)
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not typing_only:
            for field in ("body", "orelse", "finalbody"):
                yield from at_import(getattr(node, field, []) or [])
            for handler in getattr(node, "handlers", []):
                yield from at_import(handler.body)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    """The suites import fixtures and targets, fixtures import targets, targets import neither."""
    layer = LAYERS.index(path.relative_to(ROOT).parts[0])
    above = {name for name in imports(path) if name.partition(".")[0] in LAYERS[layer + 1 :]}
    assert not above, f"{name_of(path)} imports {', '.join(sorted(above))}, which stand above it"


@pytest.mark.parametrize("folder", SIBLINGS)
def test_siblings_do_not_know_each_other(folder: str) -> None:
    """Tasks, backends, optimizations and devices meet in the vocabulary and the registries only."""
    for path in (ROOT / "targets" / folder).glob("*.py"):
        forbidden = tuple(f"targets.{sibling}" for sibling in SIBLINGS)
        found = {name for name in imports(path) if name.startswith(forbidden)}
        assert not found, f"{name_of(path)} imports {', '.join(sorted(found))}"


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_heavy_libraries_are_imported_late(path: Path) -> None:
    """No module of targets or fixtures imports an engine or a drawing library when it is imported itself."""
    heavy = {name for name in at_import(ast.parse(path.read_text()).body) if name.partition(".")[0] in LAZY}
    assert not heavy, f"{name_of(path)} imports {', '.join(sorted(heavy))} at its top"


def test_one_module_knows_allure() -> None:
    """Only fixtures/report.py imports Allure."""
    knowing = [name_of(path) for path in CORE if any(name.startswith("allure") for name in imports(path))]
    assert knowing == ["fixtures/report.py"]


def test_targets_know_nothing_of_pytest() -> None:
    """What is tested can be used without the test runner."""
    knowing = [path for path in CORE if path.is_relative_to(ROOT / "targets") and "pytest" in imports(path)]
    assert knowing == []


def test_the_suites_of_laws_do_not_lean_on_the_harness_tests() -> None:
    """Nothing outside of suites/meta imports it: fakes and planted faults are no part of a real run."""
    outside = [path for path in MODULES if not path.is_relative_to(ROOT / "suites" / "meta")]
    leaning = [name_of(path) for path in outside if any(name.startswith("suites.meta") for name in imports(path))]
    assert leaning == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch", True),
        ("try:\n    import torch.nn\nexcept ImportError:\n    pass", True),
        ("try:\n    pass\nexcept ImportError:\n    import torch", True),
        ("class A:\n    from torch import nn", True),
        ("if True:\n    pass\nelse:\n    from torch import nn", True),
        ("with a:\n    import torch", True),
        ("def f():\n    import torch", False),
        ("class A:\n    def f(self):\n        import torch", False),
        ("if TYPE_CHECKING:\n    import torch", False),
        ("import torchless", False),
    ],
)
def test_the_check_itself(source: str, found: bool) -> None:
    """The check sees an import wherever it runs at import time, and only there."""
    names = set(at_import(ast.parse(source).body))
    assert any(name.partition(".")[0] in LAZY for name in names) == found
