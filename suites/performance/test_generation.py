"""How fast each generator answers, token by token, at output lengths that are the same for every engine."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import cycle, islice

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fixtures import charts, llama_bench, report, sequential, steadiness, stopwatch, token_watch
from fixtures.clock import host_clock
from fixtures.judging import Judge, note_steadiness, spend
from fixtures.llama_bench import BenchPlan
from fixtures.measuring import Measuring
from fixtures.own_gguf import own_gguf
from fixtures.provision import Target
from fixtures.results import CaseRecord
from fixtures.statistics import Estimate, min_samples, percentile, ratio_of_medians
from fixtures.stopwatch import ThroughputPlan
from fixtures.telemetry.energy_metrics import Work
from fixtures.token_watch import TokenPlan
from fixtures.verdict import Measurement
from targets.api import Request

pytestmark = pytest.mark.families("seq2seq", "causal")

FIRST_TOKENS = min_samples(0.90)
"""Requests for one token: as many as a claim on p90 needs."""
WHOLE = min_samples(0.50)
"""Requests of the pinned length; each has a gap less than tokens, so their gaps support p95."""
MOST = 200
TTFT_S, DECODE_S, THROUGHPUT_S = 0.3, 0.5, 0.01
WARM_CAP_S, CAP_S = 1.5, 30.0
PREFILLS = 36
"""Long prompts at most, where a limit on the prefill rate is near: each is read once, since engines keep what they
have read."""
LONG_PROMPT = 256
"""Tokens of the prompts that the prefill rate is taken from, as far as the context has room."""
BATCHES = (1, 4, 16)
BATCH_TOKENS = 16
BENCH_ROUNDS = 6
"""Turns with llama-bench: as many as a 95 % interval of a median needs."""
DECODE = ("itl_ms", "tpot_ms", "e2e_ms", "decode_tokens_per_s")
"""The metrics of requests of the pinned length."""
LATE = 0.95
"""Share of a request's time after which a first token is no first token: most of the tokens would come at once."""


@pytest.mark.benchmark(timer=host_clock, group="ttft")
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")  # where the target dies first
def test_first_token(
    target: Target, judged: Judge, record: CaseRecord, measuring: Measuring, benchmark: BenchmarkFixture
) -> None:
    """The first token of an answer comes within the device's limits."""
    requests = tuple({**request, "max_tokens": 1} for request in target.subject.mix)
    plan = TokenPlan(requests, FIRST_TOKENS, MOST, TTFT_S, WARM_CAP_S, CAP_S, settle=steadiness.PASSES * len(requests))
    plan = judging(plan, target, judged, "ttft_ms")
    taken = measuring(lambda: target.call(token_watch.watch, plan), "ttft_ms")
    found = taken.result
    spend(record, found.warm_s, found.measure_s)
    laps = found.samples("ttft_ms")
    played = host_clock.play(laps)
    benchmark.extra_info["case"] = target.case.id
    benchmark.pedantic(lambda: next(played), rounds=len(laps), iterations=1)
    if not found.steady:
        record.notes.append(f"time to the first token was not steady after {found.warm_laps} warm-up requests")
    note_steadiness(record, "ttft_ms", "ms", laps, len(requests))
    how = f"{len(laps)} requests for one token, {len(requests)} prompts in turn, after {found.warm_laps} to warm up"
    how = found.stop.told(how)
    sure = found.stop.confidence
    judged(Measurement("ttft_ms", unit="ms", samples=laps, how=how, confidence=sure, invalid=taken.invalid))


def test_decode_rate(target: Target, judged: Judge, record: CaseRecord, measuring: Measuring) -> None:
    """Tokens follow one another at the rate that the device's limits ask."""
    subject = target.subject
    plan = judging(TokenPlan(subject.mix, WHOLE, MOST, DECODE_S, WARM_CAP_S, CAP_S), target, judged, *DECODE)
    taken = measuring(lambda: target.call(token_watch.watch, plan), "decode_tokens_per_s")
    found = taken.result
    spend(record, found.warm_s, found.measure_s)
    counts = {lap.output_tokens for lap in found.laps}
    if counts != {subject.pinned}:
        came = f"{min(counts)} to {max(counts)}"
        record.notes.append(f"output length could not be pinned: {came} of {subject.pinned} tokens came")
    gaps, means, whole, rates = (found.samples(metric) for metric in DECODE)
    late = sum(lap.ttft_ms > LATE * lap.e2e_ms for lap in found.laps)
    assert 2 * late < len(found.laps), (
        f"in {late} of {len(found.laps)} requests the first token was seen after {LATE:.0%} of the time: tokens come "
        "in one piece at the end, so no gap can be measured (is the stream buffered?)"
    )
    sure = found.stop.confidence
    made = partial(Measurement, confidence=sure, invalid=taken.invalid)
    median = {"": percentile(rates, 0.5, sure)}
    how = found.stop.told(f"{len(found.laps)} requests of {subject.pinned} tokens each, one at a time")
    note_steadiness(record, "tpot_ms", "ms", means, len(subject.mix))
    if gaps:
        report.attach_png("gaps between tokens", charts.latency_histogram(gaps, target.case.id))
    judged(
        made("itl_ms", unit="ms", samples=gaps, how=f"{len(gaps)} gaps of {how}"),
        made("tpot_ms", unit="ms", samples=means, how=how),
        made("e2e_ms", unit="ms", samples=whole, how=how),
        made("decode_tokens_per_s", unit="/s", samples=rates, estimates=median, how=f"median of {how}"),
        *taken.energies(Work(len(found.laps), sum(lap.output_tokens for lap in found.laps)), judged.metrics),
    )


def test_prefill(target: Target, judged: Judge, record: CaseRecord, measuring: Measuring) -> None:
    """A long prompt is read at the rate that the device's limits ask."""
    plan = prefill(target, judged)
    taken = measuring(lambda: target.call(token_watch.watch, plan), "prefill_tokens_per_s")
    found = taken.result
    spend(record, found.warm_s, found.measure_s)
    rates, sure = found.samples("prefill_tokens_per_s"), found.stop.confidence
    sizes = sorted(lap.prompt_tokens for lap in found.laps)
    record.evidence["prefill prompt tokens"] = sizes
    how = f"median of {len(rates)} prompts of {sizes[0]} to {sizes[-1]} tokens: tokens by time to the first token"
    how, median = found.stop.told(how), {"": percentile(rates, 0.5, sure)}
    made = partial(Measurement, confidence=sure, invalid=taken.invalid)
    judged(made("prefill_tokens_per_s", unit="/s", samples=rates, estimates=median, how=how))


def test_batches(target: Target, judged: Judge, record: CaseRecord, measuring: Measuring) -> None:
    """Requests answered together bring the tokens a second that the device's limits ask."""
    mix = tuple({**request, "max_tokens": BATCH_TOKENS} for request in target.subject.mix)
    sizes = tuple(size for size in BATCHES if size <= target.session.device.max_batch)
    plans = {size: ThroughputPlan(tuple(islice(cycle(mix), size)), size, THROUGHPUT_S) for size in sizes}
    taken = measuring(
        lambda: {size: target.call(stopwatch.throughput, plan) for size, plan in plans.items()}, "output_tokens_per_s"
    )
    found = taken.result
    spend(record, sum(one.warm_s for one in found.values()), sum(one.measure_s for one in found.values()))
    rates = {size: one.per_s * BATCH_TOKENS for size, one in found.items()}
    best = max(rates, key=lambda size: rates[size])
    estimates = {f"batch{size}": Estimate(rate, n=len(found[size].laps_ms)) for size, rate in rates.items()}
    estimates["best"] = estimates[f"batch{best}"]
    how = f"whole batches of {', '.join(map(str, sizes))}, {BATCH_TOKENS} tokens each; best at batch {best}"
    judged(Measurement("output_tokens_per_s", unit="/s", estimates=estimates, how=how, invalid=taken.invalid))


def test_acceptance(target: Target, judged: Judge) -> None:
    """Speculative decoding has as large a share of its drafts accepted as the device's limits ask."""
    found = target.evidence().details.get("acceptance")
    if found is None:
        pytest.skip("this case drafts no tokens")
    how = f"{found['accepted']} of {found['drafted']} drafted tokens, over all answers so far"
    judged(Measurement.of("acceptance_rate", found["rate"], how=how, reason="nothing was drafted"))


@pytest.mark.tasks("generation")
def test_beside_llama_bench(target: Target, judged: Judge) -> None:
    """Decode and prefill rates are those of llama.cpp's own benchmark on the same file, measured in turns with it."""
    own = own_gguf(target)
    if llama_bench.find() is None:
        pytest.skip("no llama-bench on PATH or in LLAMA_CPP_DIR: build it with llama.cpp (`make llama-tools`)")
    requests = tuple(long_prompts(target, BENCH_ROUNDS, target.subject.pinned))
    ours: list[token_watch.TokenLap] = []
    theirs: list[tuple[list[float], list[float]]] = []
    for request in requests:
        ours += target.call(token_watch.watch, TokenPlan((request,), 1, 1, 0.0, 0.0, CAP_S)).laps
        plan = BenchPlan(
            prompt_tokens=ours[-1].prompt_tokens,
            output_tokens=target.subject.pinned,
            threads=target.session.device.threads,
            gpu_layers=own.gpu_layers,
            repeats=1,
            flash_attention=bool(own.details.get("flash attention", True)),
        )
        theirs.append(llama_bench.rates(own.path, plan))
    rounds = {
        "prefill": ([[lap.prompt_tokens / lap.ttft_ms * 1e3] for lap in ours], [reading for reading, _ in theirs]),
        "decode": ([[lap.decode_per_s or 0.0] for lap in ours], [writing for _, writing in theirs]),
    }
    how = f"in turns with llama-bench on the same file and threads: {len(ours)} rounds"
    judged(
        *(
            Measurement(f"{name}_vs_llama_bench", unit="×", estimates={"": ratio_of_medians(mine, other)}, how=how)
            for name, (mine, other) in rounds.items()
        )
    )


def judging(plan: TokenPlan, target: Target, judged: Judge, *metrics: str) -> TokenPlan:
    """The plan with the limits on these metrics; they are judged until the budget ends."""
    budget = target.session.options.sampling.budget_s
    goals = sequential.goals(judged.limits, *metrics)
    return replace(plan, goals=goals, patience_s=budget, cap_s=max(plan.cap_s, budget))


def prefill(target: Target, judged: Judge) -> TokenPlan:
    """Long prompts, one token each; warm and then one lap a prompt."""
    count = PREFILLS if sequential.goals(judged.limits, "prefill_tokens_per_s") else WHOLE
    requests = tuple(long_prompts(target, count, 1))
    plan = TokenPlan(requests, WHOLE, count, 0.0, 0.2, CAP_S)
    return judging(plan, target, judged, "prefill_tokens_per_s")


def long_prompts(target: Target, count: int, output: int) -> list[Request]:
    """Prompts of LONG_PROMPT tokens, or as many as the context has room for."""
    context = target.evidence().details.get("context")
    size = min(LONG_PROMPT, context - 2 * output - BATCH_TOKENS) if isinstance(context, int) else LONG_PROMPT
    return target.call(token_watch.long_requests, target.case.task, target.subject.texts, size, count, output)
