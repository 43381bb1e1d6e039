"""Text and JSON from files, refused with their place: what is wrong, in which file, on which line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from targets.api import UserError

_NOUNS = {str: "text", int: "a whole number", list: "a list", (str, int): "text"}


def read_text(path: Path) -> str:
    """The content of a UTF-8 file, with or without a byte order mark, its line ends as they are.

    Raises:
        UserError: it is missing, a folder, empty, or not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a folder; a file is needed") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8 (byte 0x{raw[error.start]:02x}); save the file as UTF-8") from error
    if not text.strip():
        raise UserError(f"{path}: the file is empty; at least one example is needed")
    return text


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines, numbered from 1. Only a line feed ends one; `str.splitlines` cuts at characters that texts may hold."""
    for number, line in enumerate(text.split("\n"), start=1):
        yield number, line.removesuffix("\r")


def parse_json(path: Path, text: str, line: int = 1) -> Any:
    """JSON that begins on this line of the file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}:{line + error.lineno - 1}"
        raise UserError(f"{place}: not JSON: {error.msg} (column {error.colno})") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets thousands deep
        raise UserError(f"{path}:{line}: not JSON that can be read: {error}") from error


def get(item: Any, key: str, kind: Any, where: str, default: Any = None) -> Any:
    """A value of a JSON object, of this kind: str, int, list, or (str, int)."""
    if not isinstance(item, dict):
        raise UserError(f"{where}: should be an object with {key!r}, is {shown(item)}")
    value = item.get(key, default)
    if isinstance(value, bool) or not isinstance(value, kind):
        found = f"is {shown(value)}" if key in item else "is missing"
        raise UserError(f"{where}: {key!r} {found}, should be {_NOUNS[kind]}")
    return value


def written(value: Any, noun: str, where: str) -> str:
    """Text that says something and can be stored."""
    if not isinstance(value, str):
        raise UserError(f"{where}: {noun} is {shown(value)}, should be text")
    if not value.strip():
        raise UserError(f"{where}: {noun} is empty")
    if re.search(r"[\ud800-\udfff]", value):
        raise UserError(f"{where}: {noun} holds half of a surrogate pair, which is no character; write it in full")
    return value


def shown(value: Any) -> str:
    """A value as an error shows it: JSON, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


def counted(number: int, noun: str) -> str:
    """1 column, 2 columns."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def either(names: Sequence[str]) -> str:
    """A, b or c."""
    return f"{', '.join(names[:-1])} or {names[-1]}"
