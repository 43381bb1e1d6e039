"""The runner of every model with Transformers' `generate`: PyTorch's own, and ONNX Runtime's through Optimum."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from targets.api import Answer, Evidence, Floats, Labels, Request, Tick, no_tick
from targets.closing import Closing
from targets.generation import Decoding, GeneratorTask, Say, answer, cut_at_stop
from targets.growing_text import GrowingText
from targets.prompt_reader import Prompt, PromptReader
from targets.token_stream import StopStrings, TokenStream

MAX_ROWS = 64
"""Rows generated at once: each holds a KV cache of its own."""
KEPT = (
    "bos_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
)
"""What is taken over of a model's own generation settings. Penalties, beams and temperatures are not: greedy means the
most probable token in every engine."""

DRAFTING = {"assistant_model", "prompt_lookup_num_tokens"}
"""Options of `generate` with which it takes no `min_new_tokens`."""


class TransformersGenerator(Closing):
    """A loaded generator. `options` go to every call of `generate`; `close` of the backend is called once.

    `rows`: how many requests one call of `generate` may take; speculative decoding takes one.
    """

    def __init__(
        self,
        *,
        task: GeneratorTask,
        model: Any,
        tokenizer: Any,
        options: Mapping[str, Any],
        evidence: Callable[[], Evidence],
        close: Callable[[], None],
        rows: int = MAX_ROWS,
    ) -> None:
        self.task = task
        self.model = model
        self.tokenizer = tokenizer
        self.reader = PromptReader(task, tokenizer, model.config)
        self.labels: Labels = {}
        self.ends = end_tokens(model, tokenizer)
        self.pad = next(
            found for found in (tokenizer.pad_token_id, model.config.pad_token_id, *self.ends, 0) if found is not None
        )
        self._options = dict(options)
        self._rows = rows
        self._evidence = evidence
        self._close: Callable[[], None] | None = close

    def run(self, batch: Sequence[Request], tick: Tick = no_tick) -> list[Answer]:
        """Answer a batch, in order: requests decoded alike go together, sampled ones alone, each with its own seed."""
        decodings = [self._decoding(request) for request in batch]
        prompts = [self.reader.read(*pair) for pair in zip(batch, (each.max_tokens for each in decodings), strict=True)]
        tell = None if tick is no_tick else lambda _: tick()
        answers: dict[int, Answer] = {}
        for decoding, rows in grouped(decodings, self._rows):
            made = self._generate([prompts[row].ids for row in rows], decoding, tell)
            for row, ids in zip(rows, made, strict=True):
                answers[row] = self._answer(prompts[row], ids, decoding)
        return [answers[row] for row in range(len(batch))]

    @property
    def context(self) -> int | None:
        """Tokens that the model holds; None where its positions are relative."""
        return self.reader.context if self.reader.context < sys.maxsize else None

    def stream(self, request: Request, say: Say, tick: Tick = no_tick) -> Answer:
        """Answer one request, and say its text while it comes."""
        decoding = self._decoding(request)
        prompt = self.reader.read(request, decoding.max_tokens)
        text = GrowingText(say, decoding.stop)
        heard: list[int] = []

        def hear(token: int) -> None:
            heard.append(token)
            tick()
            if self.reader.settled(token):
                text.upto(self.reader.text(prompt.ids, heard))

        (ids,) = self._generate([prompt.ids], decoding, hear)
        made = self._answer(prompt, ids, decoding)
        text.end(made["text"])
        return made

    def tokens(self, request: Request) -> list[int]:
        """The ids of the prompt as the model reads them, special tokens and chat template included."""
        return self.reader.read(request, self._decoding(request).max_tokens).ids

    def logits(self, batch: Sequence[Request]) -> list[list[Floats]]:
        """Per request one float32 array, computed in one pass without padding.

        Of a causal model (tokens of the prompt, vocabulary), row i being the logits after token i; of an
        encoder-decoder (tokens of its greedy answer + 1, vocabulary), row i being the logits before the answer's token
        i, the last one those after it.
        """
        return [[self._forced(request)] for request in batch]

    def facts(self) -> dict[str, Any]:
        """Of the model and the tokenizer, for `Evidence.details`."""
        return {
            "context": self.context or "unbounded: positions are relative",
            "end_tokens": list(self.ends),
            "vocabulary": int(self.model.config.vocab_size),
        }

    def evidence(self) -> Evidence:
        """What was asked for and what really runs."""
        return self._evidence()

    def close(self) -> None:
        """Give every resource back; a second call does nothing."""
        if self._close is not None:
            self._close()
            self._close = None

    def _decoding(self, request: Request) -> Decoding:
        return Decoding.of(request, self.task.max_tokens, holds_back=not DRAFTING & self._options.keys())

    def _generate(
        self, prompts: Sequence[list[int]], decoding: Decoding, tell: Callable[[int], None] | None
    ) -> list[list[int]]:
        """The raw new tokens per prompt, with end and padding tokens as they come; each is told before the next."""
        ids, mask = self._padded(prompts)
        stops = StopStrings(self.reader.finished, decoding.stop, 1 if self.reader.whole_first else ids.shape[1])
        ends = frozenset() if decoding.ignore_eos else frozenset(self.ends)
        streamer = None if tell is None else TokenStream(tell, ends, stops)
        with seeded(decoding, self.model.device):
            sequences = self.model.generate(
                inputs=ids,
                attention_mask=mask,
                generation_config=self._settings(decoding),
                use_model_defaults=False,
                streamer=streamer,
                stopping_criteria=[stops] if decoding.stop else None,
                **self._options,
            )
        new: list[list[int]] = sequences[:, stops.start :].tolist()  # the copy waits for the device
        return new

    def _padded(self, prompts: Sequence[list[int]]) -> tuple[Any, Any]:
        """Ids and mask (rows, longest), padded where the model does not continue: causal models on the left."""
        import torch

        longest = max(map(len, prompts))
        gaps = [longest - len(ids) for ids in prompts]
        left = not self.reader.whole_first
        fill = [([self.pad] * gap, [0] * gap) for gap in gaps]
        rows = [pads + ids if left else ids + pads for (pads, _), ids in zip(fill, prompts, strict=True)]
        masks = [
            off + [1] * len(ids) if left else [1] * len(ids) + off for (_, off), ids in zip(fill, prompts, strict=True)
        ]
        place = self.model.device
        return torch.tensor(rows, device=place), torch.tensor(masks, device=place)

    def _settings(self, decoding: Decoding) -> Any:
        """Transformers' own settings object for these."""
        from transformers import GenerationConfig

        kept = {name: getattr(self.model.generation_config, name, None) for name in KEPT}
        chosen = {} if decoding.greedy else {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}
        if decoding.ignore_eos:  # min_new_tokens would say the same, but a draft model is refused with it
            kept["suppress_tokens"] = [*(kept["suppress_tokens"] or ()), *self.ends] or None
        return GenerationConfig(
            **kept,
            **chosen,
            do_sample=not decoding.greedy,
            max_new_tokens=decoding.max_tokens,
            min_new_tokens=decoding.min_tokens or None,
            pad_token_id=self.pad,
            eos_token_id=list(self.ends) or None,
        )

    def _answer(self, prompt: Prompt, ids: list[int], decoding: Decoding) -> Answer:
        end = next((at for at, token in enumerate(ids) if token in self.ends), None)
        if end is not None:
            ids = ids[:end]
        text, stopped = cut_at_stop(self.reader.text(prompt.ids, ids), decoding.stop)
        if stopped:
            ids = next(ids[:n] for n in range(len(ids) + 1) if self.reader.text(prompt.ids, ids[:n]).startswith(text))
        return answer(
            text,
            ids,
            output_tokens=len(ids),
            tokens=len(prompt.ids),
            finish="stop" if stopped or end is not None else "length",
            truncated=prompt.truncated,
            dropped_turns=prompt.dropped,
        )

    def _forced(self, request: Request) -> Floats:
        import torch

        decoding = self._decoding({**request, "temperature": 0.0})
        prompt = self.reader.read(request, output=0)
        ids, mask = self._padded([prompt.ids])
        extra = {}
        if self.reader.whole_first:
            made = self._answer(prompt, self._generate([prompt.ids], decoding, None)[0], decoding)["token_ids"]
            start = self.model.generation_config.decoder_start_token_id
            extra = {"decoder_input_ids": torch.tensor([[start, *made]], device=self.model.device)}
        with torch.inference_mode():
            logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False, **extra).logits
        found: Floats = logits[0].float().cpu().numpy()
        return found


def end_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end an answer, by the model's generation settings and its tokenizer."""
    named = model.generation_config.eos_token_id
    found = [*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id]
    return tuple(dict.fromkeys(int(token) for token in found if token is not None))


def grouped(decodings: Sequence[Decoding], rows: int) -> Iterator[tuple[Decoding, list[int]]]:
    """Places of requests that one call may answer: of equal settings, at most `rows`; a sampled one alone."""
    places: dict[Decoding, list[int]] = {}
    for place, decoding in enumerate(decodings):
        places.setdefault(decoding, []).append(place)
    for decoding, found in places.items():
        step = rows if decoding.greedy else 1
        for start in range(0, len(found), step):
            yield decoding, found[start : start + step]


@contextmanager
def seeded(decoding: Decoding, place: Any) -> Iterator[None]:
    """Draws are those of the request's seed, and the process's own generator is left as it was."""
    import torch

    if decoding.greedy:
        yield
        return
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(decoding.seed)
        yield
