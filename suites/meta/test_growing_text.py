from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.generation import UNFINISHED, cut_at_stop
from targets.growing_text import GrowingText

letters = st.text("ab\u00e9 ", max_size=6)
stops = st.lists(st.text("ab\u00e9 ", min_size=1, max_size=5), max_size=3)


@given(st.lists(letters, max_size=12), stops)
def test_pieces_are_the_text_before_the_stop(tokens: list[str], stops: list[str]) -> None:
    """Whatever tokens a stop string is spread over, what is said is the text before it, and no more is held than it."""
    said: list[str] = []
    growing, text, ended = GrowingText(said.append, stops), "", False
    for token in tokens:
        text += token
        growing.upto(text)
        before, ended = cut_at_stop(text, stops)
        assert before.startswith("".join(said))
        if ended:
            break
        assert len(text) - len("".join(said)) < max(map(len, stops), default=1)
    growing.end(cut_at_stop(text, stops)[0])
    assert "".join(said) == cut_at_stop(text, stops)[0]
    assert all(said), "an empty piece says nothing"


@given(st.text(max_size=12), st.lists(st.integers(0, 3), max_size=40))
def test_half_characters_are_not_said(text: str, cuts: list[int]) -> None:
    """Cut anywhere into bytes, a text is said in whole characters."""
    content, said, at = text.encode(errors="replace"), list[str](), 0
    growing = GrowingText(said.append)
    for size in cuts:
        at += size
        growing.upto(content[:at].decode(errors="replace"))
        assert UNFINISHED not in "".join(said) or UNFINISHED in text
    growing.end(content.decode())
    assert "".join(said) == content.decode()


def test_what_was_said_cannot_be_taken_back() -> None:
    """An engine that ends with another text than it streamed is an error, not a silent mixture."""
    growing = GrowingText(list[str]().append)
    growing.upto("one two")
    with pytest.raises(RuntimeError, match="begins 'one too', and 'one two' has been said"):
        growing.end("one too many")
