"""What a generator learns from an example: the token rows, their targets, a new model, and its usual settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from targets.api import Example, UserError
from targets.generation import GeneratorTask
from targets.registry import did_you_mean
from targets.training.bytelevel import END, TURN
from targets.training.heads import IGNORED, Row
from targets.training.settings import Settings


def fits(lesson: Lesson, tokenizer: Any) -> bool:
    """Whether prompt and answer of a causal model fit into its length; chats are fitted by leaving out turns."""
    if lesson.task.family != "causal" or lesson.task.chat:
        return True
    ids = tokenizer(lesson.texts[0], truncation=True).input_ids
    return len(ids) + lesson.task.max_tokens <= int(tokenizer.model_max_length)


@dataclass(frozen=True)
class Lesson:
    """An example of a task: what is said before the answer, and the answer."""

    task: GeneratorTask
    example: Example

    @property
    def answer(self) -> str:
        """The gold text; of several references the first."""
        gold = self.example.gold
        return str(gold[0] if isinstance(gold, list) else gold)

    @property
    def texts(self) -> list[str]:
        """Every text of it, for the tokenizer."""
        if self.task.chat:
            return [*(turn["content"] for turn in self.task.messages(self.example.request)), self.answer]
        return [
            self.task.prompt(self.example.request),
            f" {self.answer}" if self.task.family == "causal" else self.answer,
        ]


class GeneratorHead(Protocol):
    """How one kind of generator is trained; the numbers are its usual settings."""

    steps: int
    learning_rate: float
    noise: float
    lowercase: bool

    def row(self, lesson: Lesson, tokenizer: Any) -> Row:
        """Arrays by name, each (tokens,) int64, `labels` among them."""
        ...

    def new_model(self, tokenizer: Any, settings: Settings) -> Any:
        """A model of the wanted size with random weights."""
        ...


class Seq2SeqLM:
    """T5: reads the prompt, writes the answer and the end token."""

    steps, learning_rate, noise, lowercase = 1500, 3e-3, 0.0, False

    def row(self, lesson: Lesson, tokenizer: Any) -> Row:
        """`labels` are the answer's tokens."""
        length = tokenizer.model_max_length
        read, written = (tokenizer(text, truncation=True, max_length=length).input_ids for text in lesson.texts)
        return {
            "input_ids": np.array(read),
            "attention_mask": np.ones(len(read), dtype=np.int64),
            "labels": np.array(written),
        }

    def new_model(self, tokenizer: Any, settings: Settings) -> Any:
        """T5 1.1 (gated GELU), its embedding used for the output too."""
        import transformers

        return transformers.T5ForConditionalGeneration(
            transformers.T5Config(
                vocab_size=len(tokenizer),
                n_positions=settings.max_length,
                d_model=settings.hidden,
                d_kv=settings.hidden // settings.heads,
                d_ff=settings.feed_forward,
                num_layers=settings.layers,
                num_heads=settings.heads,
                dropout_rate=0.0,
                feed_forward_proj="gated-gelu",
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                decoder_start_token_id=tokenizer.pad_token_id,
            )
        )


class CausalLM:
    """Llama: of a text every token is learned, of a chat every reply of the assistant."""

    steps, learning_rate, noise, lowercase = 1500, 2e-3, 0.0, False

    def row(self, lesson: Lesson, tokenizer: Any) -> Row:
        """`labels` are the tokens themselves, IGNORED where they teach nothing; cut to the model's length."""
        length = tokenizer.model_max_length
        if lesson.task.chat:
            ids, labels = self._chat(lesson, tokenizer, length)
        else:
            ids = list(tokenizer("".join(lesson.texts), truncation=True, max_length=length).input_ids)
            labels = ids = [*ids, tokenizer.eos_token_id] if len(ids) < length else ids
        return {"input_ids": np.array(ids), "labels": np.array(labels)}

    def _chat(self, lesson: Lesson, tokenizer: Any, length: int) -> tuple[list[int], list[int]]:
        turns: list[dict[str, str]] = [dict(turn) for turn in lesson.task.messages(lesson.example.request)]
        turns.append({"role": "assistant", "content": lesson.answer})
        ids: list[int] = []
        labels: list[int] = []
        for turn in turns:  # ChatML is the sum of its turns; rendering every prefix would take minutes
            reply = turn["role"] == "assistant"
            for text, taught in ((f"{TURN}{turn['role']}\n", False), (f"{turn['content']}{END}", reply), ("\n", False)):
                some = tokenizer(text).input_ids
                ids += some
                labels += some if taught else [IGNORED] * len(some)
        return ids[:length], labels[:length]

    def new_model(self, tokenizer: Any, settings: Settings) -> Any:
        """Llama with half as many key-value heads, its embedding used for the output too."""
        import transformers

        return transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=len(tokenizer),
                max_position_embeddings=settings.max_length,
                hidden_size=settings.hidden,
                intermediate_size=settings.feed_forward,
                num_hidden_layers=settings.layers,
                num_attention_heads=settings.heads,
                num_key_value_heads=max(1, settings.heads // 2),
                tie_word_embeddings=True,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )


HEADS: Mapping[str, GeneratorHead] = {"Seq2SeqLM": Seq2SeqLM(), "CausalLM": CausalLM()}


def head_of(tasks: Sequence[GeneratorTask]) -> GeneratorHead:
    """The head that all of these tasks' models have.

    Raises:
        UserError: there is no recipe for it, or they are of different kinds.
    """
    heads = sorted({task.head for task in tasks})
    if len(heads) > 1:
        kinds = ", ".join(f"{task.name} is {task.head}" for task in tasks)
        raise UserError(f"--task: one model cannot be of two kinds ({kinds}); train them one after the other")
    if heads[0] not in HEADS:
        raise UserError(
            f"task {tasks[0].name!r} cannot be trained: no recipe for {heads[0]}.{did_you_mean(heads[0], HEADS)}"
        )
    return HEADS[heads[0]]
