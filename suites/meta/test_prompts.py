"""Prompts: the given ones, a file's, the default ones; and never an empty one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.datasets import prompts
from targets.api import UserError


def test_prompts_of_a_file_are_its_lines(tmp_path: Path) -> None:
    """A prompt a line, blank lines skipped; those of --prompt come before."""
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffWhat is rain?\r\n\n  Größe? \n\t\nlast".encode())
    assert prompts(path, ()) == ("What is rain?", "Größe?", "last")
    assert prompts(path, ["first"])[:2] == ("first", "What is rain?")


def test_prompts_of_the_command_line_are_taken_as_they_are() -> None:
    """Texts given are all there is, and their spaces are theirs."""
    assert prompts(None, ["Once upon ", "a time"]) == ("Once upon ", "a time")


def test_the_default_prompts_are_several() -> None:
    """Without any, those that ship are taken: at least 5, all different."""
    found = prompts(None, ())
    assert len(set(found)) == len(found) >= 5
    assert found[0] == "Explain the future of AI in education."


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_an_empty_prompt_is_refused(text: str) -> None:
    """Nothing to go on from is bad input, beside a good prompt too."""
    with pytest.raises(UserError, match="the prompt is empty; at least one character"):
        prompts(None, ["good", text])


def test_a_prompt_that_is_no_text_is_refused() -> None:
    """Bytes of a command line that are no UTF-8 arrive as halves of surrogate pairs, and are named."""
    with pytest.raises(UserError, match="--prompt: the prompt holds half of a surrogate pair"):
        prompts(None, ["caf\udce9"])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "prompts.txt: no such file"),
        (b" \n\n", "prompts.txt: the file is empty"),
        (b"good\nbad \xe9\n", r"prompts.txt:2: not UTF-8 \(byte 0xe9\); save the file as UTF-8"),
    ],
)
def test_files_without_prompts_are_named(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    """A file of prompts that is missing, empty or not UTF-8 is refused, with its line."""
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        prompts(path, ())
