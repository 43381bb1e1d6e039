"""How long the answer of a chat may become where its client names no length."""

from __future__ import annotations

from targets.server.engine.facts import EngineFacts
from targets.server.settings import Limits

SHARE = 4
"""A quarter of the context is for the answer; what was said before gets the rest."""
USUAL = 256
"""Tokens where no context is known: two paragraphs."""


def default_length(facts: EngineFacts, limits: Limits) -> int:
    """In tokens, as far as the limits allow."""
    wanted = USUAL if facts.context is None else max(1, facts.context // SHARE)
    return min(wanted, limits.max_output_tokens)
