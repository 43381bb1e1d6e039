from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.results import AnswerLine, AnswerLog, CaseRecord, Results, json_line, plain, write_whole
from suites.meta.sample_records import record, results
from targets.api import UserError

finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.dictionaries(st.text(max_size=8), finite, max_size=4)
records = st.builds(
    CaseRecord,
    id=st.text(),
    task=st.text(),
    model=st.text(),
    backend=st.text(),
    optimization=st.text(),
    status=st.sampled_from(["passed", "failed", "crashed", "skipped"]),
    reason=st.text(),
    metrics=numbers,
    intervals=st.dictionaries(st.text(max_size=8), st.tuples(st.none() | finite, st.none() | finite), max_size=3),
    samples=st.dictionaries(st.text(max_size=8), st.lists(finite, max_size=5), max_size=3),
    slices=st.dictionaries(st.text(max_size=8), numbers, max_size=3),
    checks=st.dictionaries(st.text(max_size=8), st.text(), max_size=3),
    notes=st.lists(st.text(), max_size=3),
    timing=numbers,
)


@given(records)
def test_record_round_trip(case: CaseRecord) -> None:
    """A record that went through JSON is the record that went in."""
    assert CaseRecord.from_json(json.loads(json_line(case.as_json()))) == case


def test_record_keeps_verdicts() -> None:
    """Verdicts survive the round trip with every field."""
    for case in results().cases:
        assert CaseRecord.from_json(json.loads(json.dumps(case.as_json()))) == case


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_become_null_with_a_note(value: float) -> None:
    """NaN and infinity are written as null, and a note names the place and the number."""
    case = record("huggingface", "fp32", metrics={"latency_ms.p95": value, "load_s": 1.0}, notes=["old"])
    kept = case.as_json()
    assert kept["metrics"] == {"latency_ms.p95": None, "load_s": 1.0}
    assert kept["notes"][0] == "old"
    assert "metrics.latency_ms.p95" in kept["notes"][1]
    assert str(value) in kept["notes"][1]
    assert CaseRecord.from_json(kept).metrics == {"load_s": 1.0}
    assert case.notes == ["old"], "writing changed the record itself"


def test_writing_twice_adds_no_second_note() -> None:
    """A record that was read and written again says its note once."""
    once = record("huggingface", "fp32", metrics={"load_s": math.nan}).as_json()
    assert CaseRecord.from_json(once).as_json()["notes"] == once["notes"]


def test_numpy_values_are_kept_as_numbers() -> None:
    """NumPy scalars and arrays are written as JSON numbers and lists."""
    case = record("huggingface", "fp32", metrics={"load_s": np.float32(0.5)}, samples={"latency_ms": np.arange(3)})
    kept = json.loads(json.dumps(case.as_json()))
    assert (kept["metrics"]["load_s"], kept["samples"]["latency_ms"]) == (0.5, [0, 1, 2])


def test_foreign_types_are_refused() -> None:
    """What JSON cannot hold raises TypeError that names its place, instead of being written as its repr."""
    with pytest.raises(TypeError, match=r"evidence\.model holds a object"):
        record("huggingface", "fp32", evidence={"model": object()}).as_json()


def test_unknown_status_is_refused() -> None:
    """A status outside the four is a mistake of the caller."""
    with pytest.raises(ValueError, match="'done' is not one of passed"):
        record("huggingface", "fp32", status="done").as_json()


def _without(key: str) -> dict[str, Any]:
    kept = record("huggingface", "fp32").as_json()
    del kept[key]
    return kept


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "case record: should be a mapping, is list"),
        (_without("id"), "'id' is missing"),
        (_without("status"), "'status' is missing"),
        (record("a", "b").as_json() | {"colour": 1}, "unknown key 'colour'; known are id, task"),
        (record("a", "b").as_json() | {"metrics": []}, "'metrics' should be dict, is list"),
        (record("a", "b").as_json() | {"status": "done"}, "'done' should be one of passed, failed"),
        (record("a", "b").as_json() | {"metrics": {"load_s": "fast"}}, "metrics.load_s should be a number, is 'fast'"),
        (record("a", "b").as_json() | {"samples": {"latency_ms": [True]}}, "latency_ms should be a number, is True"),
        (record("a", "b").as_json() | {"intervals": {"load_s": [1]}}, "intervals.load_s should be .low, high., is"),
    ],
)
def test_bad_records_say_what_is_wrong(data: Any, words: str) -> None:
    """A record that cannot be understood is refused with the key and what was allowed."""
    with pytest.raises(UserError, match=words):
        CaseRecord.from_json(data)


def test_results_round_trip(tmp_path: Path) -> None:
    """Results that were written and read again are the same, and the file says its schema."""
    path = tmp_path / "new folder" / "results.json"
    results().write(path)
    assert Results.read(path) == results()
    assert json.loads(path.read_text())["schema"] == 1


def test_results_replace_whole(tmp_path: Path) -> None:
    """Writing over an old file leaves only the new one, and nothing beside it."""
    path = tmp_path / "results.json"
    path.write_text("old " * 100_000)
    results().write(path)
    assert Results.read(path) == results()
    assert [each.name for each in tmp_path.iterdir()] == ["results.json"]


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    """When writing fails midway the old file stays as it was, and no half of the new one."""
    path = tmp_path / "results.json"
    results().write(path)
    before = path.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_unwritable_place_is_one_sentence(tmp_path: Path) -> None:
    """A results path below a file cannot be written, and the message names it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"results\.json: cannot be written"):
        results().write(tmp_path / "file" / "results.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such results file"),
        (b"", r"results.json:1: truncated or not JSON"),
        (b'{"schema": 1,\n "device": {', r"results.json:2: truncated or not JSON"),
        (b"\xff\xfe", "cannot be read as a results file"),
        (b"[]", "should hold results of schema 1, has none"),
        (b'{"schema": 2}', "should hold results of schema 1, has 2"),
        (b'{"schema": 1}', "'device' is missing"),
        (b'{"schema": 1, "device": {}, "environment": {}, "options": {}, "cases": [{}]}', "case 1: 'id' is missing"),
        (b'{"schema": 1, "device": {}, "environment": {}, "options": {}, "cases": [], "x": 1}', "unknown key 'x'"),
    ],
)
def test_unreadable_results_say_why(tmp_path: Path, content: bytes | None, words: str) -> None:
    """Missing, truncated and foreign results files are refused with the file and the reason."""
    path = tmp_path / "results.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        Results.read(path)


@given(st.text())
def test_json_lines_hold_any_text(text: str) -> None:
    """Every text, lone surrogates included, is one line that reads back as itself."""
    line = json_line({"text": text})
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"text": text}


def test_plain_names_the_place() -> None:
    """The sentence about a lost number leads to it through mappings and lists."""
    lost: list[str] = []
    assert plain({"a": [1, {"b": math.nan}], "c": {"y", "x"}, "d": Path("p")}, "", lost) == {
        "a": [1, {"b": None}],
        "c": ["x", "y"],
        "d": "p",
    }
    assert lost == ["a[1].b was nan, which JSON does not hold: written as null"]


def _lines(count: int, label: str) -> list[AnswerLine]:
    return [AnswerLine(f"e{n}", {"text": "é"}, {"label": label}, "good", {"accuracy": 1.0}) for n in range(count)]


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_answers_are_one_line_each(tmp_path: Path) -> None:
    """Every line carries case, example, input, output, reference, score and slices."""
    log = AnswerLog(tmp_path / "answers.jsonl")
    log.write("a", _lines(2, "good"))
    assert _read(log.path)[1] == {
        "case": "a",
        "example": "e1",
        "input": {"text": "é"},
        "output": {"label": "good"},
        "reference": "good",
        "score": {"accuracy": 1.0},
        "slices": [],
    }


def test_writing_a_case_again_replaces_its_answers(tmp_path: Path) -> None:
    """A case that is written twice has its last answers once, and others keep theirs."""
    log = AnswerLog(tmp_path / "answers.jsonl")
    log.write("a", _lines(3, "old"))
    log.write("b", _lines(1, "b"))
    log.write("a", _lines(2, "new"))
    assert [(line["case"], line["output"]["label"]) for line in _read(log.path)] == [
        ("b", "b"),
        ("a", "new"),
        ("a", "new"),
    ]


def test_resuming_keeps_finished_answers_only(tmp_path: Path) -> None:
    """A resumed run keeps the answers of finished cases and drops what a crash left of others, half lines included."""
    path = tmp_path / "answers.jsonl"
    first = AnswerLog(path)
    first.write("done", _lines(2, "x"))
    first.write("half", _lines(2, "x"))
    path.write_bytes(path.read_bytes()[:-5])
    AnswerLog(path, keep=["done"]).write("half", _lines(2, "again"))
    assert [line["case"] for line in _read(path)] == ["done", "done", "half", "half"]
    assert [line["output"]["label"] for line in _read(path)][2:] == ["again", "again"]


def test_a_fresh_run_drops_old_answers(tmp_path: Path) -> None:
    """Opening without cases to keep starts an empty log."""
    path = tmp_path / "answers.jsonl"
    AnswerLog(path).write("a", _lines(2, "x"))
    AnswerLog(path)
    assert path.read_bytes() == b""
