"""What `generate` calls while it runs: each new token is told, and a row ends at a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class StopStrings:
    """A stopping criterion: a row has ended when its new text holds a stop string.

    It looks at nothing but the ids, because speculative decoding also asks it about drafts. `start`: where in a row the
    new tokens begin.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str], start: int) -> None:
        self.stops = stops
        self.start = start
        self._decode = decode

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """For ids (rows, length) a bool tensor (rows,)."""
        import torch

        ended = [self.ended(row) for row in input_ids[:, self.start :].tolist()]
        return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)

    def ended(self, ids: Sequence[int]) -> bool:
        """Whether the text of new tokens holds a stop string."""
        text = self._decode(ids) if self.stops else ""
        return any(stop in text for stop in self.stops)


class TokenStream:
    """A streamer (see transformers.generation.streamers): tells each token, but not end tokens and what follows them.

    `generate` copies tokens to the host before it puts them here, so the device has finished them when they are told.
    """

    def __init__(self, tell: Callable[[int], None], ends: frozenset[int], stops: StopStrings) -> None:
        self._tell = tell
        self._ends = ends
        self._stops = stops
        self._rows: list[list[int]] | None = None
        self._open: list[bool] = []

    def put(self, value: Any) -> None:
        """The prompts (rows, length) first; then (rows,) the next token of each, or (1, n) the next n of one row."""
        if self._rows is None:
            self._rows = [[] for _ in range(value.shape[0])]
            self._open = [True] * value.shape[0]
            return
        for step in [value.tolist()] if value.dim() == 1 else [[token] for token in value[0].tolist()]:
            for row, token in enumerate(step):
                if self._open[row]:
                    self._see(row, token, self._rows[row])

    def end(self) -> None:
        """Nothing is left to do."""

    def _see(self, row: int, token: int, ids: list[int]) -> None:
        if token in self._ends:
            self._open[row] = False
            return
        self._tell(token)
        if self._stops.stops:
            ids.append(token)
            self._open[row] = not self._stops.ended(ids)
