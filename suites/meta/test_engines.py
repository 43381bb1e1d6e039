from __future__ import annotations

from pathlib import Path

import pytest

from fixtures import models
from fixtures.devices import planned
from fixtures.engines import Engines, openai_models
from fixtures.session import by_name, formats
from suites.meta.runs import run
from targets.api import UserError


def test_what_was_asked_goes_over_the_profile() -> None:
    """A setting given by option replaces the profile's, and leaves the others of its engine and all other engines."""
    board = planned("jetson-orin-nano")
    device = Engines(settings={"llama_cpp": {"n_ctx": 512}, "ollama": {"url": "http://x"}}).on(board)
    assert device.backends["llama_cpp"] == {**board.backends["llama_cpp"], "n_ctx": 512}
    assert device.backends["ollama"] == {"url": "http://x"}
    assert device.backends["onnxruntime"] == board.backends["onnxruntime"]
    assert board.backends["llama_cpp"]["n_ctx"] == 2048


def test_nothing_asked_changes_nothing() -> None:
    """Without options the device is its profile."""
    board = planned("jetson-orin-nano")
    assert Engines().on(board) == board


def test_models_named_are_not_asked_for() -> None:
    """A server is asked for its models only where none is named; without a server there is none."""
    assert openai_models("http://127.0.0.1:9", ["a", "b"]) == ["a", "b"]
    assert openai_models(None, []) == []


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """Case ids tell models apart by name, so two of one name are an error and neither is dropped."""
    twins = [models.own_gguf("generation", tmp_path / folder / "model.gguf") for folder in "ab"]
    with pytest.raises(UserError, match="two models have the same name"):
        by_name(twins)
    others = [*twins[:1], models.served("generation", "ollama", "tiny:1b")]
    assert list(by_name(others)) == ["model", "tiny-1b"]


def test_a_model_is_run_by_the_engines_of_its_format(tmp_path: Path) -> None:
    """What Ollama serves is asked of Ollama, and a GGUF of the engines that read one; neither has a PyTorch case."""
    served = models.served("generation", "ollama", "tiny:1b")
    own = models.own_gguf("generation", tmp_path / "x.gguf")
    assert formats({"generation": by_name([served, own])}) == {
        "generation": {"tiny-1b": "ollama", "x": "gguf"},
    }


def test_the_plan_of_a_served_model(tmp_path: Path) -> None:
    """With --ollama-model the plan has the model as it is, on Ollama, for generation and chat, and nothing else."""
    found = run(tmp_path, "--task=generation,chat", "--ollama-model=tiny:1b", "--collect-only", "-q")
    planned_cases = [line.split()[0] for line in found.output.splitlines() if line.startswith("  ")]
    assert planned_cases == ["chat/tiny-1b/ollama/as-is", "generation/tiny-1b/ollama/as-is"], found.output[-800:]
