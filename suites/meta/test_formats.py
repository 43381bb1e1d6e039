"""Readers of labelled data: what goes in comes out, and what is wrong is told with its place."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.api import Example, UserError
from targets.formats import read_conll, read_labelled_text, read_squad

FEWER = settings(max_examples=40)
Reader = Callable[[Path], list[Example]]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(reader: Reader, name: str, content: str | bytes) -> list[Example]:
    with TemporaryDirectory() as folder:
        return reader(written(Path(folder), name, content))


def pairs(examples: list[Example]) -> list[tuple[str, str]]:
    return [(example.request["text"], example.gold) for example in examples]


def refusal(reader: Reader, path: Path) -> str:
    """What the reader says, the folder cut off."""
    with pytest.raises(UserError) as caught:
        reader(path)
    return str(caught.value).replace(f"{path.parent}/", "")


characters = st.characters(exclude_categories=["Cs"])
texts = st.text(characters, min_size=1, max_size=40).filter(str.strip)
lines = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r"), min_size=1, max_size=40).filter(
    str.strip
)
labels = st.sampled_from(["positive", "negative", "3", "very good", "höchst"])


@FEWER
@given(st.lists(st.tuples(lines, labels), min_size=1, max_size=8))
def test_tsv_gives_back_every_text(rows: list[tuple[str, str]]) -> None:
    """Any text without tab and line end comes back from a TSV letter by letter, quotes and odd separators included."""
    content = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
    assert pairs(read(read_labelled_text, "a.tsv", content)) == rows


@FEWER
@given(st.lists(st.tuples(texts, labels), min_size=1, max_size=8))
def test_csv_gives_back_every_text(rows: list[tuple[str, str]]) -> None:
    """Any text at all comes back from a CSV that Python's own writer made, line ends inside quotes included."""
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("label", "review"), *((label, text) for text, label in rows)])
    assert pairs(read(read_labelled_text, "a.csv", file.getvalue())) == rows


@FEWER
@given(st.lists(st.tuples(texts, labels), min_size=1, max_size=8), st.booleans())
def test_jsonl_gives_back_every_text(rows: list[tuple[str, str]], escaped: bool) -> None:
    """Any text at all comes back from JSON lines, escaped or not, unusual line separators included."""
    content = "\n".join(json.dumps({"text": text, "label": label}, ensure_ascii=escaped) for text, label in rows)
    assert pairs(read(read_labelled_text, "a.jsonl", content)) == rows


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "good\tpos\nbad\tneg\n"),
        ("a.tsv", "text\tlabel\ngood\tpos\nbad\tneg"),
        ("a.tsv", "label\tsentence\npos\tgood\nneg\tbad\n"),
        ("a.tsv", "\ufeffText\tSentiment\r\ngood\tpos\r\n\r\nbad\tneg\r\n"),
        ("a.tsv", "id\tclass\treview\n7\tpos\tgood\n8\tneg\tbad\n"),
        ("A.CSV", "good,pos\nbad,neg\n"),
        ("a.csv", '\ufeff"review","sentiment"\r\n"good","pos"\r\n"bad","neg"\r\n'),
        ("a.jsonl", '{"text": "good", "label": "pos"}\n\n{"sentence": "bad", "sentiment": " neg "}\n'),
        ("a.jsonl", '\ufeff{"review": "good", "class": "pos"}\r\n{"text": "bad", "label": "neg", "more": 1}\r\n'),
    ],
)
def test_usual_dialects_are_read(name: str, content: str) -> None:
    """With or without header, byte order mark and carriage returns, columns in any order, keys by any alias."""
    assert pairs(read(read_labelled_text, name, content)) == [("good", "pos"), ("bad", "neg")]


def test_labelled_text_knows_lines_and_slices(tmp_path: Path) -> None:
    """An id names the line an example begins on, also after a text of several lines; slices are separated by bars."""
    path = written(tmp_path, "mine.csv", 'text,label,slices\n"two\nlines",1,a|b\ngood,0,\nbad,0, c \n')
    found = read_labelled_text(path)
    assert [example.id for example in found] == ["mine:2", "mine:4", "mine:5"]
    assert [example.slices for example in found] == [("a", "b"), (), ("c",)]
    assert [example.gold for example in found] == ["1", "0", "0"]


def test_jsonl_takes_whole_numbers_and_lists_of_slices() -> None:
    """A label that is a whole number becomes text, and slices may be a list."""
    found = read(read_labelled_text, "a.jsonl", '{"text": "x", "label": 1, "slices": ["a", "b"]}')
    assert (found[0].gold, found[0].slices) == ("1", ("a", "b"))


def test_tsv_quotes_are_text() -> None:
    """A TSV has no quoting: a lone quote is a character of its text."""
    assert pairs(read(read_labelled_text, "a.tsv", '"good\tpos\n12" "x""\tneg\n')) == [
        ('"good', "pos"),
        ('12" "x""', "neg"),
    ]


LABELLED_MISTAKES = [
    ("a.tsv", "", "a.tsv: the file is empty"),
    ("a.tsv", " \n\n", "a.tsv: the file is empty"),
    ("a.tsv", "text\tlabel\n\n", "a.tsv: no example below the header"),
    ("a.tsv", "good\tpos\nbad\n", "a.tsv:2: 1 column, should be 2 (text, label)"),
    (
        "a.tsv",
        "text\tlabel\ngood\tpos\nb\ta\td\tneg\n",
        "a.tsv:3: 4 columns, should be 2 (text, label); a text cannot hold a tab",
    ),
    (
        "a.csv",
        "text,label\nwell, good,pos\n",
        "a.csv:2: 3 columns, should be 2 (text, label); a text with a comma needs quotes",
    ),
    ("a.csv", "id,good,pos\n", "a.csv:1: 3 columns, should be 2"),
    ("a.tsv", "good\tpos\n \tneg\n", "a.tsv:2: the text is empty"),
    ("a.tsv", "good\tpos\nbad\t \n", "a.tsv:2: the label is empty"),
    ("a.tsv", "text\trating\ngood\t5\n", "a.tsv:1: the header (text, rating) has no column label, sentiment or class"),
    (
        "a.tsv",
        "label\tcomment\n5\tgood\n",
        "a.tsv:1: the header (label, comment) has no column text, sentence or review",
    ),
    (
        "a.tsv",
        "text\tlabel\tclass\ngood\t5\tx\n",
        "a.tsv:1: the header has the columns label and class, which mean the same",
    ),
    ("a.tsv", "1\tgood\n0\tbad\n1\tfine\n", "a.tsv: every line has a label of its own, and texts repeat"),
    ("a.csv", 'text,label\ngood,pos\n"bad,neg\nx,y\n', "a.csv:3: not CSV: unexpected end of data"),
    ("a.csv", 'text,label\n"good"x,pos\n', "a.csv:2: not CSV"),
    ("a.tsv", b"text\tlabel\ngood\tpos\nb\xe4d\tneg\n", "a.tsv:3: not UTF-8 (byte 0xe4); save the file as UTF-8"),
    ("a.jsonl", '{"text": "x", "label": "y"}\n{"text": "x",\n', "a.jsonl:2: not JSON"),
    ("a.jsonl", '["x", "y"]\n', 'a.jsonl:1: is ["x", "y"], should be an object'),
    (
        "a.jsonl",
        '{"label": "y"}\n',
        "a.jsonl:1: one key of text, sentence or review is needed; the object has none of them, but label",
    ),
    (
        "a.jsonl",
        '{"text": "x", "review": "x", "label": "y"}\n',
        "a.jsonl:1: one key of text, sentence or review is needed; the object has text and review",
    ),
    ("a.jsonl", '{"text": "x", "label": true}\n', "a.jsonl:1: the label is true, should be text or a whole number"),
    ("a.jsonl", '{"text": "x", "label": 0.5}\n', "a.jsonl:1: the label is 0.5, should be text or a whole number"),
    ("a.jsonl", '{"text": null, "label": "y"}\n', "a.jsonl:1: the text is null, should be text"),
    ("a.jsonl", '{"text": "\\ud800", "label": "y"}\n', "a.jsonl:1: the text holds half of a surrogate pair"),
    ("a.jsonl", '{"text": "x", "label": "y", "slices": 3}\n', "a.jsonl:1: 'slices' is 3, should be a list"),
    ("a.jsonl", "[" * 100_000, "a.jsonl:1: not JSON that can be read"),
    ("a.xlsx", "x", "a.xlsx: labelled text should be a .csv, .tsv or .jsonl file, is a .xlsx file"),
    ("a", "x", "a: labelled text should be a .csv, .tsv or .jsonl file, is a file without a suffix"),
]


@pytest.mark.parametrize(("name", "content", "sentence"), LABELLED_MISTAKES)
def test_mistakes_in_labelled_text_are_named(tmp_path: Path, name: str, content: str | bytes, sentence: str) -> None:
    """A mistake in labelled text is refused with file, line, what it is and what was allowed."""
    assert refusal(read_labelled_text, written(tmp_path, name, content)).startswith(sentence)


@pytest.mark.parametrize("reader", [read_labelled_text, read_conll, read_squad])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, reader: Reader) -> None:
    """A missing file and a folder in place of one are told apart."""
    (tmp_path / "folder.csv").mkdir()
    assert refusal(reader, tmp_path / "missing.csv") == "missing.csv: no such file"
    assert refusal(reader, tmp_path / "folder.csv") == "folder.csv: is a folder; a file is needed"


def test_a_folder_in_place_of_labelled_text_is_named(tmp_path: Path) -> None:
    """A folder without a suffix is called one."""
    (tmp_path / "reviews").mkdir()
    assert "is a folder" in refusal(read_labelled_text, tmp_path / "reviews")


def tags(content: str) -> list[list[str]]:
    return [example.gold["tags"] for example in read(read_conll, "a.conll", content)]


BIO = ["B-PER", "I-PER", "B-PER", "O", "B-LOC", "B-ORG", "I-ORG"]


@pytest.mark.parametrize(
    "scheme",
    [
        pytest.param(BIO, id="BIO"),
        pytest.param(["I-PER", "I-PER", "B-PER", "O", "I-LOC", "I-ORG", "I-ORG"], id="IOB1"),
        pytest.param(["B-PER", "E-PER", "S-PER", "O", "S-LOC", "B-ORG", "E-ORG"], id="BIOES"),
        pytest.param(["B-PER", "L-PER", "U-PER", "O", "U-LOC", "B-ORG", "L-ORG"], id="BILOU"),
    ],
)
def test_every_tag_scheme_becomes_bio(scheme: list[str]) -> None:
    """The same entities come out of BIO, IOB1, BIOES and BILOU."""
    assert tags("".join(f"w {tag}\n" for tag in scheme)) == [BIO]


word = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=" \t\r\n"), min_size=1, max_size=8).filter(
    lambda text: text.strip() and not text.startswith(("-DOCSTART-", "\ufeff"))
)
tag = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
sentence = st.lists(st.tuples(word, tag), min_size=1, max_size=6)


@FEWER
@given(
    st.lists(sentence, min_size=1, max_size=5), st.sampled_from([" ", "\t", " NN "]), st.sampled_from(["\n", "\r\n"])
)
def test_conll_gives_back_every_word(sentences: list[list[tuple[str, str]]], gap: str, end: str) -> None:
    """Any words come back from CoNLL columns, whatever separates them, and a tag says the same entities as before."""
    content = (end * 2).join(end.join(f"{text}{gap}{tag}" for text, tag in rows) for rows in sentences)
    found = read(read_conll, "a.conll", content)
    assert [example.gold["words"] for example in found] == [[text for text, _ in rows] for rows in sentences]
    for example, rows in zip(found, sentences, strict=True):
        assert [tag[2:] for tag in example.gold["tags"]] == [tag[2:] for _, tag in rows]
        assert example.request["text"].split(" ") == example.gold["words"]
        assert all(old[0] != "B" or new[0] == "B" for new, (_, old) in zip(example.gold["tags"], rows, strict=True))


def test_conll_bio_is_a_fixed_point() -> None:
    """Reading the tags that reading gave changes nothing."""
    assert tags("".join(f"w {tag}\n" for tag in BIO)) == [BIO]


def test_conll_knows_documents_comments_and_lines(tmp_path: Path) -> None:
    """Document marks are skipped, comments name slices and ids, and a lone number sign is a word like any other."""
    content = (
        "-DOCSTART- -X- O O\n\n# slices = natural|short\nAnna NN I-NP B-PER\n# NN O O\n\n\n"
        "# id = second\n\nslept VB I-VP O\n   \n-DOCSTART- -X- O O\n. . O O\n"
    )
    found = read_conll(written(tmp_path, "eng.testb", content))
    assert [example.id for example in found] == ["eng:4", "second", "eng:13"]
    assert [example.request["text"] for example in found] == ["Anna #", "slept", "."]
    assert [example.slices for example in found] == [("natural", "short"), (), ()]


CONLL_MISTAKES = [
    ("", "a.conll: the file is empty"),
    ("-DOCSTART- O\n\n", "a.conll: no sentence in the file"),
    ("Anna B-PER\nslept\n", "a.conll:2: 1 column, should be 2 as above: word ... tag"),
    ("Anna\n", "a.conll:1: 1 column, should be at least 2: word ... tag"),
    ("Anna B-PER\n\nNew York B-LOC\n", "a.conll:3: 3 columns, should be 2 as above"),
    ("Anna PER\n", "a.conll:1: tag 'PER', should be O, or B- or I- and a type, as in B-PER"),
    ("Anna B-PER\nslept 0\n", "a.conll:2: tag '0', should be O"),
    ("Anna B-\n", "a.conll:1: tag 'B-', should be O"),
    ("Anna X-PER\n", "a.conll:1: tag 'X-PER', should be O"),
    ("Anna B-PER\n# slices = x\n", "a.conll:2: a comment inside a sentence"),
    ("# slices =\nAnna B-PER\n", "a.conll:1: nothing after '# slices ='"),
    ("# id = x\nA O\n\n# id = x\nB O\n", "a.conll:5: the id 'x' occurs twice"),
    (b"Anna B-PER\nJos\xe9 B-PER\n", "a.conll:2: not UTF-8 (byte 0xe9)"),
]


@pytest.mark.parametrize(("content", "sentence"), CONLL_MISTAKES)
def test_mistakes_in_conll_are_named(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    """A mistake in CoNLL columns is refused with file, line, what it is and what was allowed."""
    assert refusal(read_conll, written(tmp_path, "a.conll", content)).startswith(sentence)


def squad(context: Any = "Anna lives in Leeds.", **changes: Any) -> dict[str, Any]:
    """A file with one question, changed as asked; None removes a key."""
    question = {"id": "q1", "question": "Where?", "answers": [{"text": "Leeds", "answer_start": 14}], **changes}
    question = {key: value for key, value in question.items() if value is not None}
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": [question]}]}]}


@FEWER
@given(texts, texts, texts, texts)
def test_squad_gives_back_every_answer(before: str, answer: str, after: str, question: str) -> None:
    """Any context, question and answer come back from SQuAD JSON, and the start points at the answer."""
    data = squad(before + answer + after, question=question, answers=[{"text": answer, "answer_start": len(before)}])
    (found,) = read(read_squad, "a.json", json.dumps(data))
    assert found.request == {"question": question, "context": before + answer + after}
    assert found.gold == {"answers": [answer], "starts": [len(before)]}


def test_squad_keeps_ids_slices_and_all_answers() -> None:
    """The id is the question's, every gold answer is kept in order, and slices are read."""
    answers = [{"text": "Leeds", "answer_start": 14}, {"text": "in Leeds", "answer_start": 11}]
    (found,) = read(read_squad, "a.json", "\ufeff" + json.dumps(squad(id=7, answers=answers, slices=["plain"])))
    assert (found.id, found.slices) == ("7", ("plain",))
    assert found.gold == {"answers": ["Leeds", "in Leeds"], "starts": [14, 11]}


PLACE = "a.json: data[0].paragraphs[0]"
QUESTION = "a.json: question 'q1'"
SQUAD_MISTAKES = [
    ("", "a.json: the file is empty"),
    ('{"data": [\n  {"title" "x"}\n]}', "a.json:2: not JSON: Expecting ':' delimiter (column 12)"),
    ([], "a.json: should be an object with 'data', is []"),
    ({"version": "1.1"}, "a.json: 'data' is missing, should be a list"),
    ({"data": []}, "a.json: no question in the file"),
    ({"data": [{"title": "x"}]}, "a.json: data[0]: 'paragraphs' is missing, should be a list"),
    (squad(context=7), f"{PLACE}: 'context' is 7, should be text"),
    (squad(context=" "), f"{PLACE}: the context is empty"),
    (squad(id=None), f"{PLACE}.qas[0]: 'id' is missing, should be text"),
    (squad(question=""), f"{QUESTION}: the question is empty"),
    (squad(is_impossible=True, answers=[]), f"{QUESTION}: cannot be answered (SQuAD v2.0); v1.1 is needed"),
    (squad(answers=[]), f"{QUESTION}: has no answer; at least one is needed"),
    (squad(answers=None), f"{QUESTION}: 'answers' is missing, should be a list"),
    (squad(answers=["Leeds"]), f"{QUESTION}: should be an object with 'text', is \"Leeds\""),
    (squad(answers=[{"text": "Leeds"}]), f"{QUESTION}: 'answer_start' is missing, should be a whole number"),
    (
        squad(answers=[{"text": "Leeds", "answer_start": True}]),
        f"{QUESTION}: 'answer_start' is true, should be a whole number",
    ),
    (squad(answers=[{"text": "", "answer_start": 0}]), f"{QUESTION}: an answer is empty"),
    (
        squad(answers=[{"text": "Leeds", "answer_start": 13}]),
        f"{QUESTION}: the answer 'Leeds' is not at answer_start 13, where the context reads ' Leed'",
    ),
    (
        squad(answers=[{"text": "Leeds", "answer_start": -6}]),
        f"{QUESTION}: the answer 'Leeds' is not at answer_start -6",
    ),
    (
        squad(answers=[{"text": "Leeds", "answer_start": 99}]),
        f"{QUESTION}: the answer 'Leeds' is not at answer_start 99",
    ),
    (squad(slices="plain"), f"{QUESTION}: 'slices' is \"plain\", should be a list"),
    ({"data": squad()["data"] * 2}, f"{QUESTION}: the id occurs twice"),
]


@pytest.mark.parametrize(("content", "sentence"), SQUAD_MISTAKES)
def test_mistakes_in_squad_are_named(tmp_path: Path, content: Any, sentence: str) -> None:
    """A mistake in SQuAD JSON is refused with the line of the syntax error or the id of the question."""
    path = written(tmp_path, "a.json", content if isinstance(content, str) else json.dumps(content))
    assert refusal(read_squad, path).startswith(sentence)
