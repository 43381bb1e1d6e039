"""Device profiles: what the shipped ones allow, and what a mistake in one says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets import profiles
from targets.api import UserError


@given(budget=st.none() | st.integers(1, 200_000), memory=st.integers(1, 200_000), share=st.floats(0.1, 1))
def test_a_budget_never_exceeds_the_memory(budget: int | None, memory: int, share: float) -> None:
    """Whatever a profile says, a target may use no more than there is."""
    plan = profiles.Plan(memory_mb=1, native=frozenset({"float32"}))
    profile = profiles.Profile("x", "cpu", budget, share, 1, "cpu", False, frozenset(), {}, plan)
    assert profile.budget_mb(memory) <= memory


@pytest.mark.parametrize(
    ("technique", "names"),
    [
        ("onnx", set(profiles.profiles())),
        ("quantization", set(profiles.profiles()) - {"apple-silicon"}),
        ("int8", set(profiles.profiles()) - {"apple-silicon"}),
        ("mps", {"apple-silicon"}),
        ("cuda", set(profiles.profiles()) - {"apple-silicon", "cpu"}),
        ("half", set(profiles.profiles()) - {"apple-silicon", "cpu"}),
    ],
)
def test_techniques_are_offered_where_they_belong(technique: str, names: set[str]) -> None:
    """Each technique is offered on exactly the devices that the requirements name."""
    assert {name for name, profile in profiles.profiles().items() if technique in profile.supports} == names


@pytest.mark.parametrize(
    ("name", "layers", "threads", "batch"),
    [
        ("cuda", 35, 8, 512),
        ("cpu", 0, 8, 256),
        ("apple-silicon", 0, 8, 512),
        *((name, 20, 6, 256) for name in sorted(profiles.profiles()) if name.startswith("jetson")),
    ],
)
def test_llama_settings_are_the_required_ones(name: str, layers: int, threads: int, batch: int) -> None:
    """The shipped llama.cpp settings are those required of each class of device."""
    wanted = {"n_gpu_layers": layers, "n_threads": threads, "n_batch": batch, "n_ctx": 2048}
    assert profiles.profiles()[name].backends["llama_cpp"] == wanted


GOOD = """\
schema: 1
profiles:
  board:
    kind: cpu
    memory_budget_mb: null
    memory_fraction: 0.5
    max_batch: 4
    torch_device: cpu
    flash_attention: false
    supports: [onnx]
    backends:
      llama_cpp: {n_gpu_layers: 0, n_threads: 8, n_batch: 256, n_ctx: 2048}
      onnxruntime: {providers: [CPUExecutionProvider], optimization_level: all}
    plan: {memory_mb: 100, native: [float32]}
"""


def test_a_profile_of_ones_own_is_read(tmp_path: Path) -> None:
    """A board is one entry in a file."""
    path = tmp_path / "devices.yaml"
    path.write_text(GOOD)
    board = profiles.load(path)["board"]
    assert (board.name, board.kind, board.budget_mb(1000), sorted(board.supports)) == ("board", "cpu", 500, ["onnx"])


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("schema: 1", "schema: 2", 1, "schema is 2, which is not known. Known: 1."),
        ("schema: 1", "schema: true", 1, "schema is True, which is not known."),
        ("schema: 1\n", "", 1, "the file lacks schema; add it"),
        ("kind: cpu", "kind: cuba", 4, "profiles.board.kind is 'cuba', which is not known. Did you mean 'cuda'?"),
        ("max_batch: 4", "max_bach: 4", 7, "profiles.board.max_bach is not a known key. Did you mean 'max_batch'?"),
        ("    max_batch: 4\n", "", 3, "profiles.board lacks max_batch; add it"),
        ("max_batch: 4", "max_batch: 0", 7, "is 0; a whole number of at least 1 was expected"),
        ("max_batch: 4", "max_batch: true", 7, "is True; a whole number"),
        ("max_batch: 4", "max_batch: 4\n    max_batch: 8", 8, "stands twice, first in line 7; keep one"),
        ("memory_budget_mb: null", "memory_budget_mb: 6 GB", 5, "is '6 GB'; a whole number of MB, or null"),
        ("memory_fraction: 0.5", "memory_fraction: 75", 6, "is 75; a number above 0 and up to 1 was expected"),
        ("flash_attention: false", "flash_attention: 1", 9, "is 1; true or false was expected"),
        ("[onnx]", "[onxx]", 10, "supports is 'onxx', which is not known. Did you mean 'onnx'?"),
        ("[onnx]", "onnx", 10, "is 'onnx'; a list of at least one item was expected"),
        ("[onnx]", "[onnx, onnx]", 10, "names 'onnx' twice; keep one"),
        ("n_ctx: 2048", "n_ctx: long", 12, "backends.llama_cpp.n_ctx is 'long'; a whole number"),
        ("n_ctx: 2048", "n_context: 2048", 12, "n_context is not a known key. Did you mean 'n_ctx'?"),
        ("[CPUExecutionProvider]", "[CPU]", 13, "names 'CPU'; execution providers were expected"),
        ("level: all", "level: full", 13, "optimization_level is 'full', which is not known."),
        ("llama_cpp:", "lama_cpp:", 12, "lama_cpp is not a known backend. Did you mean 'llama_cpp'?"),
        ("[float32]", "[float64]", 14, "plan.native is 'float64', which is not known. Did you mean"),
        ("[onnx]", "[onnx", 11, "not valid YAML"),
    ],
)
def test_a_mistake_in_the_profiles_is_named(old: str, new: str, line: int, says: str, tmp_path: Path) -> None:
    """An error in devices.yaml names file, line, key, the value found and what was allowed, in one line."""
    path = tmp_path / "devices.yaml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(UserError) as error:
        profiles.load(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "profiles: {}\nschema: 1\n", "schema: 1\nprofiles: {1: {}}\n", "a: \x00"])
def test_a_file_that_holds_no_profiles_is_refused(text: str, tmp_path: Path) -> None:
    """An empty or differently shaped file is refused by its name."""
    path = tmp_path / "devices.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"devices\.yaml:\d+: "):
        profiles.load(path)


def test_a_missing_profile_file_is_refused(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(UserError, match=r"none\.yaml: the device profiles cannot be read"):
        profiles.load(tmp_path / "none.yaml")
