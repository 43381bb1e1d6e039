"""Costs of an answer: formulas against PyTorch's own counter, and bytes against files whose content is known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.roofline import counter as flop_counter
from fixtures.roofline import flops, traffic
from targets.api import Unsupported

TOKENS = 40
CLOSE = pytest.approx(1, rel=0.05)
LLAMA = {
    "vocab_size": 333,
    "hidden_size": 64,
    "intermediate_size": 100,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
}


def counted(module: Any, **inputs: Any) -> int:
    """FLOPs of one call by torch.utils.flop_counter."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(**inputs)
    return int(counter.get_total_flops())


def made(model: str, config: str, **shape: Any) -> tuple[Any, dict[str, Any]]:
    """A module of random weights, and its config.json; attention is computed by products that the counter sees."""
    transformers = pytest.importorskip("transformers")
    settings = getattr(transformers, config)(**shape)
    module = getattr(transformers, model)._from_config(settings, attn_implementation="eager").eval()
    return module, settings.to_dict()


def ids(tokens: int = TOKENS) -> Any:
    """One row of tokens."""
    torch = pytest.importorskip("torch")
    return torch.ones(1, tokens, dtype=torch.long)


@pytest.mark.parametrize(
    ("model", "config", "shape"),
    [
        ("DistilBertForSequenceClassification", "DistilBertConfig", {"dim": 64, "n_layers": 3, "hidden_dim": 160}),
        ("DistilBertForQuestionAnswering", "DistilBertConfig", {"dim": 96, "n_layers": 1, "hidden_dim": 300}),
        ("BertForTokenClassification", "BertConfig", {"hidden_size": 64, "num_hidden_layers": 3, "num_labels": 7}),
        ("BertForSequenceClassification", "BertConfig", {"hidden_size": 32, "intermediate_size": 50}),
    ],
)
def test_encoders_cost_what_the_counter_counts(model: str, config: str, shape: dict[str, Any]) -> None:
    """An encoder's formula is within 5 % of PyTorch's counter, whatever its head and its shape."""
    heads = {"n_heads" if "Distil" in model else "num_attention_heads": 4}
    module, settings = made(model, config, vocab_size=300, **heads, **shape)
    formula = flops.of_config(settings, model.partition("For")[2])
    assert counted(module, input_ids=ids()) / formula.forward(TOKENS) == CLOSE


@pytest.mark.parametrize(
    ("model", "config", "shape"),
    [
        ("LlamaForCausalLM", "LlamaConfig", LLAMA),
        ("GPT2LMHeadModel", "GPT2Config", {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 333}),
    ],
)
def test_causal_models_cost_what_the_counter_counts(model: str, config: str, shape: dict[str, Any]) -> None:
    """A causal model's formula is within 5 % of the counter for a step with a KV cache, and for a prompt.

    PyTorch computes the masked half of the attention and the logits of every token too, which no answer needs.
    """
    module, settings = made(model, config, **shape)
    formula = flops.of_config(settings, "CausalLM")
    masked = TOKENS**2 - TOKENS * (TOKENS + 1) // 2
    needless = masked * formula.pair + (TOKENS - 1) * formula.output
    assert counted(module, input_ids=ids(), use_cache=False) / (formula.prefill(TOKENS) + needless) == CLOSE
    cache = module(input_ids=ids(), use_cache=True).past_key_values
    values = sum(part.numel() for layer in cache.layers for part in (layer.keys, layer.values))
    assert formula.cached(TOKENS) == values
    assert counted(module, input_ids=ids(1), past_key_values=cache, use_cache=True) / formula.step(TOKENS + 1) == CLOSE


@pytest.mark.parametrize(
    ("model", "config", "shape"),
    [
        (
            "T5ForConditionalGeneration",
            "T5Config",
            {"d_kv": 12, "d_ff": 90, "num_layers": 3, "num_decoder_layers": 2, "feed_forward_proj": "gated-gelu"},
        ),
        (
            "MarianMTModel",
            "MarianConfig",
            {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 90, "decoder_ffn_dim": 80, "pad_token_id": 0},
        ),
    ],
)
def test_encoder_decoders_cost_what_the_counter_counts(model: str, config: str, shape: dict[str, Any]) -> None:
    """An encoder-decoder's formula is within 5 % of the counter, from the text to the first token and for a step."""
    transformers = pytest.importorskip("transformers")
    four = dict.fromkeys(("num_heads", "encoder_attention_heads", "decoder_attention_heads"), 4)
    module, settings = made(model, config, d_model=64, vocab_size=333, **four, **shape)
    formula = flops.of_config(settings, "Seq2SeqLM")
    assert counted(module, input_ids=ids(), decoder_input_ids=ids(1)) / formula.prefill(TOKENS) == CLOSE
    before = module(input_ids=ids(), decoder_input_ids=ids(5), use_cache=True)
    encoded = transformers.modeling_outputs.BaseModelOutput(before.encoder_last_hidden_state)
    inputs = {"encoder_outputs": encoded, "past_key_values": before.past_key_values, "use_cache": True}
    assert counted(module, decoder_input_ids=ids(1), **inputs) / formula.step(6, TOKENS) == CLOSE


def test_what_has_no_formula_is_counted() -> None:
    """The counter finds for a module, of whatever architecture, what the formula says where there is one."""
    causal, config = made("LlamaForCausalLM", "LlamaConfig", **LLAMA)
    formula = flops.of_config(config, "CausalLM")
    found = flop_counter.of_module(held(causal), "causal")
    assert found.output == formula.output
    assert found.token / formula.token == CLOSE
    assert found.pair / formula.pair == CLOSE
    encoder, config = made("BertForSequenceClassification", "BertConfig", hidden_size=48, num_attention_heads=4)
    known = flops.of_config(config, "SequenceClassification")
    assert flop_counter.of_module(held(encoder), "encoder").forward(TOKENS) / known.forward(TOKENS) == CLOSE
    with pytest.raises(Unsupported, match="only PyTorch modules of one stack"):
        flop_counter.of_module(held(None), "encoder")


def held(module: Any) -> Any:
    """A guest whose target is a module."""
    return SimpleNamespace(target=SimpleNamespace(model=module))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "rwkv"}, "no formula of FLOPs is known for the architecture 'rwkv'"),
        ({}, r"'\(config.json names none\)'"),
        ({"model_type": "llama"}, "has no 'hidden_size'"),
        ({"model_type": "mixtral", "num_local_experts": 8}, "a mixture of experts"),
    ],
)
def test_what_cannot_be_counted_says_why(config: dict[str, Any], says: str) -> None:
    """A model without a formula has no FLOPs, with the reason, rather than some."""
    with pytest.raises(Unsupported, match=says):
        flops.of_config(config, "CausalLM")


METADATA = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.key_length": 24,
}
SHAPES = {
    "token_embd.weight": (64, 333),
    **{
        f"blk.{layer}.{name}.weight": shape
        for layer in range(2)
        for name, shape in {
            "attn_norm": (64,),
            "attn_q": (64, 96),
            "attn_k": (64, 48),
            "attn_v": (64, 48),
            "attn_output": (96, 64),
            "ffn_gate": (64, 100),
            "ffn_up": (64, 100),
            "ffn_down": (100, 64),
        }.items()
    },
}


def test_a_gguf_costs_what_its_config_would() -> None:
    """The FLOPs from a GGUF's tensors are those of the same model's config.json."""
    config = flops.of_config({"model_type": "llama", **LLAMA, "num_hidden_layers": 2}, "CausalLM")
    assert flops.of_gguf(METADATA, SHAPES.items()) == config


def test_gguf_bytes_are_those_of_its_tensors(tmp_path: Path) -> None:
    """Of a GGUF file all tensors are read for a token, the embedding only where it is the output layer too."""
    gguf = pytest.importorskip("gguf")
    import numpy as np

    from targets.gguf.file import contents

    def written(name: str, **tensors: Any) -> list[tuple[str, int]]:
        writer = gguf.GGUFWriter(tmp_path / name, "llama")
        writer.add_tensor("token_embd.weight", np.zeros((100, 32), np.float16))
        writer.add_tensor("blk.0.ffn_up.weight", np.zeros((4, 34), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        for key, tensor in tensors.items():
            writer.add_tensor(f"{key}.weight", tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return [(tensor.name, size) for tensor, size in contents(tmp_path / name)[1]]

    tied, untied = written("tied.gguf"), written("untied.gguf", output=np.zeros((100, 32), np.float32))
    assert traffic.of_gguf({}, tied).step == 100 * 32 * 2 + 4 * 34
    assert traffic.of_gguf({}, untied).step == 100 * 32 * 4 + 4 * 34


def test_only_the_experts_that_are_used_count() -> None:
    """Of a mixture of experts a token is multiplied by, and reads, as many experts as it is sent to."""
    metadata = {**METADATA, "llama.expert_count": 8, "llama.expert_used_count": 2}
    name = "blk.0.ffn_up_exps.weight"
    assert traffic.of_gguf(metadata, [(name, 800), ("blk.0.attn_q.weight", 100)]).step == 300
    dense, sparse = (flops.of_gguf(known, [(name, (64, 100, 8))]).token for known in (METADATA, metadata))
    assert sparse == dense / 4


def test_a_module_reads_its_matrices_once() -> None:
    """Of a loaded module the embedding counts only as the output layer it shares, and at the width it was loaded in."""
    torch = pytest.importorskip("torch")
    linear = sum(rows * columns for name, (rows, *rest) in SHAPES.items() if rest for columns in rest) - 64 * 333
    for tied, dtype, output in ((True, torch.float32, 1), (False, torch.bfloat16, 1)):
        module, _ = made(
            "LlamaForCausalLM", "LlamaConfig", **{**LLAMA, "num_hidden_layers": 2}, tie_word_embeddings=tied
        )
        found = traffic.of_module(held(module.to(dtype)), seq2seq=False)
        assert (found.step, found.item) == ((linear + output * 64 * 333) * dtype.itemsize, dtype.itemsize)


def test_a_step_of_a_decoder_leaves_the_encoder_alone(tmp_path: Path) -> None:
    """A step of an encoder-decoder reads its decoder and output, neither the encoder nor the keys it made once."""
    shape = {"d_kv": 16, "d_ff": 90, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4}
    module, _ = made("T5ForConditionalGeneration", "T5Config", d_model=64, vocab_size=333, **shape)
    found = traffic.of_module(held(module), seq2seq=True)
    square, wide = 64 * 64, 2 * 64 * 90
    assert found.step == 4 * (2 * (6 * square + wide) + 64 * 333)
    assert found.whole == found.step + 4 * (3 * (4 * square + wide) + 2 * 2 * square)
    module.save_pretrained(tmp_path)
    assert traffic.of_safetensors(tmp_path, 4, seq2seq=True) == traffic.Weights(
        found.whole, found.step, 4, "the safetensors files"
    )


def test_an_onnx_file_reads_what_is_not_gathered(tmp_path: Path) -> None:
    """Of an ONNX file an initializer that is only gathered from does not count; one that is also multiplied by does."""
    onnx = pytest.importorskip("onnx")
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    def tensor(name: str, dtype: Any, *shape: int) -> Any:
        return numpy_helper.from_array(np.ones(shape, dtype), name)

    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["a"]),
        helper.make_node("Gather", ["tied", "ids"], ["b"]),
        helper.make_node("MatMul", ["a", "tied"], ["c"]),
        helper.make_node("MatMulInteger", ["c", "packed"], ["out"]),
    ]
    weights = [tensor("words", np.float32, 9, 4), tensor("tied", np.float32, 4, 4), tensor("packed", np.int8, 4, 5)]
    found = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("out", TensorProto.INT32, [1, 5])],
        weights,
    )
    onnx.save(helper.make_model(found), tmp_path / "model.onnx")
    guest: Any = None
    assert traffic.of_onnx(guest, tmp_path) == traffic.Weights(
        4 * 16 + 20, 4 * 16 + 20, 1, "the initializers of the ONNX file"
    )
