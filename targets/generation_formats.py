"""Readers of what generators are asked: pairs of texts, texts to continue, dialogues. Every refusal names its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from targets.api import Example, UserError
from targets.chat import checked
from targets.located import get, lines, read_text, shown, written
from targets.tables import objects, read_records, slices_of


def read_pairs(path: Path, sources: tuple[str, ...], targets: tuple[str, ...]) -> list[Example]:
    """Texts with what should become of them, from .csv, .tsv (unquoted) or .jsonl; gold is the list of references.

    A header names the columns, in any order, others being ignored: one of `sources`, one of `targets`, optionally
    slices, separated by `|`. Without a header they are source and target. In .jsonl the target may be a list of
    references, each as good as the others. Ids are `FILESTEM:LINE`.

    Raises:
        UserError: the file or a line of it is not as described.
    """
    source, target = sources[0], targets[0]
    records, _ = read_records(path, {source: sources, target: targets}, f"pairs of {source} and {target}")
    found = []
    for record in records:
        request = {"text": written(record.values[source], f"the {source}", record.where)}
        gold = _references(record.values[target], target, record.where)
        found.append(Example(record.id, request, gold, record.slices))
    return found


def read_continuations(path: Path) -> list[Example]:
    """Prompts with their true continuation, "" where none is known; a space belongs between the two.

    Of a .txt file every line that is not blank is a text: the first half of its words (one more where their number is
    odd) is the prompt. A .jsonl file has objects with prompt, and where they like continuation and slices.

    Raises:
        UserError: the file or a line of it is not as described.
    """
    suffix = _suffix(path, (".txt", ".jsonl"), "texts to continue")
    text = read_text(path)
    found = []
    if suffix == ".txt":
        for number, line in lines(text):
            if line.strip():
                prompt, gold = halves(written(line.strip(), "the text", f"{path}:{number}"))
                found.append(Example(f"{path.stem}:{number}", {"prompt": prompt}, gold))
        return found
    for where, number, item in _objects(path, text, "prompt"):
        prompt = written(get(item, "prompt", str, where), "the prompt", where)
        gold = get(item, "continuation", str, where, "").strip()
        gold = written(gold, "the continuation", where) if gold else ""
        found.append(Example(f"{path.stem}:{number}", {"prompt": prompt}, gold, slices_of(item, where)))
    return found


def read_dialogues(path: Path) -> list[Example]:
    """Conversations from .jsonl with `messages` as OpenAI writes them, each with role and content.

    The last message, the assistant's, is the gold reply; those before it are the request. `slices` are optional.

    Raises:
        UserError: the file or a line of it is not as described.
    """
    _suffix(path, (".jsonl",), "dialogues")
    found = []
    for where, number, item in _objects(path, read_text(path), "messages"):
        messages = get(item, "messages", list, where)
        last = messages[-1] if messages else None
        if not isinstance(last, dict) or last.get("role") != "assistant":
            raise UserError(f"{where}: the last message should be the assistant's, the gold reply; is {shown(last)}")
        gold = written(last.get("content"), "the gold reply", where)
        try:
            turns = checked(messages[:-1])
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        for turn in turns:
            written(turn["content"], "a message", where)
        request = {"messages": [{"role": turn["role"], "content": turn["content"]} for turn in turns]}
        found.append(Example(f"{path.stem}:{number}", request, gold, slices_of(item, where)))
    return found


def _suffix(path: Path, allowed: Sequence[str], noun: str) -> str:
    suffix = path.suffix.lower()
    if suffix not in allowed:
        what = "a folder" if path.is_dir() else f"a {suffix} file" if suffix else "a file without a suffix"
        raise UserError(f"{path}: {noun} should be a {' or '.join(allowed)} file, is {what}")
    return suffix


def _objects(path: Path, text: str, key: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(place, line, object) of each JSON line."""
    for number, item in objects(path, text):
        if not isinstance(item, dict):
            raise UserError(f"{path}:{number}: is {shown(item)}, should be an object with {key}")
        yield f"{path}:{number}", number, item


def _references(value: Any, noun: str, where: str) -> list[str]:
    if value == []:
        raise UserError(f"{where}: the list of references ({noun}) is empty; at least one is needed")
    return [written(text, f"the {noun}", where) for text in (value if isinstance(value, list) else [value])]


def halves(text: str) -> tuple[str, str]:
    """A prompt and its continuation: the first half of the words (one more where their number is odd), and the rest."""
    ends = [match.end() for match in re.finditer(r"\S+", text)]
    cut = ends[(len(ends) + 1) // 2 - 1]
    return text[:cut], text[cut:].lstrip()
