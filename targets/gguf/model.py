"""GGUF files of a model: a Hugging Face Llama converted with the gguf library, then quantized by llama.cpp itself.

What is converted here is one family, as it is trained in the suite; for any other there is llama.cpp's own
convert_hf_to_gguf.py, whose file goes in with --gguf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets import model_folder
from targets.api import ModelFiles, Unavailable, UserError
from targets.artifacts import artifact, versions
from targets.gguf.tokenizer import REMEDY, add_tokenizer
from targets.located import parse_json, read_text
from targets.optimization import Optimization
from targets.weights import float32, tensors

INSTALL = "pip install '.[llama]'"
DEFAULT_TYPE = "F16"
"""The level of a GGUF that is made for an optimization that names none."""
LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Transformers' names of a Llama layer's weights, and llama.cpp's."""
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
UNSUPPORTED = ("attention_bias", "mlp_bias")
"""Options of a Llama that change its arithmetic and are not converted here."""


def gguf_file(model: ModelFiles, optimization: Optimization, cache: Path) -> Path:
    """The .gguf file to load: the user's own, or the one made from a model folder at the level the optimization names.

    Raises:
        UserError: the folder holds no Llama with a byte-level BPE tokenizer.
        Unavailable: the gguf library or llama-cpp-python is not installed.
    """
    if model.format == "gguf":
        return model.path
    level = optimization.gguf_type or DEFAULT_TYPE
    facts = {"model": model.digest, **versions("gguf")}
    plain = artifact(cache, f"gguf-{model.name}-F32", facts, lambda folder: convert(model.path, folder / "model.gguf"))
    if level == "F32":
        return plain / "model.gguf"
    facts |= {"level": level, **versions("llama-cpp-python")}
    made = artifact(
        cache,
        f"gguf-{model.name}-{level}",
        facts,
        lambda folder: quantize(plain / "model.gguf", folder / "model.gguf", level),
    )
    return made / "model.gguf"


def convert(folder: Path, target: Path) -> None:
    """Write a Llama folder as a GGUF file in single precision.

    Raises:
        UserError: another architecture or tokenizer, or a weight that should be there is not.
        Unavailable: the gguf library is not installed.
    """
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise Unavailable(f"making a GGUF file needs {error.name}, which is not installed: {INSTALL}") from error

    config = _config(folder)
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_name(folder.name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_shape(writer, config)
    add_tokenizer(writer, folder, config)
    weights = dict(_weights(folder, config))
    for name, tensor in weights.items():
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), 4 * tensor.size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in weights.values():  # one at a time: the rest stays on disk
        writer.write_tensor_data(float32(tensor))
    writer.close()


def quantize(source: Path, target: Path, level: str) -> None:
    """Write the file at another level with llama.cpp's quantizer.

    Rows that are no multiple of a type's block get the nearest type that fits: `gguf_file.inspect` tells which.

    Raises:
        UserError: no such level.
        Unavailable: llama-cpp-python is not installed.
    """
    try:
        import llama_cpp
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"quantizing a GGUF file needs llama-cpp-python, which is not installed: {INSTALL}"
        ) from error

    number = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{level}", None)
    if number is None:
        raise UserError(f"llama.cpp has no quantization {level!r}; Q8_0, Q6_K, Q5_K_M and Q4_K_M are some that it has")
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = number
    params.nthread = 0  # all cores: the case has not begun
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params):
        raise RuntimeError(f"llama.cpp could not quantize {source} to {level}; its log says why")


def _config(folder: Path) -> dict[str, Any]:
    path = folder / model_folder.CONFIG
    config = parse_json(path, read_text(path))
    kinds = model_folder.architectures(folder)
    if "LlamaForCausalLM" not in kinds:
        raise UserError(
            f"{folder}: is a {', '.join(kinds) or 'model of no named class'}, and GGUF is made here of"
            f" LlamaForCausalLM only; {REMEDY}"
        )
    found = [name for name in UNSUPPORTED if config.get(name)]
    if _rope(config).get("rope_type", _rope(config).get("type", "default")) != "default":
        found.append("scaled rope")
    if found:
        raise UserError(f"{folder}: {', '.join(found)} in its config is not converted here; {REMEDY}")
    return dict(config)


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the rotary embedding, wherever this version of Transformers keeps them."""
    return {"rope_theta": config.get("rope_theta")} | (
        config.get("rope_parameters") or config.get("rope_scaling") or {}
    )


def _add_shape(writer: Any, config: Mapping[str, Any]) -> None:
    heads = config["num_attention_heads"]
    head_size = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(float(_rope(config)["rope_theta"] or 10000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _weights(folder: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """llama.cpp's names and the weights as they lie on disk (bfloat16 as uint16), in the order they are written."""
    found = dict(tensors(folder))
    heads = config["num_attention_heads"]
    key_heads = config.get("num_key_value_heads") or heads
    for source, target in WHOLE.items():
        if source == "lm_head" and (config.get("tie_word_embeddings") or f"{source}.weight" not in found):
            continue  # llama.cpp takes the embedding where there is no output
        yield f"{target}.weight", _take(found, f"{source}.weight", folder)
    for layer in range(config["num_hidden_layers"]):
        for source, target in LAYER.items():
            tensor = _take(found, f"model.layers.{layer}.{source}.weight", folder)
            if target in ("attn_q", "attn_k"):
                tensor = _interleaved(tensor, heads if target == "attn_q" else key_heads)
            yield f"blk.{layer}.{target}.weight", tensor


def _take(found: Mapping[str, NDArray[Any]], name: str, folder: Path) -> NDArray[Any]:
    if name not in found:
        raise UserError(f"{folder}: its weights have no {name}, which a Llama has; save the model again")
    return found[name]


def _interleaved(tensor: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rows (heads * size, hidden) reordered: Transformers rotates halves of a head, llama.cpp neighbouring pairs."""
    rows, columns = tensor.shape
    paired: NDArray[Any] = tensor.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2)
    return paired.reshape(rows, columns)
