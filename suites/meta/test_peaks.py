"""Peaks of a device: how they are measured, chosen and kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures import devices
from fixtures.roofline import peaks
from fixtures.roofline import store as peak_store
from fixtures.roofline.peaks import MIB, Peaks
from fixtures.roofline.store import PeakStore, beside_published
from suites.meta.small_llama import small_device
from targets.api import UserError
from targets.profiles import profiles

FAST, SLOW = 200e9, 10e9
LADDER = {MIB: 150e9, 8 * MIB: FAST, 64 * MIB: SLOW}
FOUND = Peaks("cpu", "a test", LADDER, {"float32": 1e11, "bfloat16": 4e11, "int8": 3e11})


class Server:
    """A fork server whose hosts measure what they are told to, and count how often they do."""

    def __init__(self, *found: Peaks) -> None:
        self.found = list(found)
        self.calls = 0

    def start(self, timeout_s: float) -> Any:
        """A host."""
        return self

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None: ...

    def call(self, function: Any, *arguments: Any) -> Peaks:
        """What the next measurement finds."""
        assert function is peaks.measure
        self.calls += 1
        return self.found[min(self.calls, len(self.found)) - 1]


def store(cache: Path, server: Server, **device: Any) -> PeakStore:
    """The store of a run on a small CPU."""
    session: Any = SimpleNamespace(
        device=replace(small_device(), **device),
        options=SimpleNamespace(cache=cache, timeout_s=5.0),
        server=server,
    )
    return PeakStore(session)


@pytest.mark.parametrize("library", ["torch", "numpy"])
def test_peaks_are_measured_in_moments(library: str) -> None:
    """Both libraries find a bandwidth for each working set that fits, and a peak of float32."""
    if library == "torch":
        pytest.importorskip("torch")
        found = peaks.with_torch("cpu", ("float32",), 1, 40 * MIB, 0.01)
    else:
        found = peaks.with_numpy(1, 40 * MIB, 0.01)
        assert "NumPy multiplies float32 only" in found.missing["int8"]
    assert list(found.bandwidth) == [rung for rung in peaks.RUNGS if rung <= 40 * MIB]
    assert min(found.bandwidth.values()) > 1e7
    assert found.matmul["float32"] > 1e8
    assert found.by.startswith(library)
    assert Peaks.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_a_format_without_a_kernel_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A native format that torch cannot multiply has no peak, with torch's word for it."""
    torch = pytest.importorskip("torch")

    def refuse(*_: object) -> None:
        raise RuntimeError("_int_mm is not implemented\nfor this CPU")

    monkeypatch.setattr(torch, "_int_mm", refuse)
    found = peaks.with_torch("cpu", ("float32", "int8"), 1, MIB, 0.01)
    assert found.missing == {"int8": "torch cannot multiply int8 on cpu: _int_mm is not implemented"}
    assert found.compute(4) == (found.matmul["float32"], "float32")
    assert found.compute(1) is None, "an unknown format may be the fastest, so nothing narrower has a compute roof"


@pytest.mark.parametrize(
    ("size", "rate", "rung"),
    [
        (1, FAST, 8 * MIB),
        (MIB, FAST, 8 * MIB),
        (8 * MIB, FAST, 8 * MIB),
        (63 * MIB, FAST, 8 * MIB),
        (64 * MIB, SLOW, 64 * MIB),
        (9e12, SLOW, 64 * MIB),
    ],
)
def test_bandwidth_is_that_of_the_working_set(size: float, rate: float, rung: int) -> None:
    """A model in cache is bound by the cache's bandwidth, never by less than a larger working set has."""
    assert FOUND.read(size) == (rate, rung)


@pytest.mark.parametrize(("item", "best"), [(4, "float32"), (2, "bfloat16"), (1, "bfloat16"), (0, "bfloat16")])
def test_the_fastest_format_that_may_be_used_bounds(item: int, best: str) -> None:
    """Weights are bound by the fastest format they may be multiplied in: float32 ones by float32 alone."""
    assert FOUND.compute(item) == (FOUND.matmul[best], best)


def test_peaks_are_measured_once_for_a_fingerprint(tmp_path: Path) -> None:
    """A second run reads the first one's peaks; another power mode, device or count of threads is measured itself."""
    server = Server(FOUND)
    assert store(tmp_path, server).of("cpu") == FOUND
    second = store(tmp_path, server)
    assert (second.of("cpu"), second.spent_s, server.calls) == (FOUND, 0.0, 1)
    others: dict[str, Any] = {"power_mode": "15W", "model": "another", "threads": 2, "facts": {"driver": "1"}}
    for calls, (name, value) in enumerate(others.items(), 2):
        _ = store(tmp_path, server, **{name: value}).of("cpu")
        assert server.calls == calls, name


def test_another_library_is_measured_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks by another version of torch are not taken over."""
    server = Server(FOUND)
    _ = store(tmp_path, server).of("cpu")
    monkeypatch.setattr(peak_store, "library", lambda: "torch 99")
    _ = store(tmp_path, server).of("cpu")
    assert server.calls == 2


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"fingerprint": {}, "peaks": {}}', None],
    ids=["empty", "cut", "list", "foreign", "zeros"],
)
def test_a_damaged_file_is_measured_again(text: str | None, tmp_path: Path) -> None:
    """A cache file that is empty, cut, another's, or holds rates of 0 is replaced by a new measurement."""
    server = Server(FOUND)
    _ = store(tmp_path, server).of("cpu")
    (path,) = (tmp_path / "peaks").iterdir()
    kept = json.loads(path.read_text())
    kept["peaks"]["bandwidth"] = dict.fromkeys(kept["peaks"]["bandwidth"], 0)
    path.write_text(json.dumps(kept) if text is None else text)
    assert store(tmp_path, server).of("cpu") == FOUND
    assert server.calls == 2


def test_measuring_again_only_raises(tmp_path: Path) -> None:
    """What is measured again, once a run, raises the peaks that were too low and lowers none, in the file too."""
    busy = Peaks("cpu", "a test", {**LADDER, MIB: 1e9, 64 * MIB: 2 * SLOW}, {"float32": 5e10}, {"int8": "no kernel"})
    server = Server(busy, FOUND)
    run = store(tmp_path, server)
    _ = run.of("cpu")
    raised = run.again("cpu")
    assert raised.bandwidth == {**LADDER, 64 * MIB: 2 * SLOW}
    assert (raised.matmul, raised.missing) == (FOUND.matmul, {})
    assert (run.again("cpu"), server.calls) == (raised, 2)
    assert store(tmp_path, server).of("cpu") == raised


@pytest.mark.parametrize("data", [None, [], {"place": "cpu"}, {**FOUND.as_json(), "matmul": {"float32": "fast"}}])
def test_what_holds_no_peaks_is_refused(data: Any) -> None:
    """Peaks are read from what they were written as, or not at all."""
    with pytest.raises(UserError, match="no peaks of a device are in this file"):
        Peaks.from_json(data)


def test_a_board_stands_beside_its_published_bandwidth() -> None:
    """On a board the measured bandwidth is told beside that of its power mode; elsewhere alone."""
    gpu = replace(FOUND, place="cuda", bandwidth={MIB: 61e9})
    board = replace(small_device(), name="jetson-orin-nano")
    assert beside_published(gpu, replace(board, power_mode="15W")) == "measured 61 of 68.3 GB/s published (15W)"
    assert beside_published(gpu, board) == "measured 61 of 102.4 GB/s published (MAXN_SUPER)"
    assert beside_published(gpu, small_device()) == "measured 61 GB/s"


def test_every_orin_and_thor_has_published_peaks() -> None:
    """The profiles of the boards carry bandwidth and FP16 rate, the highest mode last."""
    named = {name: found.plan for name, found in profiles().items() if "orin" in name or "thor" in name}
    assert len(named) == 4
    for plan in named.values():
        rates = [each.fp16_tflop_s for each in plan.published.values()]
        assert rates == sorted(rates)
        assert rates


def test_a_plan_tells_the_published_peaks() -> None:
    """The head of a planned run names what the board can do at most, which no measurement here could tell."""
    plan = devices.describe(replace(small_device(), name="jetson-orin-nano", detected=False))
    said = "15W 68.3 GB/s and 10.2 TFLOP/s (FP16, derived); MAXN_SUPER 102.4 GB/s and 16.7 TFLOP/s (FP16, derived)"
    assert plan[-1] == f"published: {said}"
    assert not any(line.startswith("published") for line in devices.describe(small_device()))
