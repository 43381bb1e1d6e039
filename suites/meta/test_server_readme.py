from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server: pip install 'edge-nlp-suite[server]'")

import httpx

from suites.meta.server_kit import FakeService, serve
from targets.server.openai_bodies import ChatCompletionBody
from targets.server.schemas import Body, Prompts, limited
from targets.server.settings import Limits

ROOT = Path(__file__).resolve().parents[2]
JSON = {"Content-Type": "application/json"}


def lines() -> list[tuple[str, str]]:
    """The file and the words of every command that asks a server."""
    found = []
    for name in ("README.md", "deploy/README.md"):
        text = re.sub(r"\\\n\s*", " ", (ROOT / name).read_text())
        found += [(name, line) for line in re.findall(r"^\$ ((?:curl|post) .*)$", text, re.M)]
    return found


@pytest.mark.parametrize(("file", "line"), [each for each in lines() if "/v1/" not in each[1] and "-N" not in each[1]])
def test_the_readme_s_commands_are_answered(file: str, line: str) -> None:
    """Every command that the README shows is one that the server takes."""
    program, *words = shlex.split(line)
    url = next(word for word in words if word.startswith("localhost:8000/"))
    body = words[words.index("-d") + 1] if "-d" in words else None
    headers = dict(word.split(": ") for word in words if ": " in word and word is not body)

    async def use(web: httpx.AsyncClient, _service: FakeService) -> int:
        method, kind = ("GET", {}) if body is None else ("POST", JSON if program == "post" else {})
        return (await web.request(method, url.partition("8000")[2], content=body, headers=headers | kind)).status_code

    assert serve(use, limits=Limits()) == 200


def test_the_readme_s_other_bodies_are_taken() -> None:
    """The bodies of the commands whose answers need an engine are what their routes take."""
    models: dict[str, type[Body]] = {"/v1/chat/completions": ChatCompletionBody, "/generate": Prompts}
    others = [line for _, line in lines() if "/v1/" in line or "-N" in line]
    for words in map(shlex.split, others):
        path = next(word for word in words if word.startswith("localhost:8000/")).partition("8000")[2]
        limited(models[path], Limits()).model_validate_json(words[words.index("-d") + 1])
    assert len(others) == 2


def test_there_is_a_command_for_every_route() -> None:
    """No task is forgotten in the README."""
    shown = {re.findall(r"localhost:8000(/[\w/]*)", line)[0] for _, line in lines()}
    assert {"/sentiment", "/ner", "/qa", "/summarize", "/translate", "/generate", "/v1/chat/completions"} <= shown
