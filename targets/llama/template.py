"""The chat template of a GGUF file: from turns to the text that the model continues."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from targets.api import UserError
from targets.generation import Message

KEY = "tokenizer.chat_template"


class Template:
    """A template in Jinja, as llama-cpp-python renders it."""

    def __init__(self, formatter: Any) -> None:
        self._formatter = formatter

    @classmethod
    def of(cls, llm: Any, path: Path) -> Template:
        """The template of a loaded model (`llm`: llama_cpp.Llama).

        Raises:
            UserError: the file has none.
        """
        import llama_cpp
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        if KEY not in llm.metadata:
            raise UserError(
                f"{path}: has no chat template ({KEY}), so it cannot chat; take an instruction-tuned model, or"
                " --task generation"
            )
        vocabulary = llama_cpp.llama_model_get_vocab(llm.model)
        begin, end = (
            llama_cpp.llama_vocab_get_text(vocabulary, token).decode(errors="replace") if token >= 0 else ""
            for token in (llm.token_bos(), llm.token_eos())
        )
        return cls(Jinja2ChatFormatter(llm.metadata[KEY], eos_token=end, bos_token=begin))

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation, ready to be answered.

        Raises:
            UserError: the template refuses these turns.
        """
        import jinja2

        try:
            text: str = self._formatter(messages=[dict(message) for message in messages]).prompt
        except (ValueError, jinja2.TemplateError) as error:  # templates raise ValueError by their raise_exception
            raise UserError(f"the model's chat template refuses the messages: {error}") from error
        return text
