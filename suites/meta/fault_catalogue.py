"""The fault catalogue: what goes wrong with real engines, one function each, and the checks that must notice.

A fault takes a sound runner and returns a broken one. Its docstring says what is wrong; `@fault` says on which tasks it
is planted and which checks are expected to catch it. Adding a fault is adding a function.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from suites.meta.fault_kit import DIED, Broken, Fault, Plant, module_of, moved, rewritten
from targets.api import Answer, Evidence, Floats, Request, Runner
from targets.encoder import EncoderRunner

Features: TypeAlias = Mapping[str, NDArray[np.int64]]

SOUND = "sound"
"""The entry without a fault, which every check must pass."""

FAULTS: dict[str, Fault] = {}
KEPT: list[object] = []
"""What leaks, process-wide."""


def fault(name: str, tasks: Sequence[str], checks: Sequence[str] = (), **contract: Any) -> Callable[[Plant], Plant]:
    """File a function under its name."""

    def file(plant: Plant) -> Plant:
        if name in FAULTS:
            raise ValueError(f"fault {name!r} is in the catalogue twice")
        FAULTS[name] = Fault(name, tuple(tasks), frozenset(checks), plant, **contract)
        return plant

    return file


@fault(SOUND, tasks=("sentiment", "ner", "qa", "summarization", "generation", "chat"))
def sound(real: Runner) -> Runner:
    """Nothing is wrong."""
    return real


# What the answers say


@fault("wrong-label-map", tasks=("sentiment",), checks=("test_score", "test_drop", "test_agreement"))
def wrong_label_map(real: EncoderRunner) -> Runner:
    """Each output is read with its neighbour's label."""
    names = list(real.labels.values())
    return Broken(real, labels=dict(enumerate(names[1:] + names[:1])))


@fault("shifted-spans", tasks=("ner", "qa"), checks=("test_score", "test_drop", "test_agreement"))
def shifted_spans(real: EncoderRunner) -> Runner:
    """Spans lie one character too far right."""
    return rewritten(real, lambda request, answer: moved(request, answer, lambda text, at: min(at + 1, len(text))))


@fault("byte-spans", tasks=("ner",), checks=("test_spans_count_characters",))
def byte_spans(real: EncoderRunner) -> Runner:
    """Spans count bytes of UTF-8 instead of characters."""
    return rewritten(real, lambda request, answer: moved(request, answer, lambda text, at: len(text[:at].encode())))


@fault("constant-answer", tasks=("sentiment",), checks=("test_drop", "test_agreement"))
def constant_answer(real: EncoderRunner) -> Runner:
    """The first answer is given to every later request."""
    first: list[Answer] = []

    def run(batch: Sequence[Request]) -> list[Answer]:
        first.extend([] if first else real.run(batch)[:1])
        return first * len(batch)

    return Broken(real, run)


@fault("not-normalised", tasks=("sentiment",), checks=("test_answers_are_well_formed",))
def not_normalised(real: EncoderRunner) -> Runner:
    """Probabilities sum to less than one."""

    def shrink(_: Request, answer: Answer) -> Answer:
        return {**answer, "scores": {label: 0.9 * p for label, p in answer["scores"].items()}}

    return rewritten(real, shrink)


@fault("counts-padding", tasks=("sentiment",), checks=("test_batch_invariance",))
def counts_padding(real: EncoderRunner) -> Runner:
    """Padding is counted among the tokens read."""

    def run(batch: Sequence[Request]) -> list[Answer]:
        answers = real.run(batch)
        longest = max((answer["tokens"] for answer in answers), default=0)
        return [{**answer, "tokens": longest} for answer in answers]

    return Broken(real, run)


# What the arithmetic does


@fault("ignored-mask", tasks=("sentiment",), checks=("test_padding_leaves_logits_alone", "test_batch_invariance"))
def ignored_mask(real: EncoderRunner) -> Runner:
    """The attention mask is ignored, so padding counts."""
    forward = real._forward

    def unmasked(features: Features) -> Sequence[Floats]:
        return forward({**features, "attention_mask": np.ones_like(features["attention_mask"])})

    return Broken(real, forward=unmasked)


@fault("nan-logits", tasks=("ner",), checks=("test_answers_are_well_formed", "test_logits"))
def nan_logits(real: EncoderRunner) -> Runner:
    """Long inputs overflow to NaN, as in half precision."""
    forward = real._forward

    def overflowing(features: Features) -> Sequence[Floats]:
        long = features["attention_mask"].sum(axis=1) > 20
        return [np.where(long[:, None, None], np.float32(np.nan), output) for output in forward(features)]

    return Broken(real, forward=overflowing)


@fault("dropout-left-on", tasks=("sentiment",), checks=("test_determinism", "test_logits"))
def dropout_left_on(real: EncoderRunner) -> Runner:
    """The module is left in training mode, so answers vary from call to call."""
    module_of(real).train()
    return real


@fault(
    "wrong-scale",
    tasks=("sentiment",),
    checks=("test_drop", "test_agreement"),
    max_drop=0.02,
    min_agreement=0.95,
    logit_tolerance=None,
)
def wrong_scale(real: EncoderRunner) -> Runner:
    """Weights are quantized with a scale that is sixteen times too small, so most of them saturate."""
    import torch

    with torch.no_grad():
        for name, weight in module_of(real).named_parameters():
            if weight.dim() == 2 and "embeddings" not in name:
                scale = weight.abs().max() / 127 / 16
                weight.copy_((weight / scale).round().clamp(-127, 127) * scale)
    return real


@fault("wrong-dtype", tasks=("ner",), checks=("test_engaged",))
def wrong_dtype(real: EncoderRunner) -> Runner:
    """The weights are in half the precision that was asked for."""
    module_of(real).bfloat16()
    return real


@fault("wrong-provider", tasks=("sentiment",), checks=("test_engaged",))
def wrong_provider(real: EncoderRunner) -> Runner:
    """A GPU was asked for, and the CPU runs without a word."""

    def fallen_back() -> Evidence:
        found = real.evidence()
        return replace(found, requested={**found.requested, "device": "cuda"}, actual={**found.actual, "device": "cpu"})

    return Broken(real, evidence=fallen_back)


# Which answer goes where


@fault("crosstalk", tasks=("sentiment",), checks=("test_batch_invariance", "test_batch_order"))
def crosstalk(real: EncoderRunner) -> Runner:
    """Neighbours in a batch get each other's answers."""

    def run(batch: Sequence[Request]) -> list[Answer]:
        answers = real.run(batch)
        return [answers[index ^ 1 if index ^ 1 < len(answers) else index] for index in range(len(answers))]

    return Broken(real, run)


@fault("sorted-by-length", tasks=("sentiment",), checks=("test_batch_invariance", "test_batch_order"))
def sorted_by_length(real: EncoderRunner) -> Runner:
    """A batch is sorted by length to save padding, and its answers are never put back in order."""
    return Broken(real, lambda batch: real.run(sorted(batch, key=lambda request: len(request["text"]))))


@fault("stale-answers", tasks=("sentiment",), checks=("test_agreement", "test_determinism"))
def stale_answers(real: EncoderRunner) -> Runner:
    """An output buffer is read before it is written: a batch gets the answers to the one before."""
    before: list[list[Answer]] = [[]]

    def run(batch: Sequence[Request]) -> list[Answer]:
        fresh, stale = real.run(batch), before.pop()
        before.append(fresh)
        return (stale + fresh[len(stale) :])[: len(batch)]

    return Broken(real, run)


@fault("cache-collision", tasks=("sentiment",), checks=("test_agreement", "test_drop"))
def cache_collision(real: EncoderRunner) -> Runner:
    """Answers are cached under a key that different texts share."""
    known: dict[int, Answer] = {}

    def run(batch: Sequence[Request]) -> list[Answer]:
        fresh = real.run(batch)
        keys = [len(request["text"]) for request in batch]
        return [known.setdefault(key, answer) for key, answer in zip(keys, fresh, strict=True)]

    return Broken(real, run)


@fault("dropped-answer", tasks=("sentiment",), checks=("test_answers_are_well_formed",))
def dropped_answer(real: EncoderRunner) -> Runner:
    """The last answer of a batch is lost."""
    return Broken(real, lambda batch: real.run(batch)[:-1] if len(batch) > 1 else real.run(batch))


# What may be asked


@fault("silent-truncation", tasks=("sentiment",), checks=("test_truncation_is_reported",))
def silent_truncation(real: EncoderRunner) -> Runner:
    """Long texts are cut without notice."""
    return rewritten(real, lambda _, answer: {**answer, "truncated": False})


@fault("one-window", tasks=("qa",), checks=("test_answer_beyond_first_window", "test_truncation_is_reported"))
def one_window(real: EncoderRunner) -> Runner:
    """Of a long context only the beginning is read."""
    return Broken(real, lambda batch: real.run([{**request, "context": request["context"][:300]} for request in batch]))


@fault("blank-raises", tasks=("ner",), checks=("test_odd_texts_have_an_answer",))
def blank_raises(real: EncoderRunner) -> Runner:
    """A text without words raises."""

    def run(batch: Sequence[Request]) -> list[Answer]:
        if not all(request["text"].split() for request in batch):
            raise IndexError("list index out of range")
        return real.run(batch)

    return Broken(real, run)


@fault("invents-requests", tasks=("sentiment",), checks=("test_empty_batch",))
def invents_requests(real: EncoderRunner) -> Runner:
    """An empty batch is padded to one, and answered."""
    return Broken(real, lambda batch: real.run(batch or [{"text": ""}]))


# What it costs


@fault("slow-calls", tasks=("sentiment",), checks=("test_speedup",))
def slow_calls(real: EncoderRunner) -> Runner:
    """Each call sleeps for five times as long as it works."""

    def run(batch: Sequence[Request]) -> list[Answer]:
        began = time.perf_counter()
        answers = real.run(batch)
        time.sleep(5 * (time.perf_counter() - began))
        return answers

    return Broken(real, run)


@fault("slow-first-call", tasks=("sentiment",), checks=("test_load",))
def slow_first_call(real: EncoderRunner) -> Runner:
    """The first call in a process compiles for three seconds."""

    def run(batch: Sequence[Request]) -> list[Answer]:
        if not KEPT:
            KEPT.append("compiled")
            time.sleep(3)
        return real.run(batch)

    return Broken(real, run)


@fault("memory-bloat", tasks=("sentiment",), checks=("test_memory",), kinds=frozenset({"cpu"}))
def memory_bloat(real: EncoderRunner) -> Runner:
    """The first load in a process takes half a gigabyte more than it keeps."""  # lost in what a CUDA context takes
    if not KEPT:
        KEPT.append(len(b"\x01" * 2**29))
    return real


@fault("call-leak", tasks=("sentiment",), checks=("test_calls_leak_nothing",))
def call_leak(real: EncoderRunner) -> Runner:
    """Each call keeps 256 KB."""

    def run(batch: Sequence[Request]) -> list[Answer]:
        KEPT.append(b"\x01" * 2**18)
        return real.run(batch)

    return Broken(real, run)


@fault("load-leak", tasks=("sentiment",), checks=("test_reloading_leaks_nothing",))
def load_leak(real: EncoderRunner) -> Runner:
    """Each load keeps 8 MB after it is closed."""
    KEPT.append(b"\x01" * 2**23)
    return real


# How it ends


@fault("crash-on-third-call", tasks=("sentiment",), checks=(DIED,))
def crash_on_third_call(real: EncoderRunner) -> Runner:
    """The third call reads memory that is not there."""
    calls: list[int] = []

    def run(batch: Sequence[Request]) -> list[Answer]:
        calls.append(len(batch))
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGSEGV)
        return real.run(batch)

    return Broken(real, run)


@fault("hang", tasks=("sentiment",), checks=(DIED,))
def hang(real: EncoderRunner) -> Runner:
    """The first call never returns."""

    def run(batch: Sequence[Request]) -> list[Answer]:
        while True:
            time.sleep(60)

    return Broken(real, run)
