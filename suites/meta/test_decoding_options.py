"""Techniques of decoding and loading: each is at work, and those that promise the same tokens give them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fixtures.devices import planned
from suites.meta.test_transformers_generator import WORDS, Open, batch, device, open_, request
from targets.api import Device, Requirement
from targets.optimization import Optimization
from targets.out_of_memory import is_out_of_memory
from targets.registry import optimizations

__all__ = ["device", "open_"]
EXACT = ("no-kv-cache", "eager-attention", "prompt-lookup", "draft-model", "low-memory", "fallback")
ROUGH = ("int8", "bf16", "bnb-int8", "bnb-nf4", "torchao-int8")
ON_ONNX = ("int8", "graph-o2", "graph-int8", "fp16")
pytestmark = pytest.mark.filterwarnings("ignore:::torchao")


@pytest.mark.parametrize("name", EXACT)
def test_the_same_tokens_another_way(name: str, open_: Open) -> None:
    """What changes only the way of decoding or loading gives the plain model's tokens, and proves itself."""
    runner = open_("llama", optimization=name)
    asked = [*batch("llama", max_tokens=24), *batch("llama", ignore_eos=False)]
    assert runner.run(asked) == open_("llama").run(asked)
    assert runner.evidence().mismatches == []


@pytest.mark.parametrize("name", ["prompt-lookup", "draft-model"])
def test_streams_of_speculation(name: str, open_: Open) -> None:
    """Speculative decoding ticks once a token although tokens come in bursts, and reports what it accepted."""
    runner, ticks = open_("llama", optimization=name), []
    answers = runner.run(batch("llama", max_tokens=24), lambda: ticks.append(1))
    assert len(ticks) == sum(answer["output_tokens"] for answer in answers) == 24 * len(WORDS)
    found = runner.evidence().details["acceptance"]
    assert 0 < found["accepted"] <= found["drafted"]
    assert found["rate"] == found["accepted"] / found["drafted"]


def test_a_draft_shares_every_weight(open_: Open) -> None:
    """The draft has half of the layers, and holds no memory of its own."""
    runner = open_("llama", optimization="draft-model")
    draft = runner._options["assistant_model"]
    owned = {parameter.data_ptr() for parameter in runner.model.parameters()}
    assert draft.config.num_hidden_layers == 1
    assert all(parameter.data_ptr() in owned for parameter in draft.parameters())


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("name", ROUGH)
def test_fewer_bits_stay_near(name: str, kind: str, open_: Open) -> None:
    """Fewer bits are at work where asked for, and the next token's logits stay close to the plain model's."""
    if optimizations[name].tasks and kind != "llama":
        pytest.skip(f"{name} is for {', '.join(optimizations[name].tasks)}")
    runner = open_(kind, optimization=name)
    runner.run(batch(kind))
    assert runner.evidence().mismatches == []
    near(runner, open_(kind), kind)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("name", ON_ONNX)
def test_converted_graphs(name: str, kind: str, open_: Open) -> None:
    """Every graph of a model is converted, shows it by its operators, and computes nearly what it did."""
    runner = open_(kind, "onnxruntime", name)
    runner.run(batch(kind))
    evidence = runner.evidence()
    assert evidence.mismatches == []
    files = {"encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"}
    assert set(evidence.details["operators"]) == (files if kind == "t5" else {"model.onnx"})
    near(runner, open_(kind), kind)


def near(runner: Any, plain: Any, kind: str) -> None:
    """Assert that the first new token's logits go with the plain model's; a wrong layout leaves no correlation."""
    for asked in batch(kind):
        place = 0 if kind == "t5" else -1
        got, want = (np.asarray(each.logits([asked])[0][0][place]) for each in (runner, plain))
        assert np.corrcoef(got, want)[0, 1] > 0.9, asked


def test_proof_fails_where_the_technique_is_off(open_: Open) -> None:
    """A plain model does not pass for an optimized one."""
    plain = open_("llama").model
    plain.acceptance = SimpleNamespace(kind="none yet")
    plain.passes_with_cache = 3
    for name in ("int8", "bf16", "prompt-lookup", "draft-model", "no-kv-cache", "eager-attention", "bnb-nf4"):
        proof = optimizations[name].torch_proof(plain)
        assert any(want != found for want, found in proof.values()), name


Load = Callable[..., Any]


def loader(failing: dict[tuple[str, str], Exception], parameters: int = 1000) -> Load:
    """A loader that fails as told for a place and number format."""

    def load(place: str, dtype: str, **options: Any) -> Any:
        bits = "8-bit" if "quantization_config" in options else dtype
        if (place, bits) in failing:
            raise failing[place, bits]
        return SimpleNamespace(place=place, bits=bits)

    load.parameters = parameters  # type: ignore[attr-defined]
    return load


FULL = {
    ("cuda", "float32"): RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nmore"),
    ("cuda", "float16"): MemoryError("no room"),
    ("cuda", "8-bit"): RuntimeError("CUDA error: out of memory"),
}


@pytest.mark.parametrize("failures", range(4))
def test_the_chain_takes_the_first_that_fits(failures: int) -> None:
    """The fallback chain takes the first rung that memory allows, and says why each before it failed."""
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("accelerate")
    failing = dict(list(FULL.items())[:failures])
    model = optimizations["fallback"].load_torch(loader(failing), planned("cuda"))
    *failed, last = optimizations["fallback"].torch_details(model)["loading"]
    names = ["fp32 on cuda", "fp16 on cuda", "8-bit on cuda", "fp32 on cpu"]
    assert [step["rung"] for step in failed] == names[:failures]
    assert [step["outcome"] for step in failed] == [str(error).split("\n")[0] for error in failing.values()]
    assert last == {"rung": names[failures], "outcome": "loaded"}


def test_a_chain_that_holds_nowhere_tells_its_story() -> None:
    """Where every rung fails, the error is one of memory, and has every rung in it."""
    failing = {**FULL, ("cpu", "float32"): MemoryError("no room at all")}
    with pytest.raises(
        MemoryError, match=r"fp32 on cuda: CUDA out of memory.*fp16 on cuda: no room; .*8-bit.*no room at"
    ):
        optimizations["fallback"].load_torch(loader(failing), planned("cuda"))


def test_the_budget_is_known_before_it_is_spent() -> None:
    """Weights beyond the device's budget are not tried: the kernel would kill the process before Python could tell."""
    small = replace(planned("cpu"), memory_budget_mb=600)
    model = optimizations["fallback"].load_torch(loader({}, parameters=200 * 2**20), small)
    assert model.bits == "float16"
    assert model.loading[0]["outcome"] == "its weights need 800 MB, and the budget is 600 MB"


def test_other_failures_are_not_swallowed() -> None:
    """The chain goes on after running out of memory only."""
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        optimizations["fallback"].load_torch(
            loader({("cpu", "float32"): RuntimeError("a shape is wrong")}), planned("cpu")
        )


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"), True),
        (RuntimeError("std::bad_alloc"), True),
        (ValueError("no such file"), False),
    ],
)
def test_running_out_of_memory(error: Exception, memory: bool) -> None:
    """Running out of memory is known by its many names, and nothing else is taken for it."""
    assert is_out_of_memory(error) == memory


def test_what_an_optimization_requires_is_the_reason() -> None:
    """A technique whose library is missing is skipped with the command that installs it."""
    lacking = replace(optimizations["eager-attention"], requires=(Requirement("no_such_module", "pip install it"),))
    reason = lacking.unavailable(planned("cpu"))
    assert reason == "eager-attention needs no_such_module, which is not installed: pip install it"


def test_flash_attention_is_for_the_devices_that_have_it() -> None:
    """FlashAttention is offered where the device's profile says so only."""
    flash = optimizations["flash-attention"]
    nano = flash.unavailable(planned("jetson-orin-nano"))
    assert nano == "flash-attention is not offered by the profile of jetson-orin-nano"
    assert "flash_attn" in (flash.unavailable(planned("cuda")) or "flash_attn")


def test_loading_within_the_budget() -> None:
    """Loading is given the device's budget, of the GPU where it is one, and the host's memory beside a card's."""
    options = {name: optimizations["low-memory"].torch_options(planned(name)) for name in ("cpu", "jetson-orin-nano")}
    assert options["cpu"]["max_memory"] == {"cpu": f"{planned('cpu').memory_budget_mb}MiB"}
    assert options["jetson-orin-nano"]["max_memory"] == {0: "6144MiB"}
    card: Device = replace(planned("cuda"), facts={"host_memory_mb": "1000"})
    assert optimizations["low-memory"].torch_options(card)["max_memory"]["cpu"] == "1000MiB"


def test_contracts_of_generators_name_a_bound_on_kl() -> None:
    """A technique that promises every token promises the distribution as well."""
    for name, each in optimizations.items():
        known: Optimization = each
        if "causal" in known.families and known.min_agreement == 1.0 and name != "fp32":
            assert known.max_kl is not None, name


def test_requests_are_not_shared(open_: Open) -> None:
    """A runner does not change the requests it is given."""
    asked = request("llama", "fox", stop=["x"])
    before = dict(asked)
    open_("llama", optimization="prompt-lookup").run([asked])
    assert asked == before
