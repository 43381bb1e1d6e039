from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.journal import Journal, RunLock, prepare_build_folder
from fixtures.results import CaseRecord
from suites.meta.sample_records import record, results
from targets.api import UserError

KEY = {"device": {"name": "cpu", "power_mode": None}, "options": {"models": "embedded", "samples": 3}}
ROOT = Path(__file__).resolve().parents[2]


def _written(path: Path) -> list[CaseRecord]:
    cases = results().cases
    with Journal(path, KEY) as journal:
        for case in cases:
            journal.append(case)
    return cases


def test_resume_returns_every_finished_case(tmp_path: Path) -> None:
    """What was appended is what a resumed run finds, by case id."""
    path = tmp_path / "journal.jsonl"
    cases = _written(path)
    with Journal.resume(path, KEY) as journal:
        assert journal.records == {case.id: case for case in cases}
        assert "7 finished cases are kept" in journal.note


def test_append_is_on_the_disk_at_once(tmp_path: Path) -> None:
    """A line is whole in the file when append returns, while the journal is still open."""
    path = tmp_path / "journal.jsonl"
    with Journal(path, KEY) as journal:
        journal.append(record("a", "b"))
        assert path.read_bytes().count(b"\n") == 2
        assert path.read_bytes().endswith(b"\n")


@settings(max_examples=40)
@given(st.data())
def test_any_cut_loses_at_most_the_last_line(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Wherever a crash cuts the file, resuming finds exactly the cases whose lines are whole, and can go on."""
    path = tmp_path_factory.mktemp("cut") / "journal.jsonl"
    cases = _written(path)
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)), label="bytes that reached the disk")
    path.write_bytes(content[:cut])
    whole = max(content[:cut].count(b"\n") - 1, 0)
    with Journal.resume(path, KEY) as journal:
        assert list(journal.records) == [case.id for case in cases[:whole]]
        journal.append(record("later", "fp32"))
    with Journal.resume(path, KEY) as journal:
        assert len(journal.records) == whole + 1


@pytest.mark.parametrize("rest", [b"\0" * 40, b"\0\0\0\n", b'{"id": "x"', b'{"id": \n'])
def test_rubbish_after_the_last_line_is_cut_off(tmp_path: Path, rest: bytes) -> None:
    """What a power cut leaves behind the last whole line is ignored and removed."""
    path = tmp_path / "journal.jsonl"
    cases = _written(path)
    whole = path.read_bytes()
    path.write_bytes(whole + rest)
    with Journal.resume(path, KEY) as journal:
        assert len(journal.records) == len(cases)
    assert path.read_bytes() == whole


def test_kill_9_keeps_finished_cases(tmp_path: Path) -> None:
    """After SIGKILL of the writing process every record whose append had returned is found."""
    path = tmp_path / "journal.jsonl"
    code = (
        "import pathlib, sys, time\n"
        "from fixtures.journal import Journal\n"
        "from fixtures.results import CaseRecord\n"
        "journal = Journal(pathlib.Path(sys.argv[1]), {})\n"
        "for n in range(5): journal.append(CaseRecord(str(n), 't', 'm', 'b', 'o'))\n"
        "print('ready', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.kill()
    with Journal.resume(path, {}) as journal:
        assert list(journal.records) == ["0", "1", "2", "3", "4"]


def test_resume_without_a_journal_starts_afresh(tmp_path: Path) -> None:
    """With nothing to resume every case runs, and a note says so."""
    with Journal.resume(tmp_path / "journal.jsonl", KEY) as journal:
        assert journal.records == {}
        assert "holds nothing to go on with" in journal.note
        journal.append(record("a", "b"))
    with Journal.resume(tmp_path / "journal.jsonl", KEY) as journal:
        assert len(journal.records) == 1


def test_a_new_run_forgets_the_old_journal(tmp_path: Path) -> None:
    """Without resume the journal starts empty."""
    path = tmp_path / "journal.jsonl"
    _written(path)
    Journal(path, KEY).close()
    with Journal.resume(path, KEY) as journal:
        assert journal.records == {}


def test_key_mismatch_lists_every_differing_fact(tmp_path: Path) -> None:
    """Resuming another run is refused, with each fact that differs, then and now."""
    path = tmp_path / "journal.jsonl"
    _written(path)
    other = {"device": {"name": "jetson", "power_mode": None}, "options": {"models": "embedded"}, "limits": "ab12"}
    with pytest.raises(UserError) as caught:
        Journal.resume(path, other)
    sentence = str(caught.value)
    assert 'device.name was "cpu", is now "jetson"' in sentence
    assert "options.samples was 3, is now absent" in sentence
    assert 'limits was absent, is now "ab12"' in sentence
    assert "power_mode" not in sentence
    assert "run without --resume" in sentence


def test_key_of_tuples_and_sets_matches_itself(tmp_path: Path) -> None:
    """A key is compared as JSON, so that tuples, sets and paths do not differ from what was read back."""
    key = {"tasks": ("a", "b"), "native": frozenset({"int8"}), "file": Path("x")}
    Journal(tmp_path / "journal.jsonl", key).close()
    Journal.resume(tmp_path / "journal.jsonl", key).close()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"schema": 9, "key": {}}\n', r"journal.jsonl:1: not a journal of schema 1"),
        (b'[]\n{"id": 1}\n', r"journal.jsonl:1: not a journal"),
        (b'{"schema": 1, "key": {}}\n{broken\n{"id": "a"}\n', r"journal.jsonl:2: a damaged line"),
        (b'{"schema": 1, "key": {}}\n{"id": "a"}\n', r"journal.jsonl:2: 'task' is missing"),
    ],
)
def test_damaged_journals_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    """A journal damaged before its last line is refused with file and line, not half read."""
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        Journal.resume(path, {})


def test_second_lock_names_the_holder(tmp_path: Path) -> None:
    """Two runs in one folder: the second is refused, with the process that holds it and the way out."""
    code = (
        "import pathlib, sys, time\n"
        "from fixtures.journal import RunLock\n"
        "lock = RunLock(pathlib.Path(sys.argv[1]))\n"
        "print('locked', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"locked\n"
        with pytest.raises(UserError, match=rf"\(process {child.pid}\) is using .*--build DIR"):
            RunLock(tmp_path)
        child.kill()
    with RunLock(tmp_path):
        pass


def test_lock_is_free_after_release(tmp_path: Path) -> None:
    """A released lock can be taken again; a held one cannot, in the same process too."""
    with RunLock(tmp_path), pytest.raises(UserError):
        RunLock(tmp_path)
    RunLock(tmp_path).release()


def test_build_folder_is_made(tmp_path: Path) -> None:
    """A missing folder is created with its parents, and nothing is left in it by the probe."""
    folder = prepare_build_folder(tmp_path / "a" / "b", min_free_mb=0)
    assert folder.is_dir()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/self/nowhere"])
def test_unwritable_build_folder_is_one_sentence(tmp_path: Path, place: str) -> None:
    """A folder that cannot be made is refused with its name and `--build DIR`."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written \(.+\); name another folder: --build DIR"):
        prepare_build_folder(tmp_path / place)


def test_read_only_build_folder_is_refused(tmp_path: Path) -> None:
    """A folder that exists and takes no files is refused."""
    tmp_path.chmod(0o500)
    try:
        (tmp_path / "probe").touch()
    except PermissionError:
        with pytest.raises(UserError, match="cannot be written"):
            prepare_build_folder(tmp_path)
    else:
        with pytest.raises(UserError, match="cannot be written"):
            prepare_build_folder(Path("/proc/self"))  # root writes anywhere but here
    finally:
        tmp_path.chmod(0o700)


def test_full_disk_is_refused(tmp_path: Path) -> None:
    """Too little free space is refused with both numbers."""
    with pytest.raises(UserError, match=r"has 150 MB free and a run needs 200"):
        prepare_build_folder(tmp_path, disk_usage=lambda _: SimpleNamespace(free=150 * 2**20))


def test_journal_is_quick(tmp_path: Path) -> None:
    """Putting down a record with 10,000 laps costs well under a second, so the journal is no part of a run's time."""
    case = record("a", "b", samples={"latency_ms": [1.234] * 10_000})
    with Journal(tmp_path / "journal.jsonl", KEY) as journal:
        start = time.perf_counter()
        journal.append(case)
        assert time.perf_counter() - start < 1.0
    assert len(json.loads((tmp_path / "journal.jsonl").read_bytes().splitlines()[1])["samples"]["latency_ms"]) == 10_000
