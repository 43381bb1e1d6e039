"""What pydantic finds wrong with a request, in sentences: which field, what is wrong, what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails

from targets.registry import did_you_mean

TAGS = frozenset({"one", "many"})
"""What stands in a place for the alternative that was tried, and names no field (see schemas.one_or_many)."""
MOST = 20
"""Mistakes that are told of one request."""
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
    return name.encode(errors="replace").decode() if name[:1] != "[" else f"body{name}" if name else "body"


def sentence(place: str, error: ErrorDetails) -> str:
    """A mistake in words. Nothing of a text is quoted: it would stand in logs."""
    tell = SENTENCES.get(error["type"])
    context = error.get("ctx", {})
    if tell is None:
        return f"{place}: {error['msg']}"
    return tell(place, context, error["input"])


def wanted(kind: str) -> Callable[[str, Mapping[str, Any], Any], str]:
    """The sentence for a value of a wrong type."""
    return lambda place, context, value: f"{place} should be {kind}, is {KINDS.get(type(value), 'something else')}"


def bounded(relation: str, key: str) -> Callable[[str, Mapping[str, Any], Any], str]:
    """The sentence for a number out of its range."""
    return lambda place, context, value: f"{place} is {number(value)}, should be {relation} {number(context[key])}"


def number(value: Any) -> str:
    """A number, or its size where its digits would fill the line."""
    text = str(value) if not isinstance(value, int) or value.bit_length() < 128 else ""
    return text if text and len(text) <= 40 else "a number of very many digits"


def counted(noun: str, relation: str, key: str) -> Callable[[str, Mapping[str, Any], Any], str]:
    """The sentence for a text or list of a wrong length."""

    def tell(place: str, context: Mapping[str, Any], value: Any) -> str:
        actual = len(value) if isinstance(value, (str, list)) else context.get("actual_length")
        limit = context[key]
        if not actual:
            return f"{place} is empty; at least {limit} {noun if limit != 1 else noun.removesuffix('s')} is needed"
        return f"{place} has {actual} {noun}, {relation} {limit} {'is' if limit == 1 else 'are'} allowed"

    return tell


def unknown(place: str, context: Mapping[str, Any], value: Any) -> str:
    """A field that nobody knows."""
    return f"unknown field {place!r}"


def malformed(place: str, context: Mapping[str, Any], value: Any) -> str:
    """A body that is no JSON; the parser's words say where."""
    return f"the body is no valid JSON: {context['error']}"


SENTENCES: Mapping[str, Callable[[str, Mapping[str, Any], Any], str]] = {
    "json_invalid": malformed,
    "missing": lambda place, context, value: f"{place} is missing",
    "extra_forbidden": unknown,
    "string_type": wanted("a string"),
    "list_type": wanted("a list"),
    "int_type": wanted("an integer"),
    "int_from_float": wanted("an integer"),
    "int_parsing": lambda place, context, value: f"{place} should be an integer",
    "int_parsing_size": lambda place, context, value: f"{place} is a number of very many digits, far out of range",
    "float_type": wanted("a number"),
    "float_parsing": lambda place, context, value: f"{place} should be a number",
    "finite_number": lambda place, context, value: f"{place} is not finite; NaN and infinity are no numbers here",
    "bool_type": wanted("true or false"),
    "model_type": wanted("an object"),
    "model_attributes_type": wanted("an object"),
    "dict_type": wanted("an object"),
    "one_or_many": wanted("a string or a list of strings"),
    "string_too_short": counted("characters", "at least", "min_length"),
    "string_too_long": counted("characters", "at most", "max_length"),
    "string_pattern_mismatch": lambda place, context, value: (
        f"{place} is blank; at least one character that is no space is needed"
    ),
    "too_short": counted("items", "at least", "min_length"),
    "too_long": counted("items", "at most", "max_length"),
    "greater_than_equal": bounded("at least", "ge"),
    "greater_than": bounded("above", "gt"),
    "less_than_equal": bounded("at most", "le"),
    "less_than": bounded("below", "lt"),
}
"""By pydantic's name of a mistake."""
