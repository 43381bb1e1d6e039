"""Rooflines: what a planted rate, latency or model makes of them, and how a run shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.results import CaseRecord
from fixtures.roofline import chart as charts_roofline
from fixtures.roofline.peaks import MIB, Peaks
from fixtures.roofline.roof import MOST, Work, least, of_rate, of_time
from fixtures.roofline.traffic import Weights
from fixtures.roofline.workload import Workload
from fixtures.verdict import Measurement, Outcome, judge
from fixtures.view import trusted
from suites.meta.sample_records import record
from suites.meta.small_llama import small_device
from suites.performance import test_roofline as suite
from targets.api import Unsupported

PEAKS = Peaks("cpu", "a test", {MIB: 100e9, 64 * MIB: 10e9}, {"float32": 1e11, "int8": 4e11})
BIG = Work(flops=2e9, read=1e9, held=1e9, item=4)
"""A model of a gigabyte: 10 tokens a second by the memory, 50 by the arithmetic."""
THICK = replace(BIG, flops=4e10)
"""As many bytes and twenty times the FLOPs: 2.5 a second by the arithmetic."""


@pytest.mark.parametrize(("work", "bound", "limit"), [(BIG, "memory", 10.0), (THICK, "compute", 2.5)])
def test_a_rate_above_its_roof_is_found(work: Work, bound: str, limit: float) -> None:
    """A rate above what binds is beyond the roofline and INVALID; half of it is not, nor is the limit itself."""
    for share, found in ((0.5, False), (1.0, False), (MOST + 0.01, True), (40.0, True)):
        roof = of_rate("decode_tokens_per_s", share * limit, work, PEAKS)
        assert roof.bound == bound
        assert (roof.limit, roof.share) == pytest.approx((limit, share))
        assert bool(roof.beyond) == found
        (verdict,) = judge(Measurement.of("decode_roofline_share", roof.share, invalid=roof.beyond), [])
        assert verdict.outcome is (Outcome.INVALID if found else Outcome.UNBOUNDED)
    assert str(roof.beyond).startswith(f"beyond the roofline: decode_tokens_per_s is {40 * limit:.4g} /s, 40.00 times")


def test_a_latency_below_its_roof_is_found() -> None:
    """A request that is answered in less than the least time is beyond the roofline; one of twice that is not."""
    slow, impossible = (of_time("latency_ms", value, BIG, PEAKS) for value in (200.0, 10.0))
    assert (slow.limit, slow.share) == pytest.approx((100, 0.5))
    assert slow.beyond is None
    assert impossible.beyond is not None
    assert (
        "latency_ms is 10 ms, 10.00 times as fast as 1 GB at 10 GB/s (from 64 MiB) allow (100 ms)" in impossible.beyond
    )


def test_a_model_in_cache_is_bound_by_the_cache() -> None:
    """A small model's limit is that of a working set of its size, and the sentence says which."""
    small = Work(flops=1e6, read=2 * MIB, held=2 * MIB, item=4)
    found = least(small, PEAKS)
    assert found.seconds == pytest.approx(2 * MIB / 100e9)
    assert "from 1 MiB" in found.why


def test_unknown_flops_leave_the_memory_to_bound() -> None:
    """Where FLOPs, or the peak of a format, are unknown, the bytes alone bind, and the reason is kept."""
    unknown = replace(THICK, flops=None, lacks="no formula is known")
    assert least(unknown, PEAKS).bound == "memory"
    assert of_rate("decode_tokens_per_s", 1.0, unknown, PEAKS).as_json()["flops_absent"] == "no formula is known"
    mute = Peaks("cpu", "a test", PEAKS.bandwidth, {"float32": 1e11}, {"int8": "no kernel"})
    assert least(replace(THICK, item=1), mute).bound == "memory"


@given(
    flops=st.none() | st.floats(1, 1e13),
    read=st.floats(1, 1e11),
    held=st.floats(1, 1e11),
    item=st.sampled_from([0, 1, 2, 4]),
    value=st.floats(1e-3, 1e6),
)
def test_a_latency_is_a_rate_upside_down(
    flops: float | None, read: float, held: float, item: int, value: float
) -> None:
    """One number said as a rate or as a latency reaches the same share; more work never makes a limit higher."""
    work = Work(flops, read, held, item)
    rate = of_rate("rate", value, work, PEAKS)
    assert rate.share == pytest.approx(of_time("time", 1e3 / value, work, PEAKS).share)
    assert rate.limit * (1 - 1e-9) <= 1 / (read / 100e9)
    assert of_rate("rate", value, replace(work, read=2 * read), PEAKS).limit <= rate.limit


WEIGHTS = Weights(whole=8 * MIB, step=4 * MIB, item=4, source="a test")
CONFIG = '{"model_type": "distilbert", "n_layers": 1, "dim": 8, "n_heads": 2, "hidden_dim": 16}'


@dataclass
class Case:
    """As much of a target as a workload asks for."""

    host: Any = None
    optimization: str = "fp32"
    source: str = "embedded"

    @property
    def case(self) -> Any:
        """Its name."""
        return SimpleNamespace(optimization=self.optimization, id="x")

    @property
    def subject(self) -> Any:
        """Its model."""
        return SimpleNamespace(model=SimpleNamespace(source=self.source), mix=({},) * 3, pinned=9)

    @property
    def task(self) -> Any:
        """Its task."""
        return SimpleNamespace(family="causal", head="CausalLM")

    @property
    def session(self) -> Any:
        """The run."""
        return SimpleNamespace(device=small_device())

    def call(self, *_: Any) -> Any:
        """What the host would answer."""
        return self.host


def workload(target: Any, known: Any = (None, "no formula is known")) -> Workload:
    """A workload whose weights and architecture are known."""
    found = Workload(target)
    found.__dict__ |= {"weights": WEIGHTS, "known": known}
    return found


def test_a_served_model_has_no_roof() -> None:
    """A model on a server has no files to count, which is the reason that is given."""
    with pytest.raises(Unsupported, match="its files cannot be read"):
        _ = Workload(Case(source="served")).weights  # type: ignore[arg-type]


def test_drafted_tokens_are_not_bound_by_the_weights() -> None:
    """Speculative decoding brings several tokens a pass over the weights, so that bytes do not bind its rate."""
    assert workload(Case()).token(4, 8).read == WEIGHTS.step
    drafted = workload(Case(optimization="prompt-lookup")).token(4, 8)
    assert (drafted.read, drafted.intensity, drafted.has_roof(PEAKS)) == (0, None, False)
    assert of_rate("rate", 25.0, replace(drafted, flops=2e9), PEAKS).share == pytest.approx(0.5)


@dataclass
class Book:
    """A store of peaks that may have been measured too low at first."""

    first: Peaks
    later: Peaks
    spent_s: float = 0.0
    asked: list[str] = field(default_factory=list)

    def of(self, place: str) -> Peaks:
        """What is known."""
        return self.later if self.asked else self.first

    def again(self, place: str) -> Peaks:
        """What another measurement finds."""
        self.asked.append(place)
        return self.later


def judged(metrics: Mapping[str, float], book: Book, monkeypatch: pytest.MonkeyPatch) -> CaseRecord:
    """The record after the suite's own test has seen a case with these metrics."""
    monkeypatch.setattr(suite, "Workload", workload)
    found = CaseRecord("g/e/b/o", "generation", "e", "b", "fp32", metrics=dict(metrics))

    def judge_all(*measurements: Measurement) -> None:
        for each in measurements:
            found.metrics.update(each.numbers())
            found.verdicts += judge(each, [])

    suite.test_roofline(Case(host=[4, 4, 5]), judge_all, found, book)  # type: ignore[arg-type]
    return found


LIMIT = 100e9 / (4 * MIB)


@pytest.mark.parametrize(("share", "outcome"), [(0.5, Outcome.UNBOUNDED), (1.2, Outcome.INVALID)])
def test_the_suite_takes_back_what_cannot_be(share: float, outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    """An impossible decode rate makes its share INVALID and is itself no longer trusted; a possible one stays."""
    found = judged({"decode_tokens_per_s": share * LIMIT}, Book(PEAKS, PEAKS), monkeypatch)
    assert found.verdicts[0].outcome is outcome
    assert found.metrics["decode_roofline_share"] == pytest.approx(share)
    assert (trusted(found, "decode_tokens_per_s") is None) == (outcome is Outcome.INVALID)
    told = found.evidence["roofline"]
    assert told["decode_roofline_share"]["bytes"] == WEIGHTS.step
    assert told["flops"] == "absent: no formula is known"
    assert found.as_json()["evidence"]["roofline"] == told


def test_a_peak_that_was_too_low_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a number is called impossible the peaks are measured again: a busy moment then cries no wolf."""
    busy = replace(PEAKS, bandwidth={MIB: 10e9, 64 * MIB: 1e9})
    book = Book(busy, PEAKS)
    found = judged({"decode_tokens_per_s": 0.9 * LIMIT}, book, monkeypatch)
    assert book.asked == ["cpu"]
    assert found.verdicts[0].outcome is Outcome.UNBOUNDED
    assert found.metrics["decode_roofline_share"] == pytest.approx(0.9)


def test_a_case_without_numbers_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing was measured the test is skipped before any peak or weight is looked at."""
    with pytest.raises(pytest.skip.Exception, match="no rate and no latency of this case was measured"):
        judged({"load_s": 1.0}, None, monkeypatch)  # type: ignore[arg-type]


def told(share: float, **changes: Any) -> dict[str, Any]:
    """A record's evidence with one roof."""
    roof = of_rate("decode_tokens_per_s", share * 10, BIG, PEAKS).as_json()
    return {"roofline": {"peaks": PEAKS.as_json(), "decode_roofline_share": {**roof, **changes}}}


def test_the_plot_has_a_point_a_case() -> None:
    """Each case with FLOPs and bytes is one point at its intensity and FLOP/s; one without them is none."""
    cases = [
        record("huggingface", "fp32", evidence=told(0.5)),
        record("huggingface", "int8", evidence=told(1.5)),
        record("huggingface", "bf16", evidence=told(0.5, flops=None)),
        record("onnxruntime", "fp32"),
    ]
    found = charts_roofline.points(cases)
    assert [(point.name, point.intensity) for point in found] == [(case.id, 2.0) for case in cases[:2]]
    assert [point.attained for point in found] == [pytest.approx(share * 10 * 2e9) for share in (0.5, 1.5)]
    pytest.importorskip("matplotlib")
    picture = charts_roofline.chart(cases, "Roofline of $10 and 5 %")
    assert picture is not None
    assert picture.startswith(b"\x89PNG")
    assert charts_roofline.chart(cases[2:], "none") is None
