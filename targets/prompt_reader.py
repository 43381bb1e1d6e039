"""Between requests and tokens: what a model of Transformers' reads of a request, and the text that its tokens are."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from targets.api import Request, UserError
from targets.chat import fit
from targets.encoding import max_length
from targets.generation import UNFINISHED, ContextOverflow, GeneratorTask, Message

BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""How SentencePiece writes a token that is one byte."""


@dataclass(frozen=True)
class Prompt:
    """A request as the model reads it."""

    ids: list[int]
    truncated: bool = False
    dropped: int = 0


class PromptReader:
    """Reads requests of a task for a model, whose `config` says what it holds.

    `whole_first`: whether it reads the prompt apart from the answer (an encoder-decoder), and does not continue it.
    """

    def __init__(self, task: GeneratorTask, tokenizer: Any, config: Any) -> None:
        self.task = task
        self.tokenizer = tokenizer
        self.whole_first = bool(config.is_encoder_decoder)
        found = None if self.whole_first else getattr(config, "max_position_embeddings", None)
        self.context = int(found or sys.maxsize)
        """Tokens of prompt and answer together that the model holds; without bound where its config names none."""

    def read(self, request: Request, output: int) -> Prompt:
        """The prompt of a request that `output` tokens are to follow.

        Raises:
            ContextOverflow: both together do not fit.
            UserError: no prompt can be made of the request.
        """
        if self.task.chat:
            turns = self.task.messages(request)
            kept, dropped = fit(turns, lambda some: len(self._rendered(some)), output, self.context)
            return Prompt(self._rendered(kept), dropped=dropped)
        text = self.task.prompt(request)
        if self.whole_first:
            row = self.tokenizer([text], truncation=True, max_length=max_length(self.tokenizer)).encodings[0]
            return Prompt(list(row.ids), truncated=bool(row.overflowing))
        ids = list(self.tokenizer(text)["input_ids"])
        if not ids:
            raise UserError(f"the prompt {text!r} has no tokens in this model's vocabulary; give it some words")
        if len(ids) + output > self.context:
            raise ContextOverflow.of(len(ids), output, self.context)
        return Prompt(ids)

    def _rendered(self, messages: Sequence[Message]) -> list[int]:
        from jinja2 import TemplateError

        if not self.tokenizer.chat_template:
            raise UserError("the model has no chat template; use one made for chats, or add chat_template to its files")
        try:
            ids = self.tokenizer.apply_chat_template([dict(turn) for turn in messages], add_generation_prompt=True)
        except TemplateError as error:
            raise UserError(f"the model's chat template refuses these messages: {error}") from error
        return list(ids)

    def text(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
        """The text that the tokens add to the prompt's; of a last character only begun nothing.

        Tokenizers of the SentencePiece kind drop the space before a text's first word: so the whole is decoded, and the
        prompt's part cut off.
        """
        before = "" if self.whole_first else self._decoded(prompt)
        whole = self._decoded([*([] if self.whole_first else prompt), *ids])
        return whole[len(before) :].rstrip(UNFINISHED) if whole.startswith(before) else self.finished(ids)

    def settled(self, token: int) -> bool:
        """Whether the text up to this token stays as it is, whatever follows.

        Of a run of bytes, SentencePiece's decoder makes characters only if all of them are valid, the last ones too.
        """
        return not BYTE.fullmatch(str(self.tokenizer.convert_ids_to_tokens(token)))

    def finished(self, ids: Sequence[int]) -> str:
        """The text of tokens alone, without a last character only begun."""
        return self._decoded(ids).rstrip(UNFINISHED)

    def _decoded(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
