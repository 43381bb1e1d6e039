"""The fault catalogue of generators: what goes wrong between a prompt and its last token, one function each."""

from __future__ import annotations

import time
from collections.abc import Sequence

from suites.meta.fault_catalogue import KEPT, fault
from suites.meta.generator_fault_kit import BrokenGenerator, asked, rewritten, text_of
from targets.api import Answer, Request, Runner, Tick, UserError, no_tick
from targets.transformers_generator import TransformersGenerator

# Tokens and their counts


@fault("dropped-last-token", tasks=("generation",), checks=("test_max_tokens_is_exact", "test_counts_agree"))
def dropped_last_token(real: TransformersGenerator) -> Runner:
    """The last token of an answer is lost."""

    def shorten(_: Request, answer: Answer) -> Answer:
        ids = answer["token_ids"][:-1]
        return {**answer, "token_ids": ids, "output_tokens": len(ids), "text": text_of(real, ids)}

    return rewritten(real, shorten)


@fault("duplicated-token", tasks=("generation",), checks=("test_agreement",))
def duplicated_token(real: TransformersGenerator) -> Runner:
    """The third token comes twice, and the last one not at all."""

    def repeat(_: Request, answer: Answer) -> Answer:
        ids = answer["token_ids"]
        ids = [*ids[:3], *ids[2:-1]]
        return {**answer, "token_ids": ids, "text": text_of(real, ids)}

    return rewritten(real, repeat)


@fault("words-as-tokens", tasks=("generation",), checks=("test_answers_are_well_formed", "test_counts_agree"))
def words_as_tokens(real: TransformersGenerator) -> Runner:
    """Words are counted and called tokens."""
    return rewritten(real, lambda _, answer: {**answer, "output_tokens": len(answer["text"].split())})


@fault("prompt-as-output", tasks=("generation",), checks=("test_answers_are_well_formed", "test_max_tokens_is_exact"))
def prompt_as_output(real: TransformersGenerator) -> Runner:
    """The prompt's tokens are counted among the answer's."""

    def add(_: Request, answer: Answer) -> Answer:
        return {**answer, "token_ids": None, "output_tokens": answer["output_tokens"] + answer["tokens"]}

    return rewritten(real, add)


@fault("uncounted-template", tasks=("chat",), checks=("test_prompt_is_counted_by_its_tokenizer",))
def uncounted_template(real: TransformersGenerator) -> Runner:
    """The tokens of the chat template are not counted among the prompt's."""
    return rewritten(real, lambda _, answer: {**answer, "tokens": max(1, answer["tokens"] - 4)})


@fault("split-characters", tasks=("generation",), checks=("test_characters_arrive_whole",))
def split_characters(real: TransformersGenerator) -> Runner:
    """Each token is decoded by itself, so that a character of several tokens falls apart."""
    return rewritten(
        real, lambda _, answer: {**answer, "text": "".join(text_of(real, [token]) for token in answer["token_ids"])}
    )


# When it ends


@fault("ignored-end-token", tasks=("chat",), checks=("test_end_token_is_honoured",))
def ignored_end_token(real: TransformersGenerator) -> Runner:
    """The end token is not honoured: answers always run to their full length."""
    return asked(real, lambda request: {**request, "ignore_eos": True})


@fault("ignored-stop-string", tasks=("generation",), checks=("test_stop_string_ends_the_answer",))
def ignored_stop_string(real: TransformersGenerator) -> Runner:
    """Stop strings are not looked at."""
    return asked(real, lambda request: {**request, "stop": ()})


@fault("one-too-many", tasks=("summarization",), checks=("test_max_tokens_is_exact", "test_answers_are_well_formed"))
def one_too_many(real: TransformersGenerator) -> Runner:
    """One token more comes than was asked for."""
    return asked(real, lambda request: {**request, "max_tokens": request.get("max_tokens", real.task.max_tokens) + 1})


# How it streams


@fault("late-ticks", tasks=("generation",), checks=("test_decode_rate",))
def late_ticks(real: TransformersGenerator) -> Runner:
    """The stream is buffered: all tokens are told at the end."""

    def run(batch: Sequence[Request], tick: Tick) -> list[Answer]:
        answers = real.run(batch)
        for _ in range(sum(answer["output_tokens"] for answer in answers)):
            tick()
        return answers

    return BrokenGenerator(real, run)


@fault("extra-ticks", tasks=("generation",), checks=("test_counts_agree",))
def extra_ticks(real: TransformersGenerator) -> Runner:
    """The end of the stream is told as if it were a token."""

    def run(batch: Sequence[Request], tick: Tick) -> list[Answer]:
        answers = real.run(batch, tick)
        tick()
        return answers

    return BrokenGenerator(real, run)


@fault("stream-joined-wrongly", tasks=("generation",), checks=("test_stream_is_the_whole",))
def stream_joined_wrongly(real: TransformersGenerator) -> Runner:
    """The pieces of a stream are joined with the spaces between them lost."""

    def run(batch: Sequence[Request], tick: Tick) -> list[Answer]:
        found = real.run(batch, tick)
        return found if tick is no_tick else [{**each, "text": each["text"].replace(" ", "")} for each in found]

    return BrokenGenerator(real, run)


@fault("unsaid-end", tasks=("generation",), checks=("test_stream_is_the_whole",))
def unsaid_end(real: TransformersGenerator) -> Runner:
    """What is held back of a stream, in case a stop string begins there, is never said."""
    return BrokenGenerator(real, real.run, lambda text: text[:-3])


# What is in the model's mind


@fault("stale-kv", tasks=("generation",), checks=("test_what_came_before_leaves_no_trace", "test_agreement"))
def stale_kv(real: TransformersGenerator) -> Runner:
    """The KV cache of the prompt before is not forgotten."""
    before: list[str] = []

    def run(batch: Sequence[Request], tick: Tick) -> list[Answer]:
        left = before.pop() if before else ""
        before.append(str(batch[-1]["prompt"])[:60] if batch else "")
        return real.run([{**request, "prompt": f"{left} {request['prompt']}".strip()} for request in batch], tick)

    return BrokenGenerator(real, run)


@fault("wrong-template", tasks=("chat",), checks=("test_drop", "test_agreement"))
def wrong_template(real: TransformersGenerator) -> Runner:
    """The conversation is put into another model's template."""
    real.tokenizer.chat_template = "{% for m in messages %}### {{ m.role }}: {{ m.content }}\n{% endfor %}### Response:"
    return real


@fault("forgetful", tasks=("chat",), checks=("test_memory_remembers_and_forgets", "test_drop"))
def forgetful(real: TransformersGenerator) -> Runner:
    """Only the last message is read."""
    return asked(real, lambda request: {**request, "messages": list(request["messages"])[-1:]})


@fault("dropped-system-prompt", tasks=("chat",), checks=("test_oldest_turns_go_first",))
def dropped_system_prompt(real: TransformersGenerator) -> Runner:
    """A conversation that is too long loses its beginning, system prompt and all."""

    def run(batch: Sequence[Request], tick: Tick) -> list[Answer]:
        answers = real.run(batch, tick)
        for place, (request, answer) in enumerate(zip(batch, answers, strict=True)):
            if dropped := answer["dropped_turns"]:
                (headless,) = real.run([{**request, "messages": request["messages"][1 + dropped :]}])
                answers[place] = {**headless, "dropped_turns": dropped}
        return answers

    return BrokenGenerator(real, run)


@fault("silent-cut", tasks=("generation",), checks=("test_overlong_prompt",))
def silent_cut(real: TransformersGenerator) -> Runner:
    """A prompt beyond the context is cut without a word."""
    return asked(
        real,
        lambda request: {**request, "prompt": request["prompt"][:300]} if len(request["prompt"]) > 1000 else request,
    )


@fault("unreported-truncation", tasks=("summarization",), checks=("test_overlong_prompt",))
def unreported_truncation(real: TransformersGenerator) -> Runner:
    """A text that is too long is cut, and the answer does not say so."""
    return rewritten(real, lambda _, answer: {**answer, "truncated": False})


@fault("answers-silence", tasks=("generation",), checks=("test_empty_prompt_is_refused",))
def answers_silence(real: TransformersGenerator) -> Runner:
    """An empty prompt is answered as if something had been asked."""

    def run(batch: Sequence[Request], tick: Tick) -> list[Answer]:
        try:
            return real.run(batch, tick)
        except UserError:
            return real.run([{**request, "prompt": request["prompt"].strip() or "Hello"} for request in batch], tick)

    return BrokenGenerator(real, run)


# What the weights say


@fault("quality-loss", tasks=("generation",), checks=("test_divergence",))
def quality_loss(real: TransformersGenerator) -> Runner:
    """Weights are quantized with a scale that is too small, so that the largest of them are cut off."""
    import torch

    with torch.no_grad():
        for name, weight in real.model.named_parameters():
            if weight.dim() == 2 and "embed" not in name:
                bound = weight.abs().max() / 4
                weight.clamp_(-bound, bound)
    return real


@fault("another-model", tasks=("generation",), checks=("test_score", "test_agreement", "test_divergence"))
def another_model(real: TransformersGenerator) -> Runner:
    """Another model is loaded than was asked for: the same shape, other weights."""
    import torch

    with torch.no_grad():
        for weight in real.model.parameters():
            if weight.dim() == 2:
                weight.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    return real


@fault("nan-weights", tasks=("generation",), checks=("test_drop", "test_divergence"))
def nan_weights(real: TransformersGenerator) -> Runner:
    """One row of a layer has overflowed to NaN."""
    import torch

    with torch.no_grad():
        next(weight for name, weight in real.model.named_parameters() if "mlp" in name)[0] = float("nan")
    return real


# Chance, company and time


@fault("unseeded-sampling", tasks=("generation",), checks=("test_seed_reproduces_sampling",))
def unseeded_sampling(real: TransformersGenerator) -> Runner:
    """The seed is not passed on to the sampler."""
    return asked(real, lambda request: {**request, "seed": time.perf_counter_ns() % 2**31})


@fault("one-seed", tasks=("chat",), checks=("test_seed_reproduces_sampling",))
def one_seed(real: TransformersGenerator) -> Runner:
    """Every seed is the same one."""
    return asked(real, lambda request: {**request, "seed": 0})


@fault("warm-greedy", tasks=("summarization",), checks=("test_determinism", "test_agreement"))
def warm_greedy(real: TransformersGenerator) -> Runner:
    """Greedy decoding draws at a temperature, with a new seed each time."""
    return asked(real, lambda request: {**request, "temperature": 1.5, "seed": time.perf_counter_ns() % 2**31})


@fault("mixed-batch", tasks=("generation",), checks=("test_batch_is_its_requests",))
def mixed_batch(real: TransformersGenerator) -> Runner:
    """Answers of a batch come in the order in which they finished."""
    return BrokenGenerator(real, lambda batch, tick: real.run(batch, tick)[::-1])


@fault("right-padding", tasks=("generation",), checks=("test_batch_is_its_requests", "test_agreement"))
def right_padding(real: TransformersGenerator) -> Runner:
    """A causal model's batch is padded on the right, between prompt and answer, and the mask forgotten."""
    padded = real._padded

    def wrong(prompts: Sequence[list[int]]) -> tuple[object, object]:
        import torch

        ids, _ = padded([[*prompt, *[real.pad] * (max(map(len, prompts)) - len(prompt))] for prompt in prompts])
        return ids, torch.ones_like(ids)

    real._padded = wrong  # type: ignore[method-assign]
    return real


@fault("leaky-cache", tasks=("generation",), checks=("test_calls_leak_nothing",))
def leaky_cache(real: TransformersGenerator) -> Runner:
    """Every call keeps its KV cache."""

    def run(batch: Sequence[Request], tick: Tick) -> list[Answer]:
        KEPT.append(bytearray(b"x") * 2**20)
        return real.run(batch, tick)

    return BrokenGenerator(real, run)


@fault("remembered-answers", tasks=("generation",), checks=("test_roofline",))
def remembered_answers(real: TransformersGenerator) -> Runner:
    """Answers are kept under their settings alone: every prompt gets the first one's, and nothing is computed."""
    known: dict[str, Answer] = {}

    def run(batch: Sequence[Request], tick: Tick) -> list[Answer]:
        keys = [str({name: value for name, value in request.items() if name != "prompt"}) for request in batch]
        if not all(key in known for key in keys):
            answers = real.run(batch, tick)
            known.update(zip(keys, answers, strict=True))
            return answers
        for _ in range(sum(known[key]["output_tokens"] for key in keys)):
            tick()
        return [known[key] for key in keys]

    return BrokenGenerator(real, run)


@fault("slow-tokens", tasks=("generation",), checks=("test_speedup",))
def slow_tokens(real: TransformersGenerator) -> Runner:
    """Each token takes 40 ms longer: a debug build, or a copy too many."""

    def run(batch: Sequence[Request], tick: Tick) -> list[Answer]:
        answers = real.run(batch, tick)
        time.sleep(0.04 * max((answer["output_tokens"] for answer in answers), default=0))
        return answers

    return BrokenGenerator(real, run)
