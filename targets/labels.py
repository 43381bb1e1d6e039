"""Matching the names that data and models give to the same label."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from targets.api import UserError


def match(task: str, data: Sequence[str], model: Sequence[str], canonical: Callable[[str], str]) -> dict[str, str]:
    """Map the model's labels to the data's by their canonical form.

    Raises:
        UserError: a data label has no counterpart in the model, or two have the same; both sides are shown.
    """
    by_form: dict[str, str] = {}
    for label in data:
        if by_form.setdefault(canonical(label), label) != label:
            raise UserError(f"{task}: the data's labels {label!r} and {by_form[canonical(label)]!r} mean the same")
    names = {label: by_form[canonical(label)] for label in model if canonical(label) in by_form}
    unmatched = sorted(set(data) - set(names.values()))
    if unmatched:
        raise UserError(
            f"{task}: labels do not match: the data has {', '.join(sorted(data))}; the model has "
            f"{', '.join(sorted(model))}; no counterpart for {', '.join(unmatched)}: rename them in the data, or in "
            "id2label of the model's config.json"
        )
    return names
