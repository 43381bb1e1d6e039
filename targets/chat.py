"""Keeping a conversation within a context: the oldest turns go first, the system prompt never."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from targets.api import UserError
from targets.generation import ContextOverflow, Message

ROLES = ("system", "user", "assistant")


def fit(
    messages: Sequence[Message], count: Callable[[Sequence[Message]], int], output: int, context: int
) -> tuple[list[Message], int]:
    """The messages that fit, and how many were dropped.

    Dropped are the oldest turns after the system prompt: a user's message together with the answers to it, so that what
    is left begins with a user. The system prompt and the last user's message are kept or the request is refused.

    Args:
        messages: the conversation (see `checked`).
        count: tokens of messages in the model's chat template, ready to be answered.
        output: tokens that are to come.
        context: tokens that the model holds.

    Raises:
        ContextOverflow: the system prompt and the last turn alone are too long.
    """
    kept = list(messages)
    system = 1 if kept and kept[0]["role"] == "system" else 0
    while (tokens := count(kept)) + output > context:
        later = [index for index in range(system + 1, len(kept)) if kept[index]["role"] == "user"]
        if not later:
            raise ContextOverflow.of(tokens, output, context)
        del kept[system : later[0]]
    return kept, len(messages) - len(kept)


def checked(messages: object) -> list[Message]:
    """Messages that a template can take.

    Raises:
        UserError: not a list of turns, an unknown role, an empty turn, a system prompt that is not first, or a last
            turn that is not the user's.
    """
    if not isinstance(messages, (list, tuple)) or not messages:
        raise UserError("messages should be a list of turns, each with role and content; it is empty or no list")
    for place, turn in enumerate(messages, 1):
        where = f"message {place}"
        if not isinstance(turn, dict) or not {"role", "content"} <= turn.keys():
            raise UserError(f"{where} should be an object with role and content, is {str(turn)[:60]!r}")
        if turn["role"] not in ROLES:
            raise UserError(f"{where} has the role {turn['role']!r}, should be {', '.join(ROLES)}")
        if turn["role"] == "system" and place > 1:
            raise UserError(f"{where} is a system prompt; it should be the first message")
        if not isinstance(turn["content"], str) or not turn["content"].strip():
            raise UserError(f"{where} is empty; a turn needs a text")
    if messages[-1]["role"] != "user":
        role = messages[-1]["role"]
        raise UserError(f"the last message is the {role}'s, should be the user's: that is what is answered")
    return list(messages)
