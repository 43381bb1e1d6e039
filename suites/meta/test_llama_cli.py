from __future__ import annotations

from pathlib import Path

import pytest

from fixtures import llama_cli
from targets.api import Unavailable, UserError

PRINTED = "\nbanner\n\navailable commands:\n  /exit\n\n\n> Who are you?\nI am Anna.\nAnd you?\n\n\n\nExiting...\n"


def program(folder: Path, body: str) -> Path:
    """A program of that name that does as `body`, a shell script, says."""
    path = folder / "llama-cli"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is searched for llama.cpp's programs, and no other."""
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return tmp_path


def test_the_answer_is_what_follows_the_message() -> None:
    """Banner, message and farewell are no part of an answer; its own line breaks are."""
    assert llama_cli.parse(PRINTED, "Who are you?") == "I am Anna.\nAnd you?"


@pytest.mark.parametrize("text", ["", "> Who are you?\n", PRINTED.replace("Exiting...", "")])
def test_another_output_is_refused(text: str) -> None:
    """What is no conversation of one turn is told, never taken for an empty answer."""
    with pytest.raises(UserError, match="printed no conversation of one turn"):
        llama_cli.parse(text, "Who are you?")


def test_it_is_asked_greedily(here: Path) -> None:
    """The program gets message, length, threads and a temperature of 0."""
    program(here, f'echo "$@" > {here}/asked; printf "\\n> Hi\\nHello\\n\\n\\nExiting...\\n"')
    assert llama_cli.answer(Path("m.gguf"), "Hi", 5, 3, 7) == "Hello"
    asked = (here / "asked").read_text()
    assert asked.startswith("-m m.gguf -p Hi -n 5 -t 3 -ngl 7 --temp 0 ")


def test_a_failure_is_told(here: Path) -> None:
    """A program that fails gives its last words, a missing one the way to get it."""
    with pytest.raises(Unavailable, match=r"no llama-cli is found: build llama\.cpp"):
        llama_cli.answer(Path("m.gguf"), "Hi", 5, 1)
    program(here, "echo first >&2; echo no such file >&2; exit 3")
    with pytest.raises(UserError, match=r"failed on m\.gguf \(exit 3\); it said last: no such file"):
        llama_cli.answer(Path("m.gguf"), "Hi", 5, 1)
