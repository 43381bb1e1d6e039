"""Tables of texts: .csv, .tsv (unquoted) and .jsonl become records of named values, each with its place."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from targets.api import UserError
from targets.located import counted, either, get, lines, parse_json, read_text, shown, written

Rows: TypeAlias = Iterable[tuple[int, list[str]]]
"""Cells with the number of the line they begin on."""

Columns: TypeAlias = Mapping[str, Sequence[str]]
"""What is needed, by key, and under which names a header or an object may have it; the order is that without header."""

SUFFIXES = (".csv", ".tsv", ".jsonl")
SLICES = "slices"


@dataclass(frozen=True)
class Record:
    """A line's values by the keys of the columns: text of a table, any JSON of a .jsonl file."""

    path: Path
    line: int
    values: Mapping[str, Any]
    slices: tuple[str, ...]

    @property
    def where(self) -> str:
        """The place, as errors name it."""
        return f"{self.path}:{self.line}"

    @property
    def id(self) -> str:
        """FILESTEM:LINE."""
        return f"{self.path.stem}:{self.line}"


def read_records(path: Path, columns: Columns, noun: str) -> tuple[list[Record], bool]:
    """The records of a file, and whether names came with them (a header, the keys of objects).

    A header names the columns in any order, others being ignored; without one they are the keys of `columns` in order.
    A further column `slices` (names separated by `|`) needs a header; in .jsonl it may be a list.

    Raises:
        UserError: the file or a line of it is not as described. `noun` says what should be in it.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        what = "a folder" if path.is_dir() else f"a {suffix} file" if suffix else "a file without a suffix"
        raise UserError(f"{path}: {noun} should be a {either(SUFFIXES)} file, is {what}")
    text = read_text(path)
    if suffix == ".jsonl":
        found, named = [_object(path, number, item, columns) for number, item in objects(path, text)], True
    else:
        found, named = _table(path, _csv_rows(path, text) if suffix == ".csv" else _tsv_rows(text), columns)
    if not found:
        raise UserError(f"{path}: no example below the header")
    return found, named


def objects(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """The values of JSON lines with their line numbers, blank lines left out."""
    for number, line in lines(text):
        if line.strip():
            yield number, parse_json(path, line, number)


def slices_of(item: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The slices of a JSON object: text with `|` between names, or a list of them."""
    names = item.get(SLICES, [])
    names = split_slices(names) if isinstance(names, str) else get(item, SLICES, list, where, [])
    return tuple(written(name, "a slice", where) for name in names)


def split_slices(text: str) -> tuple[str, ...]:
    """Names between `|`."""
    return tuple(name.strip() for name in text.split("|") if name.strip())


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


def _table(path: Path, rows: Rows, columns: Columns) -> tuple[list[Record], bool]:
    rows = iter(rows)
    line, first = next(rows, (1, list(columns)))
    names = [cell.strip().lower() for cell in first]
    header = _header(f"{path}:{line}", names, columns)
    places = header or {key: index for index, key in enumerate(columns)}
    if not header:
        names, rows = list(columns), chain([(line, first)], rows)
    hint = "a text with a comma needs quotes" if path.suffix.lower() == ".csv" else "a text cannot hold a tab"
    found = []
    for number, cells in rows:
        if len(cells) != len(names):
            wanted = f"{len(names)} ({', '.join(names)})"
            raise UserError(f"{path}:{number}: {counted(len(cells), 'column')}, should be {wanted}; {hint}")
        values = {key: cells[index] for key, index in places.items()}
        found.append(Record(path, number, values, split_slices(values.pop(SLICES, ""))))
    return found, bool(header)


def _header(where: str, names: Sequence[str], columns: Columns) -> dict[str, int]:
    """Where the columns stand according to a header; empty if this row is none. One that names only some is refused."""
    wanted = {**columns, SLICES: (SLICES,)}
    found = {key: [i for i, name in enumerate(names) if name in known] for key, known in wanted.items()}
    for indices in found.values():
        if len(indices) > 1:
            same = " and ".join(names[index] for index in indices)
            raise UserError(f"{where}: the header has the columns {same}, which mean the same; keep one")
    for key, known in columns.items():
        if any(found.values()) and not found[key]:
            raise UserError(f"{where}: the header ({', '.join(names)}) has no column {either(known)}; rename or add it")
    return {key: indices[0] for key, indices in found.items() if indices}


def _object(path: Path, line: int, item: Any, columns: Columns) -> Record:
    where = f"{path}:{line}"
    if not isinstance(item, dict):
        raise UserError(f"{where}: is {shown(item)}, should be an object with {' and '.join(columns)}")
    values = {key: _aliased(item, known, where) for key, known in columns.items()}
    return Record(path, line, values, slices_of(item, where))


def _aliased(item: Mapping[str, Any], names: Sequence[str], where: str) -> Any:
    """The value under the one of these keys that is there."""
    keys = [name for name in names if name in item]
    if len(keys) != 1:
        problem = " and ".join(keys) if keys else f"none of them, but {', '.join(item) or 'no key at all'}"
        raise UserError(f"{where}: one key of {either(names)} is needed; the object has {problem}")
    return item[keys[0]]
