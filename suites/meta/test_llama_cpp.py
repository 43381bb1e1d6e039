from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.meta.tiny_llama import EMBEDDED, embedded, llama
from targets.api import ModelFiles, Runner, UserError
from targets.generation import ContextOverflow
from targets.gguf.model import gguf_file
from targets.llama import load as llama_load
from targets.registry import optimizations

pytest.importorskip("llama_cpp", reason="pip install '.[llama]'")
pytest.importorskip("gguf", reason="pip install '.[llama]'")

PROMPTS = (
    "Once there was a kind mouse named David. David lived in the forest and liked to",
    "Every Wednesday Priya looks after the heavy oven. First Priya cleans the door, then",
    "The future of AI in education",
)
LEVELS = ("f32", "f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("llama")


@pytest.fixture(scope="module")
def runner(cache: Path) -> Iterator[Any]:
    """The embedded model in single precision."""
    with llama(cache) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def chat(cache: Path) -> Iterator[Any]:
    with llama(cache, task="chat") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def reference() -> tuple[Any, Any]:
    """The same model in Transformers: (model, tokenizer)."""
    torch = pytest.importorskip("torch", reason="pip install '.[huggingface]'")
    transformers = pytest.importorskip("transformers", reason="pip install '.[huggingface]'")
    torch.set_num_threads(1)  # as llama.cpp here
    model = transformers.AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32, local_files_only=True)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(EMBEDDED, local_files_only=True)


def ask(runner: Runner, prompt: str = PROMPTS[0], **keys: Any) -> dict[str, Any]:
    (found,) = runner.run([{"prompt": prompt, **keys}])
    return dict(found)


def log_softmax(logits: Any) -> Any:
    exact = np.asarray(logits, dtype=np.float64)
    exact = exact - exact.max(axis=-1, keepdims=True)
    return exact - np.log(np.exp(exact).sum(axis=-1, keepdims=True))


def divergence(right: Any, found: Any) -> float:
    """Mean Kullback-Leibler divergence a token, in nats."""
    right, found = log_softmax(right), log_softmax(found)
    return float((np.exp(right) * (right - found)).sum(axis=-1).mean())


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


def test_ticks_change_nothing_and_come_once_a_token(runner: Any) -> None:
    """A timed call answers as one that is not, and ticks once for each token."""
    ticks: list[int] = []
    request: dict[str, Any] = {"prompt": PROMPTS[0], "max_tokens": 20, "ignore_eos": True}
    (timed,) = runner.run([request], lambda: ticks.append(1))
    assert timed == ask(runner, **request)
    assert len(ticks) == timed["output_tokens"] == len(timed["token_ids"]) == 20
    assert timed["finish"] == "length"


def test_the_end_token_ends_and_is_not_counted(runner: Any) -> None:
    """An answer ends at the end token unless that is ignored; then exactly the tokens asked for come, none an end."""
    found = ask(runner, PROMPTS[0], max_tokens=200)
    pinned = ask(runner, PROMPTS[0], max_tokens=200, ignore_eos=True)
    assert pinned["output_tokens"] == 200
    assert not runner.engine.ends & set(pinned["token_ids"])
    if found["finish"] == "stop":
        assert found["output_tokens"] < 200
        assert pinned["token_ids"][: found["output_tokens"]] == found["token_ids"]


def test_stop_strings_end_an_answer(runner: Any) -> None:
    """A stop string ends the answer and is not in it; what stands before it is unchanged."""
    whole = ask(runner, max_tokens=40, ignore_eos=True)["text"]
    stop = whole[len(whole) // 2 :][:3]
    found = ask(runner, max_tokens=40, ignore_eos=True, stop=[stop, "never"])
    assert found["text"] == whole[: whole.index(stop)]
    assert found["finish"] == "stop"
    assert found["output_tokens"] < 40


def test_sampling_follows_its_seed(runner: Any) -> None:
    """The same seed gives the same answer, others give others, and hardly any warmth is greedy."""
    request: dict[str, Any] = {"max_tokens": 30, "temperature": 1.5, "ignore_eos": True}
    answers = [ask(runner, **request, seed=seed)["token_ids"] for seed in (1, 2, 3, 1)]
    assert answers[0] == answers[3]
    assert len({tuple(ids) for ids in answers}) == 3
    cold = ask(runner, max_tokens=30, temperature=1e-4, ignore_eos=True)
    assert cold["token_ids"] == ask(runner, max_tokens=30, ignore_eos=True)["token_ids"]
    narrow = ask(runner, **{**request, "top_p": 1e-6})
    assert narrow["token_ids"] == cold["token_ids"]


def test_nothing_of_an_earlier_request_is_left(runner: Any) -> None:
    """An answer is the same after any other request, and in a batch."""
    alone = [ask(runner, prompt, max_tokens=12) for prompt in PROMPTS]
    ask(runner, PROMPTS[0] + " " + PROMPTS[1], max_tokens=30)
    assert [dict(found) for found in runner.run([{"prompt": p, "max_tokens": 12} for p in PROMPTS])] == alone


def test_long_prompts_are_read_in_parts(cache: Path) -> None:
    """A prompt longer than a batch gives the logits and tokens that it gives in one."""
    prompt = " ".join(PROMPTS)
    with llama(cache, n_batch=16) as parts, llama(cache, n_batch=512) as whole:
        (one,), (other,) = parts.logits([{"prompt": prompt}])[0], whole.logits([{"prompt": prompt}])[0]
        assert np.abs(one - other).max() < 1e-3
        assert ask(parts, prompt, max_tokens=10) == ask(whole, prompt, max_tokens=10)


@settings(deadline=None, max_examples=100)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20))
def test_characters_over_several_tokens_arrive_whole(runner: Any, text: str) -> None:
    """A text comes back from its tokens as it was, and from any part of them without a broken character."""
    ids = runner.engine.tokenize(text, whole=False)
    assert runner.engine.text(ids) == text
    for end in range(len(ids)):
        assert text.startswith(runner.engine.text(ids[:end]))


def test_pieces_of_any_length_are_whole(runner: Any) -> None:
    """Every token of the vocabulary has the bytes that llama.cpp gives it with room enough."""
    import ctypes

    import llama_cpp

    engine, buffer = runner.engine, ctypes.create_string_buffer(1000)
    for token in range(engine.llm.n_vocab()):
        length = llama_cpp.llama_token_to_piece(engine._vocab, token, buffer, 1000, 0, False)
        assert engine.piece(token) == buffer.raw[:length]


def test_a_full_context_is_refused(cache: Path) -> None:
    """A prompt and answer longer than the context are refused with the three numbers; what just fits is answered."""
    with llama(cache, n_ctx=64) as small:
        size = len(small.tokens({"prompt": PROMPTS[0]}))
        with pytest.raises(ContextOverflow, match=f"has {size} tokens and {65 - size} more .* context holds 64"):
            ask(small, max_tokens=65 - size, ignore_eos=True)
        assert ask(small, max_tokens=64 - size, ignore_eos=True)["output_tokens"] == 64 - size


def test_a_context_longer_than_the_models_is_told_if_asked_for(cache: Path) -> None:
    """The profile's context is cut to the model's; one that the user asks for is refused where it is longer."""
    with llama(cache, n_ctx=4096) as loaded:
        assert loaded.engine.context == 512
    with pytest.raises(UserError, match="4096"):
        llama(cache, n_ctx=4096, n_ctx_asked=True)


def test_empty_prompts_are_refused(runner: Any) -> None:
    """There is nothing to continue in an empty prompt."""
    with pytest.raises(UserError, match="the prompt is empty"):
        ask(runner, " \n")


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


def test_a_long_chat_forgets_its_oldest_turns(chat: Any) -> None:
    """Turns that do not fit are dropped from the oldest on, never the system prompt, and counted."""
    system = {"role": "system", "content": "Answer in one word."}
    turns = [
        turn
        for number in range(40)
        for turn in (
            {"role": "user", "content": f"This is message number {number} of a long talk."},
            {"role": "assistant", "content": "Noted."},
        )
    ]
    last = {"role": "user", "content": "Which one was this?"}
    (found,) = chat.run([{"messages": [system, *turns, last], "max_tokens": 16}])
    kept = [system, *turns[found["dropped_turns"] :], last]
    assert found["dropped_turns"] > 0
    assert found["dropped_turns"] % 2 == 0
    assert found["tokens"] == len(chat.tokens({"messages": kept, "max_tokens": 16}))
    assert found["tokens"] + 16 <= chat.engine.context
    with pytest.raises(ContextOverflow):
        chat.run([{"messages": [{"role": "user", "content": "word " * 600}]}])


def test_a_model_without_template_cannot_chat(tmp_path: Path) -> None:
    """A GGUF without a chat template is refused for chats, with what to take instead."""
    import shutil

    folder = tmp_path / "plain"
    shutil.copytree(EMBEDDED, folder)
    settings_file = folder / "tokenizer_config.json"
    settings_file.write_text(settings_file.read_text().replace('"chat_template"', '"no_template"'))
    with pytest.raises(UserError, match="has no chat template"):
        llama(tmp_path, task="chat", model=ModelFiles("plain", folder, "plain", "path"))


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
