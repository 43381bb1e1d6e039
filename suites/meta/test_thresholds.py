"""Limits: which one a case gets, and what a mistake in the file says."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fixtures.thresholds import Limit, Thresholds, Vocabulary, load
from targets.api import UserError

TASKS, MODELS = ("sentiment", "ner"), ("embedded", "bert-base-random")
BACKENDS, OPTIMIZATIONS = ("huggingface", "onnxruntime"), ("fp32", "fp16", "int8")
CASES = [f"{t}/{m}/{b}/{o}" for t in TASKS for m in MODELS for b in BACKENDS for o in OPTIMIZATIONS]
INT8 = "sentiment/embedded/onnxruntime/int8"


def cases(device: str) -> Iterable[str]:
    """fp16 exists on jetsons only."""
    return [case for case in CASES if device.startswith("jetson") or not case.endswith("fp16")]


VOCABULARY = Vocabulary(
    devices={"jetson-orin-nano": "jetson", "jetson-orin-nx": "jetson", "cpu": "cpu"},
    tasks=TASKS,
    models=MODELS,
    backends=BACKENDS,
    optimizations=OPTIMIZATIONS,
    metrics={"accuracy": ("",), "latency_ms": ("p50", "p95", "mean"), "throughput_per_s": ("best", "batch8")},
    cases=cases,
)


def read(folder: Path, text: str, vocabulary: Vocabulary = VOCABULARY) -> Thresholds:
    path = folder / "thresholds.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, vocabulary)


def entries(*lines: str, device: str = "cpu") -> str:
    """A file whose entries are these lines; the first of them is line 4."""
    return "\n".join(["schema: 1", "limits:", f"  {device}:", *(f"    {line}" for line in lines), ""])


def entry(limits: str, pattern: str = "*/*/*/*", more: str = "") -> str:
    return f"- {{cases: {pattern!r}, source: measured, {more}{limits}}}"


def bound(found: Thresholds, device: str = "cpu", case: str = INT8, mode: str | None = None) -> float:
    (limit,) = found.limits(device, VOCABULARY.devices[device], case, mode)
    return limit.bound


def test_a_limit_carries_where_it_comes_from(tmp_path: Path) -> None:
    """Every limit knows metric, statistic, direction, bound, source, file and line, pattern, device."""
    text = entries(
        "- cases: sentiment/*/onnxruntime/*",
        "  source: 'measured 2026-11-21'",
        "  provisional: true",
        "  accuracy: {min: 0.95}",
        "  latency_ms:",
        "    p50_max: 20",
        "    p95_max: 50",
    )
    given_all = {"source": "measured 2026-11-21", "pattern": "sentiment/*/onnxruntime/*", "device": "cpu"}
    assert read(tmp_path, text).limits("cpu", "cpu", INT8) == [
        Limit("accuracy", "", "min", 0.95, where="thresholds.yaml:7", provisional=True, **given_all),
        Limit("latency_ms", "p50", "max", 20, where="thresholds.yaml:9", provisional=True, **given_all),
        Limit("latency_ms", "p95", "max", 50, where="thresholds.yaml:10", provisional=True, **given_all),
    ]


@pytest.mark.parametrize(
    ("direction", "holding", "missing"), [("min", (0.5, 0.6), (0.4, math.nan)), ("max", (0.5, 0.4), (0.6, math.nan))]
)
def test_a_bound_belongs_to_what_it_allows(
    direction: str, holding: tuple[float, ...], missing: tuple[float, ...]
) -> None:
    """A limit holds on its bound and on its good side, and never for NaN."""
    limit = Limit("x", "p95", direction, 0.5, "", "", "", "")
    assert all(map(limit.holds, holding))
    assert not any(map(limit.holds, missing))
    assert str(limit) == f"p95 {'>=' if direction == 'min' else '<='} 0.5"


Row = tuple[str, str, str | None]
"""Device, pattern, power mode."""


def limits_file(*rows: tuple[Row, float]) -> str:
    rules: dict[str, list[dict[str, object]]] = {}
    for (device, pattern, mode), value in rows:
        rule = {"cases": pattern, "source": "measured", "accuracy": {"min": value}}
        rules.setdefault(device, []).append(rule | ({"power_mode": mode} if mode else {}))
    return yaml.safe_dump({"schema": 1, "limits": rules}, sort_keys=False)


@pytest.mark.parametrize(
    ("stronger", "weaker", "mode"),
    [
        (("jetson-orin-nano", "*/*/*/*", None), ("jetson", INT8, "15W"), "15W"),
        (("jetson", "*/*/*/*", "15W"), ("jetson", INT8, None), "15W"),
        (("jetson", INT8, None), ("jetson", "sentiment/*/*/int8", None), None),
        (("jetson", "sentiment/*/*/*", None), ("jetson", "*/*/*/int[0-9]", None), None),
        (("jetson", "*/*/*/int8", None), ("jetson", "*/*/*/int[0-9]", None), None),
        (("jetson", "*/*/*/*", None), ("jetson", "*/*/*/int8", "MAXN"), "15W"),
        (("jetson", "*/*/*/*", None), ("jetson", "*/*/*/int8", "MAXN"), None),
        (("jetson", "*/*/*/*", None), ("jetson-orin-nx", INT8, None), None),
        (("jetson", "*/*/*/*", None), ("jetson", "ner/*/*/*", None), None),
    ],
    ids=["profile", "mode", "whole id", "longer", "class", "other mode", "unknown mode", "other device", "other task"],
)
def test_the_most_specific_wins(tmp_path: Path, stronger: Row, weaker: Row, mode: str | None) -> None:
    """Profile before kind, then power mode, then literal characters, wherever the entries stand; others do not count."""
    for rows in (((stronger, 2), (weaker, 1)), ((weaker, 1), (stronger, 2))):
        assert bound(read(tmp_path, limits_file(*rows)), "jetson-orin-nano", mode=mode) == 2


def test_of_equals_the_later_line_wins(tmp_path: Path) -> None:
    """Two patterns with as many literal characters: the one further down the file counts."""
    lines = [entry("accuracy: {min: 0.1}", "*/*/*/int?"), entry("accuracy: {min: 0.2}", "*/*/*/int*")]
    assert bound(read(tmp_path, entries(*lines))) == 0.2
    assert bound(read(tmp_path, entries(*reversed(lines)))) == 0.1


def test_limits_of_several_entries_add_up(tmp_path: Path) -> None:
    """An entry overrides another limit by limit: what it does not speak of stays in force."""
    found = read(
        tmp_path,
        entries(
            entry("accuracy: {min: 0.9, max: 0.99}, latency_ms: {p50_max: 20, p95_max: 50}"),
            entry("latency_ms: {p95_max: 40}, accuracy: {min: 0.8}", INT8),
        ),
    )
    limits = {
        (limit.metric, limit.statistic, limit.direction): limit.bound for limit in found.limits("cpu", "cpu", INT8)
    }
    assert limits == {
        ("accuracy", "", "min"): 0.8,
        ("accuracy", "", "max"): 0.99,
        ("latency_ms", "p50", "max"): 20,
        ("latency_ms", "p95", "max"): 40,
    }


def test_a_list_of_patterns_is_any_of_them(tmp_path: Path) -> None:
    """An entry may name several patterns; the limit says which of them it came by."""
    found = read(tmp_path, entries("- cases: [ner/*/*/fp32, sentiment/*/*/*]", "  source: s", "  accuracy: {min: 0.5}"))
    assert [limit.pattern for limit in found.limits("cpu", "cpu", INT8)] == ["sentiment/*/*/*"]
    assert [limit.pattern for limit in found.limits("cpu", "cpu", "ner/embedded/huggingface/fp32")] == ["ner/*/*/fp32"]
    assert found.limits("cpu", "cpu", "ner/embedded/huggingface/int8") == []


def test_a_wildcard_ends_with_its_segment(tmp_path: Path) -> None:
    """A star stands for one segment or a part of it, never for a slash."""
    found = read(tmp_path, entries(entry("accuracy: {min: 0.5}", "s*/*/*/int8")))
    assert bound(found) == 0.5
    assert found.limits("cpu", "cpu", "sentiment/a/b/c/int8") == found.limits("cpu", "cpu", "ner/a/b/int8") == []


def test_no_limits_is_a_file_too(tmp_path: Path) -> None:
    """A file may set no limit at all; every verdict is then UNBOUNDED."""
    assert read(tmp_path, "schema: 1\nlimits: {}\n").limits("cpu", "cpu", INT8) == []


def segment(names: tuple[str, ...]) -> st.SearchStrategy[str]:
    return st.sampled_from(names) | st.sampled_from(["*", f"{names[0][0]}*", f"*{names[-1][-1]}", f"{names[0][:-1]}?"])


PATTERNS = st.tuples(*map(segment, (TASKS, MODELS, BACKENDS, OPTIMIZATIONS))).map("/".join)
ROWS = st.tuples(
    st.sampled_from(["jetson", "jetson-orin-nano", "jetson-orin-nx"]),
    PATTERNS.filter(lambda pattern: any(fnmatchcase(case, pattern) for case in CASES)),
    st.sampled_from([None, "15W", "25W"]),
)


@given(rows=st.lists(ROWS, min_size=1, max_size=12), case=st.sampled_from(CASES), mode=st.sampled_from([None, "15W"]))
def test_choosing_is_sorting(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], case: str, mode: str | None
) -> None:
    """The limit in force is the last of all that apply, sorted by device, mode, literal characters and line."""
    folder = tmp_path_factory.mktemp("limits")
    rows = sorted(rows, key=lambda row: row[0])  # entries of a device stand together: line order is row order
    found = read(folder, limits_file(*((row, float(index)) for index, row in enumerate(rows))))
    applying = [
        (device == "jetson-orin-nano", power is not None, len(re.sub(r"[*?]", "", pattern)), index)
        for index, (device, pattern, power) in enumerate(rows)
        if device != "jetson-orin-nx" and power in (None, mode) and fnmatchcase(case, pattern)
    ]
    limits = found.limits("jetson-orin-nano", "jetson", case, mode)
    assert [limit.bound for limit in limits] == [max(applying)[3]] * bool(applying)


GOOD = "accuracy: {min: 0.5}"
ENTRY = [*zip(("- cases: '*/*/*/*'", "  source: s", f"  {GOOD}"), ("cases", "source", "limits"), strict=True)]


def lacking(key: str) -> str:
    """An entry without one of its lines."""
    first, *rest = (line.strip("- ") for line, name in ENTRY if name != key)
    return entries(f"- {first}", *(f"  {line}" for line in rest))


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
        ("schema: 1\nlimits:\n  cpu: [5]\n", "3: an item of cpu is the number '5', should be a mapping with cases"),
        (entries(entry(GOOD), device="jetson-orin-nan"), "3: unknown device 'jetson-orin-nan'. Did you mean 'jetson-or"),
        (entries(entry(GOOD), device="tpu"), "3: unknown device 'tpu'."),
        (entries(entry(GOOD)) + "  cpu: []\n", "5: 'cpu' stands on line 3 already; keep one of the two"),
        (entries(entry(GOOD + ", accuracy: {min: 0.6}")), "4: 'accuracy' stands on line 4 already"),
        (entries(entry("latency_ms: {p50_max: 1, p50_max: 2}")), "4: 'p50_max' stands on line 4 already"),
        (entries(entry("? [a] : 1")), "4: a key of an item of cpu is the list, should be plain text"),
        (entries(entry(GOOD, "sentimant/*/*/*")), "4: unknown task 'sentimant' in pattern 'sentimant/*/*/*'. Did you mean "
                                                  "'sentiment'? Known: ner, sentiment."),
        (entries(entry(GOOD, "*/embeded/*/*")), "4: unknown model 'embeded' in pattern '*/embeded/*/*'. Did you mean 'emb"),
        (entries(entry(GOOD, "*/*/onnx/*")), "4: unknown backend 'onnx' in pattern '*/*/onnx/*'."),
        (entries(entry(GOOD, "*/*/*/int4")), "4: unknown optimization 'int4' in pattern '*/*/*/int4'. Did you mean 'int8'?"),
        (entries(entry(GOOD, "*/*/*/")), "4: unknown optimization '' in pattern"),
        (entries(entry(GOOD, "sentiment/*")), "4: pattern 'sentiment/*' has 2 segments, should have 4: task/model/back"),
        (entries(entry(GOOD, "*/*/*/*/*")), "4: pattern '*/*/*/*/*' has 5 segments"),
        (entries(entry(GOOD, "*/*/*/fp16")), "4: pattern '*/*/*/fp16' matches no case of cpu; see them with --collect-only"),
        (entries(entry(GOOD, "*/*/*/q*")), "4: pattern '*/*/*/q*' matches no case of cpu"),
        (entries("- source: s", f"  {GOOD}", "  cases:", "  - '*/*/*/*'", "  - ner/*/*/x"), "8: unknown optimization 'x'"),
        (entries(f"- {{cases: [], source: s, {GOOD}}}"), "4: cases is empty, should be a pattern such as"),
        (entries(f"- {{cases: 5, source: s, {GOOD}}}"), "4: cases is the number '5', should be a pattern such as"),
        (entries(f"- {{cases: [5], source: s, {GOOD}}}"), "4: an item of cases is the number '5', should be a pattern"),
        (lacking("cases"), "4: the entry has no cases; every entry needs cases and source"),
        (lacking("source"), "4: the entry has no source; every entry needs cases and source"),
        (lacking("limits"), "4: the entry sets no limit; add one"),
        (entries("- cases: '*/*/*/*'", "  source:", f"  {GOOD}"), "5: source is empty, should be text that says where"),
        (entries("- cases: '*/*/*/*'", "  source: '  '", f"  {GOOD}"), "5: source is empty, should be text that says where"),
        (entries("- cases: '*/*/*/*'", "  source: 2026-11-21", f"  {GOOD}"), "5: source is the date '2026-11-21', should"),
        (entries(entry(GOOD, more="power_mode: 15, ")), "4: power_mode is the number '15', should be the name of a power mode"),
        (entries(entry(GOOD, more="provisional: 1, ")), "4: provisional is the number '1', should be true or false"),
        (entries(entry(GOOD, more="provisonal: true, ")), "4: unknown metric or key 'provisonal'. Did you mean 'provisional'?"),
        (entries(entry("latency: {p95_max: 50}")), "4: unknown metric or key 'latency'. Did you mean 'latency_ms'?"),
        (entries(entry("latency_s: {p95_max: 50}")), "4: unknown metric or key 'latency_s'. Did you mean 'latency_ms'?"),
        (entries(entry("latency_ms: 50")), "4: latency_ms is the number '50', should be a mapping such as {mean_max: 50}"),
        (entries(entry("latency_ms: {}")), "4: latency_ms is empty, should be a mapping such as"),
        (entries(entry("latency_ms: {p95: 50}")), "4: 'p95' of latency_ms has no direction; write p95_max or p95_min"),
        (entries(entry("latency_ms: {p59_max: 50}")), "4: unknown limit 'p59_max' of latency_ms. Did you mean 'p95_max'?"),
        (entries(entry("latency_ms: {max: 50}")), "4: unknown limit 'max' of latency_ms."),
        (entries(entry("accuracy: {p50_min: 0.5}")), "4: unknown limit 'p50_min' of accuracy. Did you mean 'min'?"),
        (entries(entry("latency_ms: {p95_max: '50'}")), "4: latency_ms p95_max is the text '50', should be a finite number"),
        (entries(entry("latency_ms: {p95_max: 50 ms}")), "4: latency_ms p95_max is the text '50 ms', should be a finite"),
        (entries(entry("latency_ms: {p95_max: 1e-3}")), "4: latency_ms p95_max is the text '1e-3', should be a finite number "
                                                        "such as 50, 0.95 or 1.0e-3"),
        (entries(entry("latency_ms: {p95_max: true}")), "4: latency_ms p95_max is the truth value 'true', should be a finite"),
        (entries(entry("latency_ms: {p95_max: .nan}")), "4: latency_ms p95_max is the number '.nan', should be a finite"),
        (entries(entry("latency_ms: {p95_max: -.inf}")), "4: latency_ms p95_max is the number '-.inf', should be a finite"),
        (entries(entry("latency_ms: {p95_max: }")), "4: latency_ms p95_max is empty, should be a finite number"),
        (entries(entry("latency_ms: {p95_max: [50]}")), "4: latency_ms p95_max is the list, should be a finite number"),
        (entries(entry("latency_ms: {p95_max: !!float x}")), "4: latency_ms p95_max is the number 'x', should be a finite"),
        (entries("- cases: '*/*/*/*'", "  source: s", "  latency_ms:", "    p50_max: 1", "    p95_max: fast"), "8: latency_ms"),
        (entries(entry("accuracy: {min: 0.9, max: 0.8}")), "accuracy of sentiment/embedded/huggingface/fp32 cannot keep acc"
                                                           "uracy >= 0.9 and accuracy <= 0.8 (thresholds.yaml:4)"),
        ("schema: 1\nlimits: {\n  cpu: [}\n", "3: not YAML: "),
        ("schema: 1\n\tlimits: 1\n", "2: not YAML: found character '\\t' that cannot start any token"),
        ("schema: 1\n---\nschema: 1\n", "2: not YAML: but found another document"),
        ("schema: 1\nlimits: *everything\n", "2: not YAML: found undefined alias 'everything'"),
        ("schema: 1\nlimits:\n  cpu: \x07\n", "3: not YAML: the character U+0007 is not allowed"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    """Every mistake is one sentence that begins with file and line and says what is wrong and what was allowed."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refusal:
        read(tmp_path, text)
    told = str(refusal.value)
    assert re.match(r"thresholds\.yaml:\d+: ", told)
    assert message in told
    assert "\n" not in told


@pytest.mark.parametrize("content", [None, "folder", b"schema: 1\nlimits: \xff\n"])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: str | bytes | None) -> None:
    """A file that is missing, a folder or not text is refused by its path."""
    path = tmp_path / "limits.yaml"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{re.escape(str(path))}: (No such file|Is a directory|byte 18 is not UTF-8)"):
        load(path, VOCABULARY)


@pytest.mark.parametrize(
    ("floor", "ceiling", "refused"),
    [
        (("jetson", "*/*/*/*", None), ("jetson-orin-nano", INT8, None), True),
        (("jetson", "*/*/*/*", "15W"), ("jetson", INT8, None), True),
        (("jetson", "*/*/*/*", "15W"), ("jetson", INT8, "25W"), False),
        (("jetson-orin-nx", "*/*/*/*", None), ("jetson-orin-nano", INT8, None), False),
        (("jetson", "ner/*/*/*", None), ("jetson", INT8, None), False),
    ],
)
def test_limits_that_contradict_each_other(tmp_path: Path, floor: Row, ceiling: Row, refused: bool) -> None:
    """A floor above a ceiling is refused where both are in force for one case, and only there."""
    text = limits_file((floor, 0.9), (ceiling, 0.8)).replace("min: 0.8", "max: 0.8")
    if not refused:
        read(tmp_path, text)
        return
    with pytest.raises(UserError, match=rf"^thresholds.yaml:\d+: accuracy of {INT8} cannot keep accuracy >= 0.9 and"):
        read(tmp_path, text)


def test_an_overridden_contradiction_is_none(tmp_path: Path) -> None:
    """A floor that no case is held to contradicts nothing."""
    everywhere, again = entry("accuracy: {min: 0.9}"), entry("accuracy: {min: 0.7, max: 0.8}")
    found = read(tmp_path, entries(everywhere, again))
    assert sorted(limit.bound for limit in found.limits("cpu", "cpu", INT8)) == [0.7, 0.8]


@given(
    st.lists(
        st.sampled_from(
            ["schema: 1\n", "limits:\n", "  cpu:\n", "    - ", "cases: '*/*/*/*'\n", "      source: s\n", "      "]
            + [
                "accuracy: {min: 0.5}\n",
                "{",
                "}",
                "[",
                "&a ",
                "*a",
                "!!int x",
                "? ",
                ": ",
                "<<: ",
                "\n",
                "'",
                "null",
                "\u2028",
            ]
        ),
        max_size=14,
    ).map("".join)
)
def test_no_text_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever stands in the file, it is read or refused in a sentence that begins with its path."""
    folder = tmp_path_factory.mktemp("limits")
    try:
        read(folder, text)
    except UserError as error:
        assert str(error).startswith(f"{folder / 'thresholds.yaml'}:")


def test_ten_thousand_cases_stay_fast(tmp_path: Path) -> None:
    """A hundred entries for ten thousand cases are checked and looked up in less than 3 s of processor time."""
    models = [f"model{index}" for index in range(834)]
    many = [case.replace("embedded", model) for model in models for case in CASES if "embedded" in case]
    everything = Vocabulary(
        VOCABULARY.devices, TASKS, models, BACKENDS, OPTIMIZATIONS, VOCABULARY.metrics, lambda _: many
    )
    assert len(many) > 10_000
    lines = [entry("latency_ms: {p95_max: 50}", f"*/model{index}*/*/*") for index in range(100)]
    began = time.process_time()
    found = read(tmp_path, entries(*lines, device="jetson"), everything)
    judged = sum(bool(found.limits("jetson-orin-nano", "jetson", case, "15W")) for case in many)
    assert time.process_time() - began < 3
    assert judged == len(many) - 0 * len(lines)
