from __future__ import annotations

import re
import resource
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures import collection, devices
from suites.meta.runs import Run, model, run
from targets.registry import devices as kinds
from targets.registry import tasks

pytestmark = pytest.mark.alone

HERE = devices.detect()
ELSEWHERE = "jetson" if HERE.kind != "jetson" else "cuda"
BOARD = {"jetson": "jetson-orin-nano", "cuda": "cuda"}[ELSEWHERE]
SCORE = "suites/accuracy/test_accuracy.py::test_score"
MOST = 10_000


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build folder."""
    return tmp_path_factory.mktemp("build")


@pytest.fixture(scope="module")
def plan(build: Path) -> Run:
    """What another board would run."""
    return run(build, f"--device={BOARD}", "--collect-only", "-q", f"-m={ELSEWHERE}")


def test_another_machines_cases_stop_the_run(build: Path) -> None:
    """Asking for another device class ends at once, red, with a sentence: the machine found, how to see the plan."""
    found = run(build / "other", f"-m={ELSEWHERE}")
    assert found.code != 0
    (error,) = found.errors
    assert f"this machine is {HERE.kind}" in error
    assert HERE.model in error
    assert f"--device {BOARD} --collect-only" in error
    assert not (found.build / "results.json").exists()
    assert "Traceback" not in found.output


def test_the_plan_of_another_board(plan: Run) -> None:
    """With --device and --collect-only the plan is shown: its cases by id, and why some would be skipped."""
    assert plan.code == 0, plan.output
    (head,) = re.findall(rf"plan for {BOARD}: (\d+) cases, (\d+) tests", plan.output)
    cases = re.findall(r"^  (\w+/[\w.-]+/[\w-]+/[\w.-]+)", plan.output, re.MULTILINE)
    assert len(cases) == int(head[0]) >= 25
    assert {case.split("/")[0] for case in cases} == set(tasks)
    assert int(head[1]) > 10 * len(cases)


def test_the_plan_writes_nothing(plan: Run) -> None:
    """Collecting leaves the build folder as it was."""
    assert [path.name for path in plan.build.iterdir() if path.is_file()] == ["output.txt"]


def test_another_machine_cannot_be_run(build: Path) -> None:
    """--device of another machine without --collect-only is refused in one sentence."""
    found = run(build / "refused", f"--device={BOARD}")
    assert found.code != 0
    assert found.errors == [
        f"ERROR: --device {BOARD} is not this machine; add --collect-only to see its plan, or leave --device out"
    ]


@pytest.mark.parametrize(
    ("expression", "refused"),
    [
        (ELSEWHERE, True),
        (f"{ELSEWHERE} and performance", True),
        (f"performance and ({ELSEWHERE} or {ELSEWHERE})", True),
        (f"not {HERE.kind} and {ELSEWHERE}", True),
        (HERE.kind, False),
        (f"{HERE.kind} or {ELSEWHERE}", False),
        (f"not {ELSEWHERE}", False),
        (f"not ({ELSEWHERE} or apple_silicon)", False),
        ("performance", False),
        ("", False),
    ],
)
def test_which_expressions_ask_for_another_machine(expression: str, refused: bool) -> None:
    """An expression is refused exactly where it names other device classes and nothing on this one can satisfy it."""
    assert collection.asked_elsewhere(expression, HERE.kind) == ([ELSEWHERE] if refused else [])


@pytest.mark.parametrize("kind", list(kinds))
def test_the_hint_names_a_profile(kind: str) -> None:
    """The profile that the sentence offers for a device class exists and is of that class."""
    assert devices.profile(collection.profile_of(kind)).kind == kind


@dataclass(frozen=True)
class Collected:
    """Collecting one test for each of `cases` cases. `busy_s`: processor time, which other processes do not change."""

    cases: int
    busy_s: float
    heavy: list[str]


def collect(build: Path, *arguments: str, cases: int) -> Collected:
    report = build / "heavy"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = run(
        build,
        "--collect-only",
        "-qq",
        "--targets=suites.meta.many",
        *arguments,
        environment={
            "MANY_CASES": str(cases),
            "MANY_REPORT": str(report),
            "PYTHONDONTWRITEBYTECODE": "",  # as on a user's machine, where the second run finds compiled modules
        },
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert found.code == 0, found.output[-2000:]
    assert len(re.findall(r"^  \w+/[\w.-]+/many/[\w.-]+", found.output, re.MULTILINE)) == (cases if arguments else 0)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Collected(cases, busy, report.read_text().split())


@pytest.fixture(scope="module")
def growth(tmp_path_factory: pytest.TempPathFactory) -> list[Collected]:
    """Collections of a quarter, half and all of 10,000 cases."""
    folder = tmp_path_factory.mktemp("many")
    words = ("--backend=many", f"--model=sentiment={model(folder / 'tiny')}", SCORE)
    collect(folder / "first", *words, cases=10)  # compiles modules, which is no matter of how many cases there are
    return [collect(folder / str(cases), *words, cases=cases) for cases in (MOST // 4, MOST // 2, MOST)]


def test_ten_thousand_cases_are_collected_in_time(growth: list[Collected]) -> None:
    """10,000 cases are collected in at most 10 s, the start of Python and pytest included."""
    assert growth[-1].cases == MOST
    assert growth[-1].busy_s <= 10


def test_collection_is_linear(growth: list[Collected]) -> None:
    """Twice the cases take twice the time: the second half of 10,000 costs no more than 1.6 times its even share."""
    quarter, half, whole = (found.busy_s for found in growth)
    assert whole - half <= 1.6 * 2 * (half - quarter), f"{quarter:.2f}, {half:.2f}, {whole:.2f} s"


def test_collection_imports_no_engine(growth: list[Collected]) -> None:
    """Neither an engine nor a drawing library is imported to collect."""
    assert [found.heavy for found in growth] == [[], [], []]


def test_the_matrix_is_collected_in_time(build: Path) -> None:
    """The matrix of this device, every suite, is collected in at most 2 s, and no engine is imported for it."""
    for _ in range(3):  # the best of three: a first run compiles modules
        found = collect(build / "matrix", cases=0)
        assert found.heavy == []
        if found.busy_s <= 2:
            return
    pytest.fail(f"collecting took {found.busy_s:.2f} s of processor time, should be <= 2 s")
