"""Readers of labelled data: text tables, CoNLL columns, SQuAD. Every refusal names the place of what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from targets.api import Example, UserError
from targets.located import counted, get, lines, parse_json, read_text, shown, written
from targets.tables import SLICES, Record, read_records, split_slices

TEXT = ("text", "sentence", "review")
LABEL = ("label", "sentiment", "class")
COMMENT = re.compile(r"# (slices|id) =(.*)")
TAG = re.compile(r"([BIESLU])-(\S+)")
OPENING = "BSU"
"""Prefixes that begin an entity whatever stands before: B, and those of an entity of one word (BIOES, BILOU)."""


def read_labelled_text(path: Path) -> list[Example]:
    """Texts with one label each, from .csv, .tsv (unquoted) or .jsonl; gold is the label as text.

    A header names the columns, in any order, others being ignored: text, sentence or review; label, sentiment or class;
    optionally slices, separated by `|`. Without a header they are text and label. Ids are `FILESTEM:LINE`.

    Raises:
        UserError: the file or a line of it is not as described.
    """
    records, named = read_records(path, {"text": TEXT, "label": LABEL}, "labelled text")
    found = [_labelled(record) for record in records]
    if not named:
        _check_order(path, found)
    return found


def read_conll(path: Path) -> list[Example]:
    """Sentences in CoNLL columns, separated by spaces or tabs: the word first, its tag last; blank lines between them.

    Tags may be BIO, IOB1, BIOES or BILOU and become BIO: gold is {"words": [...], "tags": [...]}. `# slices = a|b` and
    `# id = x` may stand before a sentence; other ids are `FILESTEM:LINE`. `-DOCSTART-` lines are skipped.

    Raises:
        UserError: the file or a line of it is not as described.
    """
    found: dict[str, Example] = {}
    sentence, columns = _Sentence(path), 0
    for line, text in chain(lines(read_text(path)), [(0, "")]):
        cells = re.split(r"[ \t]+", text.strip(" \t"))
        if cells == [""] or cells[0] == "-DOCSTART-":
            if sentence.words:
                example = sentence.example(found)
                found[example.id] = example
                sentence = _Sentence(path)
        elif comment := COMMENT.fullmatch(text):
            sentence.note(line, comment[1], comment[2].strip())
        else:
            columns = columns or len(cells)
            if len(cells) < 2 or len(cells) != columns:
                wanted = f"{columns} as above" if columns > 1 else "at least 2"
                raise UserError(f"{path}:{line}: {counted(len(cells), 'column')}, should be {wanted}: word ... tag")
            sentence.add(line, cells[0], cells[-1])
    if not found:
        raise UserError(f"{path}: no sentence in the file")
    return list(found.values())


def read_squad(path: Path) -> list[Example]:
    """Questions on contexts from SQuAD v1.1 JSON; a question may have a list `slices` of its own.

    Gold is {"answers": [str], "starts": [int]}, the starts in characters of the context; the id is the question's.

    Raises:
        UserError: not JSON (with its line), or a question whose data is missing, impossible or wrong (with its id).
    """
    found: dict[str, Example] = {}
    for context, where, qa in _questions(path, parse_json(path, read_text(path))):
        name = written(str(get(qa, "id", (str, int), where)), "the id", where)
        where = f"{path}: question {name!r}"
        if name in found:
            raise UserError(f"{where}: the id occurs twice; ids should be unique")
        question = written(get(qa, "question", str, where), "the question", where)
        slices = tuple(written(item, "a slice", where) for item in get(qa, SLICES, list, where, []))
        gold = _answers(qa, context, where)
        found[name] = Example(name, {"question": question, "context": context}, gold, slices)
    if not found:
        raise UserError(f"{path}: no question in the file")
    return list(found.values())


def _labelled(record: Record) -> Example:
    label = record.values["label"]
    if isinstance(label, bool) or not isinstance(label, (str, int)):
        raise UserError(f"{record.where}: the label is {shown(label)}, should be text or a whole number")
    request = {"text": written(record.values["text"], "the text", record.where)}
    return Example(record.id, request, written(str(label).strip(), "the label", record.where), record.slices)


def _check_order(path: Path, examples: Sequence[Example]) -> None:
    """Refuse columns without a header that are evidently swapped: each label once, while texts repeat."""
    labels, texts = {example.gold for example in examples}, {example.request["text"] for example in examples}
    if len(texts) < len(labels) == len(examples) > 2:
        raise UserError(f"{path}: every line has a label of its own, and texts repeat; the order is text, then label")


@dataclass
class _Sentence:
    """A CoNLL sentence while it is read."""

    path: Path
    line: int = 0
    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    def note(self, line: int, key: str, value: str) -> None:
        """Keep a comment."""
        if self.words:
            raise UserError(f"{self.path}:{line}: a comment inside a sentence; a blank line should stand before it")
        if not value:
            raise UserError(f"{self.path}:{line}: nothing after '# {key} ='")
        self.notes[key] = value

    def add(self, line: int, word: str, tag: str) -> None:
        """Keep a word, and its tag as BIO."""
        self.line = self.line or line
        match = TAG.fullmatch(tag)
        if tag != "O" and not match:
            raise UserError(f"{self.path}:{line}: tag {tag!r}, should be O, or B- or I- and a type, as in B-PER")
        prefix, kind = match.groups() if match else ("", "")
        goes_on = bool(self.tags) and self.tags[-1][2:] == kind and prefix not in OPENING
        self.words.append(word)
        self.tags.append(f"{'I' if goes_on else 'B'}-{kind}" if kind else "O")

    def example(self, taken: Mapping[str, Example]) -> Example:
        """The finished sentence, under an id that is not taken."""
        name = self.notes.get("id") or f"{self.path.stem}:{self.line}"
        if name in taken:
            raise UserError(f"{self.path}:{self.line}: the id {name!r} occurs twice; ids should be unique")
        gold = {"words": self.words, "tags": self.tags}
        return Example(name, {"text": " ".join(self.words)}, gold, split_slices(self.notes.get(SLICES, "")))


def _questions(path: Path, root: Any) -> Iterator[tuple[str, str, Any]]:
    """(context, place, question) of every question."""
    for i, article in enumerate(get(root, "data", list, str(path))):
        for j, paragraph in enumerate(get(article, "paragraphs", list, f"{path}: data[{i}]")):
            where = f"{path}: data[{i}].paragraphs[{j}]"
            context = written(get(paragraph, "context", str, where), "the context", where)
            for k, qa in enumerate(get(paragraph, "qas", list, where)):
                yield context, f"{where}.qas[{k}]", qa


def _answers(qa: Mapping[str, Any], context: str, where: str) -> dict[str, list[Any]]:
    if qa.get("is_impossible"):
        raise UserError(f"{where}: cannot be answered (SQuAD v2.0); v1.1 is needed, where every question has an answer")
    answers = get(qa, "answers", list, where)
    if not answers:
        raise UserError(f"{where}: has no answer; at least one is needed, as in SQuAD v1.1")
    texts = [written(get(answer, "text", str, where), "an answer", where) for answer in answers]
    starts = [get(answer, "answer_start", int, where) for answer in answers]
    for text, start in zip(texts, starts, strict=True):
        if start < 0 or not context.startswith(text, start):
            reads = context[start : start + len(text)] if start >= 0 else ""
            raise UserError(
                f"{where}: the answer {text!r} is not at answer_start {start}, where the context reads {reads!r};"
                " answer_start counts characters of the context from 0"
            )
    return {"answers": texts, "starts": starts}
