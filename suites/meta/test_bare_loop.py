"""The latency that the suite reports is that of the model: nothing of the harness is in a lap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import datasets, devices, guest, models
from fixtures.guest import Order
from fixtures.host import ForkServer, Host
from fixtures.statistics import Estimate, ratio_of_medians
from fixtures.stopwatch import LatencyPlan
from suites.meta.bare import handwritten_laps, harness_laps, runner_laps
from targets.registry import backends

pytestmark = pytest.mark.alone

ROUNDS = 12
REQUESTS = tuple(datasets.length_mix(datasets.embedded("sentiment"), 32))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The embedded sentiment model on PyTorch FP32."""
    pytest.importorskip("transformers", reason="pip install '.[huggingface]'")
    cache = tmp_path_factory.mktemp("bare")
    files = models.provision(models.catalogue()["sentiment"]["embedded"], cache, offline=True, trust_pickle=False)
    order = Order("sentiment", "huggingface", "fp32", files, devices.detect(), cache)
    server = ForkServer(backends["huggingface"].preload, {"HF_HUB_OFFLINE": "1"}, Path(cache) / "logs")
    server.up(timeout_s=120)
    with server.start(timeout_s=120) as started:
        started.call(guest.load, order, files.path, REQUESTS[:1])
        started.call(runner_laps, REQUESTS * 4)
        yield started


def test_latency_equals_a_bare_loop(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """Laps of the suite equal those of a bare loop around the same runner within 2 %, taken in turns."""
    plan = LatencyPlan(REQUESTS, least=len(REQUESTS), most=len(REQUESTS), budget_s=0, warm_cap_s=0, cap_s=60)
    ours, bare, written = [], [], []
    for turn in range(ROUNDS):
        for which in ("obw", "wbo")[turn % 2]:
            if which == "o":
                ours.append(host.call(harness_laps, plan))
            elif which == "b":
                bare.append(host.call(runner_laps, REQUESTS))
            else:
                written.append(host.call(handwritten_laps, REQUESTS))
    to_bare, to_written = ratio_of_medians(ours, bare), ratio_of_medians(ours, written)
    with capsys.disabled():
        print(
            f"\nlatency reported / bare loop around the same runner: {to_bare.value:.3f} "
            f"[{to_bare.low:.3f}, {to_bare.high:.3f}]; / a tutorial's code on the same model: {to_written.value:.3f} "
            f"[{to_written.low:.3f}, {to_written.high:.3f}]"
        )
    assert within(to_bare, 0.98, 1.02), f"the ratio to a bare loop is {to_bare}, should be 1 ± 2 %"
    assert within(to_written, 0.0, 1.02), f"the suite's runner is slower than a tutorial's code: {to_written}"


def within(ratio: Estimate, low: float, high: float) -> bool:
    """Whether the interval of a ratio reaches into [low, high]: a noisy machine widens it, an overhead shifts it."""
    assert ratio.low is not None
    assert ratio.high is not None
    return ratio.low <= high and ratio.high >= low
