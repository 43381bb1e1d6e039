"""How long the answer of a chat may become where its client names no length."""

from __future__ import annotations

from targets.generation import as_generator
from targets.registry import tasks
from targets.server.engine_facts import EngineFacts
from targets.server.settings import Limits

SHARE = 4
"""A quarter of the context is for the answer; what was said before gets the rest."""


def context_of(facts: EngineFacts) -> int | None:
    """Tokens that the model holds, where the engine tells."""
    found = facts.evidence.details.get("context") if facts.evidence else None
    return found if isinstance(found, int) else None


def default_length(facts: EngineFacts, limits: Limits) -> int:
    """In tokens: a share of the context, or the task's own length where the engine tells no context."""
    context = context_of(facts)
    wanted = as_generator(tasks[facts.task]).max_tokens if context is None else max(1, context // SHARE)
    return min(wanted, limits.max_output_tokens)
