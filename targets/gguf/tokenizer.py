"""A byte-level BPE tokenizer, from Hugging Face's tokenizer.json into the metadata of a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targets.api import UserError
from targets.located import parse_json, read_text

REMEDY = "convert it with llama.cpp's convert_hf_to_gguf.py and pass the file with --gguf"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3 cuts a text before merging, as its tokenizer.json has it."""


def add_tokenizer(writer: Any, folder: Path, config: Mapping[str, Any]) -> None:
    """Write tokens, merges, special ids and chat template (`writer`: gguf.GGUFWriter).

    Raises:
        UserError: no tokenizer.json, or another kind of tokenizer than byte-level BPE.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{folder}: no tokenizer.json, which a GGUF file is made from here; {REMEDY}")
    data = parse_json(path, read_text(path))
    if data["model"].get("type") != "BPE" or (data.get("decoder") or {}).get("type") != "ByteLevel":
        raise UserError(f"{path}: its tokenizer is no byte-level BPE, the one kind that is converted here; {REMEDY}")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_cutting(path, data))
    tokens, types = _vocabulary(path, data, config["vocab_size"])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]])
    _add_special(writer, folder, config, tokens)


def _cutting(path: Path, data: Mapping[str, Any]) -> str:
    """llama.cpp's name of how texts are cut before merging (src/llama-vocab.cpp lists the expressions)."""
    steps = data.get("pre_tokenizer") or {}
    found = [dict(step) for step in steps.get("pretokenizers", [steps])]
    shape = [
        (step.get("type"), step.get("use_regex", step.get("individual_digits", step.get("pattern", {}).get("Regex"))))
        if step.get("type") in ("ByteLevel", "Digits", "Split")
        else (step.get("type"), None)
        for step in found
    ]
    if not any(step.get("add_prefix_space") for step in found) and not data.get("normalizer"):
        for name, wanted in (
            ("gpt-2", [("ByteLevel", True)]),
            ("smollm", [("Digits", True), ("ByteLevel", True)]),
            ("llama-bpe", [("Split", LLAMA3), ("ByteLevel", False)]),
        ):
            if shape == wanted:
                return name
    raise UserError(f"{path}: its pre-tokenizer is none of GPT-2's, SmolLM's and Llama 3's; {REMEDY}")


def _vocabulary(path: Path, data: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Every token by its id, padded to the rows of the embedding, and what kind it is."""
    import gguf

    added = {token["id"]: token for token in data.get("added_tokens", [])}
    by_id = {number: text for text, number in data["model"]["vocab"].items()}
    by_id |= {number: token["content"] for number, token in added.items()}
    if by_id and max(by_id) >= size:
        raise UserError(
            f"{path}: has a token {max(by_id)}, but the model's vocabulary ends at {size - 1}; save both again"
        )
    kinds = gguf.TokenType
    types = [
        (kinds.CONTROL if added[number]["special"] else kinds.USER_DEFINED)
        if number in added
        else (kinds.NORMAL if number in by_id else kinds.UNUSED)
        for number in range(size)
    ]
    return [by_id.get(number, f"[PAD{number}]") for number in range(size)], [int(kind) for kind in types]


def _add_special(writer: Any, folder: Path, config: Mapping[str, Any], tokens: list[str]) -> None:
    """End, begin and padding ids, whether a text gets them, and the chat template."""
    settings = _json(folder / "tokenizer_config.json")
    ends = _json(folder / "generation_config.json").get("eos_token_id") or config.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends] if ends is not None else []
    if ends:
        writer.add_eos_token_id(ends[0])
    if len(ends) > 1:
        writer.add_eot_token_id(ends[1])
    for name, add in (("bos", writer.add_bos_token_id), ("pad", writer.add_pad_token_id)):
        token = _content(settings.get(f"{name}_token"))
        number = tokens.index(token) if token in tokens else config.get(f"{name}_token_id")
        if number is not None:
            add(number)
    before, after = _around(folder / "tokenizer.json")
    writer.add_add_bos_token(before)
    writer.add_add_eos_token(after)
    template = folder / "chat_template.jinja"
    found = read_text(template) if template.is_file() else settings.get("chat_template")
    if isinstance(found, str):
        writer.add_chat_template(found)


def _around(path: Path) -> tuple[bool, bool]:
    """Whether the tokenizer puts a token before, and one after, every text."""
    processor = json.loads(read_text(path)).get("post_processor") or {}
    steps = [step for each in processor.get("processors", [processor]) for step in each.get("single", [])]
    kinds = ["Sequence" if "Sequence" in step else "SpecialToken" for step in steps]
    if "Sequence" not in kinds:
        return False, False
    place = kinds.index("Sequence")
    return "SpecialToken" in kinds[:place], "SpecialToken" in kinds[place:]


def _json(path: Path) -> dict[str, Any]:
    found = parse_json(path, read_text(path)) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token
