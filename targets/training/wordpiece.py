"""A WordPiece tokenizer of one's own text, the same one for the same text."""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import Any

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PREFIX = "##"


def pieces(texts: Iterable[str], size: int, normalizer: Any) -> list[str]:
    """The vocabulary: special tokens, every printable ASCII character alone and inside a word, then frequent pieces.

    Learned as byte-pair merges, which come out the same in every process; the WordPiece trainer's do not.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    texts = [normalizer.normalize_str(text) for text in texts]
    alphabet = sorted(set().union(*texts) - {" "})
    learner = Tokenizer(models.BPE(unk_token="[UNK]", continuing_subword_prefix=PREFIX))
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL, *alphabet, *(PREFIX + char for char in alphabet)],  # in order: ties go by index
        continuing_subword_prefix=PREFIX,
        min_frequency=2,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learned = learner.get_vocab()
    characters = [normalizer.normalize_str(char) for char in string.digits + string.ascii_letters]
    fallback = [*characters, *(PREFIX + char for char in characters), *string.punctuation]
    ordered = [*SPECIAL, *fallback, *sorted(learned, key=lambda piece: learned[piece])]
    return list(dict.fromkeys(ordered))[:size]


def build(texts: Iterable[str], size: int, lowercase: bool, max_length: int) -> Any:
    """A transformers.PreTrainedTokenizerFast for texts and pairs of texts, [CLS] a [SEP] b [SEP]."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    vocabulary = {piece: index for index, piece in enumerate(pieces(texts, size, normalizer))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=PREFIX)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
