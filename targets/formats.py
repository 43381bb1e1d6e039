"""Readers of labelled data: text tables, CoNLL columns, SQuAD. Every refusal names the place of what is wrong."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from targets.api import Example, UserError
from targets.located import counted, either, get, lines, parse_json, read_text, shown, written

Rows: TypeAlias = Iterable[tuple[int, list[str]]]
"""Cells with the number of the line they begin on."""

TEXT = ("text", "sentence", "review")
LABEL = ("label", "sentiment", "class")
SLICES = "slices"
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
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".tsv", ".jsonl"):
        what = "a folder" if path.is_dir() else f"a {suffix} file" if suffix else "a file without a suffix"
        raise UserError(f"{path}: labelled text should be a .csv, .tsv or .jsonl file, is {what}")
    text = read_text(path)
    if suffix == ".jsonl":
        found = list(_jsonl(path, text))
    else:
        found = _table(path, _csv_rows(path, text) if suffix == ".csv" else _tsv_rows(text))
    if not found:
        raise UserError(f"{path}: no example below the header")
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


def _labelled(path: Path, line: int, text: Any, label: str, slices: tuple[str, ...]) -> Example:
    where = f"{path}:{line}"
    request = {"text": written(text, "the text", where)}
    return Example(f"{path.stem}:{line}", request, written(label.strip(), "the label", where), slices)


def _tsv_rows(text: str) -> Rows:
    return ((number, line.split("\t")) for number, line in lines(text) if line.strip(" "))


def _csv_rows(path: Path, text: str) -> Rows:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        hint = "quotes around a field are closed, and those inside it doubled"
        raise UserError(f"{path}:{line}: not CSV: {error}; {hint}") from error


def _table(path: Path, rows: Rows) -> list[Example]:
    rows = iter(rows)
    line, first = next(rows, (1, ["text", "label"]))
    names = [cell.strip().lower() for cell in first]
    header = _columns(f"{path}:{line}", names)
    columns = header or {"text": 0, "label": 1}
    if not header:
        names, rows = ["text", "label"], chain([(line, first)], rows)
    hint = "a text with a comma needs quotes" if path.suffix.lower() == ".csv" else "a text cannot hold a tab"
    found = []
    for number, cells in rows:
        if len(cells) != len(names):
            wanted = f"{len(names)} ({', '.join(names)})"
            raise UserError(f"{path}:{number}: {counted(len(cells), 'column')}, should be {wanted}; {hint}")
        values = {key: cells[index] for key, index in columns.items()}
        found.append(_labelled(path, number, values["text"], values["label"], _slices(values.get(SLICES, ""))))
    if not header:
        _check_order(path, found)
    return found


def _check_order(path: Path, examples: Sequence[Example]) -> None:
    """Refuse columns without a header that are evidently swapped: each label once, while texts repeat."""
    labels, texts = {example.gold for example in examples}, {example.request["text"] for example in examples}
    if len(texts) < len(labels) == len(examples) > 2:
        raise UserError(f"{path}: every line has a label of its own, and texts repeat; the order is text, then label")


def _columns(where: str, names: Sequence[str]) -> dict[str, int]:
    """Where the columns stand according to a header; empty if this row is none. One that names only some is refused."""
    found = {
        key: [index for index, name in enumerate(names) if name in known]
        for key, known in (("text", TEXT), ("label", LABEL), (SLICES, (SLICES,)))
    }
    for indices in found.values():
        if len(indices) > 1:
            same = " and ".join(names[index] for index in indices)
            raise UserError(f"{where}: the header has the columns {same}, which mean the same; keep one")
    if any(found.values()) and not (found["text"] and found["label"]):
        missing = either(LABEL if found["text"] else TEXT)
        raise UserError(f"{where}: the header ({', '.join(names)}) has no column {missing}; rename or add it")
    return {key: indices[0] for key, indices in found.items() if indices}


def _jsonl(path: Path, text: str) -> Iterator[Example]:
    for number, line in lines(text):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        item = parse_json(path, line, number)
        if not isinstance(item, dict):
            raise UserError(f"{where}: is {shown(item)}, should be an object with text and label")
        label = _aliased(item, LABEL, where)
        if isinstance(label, bool) or not isinstance(label, (str, int)):
            raise UserError(f"{where}: the label is {shown(label)}, should be text or a whole number")
        names = item.get(SLICES, [])
        names = _slices(names) if isinstance(names, str) else get(item, SLICES, list, where, [])
        slices = tuple(written(name, "a slice", where) for name in names)
        yield _labelled(path, number, _aliased(item, TEXT, where), str(label), slices)


def _aliased(item: Mapping[str, Any], names: Sequence[str], where: str) -> Any:
    """The value under the one of these keys that is there."""
    keys = [name for name in names if name in item]
    if len(keys) != 1:
        problem = " and ".join(keys) if keys else f"none of them, but {', '.join(item) or 'no key at all'}"
        raise UserError(f"{where}: one key of {either(names)} is needed; the object has {problem}")
    return item[keys[0]]


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
        return Example(name, {"text": " ".join(self.words)}, gold, _slices(self.notes.get(SLICES, "")))


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


def _slices(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split("|") if name.strip())
