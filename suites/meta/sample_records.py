"""A small set of records that the tests of journal, results, summary, charts and report share."""

from __future__ import annotations

from fixtures.results import CaseRecord, Results
from fixtures.verdict import Outcome, Verdict

LAPS = [2.0 + 0.01 * (n * 37 % 100) for n in range(200)]


def verdict(metric: str, outcome: Outcome, value: float = 3.0, reason: str = "") -> Verdict:
    return Verdict(metric=metric, statistic="p95", value=value, outcome=outcome, reason=reason)


def record(backend: str, optimization: str, **changes: object) -> CaseRecord:
    """A passed sentiment case; `changes` replace fields."""
    case = CaseRecord(
        id=f"sentiment/embedded/{backend}/{optimization}",
        task="sentiment",
        model="embedded",
        backend=backend,
        optimization=optimization,
        metrics={
            "accuracy": 0.968,
            "latency_ms.p50": 6.25,
            "latency_ms.p95": 7.5,
            "throughput_per_s.batch1": 160.0,
            "throughput_per_s.batch8": 400.0,
            "peak_memory_mb": 210.0,
            "model_size_mb": 2.0,
        },
        intervals={"latency_ms.p95": (7.25, 7.75), "speedup": (0.5, None)},
        samples={"latency_ms": LAPS},
        slices={"plain": {"accuracy": 0.98, "n": 100}, "negation": {"accuracy": 0.95, "n": 40}},
        verdicts=[verdict("latency_ms", Outcome.PASS), verdict("peak_memory_mb", Outcome.UNBOUNDED)],
        checks={"test_padding": "passed"},
        evidence={"requested": {"device": "cpu"}, "actual": {"device": "cpu"}},
        timing={"load_s": 0.4},
    )
    for name, value in changes.items():
        setattr(case, name, value)
    return case


def results() -> Results:
    """One task and model: the reference, a faster one, an invalid, a failed, a crashed, two skipped with one reason."""
    reference, faster = record("huggingface", "fp32"), record("onnxruntime", "int8-dynamic")
    faster.metrics |= {"accuracy": 0.96, "latency_ms.p50": 2.0, "latency_ms.p95": 2.5, "peak_memory_mb": 110.0}
    faster.metrics |= {"speedup": 3.125}
    faster.slices["negation"] = {"accuracy": 0.9, "n": 40}
    invalid = record("huggingface", "torchscript", status="failed")
    invalid.metrics["latency_ms.p50"] = 1.0
    invalid.verdicts = [verdict("latency_ms", Outcome.INVALID, reason="the device throttled")]
    failed = record("huggingface", "torch-compile", status="failed", notes=["speed-up measured back to back"])
    failed.verdicts = [verdict("latency_ms", Outcome.FAIL, 9.5, "thresholds.yaml:14")]
    crashed = record("onnxruntime", "fp32", status="crashed", reason="host died: signal SIGSEGV", verdicts=[])
    crashed.metrics, crashed.slices = {}, {}
    why = "this CPU does not compute it natively"
    skipped = [record("huggingface", name, status="skipped", reason=why, metrics={}) for name in ("fp16", "bf16")]
    cases = [reference, faster, invalid, failed, crashed, *skipped]
    device, run = {"name": "cpu", "kind": "cpu"}, {"started": "2026-01-01T00:00:00+00:00", "duration_s": 12.5}
    return Results(device, {"python": "3.10"}, {"models": "embedded"}, cases, run)
