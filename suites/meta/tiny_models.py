"""Tiny random generators with tokenizers of their own, for tests of engines: made in a second, saying nonsense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

TEMPLATE = (
    "{% for turn in messages %}<s>{{ turn['role'] }}: {{ turn['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)
TEXTS = ("the quick brown fox jumps over the lazy dog", "a model that was never trained says nothing of sense")
LLAMA = {
    **{"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "max_position_embeddings": 128},
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
FOLDERS: dict[str, Path] = {}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}


def tiny(kind: str, factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model: "llama", "gpt2" or "t5"; one a kind and process."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    if kind not in FOLDERS:
        FOLDERS[kind] = factory.mktemp(f"tiny-{kind}")
        make(kind, FOLDERS[kind])
    return FOLDERS[kind]


def make(kind: str, folder: Path) -> None:
    """Weights and tokenizer of a kind."""
    import torch
    import transformers

    tokenizer = byte_pairs(transformers, ends=kind == "t5")
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    named = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": len(tokenizer)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "t5":
            model = transformers.T5ForConditionalGeneration(transformers.T5Config(**T5, **named))
        elif kind == "gpt2":
            model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2, **named))
        else:
            model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA, **named))
        for parameter in model.parameters():  # far apart logits: no two tokens tie, and texts differ by prompt
            parameter.data *= 2
    model.save_pretrained(folder)


def byte_pairs(transformers: Any, ends: bool) -> Any:
    """A byte-level tokenizer; `ends`: whether it puts the end token behind each text, as T5's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pairs.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=300, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    if ends:
        pairs.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=pairs,
        chat_template=None if ends else TEMPLATE,
        model_max_length=128,
        model_input_names=["input_ids", "attention_mask"],
        **names,
    )
