"""The runner of every encoder: tokenize, forward in chunks, decode. Backends supply the forward."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from targets.api import Answer, Evidence, Floats, Labels, Request, Tick, no_tick
from targets.closing import Closing
from targets.encoding import Encoded, EncoderTask, Tokenizer

Forward: TypeAlias = Callable[[Mapping[str, NDArray[np.int64]]], Sequence[Floats]]
"""From features to outputs, one array a head; returns only when the device is idle."""

MAX_ROWS = 64
"""Rows forwarded at once: a context of a megabyte cuts into thousands of windows, which no board holds in one batch."""


class EncoderRunner(Closing):
    """A loaded encoder. `close` of the backend is called once, by `close` or at the end of the `with` block.

    `tokenize_s`: seconds that the last `run` spent on making features of texts.
    """

    def __init__(
        self,
        *,
        task: EncoderTask,
        tokenizer: Tokenizer,
        labels: Labels,
        forward: Forward,
        evidence: Callable[[], Evidence],
        close: Callable[[], None],
    ) -> None:
        self.task = task
        self.tokenizer = tokenizer
        self.labels = labels
        self._forward = forward
        self._evidence = evidence
        self._close: Callable[[], None] | None = close
        self.tokenize_s = 0.0

    def run(self, batch: Sequence[Request], tick: Tick = no_tick) -> list[Answer]:
        """Answer a batch, in order."""
        if not batch:
            return []
        began = time.perf_counter()
        encoded = self.task.encode(self.tokenizer, batch)
        self.tokenize_s = time.perf_counter() - began
        return self.task.decode(self._outputs(encoded), encoded, batch, self.labels)

    def logits(self, batch: Sequence[Request]) -> list[list[Floats]]:
        """The raw outputs per request: one array per row and head, padding cut off where outputs are per token."""
        encoded = self.task.encode(self.tokenizer, batch)
        outputs = self._outputs(encoded)
        result: list[list[Floats]] = [[] for _ in batch]
        for index, owner in enumerate(encoded.owner):
            real = int(encoded.features["attention_mask"][index].sum())
            for head in outputs:
                result[owner].append(head[index][:real] if self.task.per_token else head[index])
        return result

    def evidence(self) -> Evidence:
        """What was asked for and what really runs."""
        return self._evidence()

    def close(self) -> None:
        """Give every resource back; a second call does nothing."""
        if self._close is not None:
            self._close()
            self._close = None

    def _outputs(self, encoded: Encoded) -> Sequence[Floats]:
        rows = len(encoded.owner)
        if rows <= MAX_ROWS:
            return self._forward(encoded.features)
        chunks = [
            self._forward({name: value[start : start + MAX_ROWS] for name, value in encoded.features.items()})
            for start in range(0, rows, MAX_ROWS)
        ]
        return [np.concatenate(heads) for heads in zip(*chunks, strict=True)]
