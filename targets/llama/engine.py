"""A model in llama.cpp, token by token, by the C functions that llama-cpp-python publishes.

`Llama` loads it and holds it. Its own loop fills the batch in Python and builds a sampler over the whole vocabulary for
each token; this one hands llama.cpp the tokens as an array and takes the largest logit where it lies, which for small
models is several per cent faster, and for large ones the same.
"""

from __future__ import annotations

import ctypes
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from targets.api import Floats, Unsupported
from targets.generation import Decoding

SCORED_BYTES = 16 * 2**20
"""Logits that are computed at once when every position is scored: more would be kept by the context for good."""
Tokens: TypeAlias = Generator[int, None, None]

LOOKUP_NGRAM = 2
"""The longest run of tokens that a prompt lookup searches for, as llama-cpp-python has it."""


def text_of(said: bytes | bytearray) -> str:
    """The text of tokens' bytes. Bytes that make no character are left out, as llama-cpp-python leaves them out."""
    return said.decode(errors="ignore")


@dataclass
class Drafts:
    """What a draft proposed, and how much of it the model would have said itself."""

    proposed: int = 0
    accepted: int = 0


@dataclass
class LlamaEngine:
    """A loaded model with one sequence. `llm`: llama_cpp.Llama; `said`: what llama.cpp logged while loading."""

    llm: Any
    context: int
    batch: int
    draft_tokens: int = 0
    said: tuple[str, ...] = ()
    drafts: Drafts = field(default_factory=Drafts)

    def __post_init__(self) -> None:
        import llama_cpp

        self._c = llama_cpp
        self._ctx, model = self.llm.ctx, self.llm.model
        self._vocab = llama_cpp.llama_model_get_vocab(model)
        self._memory = llama_cpp.llama_get_memory(self._ctx)
        self._size = self.llm.n_vocab()
        self._recurrent = bool(llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model))
        self._one = (llama_cpp.llama_token * 1)()
        self._next = llama_cpp.llama_batch_get_one(self._one, 1)
        self._buffer = ctypes.create_string_buffer(64)
        ends = (token for token in range(self._size) if llama_cpp.llama_vocab_is_eog(self._vocab, token))
        self.ends = frozenset(ends)
        self._ends = np.array(sorted(self.ends), dtype=np.intp)

    def tokenize(self, text: str, whole: bool = True) -> list[int]:
        """The ids of a text; `whole` adds the tokens that the model wants around every text."""
        found: list[int] = self.llm.tokenize(text.encode(), add_bos=whole, special=True)
        return found

    def piece(self, token: int) -> bytes:
        """The bytes of a token; none of a control token. A character may be spread over several tokens.

        Asked of llama.cpp each time (1 or 2 us): what was asked before would be kept until it held the vocabulary.
        """
        while True:
            size = len(self._buffer)
            length = self._c.llama_token_to_piece(self._vocab, token, self._buffer, size, 0, False)
            if length >= 0:
                return self._buffer.raw[:length]
            self._buffer = ctypes.create_string_buffer(-length)  # llama.cpp says how much it needs

    def stream(self, prompt: Sequence[int], asked: Decoding) -> Tokens:
        """Tokens after the prompt, without end; an end token is among them unless `ignore_eos` bans it.

        To be closed when no more are wanted: it holds a sampler.
        """
        banned = self._ends if asked.ignore_eos and len(self._ends) else None
        if not asked.greedy:
            return self._sampled(prompt, asked, banned)
        return self._drafted(prompt, banned) if self.draft_tokens else self._greedy(prompt, banned)

    def score(self, ids: Sequence[int]) -> Floats:
        """Logits after each token, float32 (tokens, vocabulary)."""
        self._forget()
        rows = max(1, min(self.batch, SCORED_BYTES // (4 * self._size)))
        found = np.empty((len(ids), self._size), dtype=np.float32)
        for start in range(0, len(ids), rows):
            part = ids[start : start + rows]
            self._decode(part, every=True)
            found[start : start + len(part)] = self._rows(len(part))
        return found

    def close(self) -> None:
        """Free the model and its context."""
        self.llm.close()

    def _greedy(self, prompt: Sequence[int], banned: NDArray[np.intp] | None) -> Tokens:
        self._read(prompt)
        while True:
            logits = self._rows(1)[0]
            if banned is not None:
                logits[banned] = -np.inf
            token = int(logits.argmax())
            yield token
            self._step(token)

    def _sampled(self, prompt: Sequence[int], asked: Decoding, banned: NDArray[np.intp] | None) -> Tokens:
        """By llama.cpp's samplers in its own order: top-p, temperature, then a seeded draw."""
        c = self._c
        chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        try:
            for sampler in (
                c.llama_sampler_init_top_p(asked.top_p, 1),
                c.llama_sampler_init_temp(asked.temperature),
                c.llama_sampler_init_dist(asked.seed & 0xFFFFFFFF),
            ):
                c.llama_sampler_chain_add(chain, sampler)
            self._read(prompt)
            while True:
                if banned is not None:
                    self._rows(1)[0, banned] = -np.inf
                token = int(c.llama_sampler_sample(chain, self._ctx, -1))
                yield token
                self._step(token)
        finally:
            c.llama_sampler_free(chain)

    def _drafted(self, prompt: Sequence[int], banned: NDArray[np.intp] | None) -> Tokens:
        """Greedy, several tokens a pass: a draft is looked up in the text so far, and kept as far as it is right."""
        from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

        if self._recurrent:
            raise Unsupported("a recurrent model cannot take back tokens, which checking a draft needs")
        lookup = LlamaPromptLookupDecoding(LOOKUP_NGRAM, self.draft_tokens)
        ids = list(prompt)
        draft: list[int] = []
        self._read(prompt)
        rows = self._rows(1)
        while True:
            if banned is not None:
                rows[:, banned] = -np.inf
            best = rows.argmax(axis=-1).tolist()
            right = next((i for i, token in enumerate(draft) if token != best[i]), len(draft))
            self.drafts.proposed += len(draft)
            self.drafts.accepted += right
            self._c.llama_memory_seq_rm(self._memory, 0, len(ids) + right, -1)
            ids += best[: right + 1]
            yield from best[: right + 1]
            room = self.context - len(ids)
            draft = [int(token) for token in lookup(np.array(ids, dtype=np.intc))[: max(0, room)]]
            self._decode([ids[-1], *draft], every=True)
            rows = self._rows(1 + len(draft))

    def _read(self, prompt: Sequence[int]) -> None:
        """Forget what was, and read the prompt."""
        self._forget()
        for start in range(0, len(prompt), self.batch):
            self._decode(prompt[start : start + self.batch])

    def _forget(self) -> None:
        self._c.llama_memory_clear(self._memory, self._recurrent)  # only a state that is summed up need be zeroed

    def _step(self, token: int) -> None:
        self._one[0] = token
        self._run(self._next)

    def _decode(self, ids: Sequence[int], every: bool = False) -> None:
        """One pass over tokens; logits come for the last, or for every one."""
        tokens = (self._c.llama_token * len(ids))(*ids)
        batch = self._c.llama_batch_get_one(tokens, len(ids))
        if every:
            flags = (ctypes.c_int8 * len(ids))(*[1] * len(ids))
            batch.logits = flags
        self._run(batch)

    def _run(self, batch: Any) -> None:
        code = self._c.llama_decode(self._ctx, batch)
        if code:
            raise RuntimeError(f"llama_decode returned {code} (1: no room in the context, below 0: an error)")

    def _rows(self, count: int) -> NDArray[np.float32]:
        """The context's own logits of the last pass (count, vocabulary); waits until they are there."""
        pointer = self._c.llama_get_logits(self._ctx)
        shape = ctypes.c_float * (count * self._size)
        address = ctypes.addressof(pointer.contents)
        return np.frombuffer(shape.from_address(address), np.float32).reshape(count, self._size)
