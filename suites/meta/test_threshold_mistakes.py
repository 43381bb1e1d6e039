"""Limits: what a mistake in the file says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.thresholds import load
from suites.meta.sample_limits import VOCABULARY, entries, entry, read
from targets.api import UserError

GOOD = "accuracy: {min: 0.5}"
ENTRY = {"cases": "cases: '*/*/*/*'", "source": "source: s", "limits": GOOD}
FINITE = "should be a finite number such as 50, 0.95 or 1.0e-3"


def changed(key: str, line: str | None) -> str:
    """A file of one entry, one of its lines changed or left out. Cases stand on line 4, source on 5, limits on 6."""
    lines = {**ENTRY, key: line}
    first, *rest = (kept for kept in lines.values() if kept is not None)
    return entries(f"- {first}", *(f"  {line}" for line in rest))


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(UserError) as refused:
        read(folder, text)
    told = str(refused.value)
    assert "\n" not in told
    return told.removeprefix(f"{folder / 'thresholds.yaml'}:")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: the file is empty"),
        ("# nothing yet\n", "1: the file is empty"),
        ("- a\n", "1: the file is the list, should be a mapping with the keys schema and limits"),
        ("schema: 1\n", "1: the key 'limits' is missing"),
        ("limits: {}\n", "1: the key 'schema' is missing"),
        ("schema: 2\nlimits: {}\n", "1: schema is the number '2', should be 1, the only schema"),
        ("schema: one\nlimits: {}\n", "1: schema is the text 'one', should be 1"),
        ("schema: 1\nlimit: {}\n", "2: unknown key 'limit'. Did you mean 'limits'?"),
        ("schema: 1\nlimits:\n", "2: limits is empty, should be a mapping from device"),
        ("schema: 1\nlimits: [cpu]\n", "2: limits is the list, should be a mapping from device"),
        ("schema: 1\nlimits:\n  cpu: 5\n", "3: cpu is the number '5', should be a list of entries"),
        ("schema: 1\nlimits:\n  cpu: []\n", "3: cpu is empty, should be a list of entries"),
        ("schema: 1\nlimits:\n  cpu: [5]\n", "3: an item of cpu is the number '5', should be a mapping with"),
        ("schema: 1\nlimits:\n  tpu: []\n", "3: unknown device 'tpu'. Did you mean 'cpu'?"),
        ("schema: 1\nlimits:\n  jetson-orin: []\n", "3: unknown device 'jetson-orin'. Did you mean 'jetson-orin-nx'?"),
        (entries(entry(GOOD)) + "  cpu: []\n", "5: 'cpu' stands on line 3 already; keep one of the two"),
        ("schema: 1\nlimits: {\n  cpu: [}\n", "3: not YAML: "),
        ("schema: 1\n\tlimits: 1\n", "2: not YAML: found character '\\t' that cannot start any token"),
        ("schema: 1\n---\nschema: 1\n", "2: not YAML: but found another document"),
        ("schema: 1\nlimits: *everything\n", "2: not YAML: found undefined alias 'everything'"),
        ("schema: 1\nlimits:\n  cpu: \x07\n", "3: not YAML: the character U+0007 is not allowed"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, message: str) -> None:
    """A file of another shape is refused in one sentence with its line, what it is and what it should be."""
    assert refusal(tmp_path, text).startswith(message)


@pytest.mark.parametrize(
    ("key", "line", "message"),
    [
        ("cases", None, "4: the entry has no cases; every entry needs cases and source"),
        ("source", None, "4: the entry has no source; every entry needs cases and source"),
        ("limits", None, "4: the entry sets no limit; add one"),
        ("cases", "cases: []", "4: cases is empty, should be a pattern such as"),
        ("cases", "cases: 5", "4: cases is the number '5', should be a pattern such as"),
        ("cases", "cases: [5]", "4: an item of cases is the number '5', should be a pattern"),
        ("source", "source:", "5: source is empty, should be text that says where"),
        ("source", "source: '  '", "5: source is empty, should be text that says where"),
        ("source", "source: 2026-11-21", "5: source is the date '2026-11-21', should be text"),
        ("source", "source: {a: b}", "5: source is the mapping, should be text"),
        ("mode", "power_mode: 15", "7: power_mode is the number '15', should be the name of a power mode"),
        ("mode", "power_mode: ''", "7: power_mode is empty, should be the name of a power mode"),
        ("mode", "provisional: 1", "7: provisional is the number '1', should be true or false"),
        ("mode", "provisonal: true", "7: unknown metric or key 'provisonal'. Did you mean 'provisional'?"),
        ("mode", "accuracy: {min: 0.6}", "7: 'accuracy' stands on line 6 already; keep one of the two"),
        ("mode", "? [a]\n      : 1", "7: a key of an item of cpu is the list, should be plain text"),
        ("limits", "latency: {p95_max: 50}", "6: unknown metric or key 'latency'. Did you mean 'latency_ms'?"),
        ("limits", "latency_s: {p95_max: 50}", "6: unknown metric or key 'latency_s'. Did you mean 'latency_ms'?"),
        ("limits", "latency_ms: 50", "6: latency_ms is the number '50', should be a mapping such as {mean_max: 50}"),
        ("limits", "latency_ms: {}", "6: latency_ms is empty, should be a mapping such as"),
        ("limits", "latency_ms: {p95: 50}", "6: 'p95' of latency_ms has no direction; write p95_max or p95_min"),
        ("limits", "latency_ms: {p59_max: 1}", "6: unknown limit 'p59_max' of latency_ms. Did you mean 'p95_max'?"),
        ("limits", "latency_ms: {max: 50}", "6: unknown limit 'max' of latency_ms."),
        ("limits", "latency_ms: {p50_max: 1, p50_max: 2}", "6: 'p50_max' stands on line 6 already"),
        ("limits", "accuracy: {p50_min: 0.5}", "6: unknown limit 'p50_min' of accuracy. Did you mean 'min'?"),
        ("limits", "latency_ms: {p95_max: '50'}", f"6: latency_ms p95_max is the text '50', {FINITE}"),
        ("limits", "latency_ms: {p95_max: 50 ms}", f"6: latency_ms p95_max is the text '50 ms', {FINITE}"),
        ("limits", "latency_ms: {p95_max: 1e-3}", f"6: latency_ms p95_max is the text '1e-3', {FINITE}"),
        ("limits", "latency_ms: {p95_max: true}", f"6: latency_ms p95_max is the truth value 'true', {FINITE}"),
        ("limits", "latency_ms: {p95_max: .nan}", f"6: latency_ms p95_max is the number '.nan', {FINITE}"),
        ("limits", "latency_ms: {p95_max: -.inf}", f"6: latency_ms p95_max is the number '-.inf', {FINITE}"),
        ("limits", "latency_ms: {p95_max: }", f"6: latency_ms p95_max is empty, {FINITE}"),
        ("limits", "latency_ms: {p95_max: [50]}", f"6: latency_ms p95_max is the list, {FINITE}"),
        ("limits", "latency_ms: {p95_max: !!float x}", f"6: latency_ms p95_max is the number 'x', {FINITE}"),
        (
            "limits",
            "latency_ms:\n        p50_max: 1\n        p95_max: fast",
            "8: latency_ms p95_max is the text 'fast'",
        ),
    ],
)
def test_mistakes_in_an_entry(tmp_path: Path, key: str, line: str | None, message: str) -> None:
    """A mistake in an entry is told with its own line, what it is and what it should be."""
    assert refusal(tmp_path, changed(key, line)).startswith(message)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("sentimant/*/*/*", "unknown task 'sentimant' in pattern 'sentimant/*/*/*'. Did you mean 'sentiment'?"),
        ("*/embeded/*/*", "unknown model 'embeded' in pattern '*/embeded/*/*'. Did you mean 'embedded'?"),
        ("*/*/onnxrt/*", "unknown backend 'onnxrt' in pattern '*/*/onnxrt/*'. Did you mean 'onnxruntime'?"),
        ("*/*/*/int4", "unknown optimization 'int4' in pattern '*/*/*/int4'. Did you mean 'int8'?"),
        ("*/*/*/", "unknown optimization '' in pattern '*/*/*/'. Known: fp16, fp32, int8."),
        ("sentiment/*", "pattern 'sentiment/*' has 2 segments, should have 4: task/model/backend/optimization"),
        ("*/*/*/*/*", "pattern '*/*/*/*/*' has 5 segments"),
        ("*/*/*/fp16", "pattern '*/*/*/fp16' matches no case of cpu; see them with --collect-only"),
        ("*/*/*/q*", "pattern '*/*/*/q*' matches no case of cpu"),
        ("*/*/*/INT*", "pattern '*/*/*/INT*' matches no case of cpu"),
    ],
)
def test_mistakes_in_a_pattern(tmp_path: Path, pattern: str, message: str) -> None:
    """A pattern names four segments that exist and covers at least one case; also as the second of a list."""
    assert refusal(tmp_path, changed("cases", f"cases: '{pattern}'")).startswith(f"4: {message}")
    listed = f"cases:\n      - '*/*/*/*'\n      - '{pattern}'"
    assert refusal(tmp_path, changed("cases", listed)).startswith(f"6: {message}")


@pytest.mark.parametrize("content", [None, "folder", b"schema: 1\nlimits: \xff\n", b"[" * 1500])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: str | bytes | None) -> None:
    """A file that is missing, a folder, not text or absurdly deep is refused by its path."""
    path = tmp_path / "limits.yaml"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    problem = "No such file|Is a directory|byte 18 is not UTF-8|values are nested too deeply"
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: ({problem})"):
        load(path, VOCABULARY)


def test_paths_are_told_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file below the current folder is named as one would type it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^thresholds\.yaml:1: the file is empty"):
        read(tmp_path, "")


PIECES = (
    *("schema: 1\n", "limits:\n", "  cpu:\n", "    - ", "cases: '*/*/*/*'\n", "      source: s\n", "      ", GOOD),
    *("{", "}", "[", "&a ", "*a", "!!int x", "? ", ": ", "<<: ", "\n", "'", "null", "\u2028", "\x00"),
)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_no_text_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever stands in the file, it is read or refused in a sentence that begins with its path."""
    path = tmp_path_factory.getbasetemp() / "thresholds.yaml"
    path.write_text(text, encoding="utf-8")
    told = ""
    try:
        load(path, VOCABULARY)
    except UserError as error:
        told = str(error)
    assert not told or told.startswith(f"{path}:")
