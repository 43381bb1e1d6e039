"""Bare loops: what a user would write around a loaded model, to hold the suite's own laps against. Run in a host."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fixtures import stopwatch
from fixtures.guest import Guest
from fixtures.stopwatch import LatencyPlan
from targets.api import Request
from targets.encoder import EncoderRunner


def harness_laps(guest: Guest, plan: LatencyPlan) -> list[float]:
    """Laps of the suite's own loop, in ms."""
    return [lap / 1e6 for lap in stopwatch.lap(guest, plan)[0]]


def runner_laps(guest: Guest, requests: Sequence[Request]) -> list[float]:
    """A loop around the loaded runner, in ms."""
    laps = []
    for request in requests:
        start = time.perf_counter()
        guest.target.run([request])
        laps.append((time.perf_counter() - start) * 1e3)
    return laps


def handwritten_laps(guest: Guest, requests: Sequence[Request]) -> list[float]:
    """The same module and tokenizer driven by the code of a tutorial, in ms."""
    import torch

    runner: Any = guest.target
    assert isinstance(runner, EncoderRunner)
    forward: Any = runner._forward
    module, tokenizer, labels = forward.module, runner.tokenizer, runner.labels
    laps = []
    for request in requests:
        start = time.perf_counter()
        with torch.inference_mode():
            inputs = tokenizer(request["text"], return_tensors="pt", truncation=True)
            scores = torch.softmax(module(**inputs).logits, dim=-1)[0]
            _ = {labels[index]: float(score) for index, score in enumerate(scores)}, labels[int(scores.argmax())]
        laps.append((time.perf_counter() - start) * 1e3)
    return laps
