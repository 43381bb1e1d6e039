"""A byte-level BPE tokenizer of one's own text: any text is known to it, and comes back letter by letter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

PAD, END, BEGIN, TURN = "<|pad|>", "<|im_end|>", "<|endoftext|>", "<|im_start|>"
SPECIAL = (PAD, END, BEGIN, TURN)
"""In order of their ids. END ends a text as well as a turn of a chat; BEGIN is never put before a text."""

RARE = 8000
"""A piece rarer than once in so many words is not worth a row of a small vocabulary; rare characters stay bytes."""

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The chat template: ChatML, which llama.cpp and the servers know without a template engine too."""


def build(texts: Iterable[str], size: int, max_length: int, reads_first: bool) -> Any:
    """A transformers.PreTrainedTokenizerFast that splits texts as GPT-2 does.

    With `reads_first` (an encoder-decoder) END closes every text; otherwise nothing is added, and chats have CHATML.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    texts = list(texts)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=max(2, sum(len(text.split()) for text in texts) // RARE),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if reads_first:
        end = (END, tokenizer.token_to_id(END))
        tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[end])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        pad_token=PAD,
        eos_token=END,
        **({} if reads_first else {"bos_token": BEGIN, "additional_special_tokens": [TURN], "chat_template": CHATML}),
    )
