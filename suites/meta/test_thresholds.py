"""Limits: which of them a case must keep."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.thresholds import Limit, Thresholds, Vocabulary
from suites.meta.sample_limits import (
    BACKENDS,
    CASES,
    INT8,
    MODELS,
    OPTIMIZATIONS,
    TASKS,
    VOCABULARY,
    entries,
    entry,
    read,
)
from targets.api import UserError


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
    rules: dict[str, list[Mapping[str, object]]] = {}
    for (device, pattern, mode), value in rows:
        options = {"power_mode": mode} if mode else {}
        rule = {"cases": pattern, "source": "measured", "accuracy": {"min": value}, **options}
        rules.setdefault(device, []).append(rule)
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
    """Profile before kind, then power mode, then literal characters, wherever an entry stands; no other counts."""
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


@settings(max_examples=60)
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
    assert [limit.bound for limit in limits] == [rank[3] for rank in sorted(applying)[-1:]]


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
    assert judged == len(many)
