"""How much of what the device allows at most each case reaches. Runs last of its suite, on what that has measured."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice
from statistics import fmean, median

import pytest

from fixtures.judging import Judge, spend
from fixtures.provision import Target
from fixtures.results import CaseRecord
from fixtures.roofline.roof import Roof, of_rate, of_time
from fixtures.roofline.store import PeakStore, beside_published
from fixtures.roofline.workload import Workload, prompts_of, rows_of
from fixtures.session import session_of
from fixtures.verdict import Measurement
from fixtures.view import invalid
from targets.api import Unsupported

DECODE, PREFILL, LATENCY, BEST = "decode_tokens_per_s", "prefill_tokens_per_s", "latency_ms", "throughput_per_s.best"
SHARES = {
    DECODE: "decode_roofline_share",
    PREFILL: "prefill_roofline_share",
    LATENCY: "latency_roofline_share",
    BEST: "throughput_roofline_share",
}
"""The share of each metric that has a roof."""


@pytest.fixture(scope="session")
def store(pytestconfig: pytest.Config) -> PeakStore:
    """The device's peaks, measured when the first case needs them."""
    return PeakStore(session_of(pytestconfig))


def test_roofline(target: Target, judged: Judge, record: CaseRecord, store: PeakStore) -> None:
    """The case does not beat its device's roofline, and its share of it is reported."""
    if not any(metric in record.metrics or metric in record.samples for metric in SHARES):
        pytest.skip("no rate and no latency of this case was measured")
    load = Workload(target)
    _ = load.weights  # without them there is no roof, and no peak need be measured
    spent = store.spent_s
    peaks = store.of(load.place)
    found = list(roofs(target, record, load, store))
    if any(roof.beyond for roof in found):  # a peak may have been taken while something else ran
        peaks = store.again(load.place)
        found = list(roofs(target, record, load, store))
    spend(record, 0.0, store.spent_s - spent)
    if not found:
        why = load.known[1] or f"peaks are missing: {peaks.missing}"
        pytest.skip(f"drafted tokens come several a pass, so that weights do not bound them, and {why}")
    record.evidence["roofline"] = {
        "weights": load.weights.source,
        "flops": f"of {load.known[0].name}" if load.known[0] else f"absent: {load.known[1]}",
        "peaks": {**peaks.as_json(), "memory": beside_published(peaks, target.session.device)},
        **{SHARES[roof.metric]: roof.as_json() for roof in found},
    }
    judged(*(measurement for roof in found for measurement in measurements(roof, record)))


def measurements(roof: Roof, record: CaseRecord) -> list[Measurement]:
    """The share; where it cannot be, the metric itself is taken back with it."""
    void = roof.beyond or ("what it is a share of is void" if invalid(record, roof.metric) else None)
    share = Measurement.of(SHARES[roof.metric], roof.share, how=roof.how, invalid=void)
    if not roof.beyond:
        return [share]
    name, _, statistic = roof.metric.partition(".")
    return [share, Measurement.of(name, roof.value, unit=roof.unit, how=statistic, invalid=roof.beyond)]


def roofs(target: Target, record: CaseRecord, load: Workload, store: PeakStore) -> Iterator[Roof]:
    """Every measured number of the case that has a roof, under it."""
    peaks, metrics, mix = store.of(load.place), record.metrics, target.subject.mix
    if DECODE in metrics:
        try:
            prompt = median(target.call(prompts_of, mix))
        except Unsupported:
            prompt = 0.0  # the cache is then counted from the first token of the answer only
        if (work := load.token(prompt, target.subject.pinned)).has_roof(peaks):
            yield of_rate(DECODE, metrics[DECODE], work, peaks)
    if PREFILL in metrics and (sizes := record.evidence.get("prefill prompt tokens")):
        both = (of_rate(PREFILL, metrics[PREFILL], load.prompt(size), peaks) for size in (min(sizes), max(sizes)))
        yield max(both, key=lambda roof: roof.limit)
    laps = record.samples.get(LATENCY)
    if laps or BEST in metrics:
        rows = target.call(rows_of, mix)
        if laps:
            yield of_time(LATENCY, fmean(laps), load.texts(list(islice(cycle(rows), len(laps)))), peaks)
        if BEST in metrics:
            best = metrics[BEST]
            batch = max(int(name.rpartition("batch")[2]) for name, rate in by_batch(metrics).items() if rate == best)
            yield of_rate(BEST, best, load.texts(rows, batch), peaks)


def by_batch(metrics: dict[str, float]) -> dict[str, float]:
    """The throughput of each batch size."""
    return {name: rate for name, rate in metrics.items() if name.startswith("throughput_per_s.batch")}
