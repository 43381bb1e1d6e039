from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from fixtures.baseline import key as baseline_key
from fixtures.baseline import launches
from fixtures.baseline.conditions import compared, conditions
from fixtures.baseline.key import accepted, clocks_policy, differences
from fixtures.baseline.launches import Others
from fixtures.baseline.store import Baseline, Entry, file_of, merged, not_measured
from fixtures.baseline.visits import VISITS, visits
from fixtures.telemetry import own_cpu
from suites.meta.runs import Run, arguments, run
from suites.meta.sample_launches import series
from targets.api import UserError

TWIN = "sentiment/tiny/fake/twin"


def baseline(**key: str) -> Baseline:
    """A recorded device with one case."""
    entry = Entry({"torch": "2.13.0"}, {"requests": "a"}, series(1, count=2), {"accuracy": 0.9}, {}, "2026-11-21")
    return Baseline("cpu", {"model": "one", **key}, {TWIN: entry})


def test_a_baseline_reads_back(tmp_path: Path) -> None:
    """What is read is what was recorded, to a tenth of a microsecond, a line a case."""
    recorded = baseline()
    path = recorded.write(tmp_path)
    found = Baseline.read(tmp_path, "cpu")
    assert found.key == recorded.key
    assert found.cases[TWIN].as_json() == recorded.cases[TWIN].as_json()
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda text: text[: len(text) // 2], "truncated or not JSON"),
        (lambda text: text.replace('"schema": 5', '"schema": 7'), "should hold a baseline of schema 5, has 7"),
        (lambda _: "[]", "should hold a baseline of schema 5, has none"),
        (lambda text: text.replace('"profile": "cpu"', '"profile": "jetson-thor"'), "of jetson-thor, not of cpu"),
        (lambda text: text.replace('"waited"', '"waned"'), "launch 1: "),
    ],
)
def test_a_bad_file_is_told(tmp_path: Path, spoil: object, told: str) -> None:
    """A file that is cut, of another schema or of another device is refused in one sentence with its name."""
    path = baseline().write(tmp_path)
    path.write_text(spoil(path.read_text()))  # type: ignore[operator]
    with pytest.raises(UserError, match=r"cpu\.json") as caught:
        Baseline.read(tmp_path, "cpu")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_foreign_device_is_told(tmp_path: Path) -> None:
    """A folder without this device says which devices it holds, and how to get one of this."""
    baseline().write(tmp_path)
    with pytest.raises(UserError, match="holds baselines of cpu only; this device is jetson-thor: record one"):
        Baseline.read(tmp_path, "jetson-thor")
    with pytest.raises(UserError, match="holds no baseline"):
        Baseline.read(tmp_path / "empty", "cpu")


def test_recording_keeps_what_was_recorded_alike() -> None:
    """Cases recorded before stay under the same key, and go when the device is another one now."""
    new = Baseline("cpu", {"model": "one"}, {"a": Entry()})
    assert set(merged(baseline(), new).cases) == {"a", TWIN}
    assert set(merged(baseline(power_mode="15W"), new).cases) == {"a"}
    assert set(merged(None, new).cases) == {"a"}
    assert not_measured(baseline(), ["a"]) == [TWIN]


def test_recording_a_part_keeps_the_rest() -> None:
    """Scores recorded anew leave the times of the same model alone; those of another model are left behind."""
    old = Baseline("cpu", {}, {"a": Entry(launches=series(1, count=2), numbers={"f1": 0.5, "size": 2.0})})
    same = merged(old, Baseline("cpu", {}, {"a": Entry(numbers={"f1": 0.6})})).cases["a"]
    assert len(same.launches) == 2
    assert same.numbers == {"f1": 0.6, "size": 2.0}
    other = merged(old, Baseline("cpu", {}, {"a": Entry(facts={"model_sha256": "b"}, numbers={"f1": 0.6})})).cases["a"]
    assert (other.launches, other.numbers) == ([], {"f1": 0.6})


def test_a_recording_that_was_cut_off_replaces_no_whole_one() -> None:
    """Times of all visits outlive those of a few; where there were none, a few are better than nothing."""
    for before, kept in ((4, 4), (0, 1)):
        old = Baseline("cpu", {}, {"a": Entry(launches=series(1, count=before))})
        new = Baseline("cpu", {}, {"a": Entry(launches=series(2, count=1))})
        assert len(merged(old, new, ["a"]).cases["a"].launches) == kept
    assert len(merged(old, Baseline("cpu", {}, {"a": Entry(launches=series(2, count=1))})).cases["a"].launches) == 1


def test_every_difference_is_listed() -> None:
    """All keys that differ are named with both values, an absent one too; those accepted are not."""
    old, new = {"model": "one", "power_mode": "15W"}, {"model": "two", "l4t": "36.4"}
    keys = ("model", "power_mode", "l4t")
    assert differences(old, new, keys) == ["model one -> two", "power_mode 15W -> absent", "l4t absent -> 36.4"]
    assert differences(old, new, keys, accepted(["model", "system"])) == ["power_mode 15W -> absent"]


def test_keys_that_can_be_accepted() -> None:
    """A group stands for its keys; an unknown key is refused with the nearest and all known ones."""
    assert {"torch", "onnxruntime"} <= accepted(["engines"])
    assert accepted(["onnxruntime"]) == {"onnxruntime"}
    with pytest.raises(UserError, match=r"Did you mean 'onnxruntime'.*model_sha256"):
        accepted(["onnxrutime"])


def test_clocks_policy(tmp_path: Path) -> None:
    """Clocks are locked where their range is one value, as jetson_clocks makes it; else their governor says."""
    assert clocks_policy(tmp_path) is None
    for name, low in (("policy0", "729600"), ("policy4", "1510400")):
        folder = tmp_path / "sys/devices/system/cpu/cpufreq" / name
        folder.mkdir(parents=True)
        for file, text in (("min", low), ("max", "1510400")):
            (folder / f"scaling_{file}_freq").write_text(f"{text}\n")
        (folder / "scaling_governor").write_text("schedutil\n")
    gpu = tmp_path / "sys/class/devfreq/17000000.gpu"
    gpu.mkdir(parents=True)
    for file, text in (("governor", "nvhost_podgov"), ("min_freq", "306000000"), ("max_freq", "1020000000")):
        (gpu / file).write_text(text)
    assert clocks_policy(tmp_path) == (
        "policy0 schedutil to 1510400, policy4 locked to 1510400, 17000000.gpu nvhost_podgov to 1020000000"
    )


def test_conditions(tmp_path: Path) -> None:
    """Clocks and temperatures are read where they can be, and a zone that is off is left out."""
    for number, (zone, heat) in enumerate((("gpu-thermal", "51500"), ("cv0-thermal", ""))):
        folder = tmp_path / f"sys/class/thermal/thermal_zone{number}"
        folder.mkdir(parents=True)
        (folder / "type").write_text(zone)
        (folder / "temp").write_text(heat)
    found = conditions(tmp_path)
    assert found == {"temperature_c.gpu-thermal": 51.5}
    assert compared({"gpu_mhz": 1020.0}, found) == (
        "clocks and temperatures: gpu_mhz 1020 then, absent now; temperature_c.gpu-thermal absent then, 52 now"
    )
    assert "not readable" in compared({}, {})


def test_requests_are_part_of_the_key() -> None:
    """Other requests are another measurement."""
    one = baseline_key.requests_digest([{"text": "a"}])
    assert one != baseline_key.requests_digest([{"text": "b"}])
    assert one == baseline_key.requests_digest([{"text": "a"}])


def gate(folder: Path, *more: str, seed: int = 1, slow: float = 1.0, waited: float = 0.0, also: str = "") -> Run:
    """A run of the gate's tests on made-up launches."""
    words = [word for word in arguments(folder, "plain", "twin") if not word.startswith("--targets")]
    environment = {"GATE_SEED": str(seed), "GATE_SLOW": str(slow), "GATE_WAITED": str(waited)}
    place = "suites/performance/test_baseline.py"
    words += ["--targets=suites.meta.gate_kit", "-pno:allure_pytest", *more, place, *([also] if also else [])]
    return run(folder / f"build{seed}", *words, environment=environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose baseline has been recorded."""
    found = tmp_path_factory.mktemp("gate")
    done = gate(found, f"--record-baseline={found / 'b'}", also="suites/accuracy/test_baseline.py")
    assert done.code == 0, done.output[-3000:]
    assert "baseline: 2 cases recorded in" in done.output
    assert f"4 passed, {2 * (VISITS - 1)} visited again" in done.output
    return found


def test_what_is_recorded(folder: Path) -> None:
    """A recorded case has its versions, its key, launches of all visits and the numbers that are the same in all."""
    found = Baseline.read(folder / "b", "cpu").cases[TWIN]
    assert {"python", "numpy"} <= set(found.versions)
    assert set(found.facts) == {"model_sha256", "requests"}
    assert [len(each) for each in visits(found.launches)] == [8] * VISITS
    assert {"model_size_mb", "accuracy", "f1"} <= set(found.numbers)


def test_the_same_is_green(folder: Path) -> None:
    """Another session of the same machine and versions is green, and says what it was compared with."""
    found = gate(folder, f"--baseline={folder / 'b'}", seed=2, also="suites/accuracy/test_baseline.py")
    assert found.code == 0, found.output[-3000:]
    assert "baseline: 2 cases compared with" in found.output
    verdicts = [each for case in found.results["cases"] for each in case["verdicts"]]
    assert {(each["statistic"], each["verdict"]) for each in verdicts if each["metric"] == "latency_ms"} == {
        ("vs_baseline", "PASS")
    }


def test_a_slower_case_is_red_and_explained(folder: Path) -> None:
    """A tenth slower is red for exactly its case: old, new, ratio, conditions, versions, and the command to see it."""
    found = gate(folder, f"--baseline={folder / 'b'}", seed=3, slow=1.1, also="suites/accuracy/test_baseline.py")
    assert found.code == 1
    assert "1 failed, 3 passed, 1 visited again" in found.output
    assert {name: case["status"] for name, case in found.cases.items()} == {"plain": "passed", "twin": "failed"}
    (check,) = (text for text in found.cases["twin"]["checks"].values() if text.startswith("failed"))
    for part in (
        "FAIL latency_ms:",
        " then, ",
        "ratio net of the weather 1.",
        "clocks and temperatures",
        "from visit to visit, with nothing new: latency_ms ",
        "versions that changed: none",
        "this case again: python -m pytest ",
        f"-k '{TWIN}]'",
    ):
        assert part in check, check


def test_a_worse_score_is_red(folder: Path, tmp_path: Path) -> None:
    """A score below that of the baseline is red for its case, with both values."""
    changed = json.loads(file_of(folder / "b", "cpu").read_text())
    changed["cases"][TWIN]["numbers"]["accuracy"] = 1.2
    (tmp_path / "b").mkdir()
    file_of(tmp_path / "b", "cpu").write_text(json.dumps(changed))
    found = gate(folder, f"--baseline={tmp_path / 'b'}", seed=4, also="suites/accuracy/test_baseline.py")
    assert found.cases["plain"]["status"] == "passed"
    assert found.cases["twin"]["status"] == "failed"
    assert "FAIL accuracy: 1.2 then, 1 now" in found.cases["twin"]["reason"]


def test_other_requests_are_refused_for_their_case(folder: Path, tmp_path: Path) -> None:
    """Other requests are another measurement: red for their case, with the key that differs and how to accept it."""
    changed = json.loads(file_of(folder / "b", "cpu").read_text())
    changed["cases"][TWIN]["facts"]["requests"] = "others"
    (tmp_path / "b").mkdir()
    file_of(tmp_path / "b", "cpu").write_text(json.dumps(changed))
    found = gate(folder, f"--baseline={tmp_path / 'b'}", seed=5)
    assert {name: case["status"] for name, case in found.cases.items()} == {"plain": "passed", "twin": "failed"}
    assert "requests others -> " in found.cases["twin"]["reason"]
    assert "--accept-difference requests" in found.cases["twin"]["reason"]


def test_another_device_is_refused_before_anything_runs(folder: Path, tmp_path: Path) -> None:
    """All keys of device and engines that differ are listed at once, and nothing runs; accepted, it runs."""
    changed = json.loads(file_of(folder / "b", "cpu").read_text())
    changed["key"] |= {"model": "another board", "power_mode": "15W"}
    changed["cases"][TWIN]["versions"]["onnxruntime"] = "0.1"
    (tmp_path / "b").mkdir()
    file_of(tmp_path / "b", "cpu").write_text(json.dumps(changed))
    found = gate(folder, f"--baseline={tmp_path / 'b'}", seed=6)
    assert found.code == pytest.ExitCode.USAGE_ERROR
    (error,) = found.errors
    assert all(part in error for part in ("model another board -> ", "power_mode 15W -> absent", "onnxruntime 0.1 -> "))
    accept = [f"--accept-difference={key}" for key in ("model,power_mode", "engines")]
    assert gate(folder, f"--baseline={tmp_path / 'b'}", *accept, seed=7).code == 0


def test_foreign_load_is_not_red(folder: Path) -> None:
    """Where others used the machine the verdict is INVALID; --strict-verdicts makes it red."""
    found = gate(folder, f"--baseline={folder / 'b'}", seed=8, slow=1.5, waited=0.5)
    assert found.code == 0, found.output[-3000:]
    assert "INVALID" in {each["verdict"] for each in found.cases["twin"]["verdicts"]}
    assert gate(folder, f"--baseline={folder / 'b'}", "--strict-verdicts", seed=9, waited=0.5).code == 1


def test_a_case_that_is_missing_is_told(folder: Path) -> None:
    """A case without a baseline is skipped with the way to get one; one that the run leaves out is listed."""
    found = gate(folder, f"--baseline={folder / 'b'}", "--optimization=triplet", "-k", "fake/triplet or plain", seed=10)
    assert f"in the baseline, not in this run: {TWIN}" in found.output
    assert "no baseline of this case" in next(iter(found.cases["triplet"]["checks"].values()))


def test_real_launches(tmp_path: Path) -> None:
    """Launches are processes of their own, each timed in turns with the yardstick."""
    trace = tmp_path / "trace"
    words = [word for word in arguments(tmp_path, "plain") if not word.startswith("--targets")]
    words += ["--targets=suites.meta.gate_kit", "-pno:allure_pytest", f"--record-baseline={tmp_path / 'b'}"]
    found = run(
        tmp_path / "build", *words, "suites/performance/test_baseline.py", environment={"FAKE_TRACE": str(trace)}
    )
    assert found.code == 0, found.output[-3000:]
    entry = Baseline.read(tmp_path / "b", "cpu").cases["sentiment/tiny/fake/plain"]
    loads = [line.split()[2] for line in trace.read_text().splitlines() if line.startswith("load")]
    assert len(set(loads)) == len(entry.launches) >= 4
    for each in entry.launches:
        rounds = {len(rows) for rows in each.yard.values()}
        assert rounds == {len(laps) for laps in each.samples["latency_ms"]}
        assert rounds.pop() >= 6
        assert each.facts["load_s"] >= 0
        assert 0 <= each.waited <= 1


def test_others_are_told_from_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cores that this process keeps busy are not foreign; those that the machine was busy beyond that are."""
    foreign = [0.0]
    monkeypatch.setattr(launches, "busy_s", lambda: own_seconds() + foreign[0])
    both = Others(""), Others("it cannot be told")
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
    assert both[0].cores() == 0
    foreign[0] = 0.3
    assert 0.5 < (both[0].cores() or 0) < 1
    assert both[1].cores() is None


def own_seconds() -> float:
    return sum(used.seconds for used in own_cpu.tree().values())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--baseline=nowhere"], "no such folder; record one"),
        (["--baseline=.", "--record-baseline=b"], "exclude each other"),
        (["--min-effect=5"], "0.05 is 5 %"),
        (["--calibrate=1"], "at least 2 rounds"),
        (["--write"], "without --calibrate"),
        (["--accept-difference=torch"], "without --baseline"),
        (["--record-baseline=b", "--resume"], "measured in one go"),
        (["--baseline=suites", "--accept-difference=weather"], "--accept-difference weather: no such key"),
        (["--baseline=suites"], "holds no baseline; this device is cpu"),
    ],
)
def test_bad_options(tmp_path: Path, words: list[str], told: str) -> None:
    """What cannot be asked is refused in one sentence before anything runs."""
    found = run(tmp_path / "build", *arguments(tmp_path, "plain"), "-pno:allure_pytest", *words)
    assert found.code == pytest.ExitCode.USAGE_ERROR
    assert told in found.output
    assert "Traceback" not in found.output
