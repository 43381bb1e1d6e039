"""How fast, how small, how frugal each case is on this device. Runs first, while the case's process is fresh."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fixtures import charts, guest, report, sequential, steadiness, stopwatch
from fixtures.clock import host_clock
from fixtures.judging import Judge, note_steadiness, spend
from fixtures.measuring import Measuring
from fixtures.metrics import BATCH_SIZES
from fixtures.provision import Target
from fixtures.results import CaseRecord
from fixtures.speedup import speedup
from fixtures.statistics import Estimate, min_samples
from fixtures.stopwatch import LatencyPlan, ThroughputPlan
from fixtures.subjects import WEIGHTS
from fixtures.telemetry.energy_metrics import Work
from fixtures.telemetry.meter import Meter
from fixtures.verdict import Measurement

LATENCY_S = 0.8
"""Seconds of laps where no limit asks for more; half of them, where one is decided, to see whether laps are steady."""
THROUGHPUT_S = 0.06
LEAST, MOST = min_samples(0.95), 1000
MOST_JUDGED = 20_000
"""Laps of a verdict that stays open: what results.json and pytest-benchmark are willing to hold."""
WARM_CAP_S, LATENCY_CAP_S = 5.0, 30.0


def test_load(target: Target, judged: Judge, record: CaseRecord) -> None:
    """Loading and the first call after it stay within the device's limits."""
    target.start()
    assert target.loaded is not None
    record.timing.update(target.timing)
    judged(
        Measurement.of("load_s", target.loaded.load_s, how="net of library imports"),
        Measurement.of("first_call_ms", target.loaded.first_call_ms, how="one request, right after loading"),
    )


@pytest.mark.families("encoder")
@pytest.mark.benchmark(timer=host_clock, group="latency")
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")  # where the target dies first
def test_latency(
    target: Target, judged: Judge, record: CaseRecord, measuring: Measuring, benchmark: BenchmarkFixture
) -> None:
    """Latency at batch 1 over a mix of lengths stays within the device's limits."""
    goals, budget = sequential.goals(judged.limits, "latency_ms"), target.session.options.sampling.budget_s
    mix = target.subject.mix
    plan = LatencyPlan(
        mix,
        LEAST,
        MOST_JUDGED if goals else MOST,
        LATENCY_S,
        WARM_CAP_S,
        max(LATENCY_CAP_S, budget),
        goals,
        budget,
        settle=steadiness.PASSES * len(mix),
    )
    taken = measuring(lambda: target.call(stopwatch.latency, plan), "latency_ms")
    laps = taken.result
    spend(record, laps.warm_s, laps.measure_s)
    played = host_clock.play(laps.ms)
    benchmark.extra_info["case"] = target.case.id
    benchmark.pedantic(lambda: next(played), rounds=len(laps.ms), iterations=1)
    if not laps.steady:
        record.notes.append(f"latency was not steady after {laps.warm_laps} warm-up laps ({laps.warm_s:.1f} s)")
    note_steadiness(record, "latency_ms", "ms", laps.ms, len(mix))
    report.attach_png("latency histogram", charts.latency_histogram(laps.ms, target.case.id))
    how = f"{len(laps.ms)} requests one at a time after {laps.warm_laps} warm-up laps, {len(mix)} texts in turn"
    how = laps.stop.told(how)
    judged(
        Measurement(
            "latency_ms",
            unit="ms",
            samples=laps.ms,
            how=how,
            confidence=laps.stop.confidence,
            invalid=taken.invalid,
        ),
        *taken.energies(Work(len(laps.ms)), judged.metrics),
    )


@pytest.mark.families("encoder")
def test_throughput(target: Target, judged: Judge, record: CaseRecord, measuring: Measuring) -> None:
    """Throughput at batch sizes 1 to 32, as far as the device allows, reaches the device's limits."""
    mix = target.subject.mix
    sizes = tuple(size for size in BATCH_SIZES if size <= target.session.device.max_batch)
    plans = {size: ThroughputPlan(mix, size, THROUGHPUT_S) for size in sizes}
    taken = measuring(
        lambda: {size: target.call(stopwatch.throughput, plan) for size, plan in plans.items()}, "throughput_per_s"
    )
    found = taken.result
    spend(record, sum(one.warm_s for one in found.values()), sum(one.measure_s for one in found.values()))
    best = max(found, key=lambda size: found[size].per_s)
    by_size = {f"batch{size}": Estimate(one.per_s, n=len(one.laps_ms)) for size, one in found.items()}
    by_size["best"] = by_size[f"batch{best}"]
    how = f"whole batches of {', '.join(map(str, sizes))} for at least {THROUGHPUT_S} s each; best at batch {best}"
    judged(Measurement("throughput_per_s", unit="/s", estimates=by_size, how=how, invalid=taken.invalid))


def test_memory(target: Target, judged: Judge, meter: Meter) -> None:
    """The peak memory of the case's own process, and of a server it started, stays within the device's limits."""
    peak = target.call(guest.peak_memory_mb)
    if report.active() and (png := meter.timeline(target.case.id)):  # here, since all but comparisons is measured now
        report.attach_png("sensors over time", png)
    how = "peak resident memory since the process started, less its start; a server it started counts in full"
    judged(Measurement.of("peak_memory_mb", peak, how=how))


def test_size(target: Target, judged: Judge) -> None:
    """The weights on disk stay within the device's limits."""
    if target.subject.model.source == "served":
        pytest.skip("the model is on a server: its files cannot be read")
    judged(Measurement.of("model_size_mb", target.size_mb, how=f"files {', '.join(WEIGHTS)}"))
    if (bits := target.bits_per_weight) is not None:
        judged(Measurement.of("bits_per_weight", bits, how="bits of these files for each parameter"))


def test_speedup(target: Target, reference: Target, judged: Judge, record: CaseRecord) -> None:
    """The case is as much faster than PyTorch FP32 as the device's limits ask, measured in turns with it."""
    if target.case.is_reference:
        pytest.skip("this case is the reference")
    found = speedup(target, reference)
    spend(record, found.warm_s, found.measure_s)
    record.notes.append(f"speed-up {found.how}")
    judged(Measurement("speedup", unit="×", estimates={"": found.ratio}, how=found.how))
