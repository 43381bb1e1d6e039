"""How text becomes the value of an option. A reader raises ValueError with what was allowed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Reader:
    """Turns text into a value; `metavar` is its place-holder in the help."""

    metavar: str
    turn: Callable[[str], Any]

    def __call__(self, raw: str) -> Any:
        """The value. Raises ValueError, whose message completes "should be ..."."""
        return self.turn(raw.strip())


def whole(least: int, most: int | None = None) -> Reader:
    """A whole number."""

    def turn(raw: str) -> int:
        if not raw.lstrip("-").isdecimal() or int(raw) < least or (most is not None and int(raw) > most):
            raise ValueError(f"a whole number from {least} to {most}" if most else f"a whole number, {least} or more")
        return int(raw)

    return Reader("N", turn)


def number(least: float) -> Reader:
    """A finite number."""

    def turn(raw: str) -> float:
        try:
            found = float(raw)
        except ValueError:
            found = math.nan
        if not least <= found < math.inf:
            raise ValueError(f"a number, {least:g} or more")
        return found

    return Reader("X", turn)


def one_of(*allowed: str) -> Reader:
    """One of a few words."""

    def turn(raw: str) -> str:
        if raw not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return raw

    return Reader("WORD", turn)


def list_of(item: Reader) -> Reader:
    """Items separated by commas, none of them twice."""

    def turn(raw: str) -> tuple[Any, ...]:
        found = tuple(item(part) for part in raw.split(",") if part.strip())
        if not found or len(set(found)) < len(found):
            raise ValueError("one or more names separated by commas, each once")
        return found

    return Reader(f"{item.metavar},...", turn)


def _some(raw: str) -> str:
    if not raw:
        raise ValueError("some text")
    return raw


def _name(raw: str) -> str:
    if not raw or any(each.isspace() or each == "," for each in raw):
        raise ValueError("a name without spaces and commas")
    return raw


def _file(raw: str) -> Path:
    found = Path(_some(raw)).expanduser()
    if not found.is_file():
        raise ValueError("a file that exists")
    return found


def _flag(raw: str) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if raw.lower() not in words:
        raise ValueError("true or false")
    return words[raw.lower()]


def _store(raw: str) -> str:
    if raw not in ("memory", "off") and not raw.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("memory, off, or the address of a Redis such as redis://127.0.0.1:6379/0")
    return raw


text = Reader("TEXT", _some)
name = Reader("NAME", _name)
path = Reader("DIR", lambda raw: Path(_some(raw)).expanduser())
file = Reader("FILE", _file)
flag = Reader("true|false", _flag)
store = Reader("STORE", _store)
