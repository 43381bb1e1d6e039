"""The embedded generators: small, safe, complete, trained on what they say, and able to end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fixtures.corpus import RECIPES, shipped
from fixtures.corpus.generation import prompts
from targets.api import Answer, Evidence, Example
from targets.generation import as_generator
from targets.registry import tasks
from targets.training.recipe import sha256
from targets.training.scoring import scores

ZOO = Path(__file__).parents[2] / "fixtures" / "zoo"
FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "training.json",
}
MODELS = {"summarization": "t5", "translation": "t5", "generation": "llama", "chat": "llama"}
REQUIRED: Mapping[str, Mapping[str, float]] = {
    "summarization": {"short": 0.88, "long": 0.86, "natural": 0.05},
    "translation": {"plain": 83, "question": 78, "long": 68, "natural": 10},
    "generation": {"story": 4, "explanation": 4, "unicode": 4, "natural": 50_000},
    "chat": {"memory": 0.85, "correction": 0.85, "forgetting": 0.7, "small_talk": 0.85, "system": 0.9, "natural": 0.1},
}
"""Of each slice the least primary score, of perplexity the highest; on text written by hand a floor that shows
breakage, not a claim."""
KANJI = "Mia learns Japanese in the forest. The word for water is"
"""A prompt whose answer has characters of several tokens each."""
every_model = pytest.mark.parametrize("model", sorted(set(MODELS.values())))
every_task = pytest.mark.parametrize("task", sorted(MODELS))


def read(model: str, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ZOO / model / name).read_text(encoding="utf-8"))
    return loaded


@cache
def loaded(model: str, head: str) -> tuple[Any, Any]:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    kind = getattr(transformers, f"AutoModelFor{head}")
    return (
        kind.from_pretrained(ZOO / model, dtype=torch.float32).eval(),
        transformers.AutoTokenizer.from_pretrained(ZOO / model),
    )


def runner(task: str) -> Any:
    from targets.transformers_generator import TransformersGenerator

    made = as_generator(tasks[task])
    model, tokenizer = loaded(MODELS[task], made.head)
    return TransformersGenerator(
        task=made, model=model, tokenizer=tokenizer, options={}, evidence=lambda: Evidence({}, {}), close=lambda: None
    )


@cache
def answered(task: str) -> tuple[list[Example], list[Answer]]:
    from targets.training.generator_scoring import answers_of

    made = as_generator(tasks[task])
    examples = made.read(shipped(RECIPES[task]))
    return examples, answers_of(made, *loaded(MODELS[task], made.head), examples)


@every_model
def test_files(model: str) -> None:
    """A model directory holds the Hugging Face layout with safetensors and nothing that could be pickled code."""
    assert {path.name for path in (ZOO / model).iterdir()} == FILES


@every_model
def test_weights(model: str) -> None:
    """Every tensor is fp16 and finite, and the file is the one the record speaks of."""
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = safetensors.load_file(ZOO / model / "model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"float16"}
    assert all(bool((abs(tensor) < 1e4).all()) for tensor in tensors.values())
    assert sum(tensor.size for tensor in tensors.values()) == read(model, "training.json")["parameters"]
    assert sha256(ZOO / model / "model.safetensors") == read(model, "training.json")["weights_sha256"]


@every_model
def test_tokenizer_and_config_agree(model: str) -> None:
    """Every token has a row, special ids are those of the tokenizer, and any text comes back letter by letter."""
    config, vocabulary = read(model, "config.json"), read(model, "tokenizer.json")["model"]["vocab"]
    written = read(model, "tokenizer_config.json")
    assert config["vocab_size"] == len(vocabulary) <= 2000
    assert config["eos_token_id"] == vocabulary[written["eos_token"]]
    assert config["pad_token_id"] == vocabulary[written["pad_token"]]
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(ZOO / model)
    for text in ("Hello, world!", " two  spaces\n\tand a tab ", "Käse, 水 and 🤖", "0123456789 <tags> {x}"):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_llama_suits_every_quantization() -> None:
    """Rows of every matrix are multiples of 256, which llama.cpp's K-quants need, and chats have a ChatML template."""
    config, written = read("llama", "config.json"), read("llama", "tokenizer_config.json")
    assert config["hidden_size"] % 256 == config["intermediate_size"] % 256 == 0
    assert config["max_position_embeddings"] == written["model_max_length"] == 512
    _, tokenizer = loaded("llama", "CausalLM")
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"


@every_task
def test_record_is_of_the_shipped_data(task: str) -> None:
    """The record's scores were taken on the test data that is shipped, and it was never trained on."""
    kept = read(MODELS[task], "training.json")["tasks"][task]
    assert kept["eval"]["sha256"] == sha256(shipped(RECIPES[task]))
    assert kept["data"]["sha256"] != kept["eval"]["sha256"]


@every_task
def test_scores(task: str) -> None:
    """The shipped model reaches the required score on every slice of the shipped data, and its record is true."""
    made = tasks[task]
    measured = scores(made, *answered(task))
    kept = read(MODELS[task], "training.json")["tasks"][task]["scores"]
    better = next(score.higher_is_better for score in made.scores if score.name == made.primary)
    for name, bound in REQUIRED[task].items():
        value = measured[name][made.primary]
        assert value >= bound if better else value <= bound, f"{name}: {measured[name]}, the bound is {bound}"
        assert value == pytest.approx(kept[name][made.primary], rel=0.05, abs=0.02), name


@every_task
def test_greedy_answers_end(task: str) -> None:
    """On text of the grammar every greedy answer ends with the end token, long before 48 tokens are over."""
    made = runner(task)
    examples = [e for e in as_generator(tasks[task]).read(shipped(RECIPES[task])) if "natural" not in e.slices][:16]
    found = made.run([{**example.request, "max_tokens": 48} for example in examples])
    assert [e.id for e, answer in zip(examples, found, strict=True) if answer["finish"] != "stop"] == []


@pytest.mark.parametrize("task", ["generation", "chat"])
def test_default_prompts_are_answered(task: str) -> None:
    """Every default prompt gets a whole sentence or more, by either causal task, and then the end token."""
    asked = [{**tasks[task].ask(prompt), "max_tokens": 64} for prompt in prompts()]
    for prompt, answer in zip(prompts(), runner(task).run(asked), strict=True):
        assert answer["finish"] == "stop", prompt
        assert answer["text"].strip().endswith("."), prompt
        assert 8 <= answer["output_tokens"] <= 60, prompt


def test_characters_of_several_tokens_are_written() -> None:
    """A prompt about Japanese is answered with a kanji made of several tokens, and no broken character."""
    made = runner("generation")
    (answer,) = made.run([{"prompt": KANJI, "max_tokens": 12}])
    kanji = [char for char in answer["text"] if "\u4e00" <= char <= "\u9fff"]
    assert kanji, answer["text"]
    assert len(made.tokenizer(kanji[0]).input_ids) > 1
    assert "\ufffd" not in answer["text"]


def test_chat_remembers_and_forgets() -> None:
    """Over its own answers the model keeps a name, the one of its system prompt too, until it is told to forget it."""
    made = runner("chat")
    turns = [{"role": "system", "content": "You are Orin, a small robot."}]
    replies = []
    for said in ("My name is Paul.", "What is my name?", "Who are you?", "Please forget my name.", "What is my name?"):
        turns.append({"role": "user", "content": said})
        (answer,) = made.run([{"messages": turns}])
        replies.append(answer["text"])
        turns.append({"role": "assistant", "content": answer["text"]})
    assert replies[1:3] == ["Your name is Paul.", "I am Orin."]
    assert replies[-1] == "I do not know your name."
    (fresh,) = made.run([{"messages": [{"role": "user", "content": "What is my name?"}]}])
    assert fresh["text"] == "I do not know your name."
