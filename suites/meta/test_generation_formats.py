"""Readers of pairs, texts to continue and dialogues: what goes in comes out, and mistakes are told with their place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.api import Example, UserError
from targets.generation_formats import halves, read_continuations, read_dialogues, read_pairs

SOURCES, TARGETS = ("text", "article"), ("summary", "highlights")
FEWER = settings(max_examples=40)
Reader = Callable[[Path], list[Example]]
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip)


def pairs(path: Path) -> list[Example]:
    return read_pairs(path, SOURCES, TARGETS)


def read(reader: Reader, name: str, content: str) -> list[Example]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content.encode())
        return reader(path)


def json_lines(*items: object) -> str:
    return "\n".join(json.dumps(item) for item in items)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "long one\tshort\nlong two\tbrief\n"),
        ("a.tsv", "Highlights\tid\tArticle\nshort\t7\tlong one\nbrief\t8\tlong two\n"),
        ("a.csv", 'text,summary\r\n"long one","short"\r\n\r\nlong two,brief\r\n'),
        (
            "a.jsonl",
            json_lines({"article": "long one", "summary": "short"}, {"text": "long two", "summary": ["brief"]}),
        ),
    ],
)
def test_pairs_in_usual_dialects(name: str, content: str) -> None:
    """Pairs are read with or without header, columns in any order, keys by any alias; gold is a list of references."""
    assert [(e.request, e.gold) for e in read(pairs, name, content)] == [
        ({"text": "long one"}, ["short"]),
        ({"text": "long two"}, ["brief"]),
    ]


def test_pairs_may_share_texts_and_have_slices() -> None:
    """Equal texts or targets are no mistake, unlike labels; slices come from a column, references from a list."""
    found = read(pairs, "a.tsv", "text\tsummary\tslices\na b\tsame\tx|y\nc d\tsame\t\na b\tother\t\n")
    assert [(e.id, e.gold, e.slices) for e in found] == [
        ("a:2", ["same"], ("x", "y")),
        ("a:3", ["same"], ()),
        ("a:4", ["other"], ()),
    ]
    (one,) = read(pairs, "a.jsonl", '{"text": "a", "summary": ["b", "c"], "slices": "x"}')
    assert (one.gold, one.slices) == (["b", "c"], ("x",))


@FEWER
@given(st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_pairs_come_back_letter_by_letter(rows: list[tuple[str, list[str]]]) -> None:
    """Any text and any references come back from JSON lines unchanged."""
    content = json_lines(*({"text": text, "summary": references} for text, references in rows))
    assert [(e.request["text"], e.gold) for e in read(pairs, "a.jsonl", content)] == rows


def test_text_is_cut_in_the_middle() -> None:
    """Of a line of text the first half of the words, the odd one among them, is the prompt; blank lines are skipped."""
    found = read(read_continuations, "a.txt", "\ufeffone two three four five\r\n\n  alone \n")
    assert [(e.id, e.request, e.gold) for e in found] == [
        ("a:1", {"prompt": "one two three"}, "four five"),
        ("a:3", {"prompt": "alone"}, ""),
    ]


@FEWER
@given(texts)
def test_halves_lose_no_word(text: str) -> None:
    """Prompt and continuation together have the text's words in order, the prompt as many or one more."""
    prompt, rest = halves(text)
    assert prompt.split() + rest.split() == text.split()
    assert len(prompt.split()) - len(rest.split()) in (0, 1)


def test_prompts_of_json_lines() -> None:
    """A continuation may be missing, empty or spaced; a prompt keeps its line ends."""
    items = ({"prompt": "a\n b"}, {"prompt": "c", "continuation": ""}, {"prompt": "d", "continuation": " e f\n"})
    found = read(read_continuations, "a.jsonl", json_lines(*items, {"prompt": "g", "slices": ["x"]}))
    assert [(e.request["prompt"], e.gold) for e in found] == [("a\n b", ""), ("c", ""), ("d", "e f"), ("g", "")]
    assert found[-1].slices == ("x",)


def test_dialogue_ends_with_the_gold_reply() -> None:
    """The assistant's last message is the gold, the others are the request, with role and content only."""
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi", "name": "Ann"},
        {"role": "assistant", "content": "Hello."},
    ]
    (found,) = read(read_dialogues, "a.jsonl", json_lines({"messages": turns, "slices": ["x"]}))
    assert found.gold == "Hello."
    assert found.request == {"messages": [turns[0], {"role": "user", "content": "Hi"}]}
    assert (found.id, found.slices) == ("a:1", ("x",))


USER, REPLY = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
MISTAKES: list[tuple[Reader, str, str, str]] = [
    (pairs, "a.txt", "x", "a.txt: pairs of text and summary should be a .csv, .tsv or .jsonl file, is a .txt file"),
    (pairs, "a.tsv", "", "a.tsv: the file is empty"),
    (pairs, "a.tsv", "text\tsummary\n", "a.tsv: no example below the header"),
    (pairs, "a.tsv", "a\tb\nc\n", "a.tsv:2: 1 column, should be 2 (text, summary); a text cannot hold a tab"),
    (
        pairs,
        "a.csv",
        "article,label\na,b\n",
        "a.csv:1: the header (article, label) has no column summary or highlights",
    ),
    (pairs, "a.tsv", "a\t \n", "a.tsv:1: the summary is empty"),
    (pairs, "a.jsonl", "[1]", "a.jsonl:1: is [1], should be an object with text and summary"),
    (pairs, "a.jsonl", '{"text": "a"}', "a.jsonl:1: one key of summary or highlights is needed"),
    (pairs, "a.jsonl", '{"text": "a", "summary": []}', "a.jsonl:1: the list of references (summary) is empty"),
    (pairs, "a.jsonl", '{"text": "a", "summary": ["b", 3]}', "a.jsonl:1: the summary is 3, should be text"),
    (pairs, "a.jsonl", '{"text": 3, "summary": "b"}', "a.jsonl:1: the text is 3, should be text"),
    (read_continuations, "a.csv", "x", "a.csv: texts to continue should be a .txt or .jsonl file, is a .csv file"),
    (read_continuations, "a.txt", "\n \n", "a.txt: the file is empty"),
    (read_continuations, "a.jsonl", '"x"', 'a.jsonl:1: is "x", should be an object with prompt'),
    (read_continuations, "a.jsonl", '{"text": "x"}', "a.jsonl:1: 'prompt' is missing, should be text"),
    (read_continuations, "a.jsonl", '{"prompt": " "}', "a.jsonl:1: the prompt is empty"),
    (read_continuations, "a.jsonl", '{"prompt": "a", "continuation": 1}', "a.jsonl:1: 'continuation' is 1, should be"),
    (read_dialogues, "a.txt", "x", "a.txt: dialogues should be a .jsonl file, is a .txt file"),
    (read_dialogues, "a.jsonl", "{", "a.jsonl:1: not JSON"),
    (read_dialogues, "a.jsonl", '{"messages": "x"}', "a.jsonl:1: 'messages' is \"x\", should be a list"),
    (read_dialogues, "a.jsonl", '{"messages": []}', "a.jsonl:1: the last message should be the assistant's"),
    (read_dialogues, "a.jsonl", json_lines({"messages": [USER]}), "a.jsonl:1: the last message should be"),
    (read_dialogues, "a.jsonl", json_lines({"messages": [REPLY]}), "a.jsonl:1: messages should be a list of turns"),
    (read_dialogues, "a.jsonl", json_lines({"messages": [USER, REPLY, REPLY]}), "a.jsonl:1: the last message is the"),
    (
        read_dialogues,
        "a.jsonl",
        json_lines({"messages": [{"role": "robot", "content": "a"}, REPLY]}),
        "a.jsonl:1: message 1 has the role 'robot'",
    ),
    (
        read_dialogues,
        "a.jsonl",
        json_lines({"messages": [USER, {"role": "assistant", "content": ""}]}),
        "a.jsonl:1: the gold reply is empty",
    ),
]


@pytest.mark.parametrize(("reader", "name", "content", "sentence"), MISTAKES)
def test_mistakes_are_named(reader: Reader, name: str, content: str, sentence: str, tmp_path: Path) -> None:
    """A file or line that is not as described is refused in one sentence that names file, line and what was allowed."""
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        reader(path)
    said = str(caught.value).replace(f"{tmp_path}/", "")
    assert said.startswith(sentence)
    assert "\n" not in said


@pytest.mark.parametrize("reader", [pairs, read_continuations, read_dialogues])
def test_missing_file_and_folder(reader: Reader, tmp_path: Path) -> None:
    """A file that is not there, and a folder, are told as what they are."""
    with pytest.raises(UserError, match=r"x\.jsonl: no such file"):
        reader(tmp_path / "x.jsonl")
    with pytest.raises(UserError, match="is a folder"):
        reader(tmp_path)
