"""What pydantic finds wrong with a request, in sentences: which field, what is wrong, what is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails

from targets.registry import did_you_mean

TAGS = frozenset({"one", "many"})
"""What stands in a place for the alternative that was tried, and names no field (see schemas.ONE_OR_MANY)."""
MOST = 20
"""Mistakes that are told of one request."""
LONGEST_BITS = 127
"""Of integers that are told digit by digit."""
LONGEST_NAME = 60
"""Characters shown of a name that came from outside."""
KINDS: Mapping[type, str] = {
    bool: "true or false",
    str: "a string",
    int: "an integer",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
"""The types of JSON, in words."""


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong. `kind`: pydantic's name for it; `field`: for example texts[2]; `detail`: a sentence."""

    kind: str
    field: str
    detail: str


def mistakes(errors: Sequence[ErrorDetails], known: Sequence[str] = ()) -> list[Mistake]:
    """All that is wrong, the first `MOST`. `known`: the fields there are, to tell what an unknown one may mean."""
    told = []
    for each in errors[:MOST]:
        place = field(each["loc"])
        hint = f".{did_you_mean(place, known)}" if each["type"] == "extra_forbidden" and known else ""
        told.append(Mistake(each["type"], place, sentence(place, each) + hint))
    return told


def field(place: Sequence[int | str]) -> str:
    """Where a mistake stands: ("texts", 2) is texts[2]; the whole body is `body`."""
    name = ""
    for part in place:
        if isinstance(part, int):
            name += f"[{part}]"
        elif part not in TAGS:
            name += f"{'.' if name else ''}{part[:LONGEST_NAME]}"
    return name if name and name[0] != "[" else f"body{name}"


def sentence(place: str, error: ErrorDetails) -> str:
    """A mistake in words. Nothing of a text is quoted: it would stand in logs."""
    told, value = SENTENCES.get(error["type"]), error["input"]
    if told is None:
        return f"{place}: {error['msg']}"
    return told.format(
        place=place,
        actual=KINDS.get(type(value), "something else"),
        value=number(value),
        count=len(value) if isinstance(value, (str, list)) else "too many",
        **{name: number(limit) for name, limit in error.get("ctx", {}).items()},
    )


def number(value: Any) -> str:
    """A number, or its size where its digits would fill the line."""
    if isinstance(value, int) and value.bit_length() > LONGEST_BITS:
        return "a number of very many digits"
    return f"{value:g}" if isinstance(value, float) else str(value)


SENTENCES: Mapping[str, str] = {
    "json_invalid": "the body is no valid JSON: {error}",
    "missing": "{place} is missing",
    "extra_forbidden": "unknown field {place!r}",
    "string_type": "{place} should be a string, is {actual}",
    "list_type": "{place} should be a list, is {actual}",
    "int_type": "{place} should be an integer, is {actual}",
    "float_type": "{place} should be a number, is {actual}",
    "bool_type": "{place} should be true or false, is {actual}",
    "model_type": "{place} should be an object, is {actual}",
    "model_attributes_type": "{place} should be an object, is {actual}",
    "dict_type": "{place} should be an object, is {actual}",
    "one_or_many": "{place} should be a string or a list of strings, is {actual}",
    "finite_number": "{place} is not finite; NaN and infinity are no numbers here",
    "string_too_short": "{place} has {count} characters, should have at least {min_length}",
    "string_too_long": "{place} has {count} characters, should have at most {max_length}",
    "string_pattern_mismatch": "{place} is blank; at least one character that is no space is needed",
    "too_short": "{place} has {count} items, should have at least {min_length}",
    "too_long": "{place} has {count} items, should have at most {max_length}",
    "greater_than_equal": "{place} is {value}, should be at least {ge}",
    "greater_than": "{place} is {value}, should be above {gt}",
    "less_than_equal": "{place} is {value}, should be at most {le}",
    "less_than": "{place} is {value}, should be below {lt}",
}
"""By pydantic's name of a mistake."""
