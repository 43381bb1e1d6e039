"""How llama.cpp loads a model: levels, drafts, caches and places of weights, what is refused, and memory given back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from suites.meta import llama_kit
from suites.meta.llama_kit import PROMPTS, ask, divergence
from suites.meta.tiny_llama import embedded, llama
from targets.api import ModelFiles, UserError
from targets.gguf.model import gguf_file
from targets.llama import load as llama_load
from targets.registry import optimizations

pytest.importorskip("llama_cpp", reason="pip install '.[llama]'")
pytest.importorskip("gguf", reason="pip install '.[llama]'")

LEVELS = ("f32", "f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k")


cache, runner = llama_kit.cache, llama_kit.runner


def test_quality_falls_with_the_bits(cache: Path, runner: Any) -> None:
    """The divergence from single precision grows from level to level, and stays within each level's contract."""
    requests = [{"prompt": prompt} for prompt in PROMPTS]
    right = [rows for (rows,) in runner.logits(requests)]
    found = []
    for level in LEVELS[1:]:
        with llama(cache, level) as loaded:
            logits = [rows for (rows,) in loaded.logits(requests)]
            assert loaded.evidence().mismatches == []
        found.append(np.mean([divergence(*pair) for pair in zip(right, logits, strict=True)]))
        assert found[-1] < optimizations[level].max_kl  # type: ignore[operator]
    assert found == sorted(found), dict(zip(LEVELS[1:], found, strict=True))


def test_drafts_change_nothing_but_the_passes(cache: Path, runner: Any) -> None:
    """Speculative decoding gives the greedy tokens, and some of what it proposed was right."""

    class Lookup(type(optimizations["f32"])):  # type: ignore[misc]
        def llama_options(self, device: Any, layers: int) -> dict[str, Any]:
            return {**super().llama_options(device, layers), "draft_model_tokens": 6}

    plain = optimizations["f32"]
    lookup = Lookup(**{name: getattr(plain, name) for name in plain.__dataclass_fields__})
    with llama(cache, lookup) as drafted:
        for prompt in PROMPTS:
            for ignore in (True, False):
                request: dict[str, Any] = {"max_tokens": 60, "ignore_eos": ignore}
                assert ask(drafted, prompt, **request) == ask(runner, prompt, **request)
        drafts = drafted.evidence().details["acceptance"]
    assert 0 < drafts["accepted"] <= drafts["drafted"]


def test_a_quantized_cache_is_used(cache: Path, runner: Any) -> None:
    """A KV cache in 8 bits changes the logits a little, and no more than its contract."""
    request = [{"prompt": " ".join(PROMPTS)}]
    with llama(cache, "kv-q8") as eight, llama(cache, "q4_k_m") as plain:
        ((found,),), ((base,),) = eight.logits(request), plain.logits(request)
        assert eight.evidence().details["KV cache"] == {"k": 8, "v": 8}
    assert not np.array_equal(found, base)
    assert divergence(runner.logits(request)[0][0], found) < optimizations["kv-q8"].max_kl  # type: ignore[operator]


def test_where_weights_lie_changes_nothing(cache: Path) -> None:
    """Weights that are read and weights that are mapped give the same logits."""
    request = [{"prompt": PROMPTS[0]}]
    with llama(cache, "no-mmap") as read, llama(cache, "q4_k_m") as mapped:
        assert (read.evidence().details["mmap"], mapped.evidence().details["mmap"]) == (False, True)
        assert np.array_equal(read.logits(request)[0][0], mapped.logits(request)[0][0])


def test_gpu_layers_without_a_gpu_are_a_note(cache: Path) -> None:
    """Asked for GPU layers, a build without GPU support runs on the CPU and says so; that is no mismatch."""
    import llama_cpp

    if llama_cpp.llama_supports_gpu_offload():
        pytest.skip("this llama-cpp-python was built with GPU support")
    with llama(cache, n_gpu_layers=3) as loaded:
        found = loaded.evidence()
        ask(loaded, max_tokens=2)
    assert found.mismatches == []
    (note,) = found.details["notes"]
    assert "3 layers were to go to the GPU" in note


def test_another_level_than_asked_for_is_a_mismatch(cache: Path) -> None:
    """A file of another level than the optimization's is seen by its own type."""
    path = gguf_file(embedded(), optimizations["q8_0"], cache)
    from suites.meta.tiny_llama import device
    from targets.registry import backends, tasks

    wrong = replace(embedded(), name="wrong")
    with backends["llama-cpp-python"].load(
        wrong, path, tasks["generation"], optimizations["q4_k_m"], device()
    ) as loaded:
        assert loaded.evidence().mismatches == ["file type: asked for Q4_K_M, got Q8_0"]


def test_a_refusal_says_what_llama_cpp_said(cache: Path, tmp_path: Path) -> None:
    """A file that looks whole but cannot be loaded is refused with llama.cpp's own reason."""
    damaged = gguf_file(embedded(), optimizations["q8_0"], cache).read_bytes()
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damaged.replace(b"blk.1.attn_q.weight", b"blk.1.attn_x.weight"))
    own = ModelFiles("own", path, "digest", "path", format="gguf")
    with pytest.raises(UserError, match=r"llama\.cpp cannot load it: .*blk\.1\.attn_q\.weight"):
        llama(tmp_path, "as-is", model=own)


def test_memory_that_runs_out_is_told_as_such() -> None:
    """Where llama.cpp could not allocate, loading fails as out of memory, not as a bad file."""
    said = ["ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 999\n"]
    assert isinstance(llama_load.refusal(Path("a"), said, ValueError("no")), MemoryError)
    assert isinstance(llama_load.refusal(Path("a"), [], ValueError("no")), UserError)


def test_closing_frees_memory(cache: Path) -> None:
    """Loading and closing again and again does not make the process grow."""
    process = psutil.Process()
    sizes = []
    for _ in range(6):
        with llama(cache, "f32") as loaded:
            ask(loaded, max_tokens=2)
        loaded.close()
        sizes.append(process.memory_info().rss / 2**20)
    assert sizes[-1] - sizes[1] < 5, sizes
