"""llama-cpp-python as a backend reads and answers as Transformers and as llama-cpp-python called directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.meta import llama_kit
from suites.meta.llama_kit import PROMPTS, ask, divergence, in_transformers
from suites.meta.tiny_llama import embedded, llama
from targets.api import ModelFiles
from targets.gguf.model import gguf_file
from targets.registry import optimizations

pytest.importorskip("llama_cpp", reason="pip install '.[llama]'")
pytest.importorskip("gguf", reason="pip install '.[llama]'")


cache, runner, chat = llama_kit.cache, llama_kit.runner, llama_kit.chat


@pytest.fixture(scope="module")
def reference() -> tuple[Any, Any]:
    """The same model in Transformers: (model, tokenizer)."""
    return in_transformers()


@settings(deadline=None, max_examples=150)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip))
def test_tokens_are_those_of_transformers(runner: Any, reference: tuple[Any, Any], text: str) -> None:
    """The GGUF made of a model reads any text as the same tokens as the model's own tokenizer."""
    if len(text) < 100:
        assert runner.engine.tokenize(text) == reference[1](text).input_ids


def test_logits_are_those_of_transformers(runner: Any, reference: tuple[Any, Any]) -> None:
    """In single precision, cache included, logits equal PyTorch's but for the order of additions."""
    import torch

    for prompt in PROMPTS:
        ids = runner.tokens({"prompt": prompt})
        with torch.inference_mode():
            right = reference[0](torch.tensor([ids])).logits[0].numpy()
        ((found,),) = runner.logits([{"prompt": prompt}])
        assert found.shape == right.shape
        assert np.abs(found - right).max() < 1e-3
        assert divergence(right, found) < optimizations["f32"].max_kl  # type: ignore[operator]


def test_greedy_is_that_of_transformers(runner: Any, reference: tuple[Any, Any]) -> None:
    """The greedy continuation in single precision is that of Transformers, token by token."""
    import torch

    for prompt in PROMPTS:
        ids = reference[1](prompt, return_tensors="pt").input_ids
        with torch.inference_mode():
            right = reference[0].generate(ids, do_sample=False, max_new_tokens=40)[0, ids.shape[1] :].tolist()
        found = ask(runner, prompt, max_tokens=40)["token_ids"]
        assert found == right[: len(found)]
        assert len(found) == 40 or right[len(found)] in runner.engine.ends


def test_a_chat_is_put_into_the_models_template(chat: Any, reference: tuple[Any, Any]) -> None:
    """The tokens of a chat are those of Transformers' template for the same turns."""
    turns = [
        {"role": "system", "content": "You are helpful."},
        {"role": "user", "content": "My name is Ada. <|im_end|> is a token."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": "What is my name?"},
    ]
    right = reference[1].apply_chat_template(turns, add_generation_prompt=True)
    assert chat.tokens({"messages": turns}) == right
    (found,) = chat.run([{"messages": turns}])
    assert found["tokens"] == len(right)
    assert found["dropped_turns"] == 0


def test_greedy_is_that_of_llama_cpp_python(cache: Path) -> None:
    """The greedy text of a GGUF is that of llama-cpp-python called directly."""
    import llama_cpp

    path = gguf_file(embedded(), optimizations["q4_k_m"], cache)
    own = ModelFiles("own", path, "digest", "path", format="gguf")
    with llama(cache, "as-is", model=own) as loaded:
        found = [ask(loaded, prompt, max_tokens=40) for prompt in PROMPTS]
        flash = loaded.evidence().details["flash attention"]
        assert loaded.evidence().mismatches == []
    direct = llama_cpp.Llama(str(path), n_ctx=512, n_threads=1, n_threads_batch=1, flash_attn=flash, verbose=False)
    for prompt, answer in zip(PROMPTS, found, strict=True):
        right = direct(prompt, max_tokens=40, temperature=0.0)
        assert answer["text"] == right["choices"][0]["text"]
        assert answer["tokens"] == right["usage"]["prompt_tokens"]
        assert answer["output_tokens"] == right["usage"]["completion_tokens"]
        assert answer["finish"] == right["choices"][0]["finish_reason"]
    direct.close()


def sentencepiece_llama(path: Path) -> None:
    """A GGUF with random weights and SentencePiece's kind of tokenizer: scored pieces, and bytes for the rest."""
    import gguf

    rng, pieces = np.random.default_rng(0), ["\u2581the", "\u2581a", "er", "in", "\u2581", "e", "t", "n", "o", "ing"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256)), *pieces]
    writer, wide = gguf.GGUFWriter(path, "llama"), 64
    for add, value in (
        (writer.add_context_length, 128),
        (writer.add_embedding_length, wide),
        (writer.add_block_count, 1),
        (writer.add_feed_forward_length, wide),
        (writer.add_head_count, 2),
        (writer.add_layer_norm_rms_eps, 1e-5),
        (writer.add_tokenizer_model, "llama"),
        (writer.add_token_list, tokens),
        (writer.add_token_scores, [0.0] * 259 + [-float(place) for place in range(len(pieces))]),
        (writer.add_token_types, [2, 3, 3] + [6] * 256 + [1] * len(pieces)),
        (writer.add_bos_token_id, 1),
        (writer.add_eos_token_id, 2),
    ):
        add(value)
    shapes = {"token_embd": (len(tokens), wide), "output_norm": (wide,), "output": (len(tokens), wide)}
    shapes |= {f"blk.0.{name}": (wide,) for name in ("attn_norm", "ffn_norm")}
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes |= {f"blk.0.{name}": (wide, wide) for name in matrices}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.standard_normal(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_another_kind_of_tokenizer_is_read(tmp_path: Path) -> None:
    """A GGUF from elsewhere with a SentencePiece tokenizer is read and answered as by llama-cpp-python directly."""
    import llama_cpp

    path = tmp_path / "sentencepiece.gguf"
    sentencepiece_llama(path)
    own = ModelFiles("own", path, "digest", "path", format="gguf")
    direct = llama_cpp.Llama(str(path), n_ctx=128, n_threads=1, n_threads_batch=1, flash_attn=False, verbose=False)
    with llama(tmp_path, "as-is", model=own, flash_attn=False) as loaded:
        for prompt in ("the nine toes", "\u00e9t\u00e9 \U0001f388"):
            right = direct(prompt, max_tokens=20, temperature=0.0)
            found = ask(loaded, prompt, max_tokens=20)
            assert found["text"] == right["choices"][0]["text"]
            assert found["tokens"] == right["usage"]["prompt_tokens"]
    direct.close()


def test_pieces_of_any_length_are_whole(runner: Any) -> None:
    """Every token of the vocabulary has the bytes that llama.cpp gives it with room enough."""
    import ctypes

    import llama_cpp

    engine, buffer = runner.engine, ctypes.create_string_buffer(1000)
    for token in range(engine.llm.n_vocab()):
        length = llama_cpp.llama_token_to_piece(engine._vocab, token, buffer, 1000, 0, False)
        assert engine.piece(token) == buffer.raw[:length]
