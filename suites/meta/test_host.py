from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fixtures import guest
from fixtures import host as hosts
from fixtures.host import ForkServer, Host, HostDied, OutOfMemory, TargetError
from suites.meta import deeds
from suites.meta.runs import ROOT, Run, arguments, run, until

TIMED = ("latency", "throughput")
LIGHT = """
import sys
from pathlib import Path
from fixtures.host import ForkServer
from suites.meta import deeds

with ForkServer([], {}, Path(sys.argv[1])).start(30) as host:
    print(*host.call(deeds.modules))
"""
PARENT = """
import sys, threading, time
from pathlib import Path
from fixtures.host import ForkServer
from suites.meta import deeds

server = ForkServer([], {}, Path(sys.argv[1]))
hosts = [server.start(60) for _ in range(3)]
helpers = [host.call(deeds.breed) for host in hosts]
threading.Thread(target=hosts[0].call, args=(deeds.hold,), daemon=True).start()
while "holding" not in hosts[0].log.read_text():
    time.sleep(0.01)
print(*helpers, *(host.pid for host in hosts), flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> ForkServer:
    """A fork server that is up."""
    made = ForkServer([], {}, tmp_path_factory.mktemp("logs"))
    with made.start(30):
        return made


@pytest.fixture
def host(server: ForkServer) -> Iterator[Host]:
    """A host with nothing loaded; a call is a hang after half a second."""
    with server.start(0.5) as made:
        yield made


def runs(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_host_starts_at_once(server: ForkServer) -> None:
    """Once the fork server is up, a host is there and answers within 0.1 s."""
    spent = []
    for _ in range(7):
        began = time.perf_counter()
        with server.start(30) as host:
            assert host.call(guest.settled_mb) > 0
            spent.append(time.perf_counter() - began)
    assert statistics.median(spent) <= 0.1, f"starts took {sorted(spent)} s, should be <= 0.1 s in the median"


def test_a_host_has_a_group_of_its_own(host: Host) -> None:
    """A terminal's Ctrl-C does not reach a host: it leads a session and a process group of its own."""
    host.call(deeds.modules)  # it is up
    assert os.getsid(host.pid) == os.getpgid(host.pid) == host.pid != os.getsid(0)


@pytest.mark.parametrize(
    ("deed", "cause", "words"),
    [
        (deeds.segfault, "signal SIGSEGV", "about to read address 0"),
        (deeds.leave, "exit code 3", "leaving with 3"),
        (deeds.killed, "signal SIGKILL (not by the kernel for want of memory", "about to be killed"),
        (deeds.wait, "hang: no answer within 0.5 s", "waiting for ever"),
        (deeds.hold, "hang: no answer within 0.5 s", "holding Python's lock"),
    ],
)
def test_a_death_is_diagnosed(host: Host, deed: deeds.Deed, cause: str, words: str) -> None:
    """The end of a host is told with its cause, the memory it held, and the last lines of its log."""
    with pytest.raises(HostDied) as caught:
        host.call(deed)
    headline, *log = str(caught.value).splitlines()
    assert cause in headline
    memory = float(headline.rpartition("memory last seen ")[2].removesuffix(" MB"))
    assert 5 < memory < 2000
    assert f"  {words}" in log
    assert not host.alive


@pytest.mark.parametrize("deed", [deeds.segfault, deeds.wait, deeds.hold])
def test_a_diagnosis_shows_where_it_happened(host: Host, deed: deeds.Deed) -> None:
    """Of a crash or a hang, the diagnosis names file and function of the target, and no frame of the host's loop."""
    with pytest.raises(HostDied, match=rf'deeds\.py", line \d+ in {deed.__name__}') as caught:
        host.call(deed)
    assert "in serve" not in str(caught.value)
    assert "multiprocessing" not in str(caught.value)


def test_the_kernels_kill_is_out_of_memory(server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SIGKILL while the kernel's count of out-of-memory kills rose is told as out of memory."""
    counts = iter((4, 5))
    monkeypatch.setattr(hosts, "kernel_kills", lambda: next(counts))
    with server.start(30) as host, pytest.raises(HostDied, match=r"^out of memory: the kernel ended the host"):
        host.call(deeds.killed)


def test_an_exception_leaves_the_host_alive(host: Host) -> None:
    """What a target raises is told with its class, message and trace, and the host serves on."""
    with pytest.raises(TargetError, match="ValueError: these weights have 3 heads") as caught:
        host.call(deeds.refuse)
    assert "in refuse" in caught.value.failure.trace
    assert host.call(deeds.modules)


def test_want_of_memory_is_told_apart(host: Host) -> None:
    """An allocation that fails is OutOfMemory, whatever class the library gave it."""
    with pytest.raises(OutOfMemory, match="Unable to allocate"):
        host.call(deeds.exhaust)


def test_a_light_host_is_light(tmp_path: Path) -> None:
    """A fork server without preloaded engines imports none of them, nor what draws charts."""
    command = [sys.executable, "-c", LIGHT, str(tmp_path)]  # a process of its own: it can have one fork server only
    found = set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())
    assert {"numpy", "fixtures"} <= found
    assert not found & {"torch", "transformers", "onnxruntime", "matplotlib", "pytest"}


@pytest.mark.parametrize("end", ["close", deeds.segfault, deeds.wait, deeds.hold], ids=deeds.named)
def test_helpers_die_with_their_host(host: Host, end: deeds.Deed | str) -> None:
    """Processes that a target started end with its host, however it ends; its log goes as well."""
    helper = host.call(deeds.breed)
    assert runs(helper)
    if not isinstance(end, str):
        with pytest.raises(HostDied):
            host.call(end)
    host.close()
    assert until(lambda: not runs(helper))
    assert not runs(host.pid)
    assert not host.log.exists()


def test_an_interrupted_call_is_not_waited_for(server: ForkServer) -> None:
    """Closing a host that is in the middle of a call, as Ctrl-C does, takes no longer than a moment."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    try:
        with server.start(30) as host:
            threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
            with pytest.raises(KeyboardInterrupt):
                host.call(deeds.wait)
            began = time.perf_counter()
        assert time.perf_counter() - began < 2
    finally:
        signal.signal(signal.SIGINT, before)


def test_nothing_outlives_a_killed_parent(tmp_path: Path) -> None:
    """When the parent is killed, every host ends, one stuck in native code too, and so do the helpers they started."""
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 6
        assert all(runs(pid) for pid in pids)
        parent.kill()
    try:
        assert until(lambda: not any(runs(pid) for pid in pids)), f"left: {[pid for pid in pids if runs(pid)]}"
    finally:
        for pid in filter(runs, pids):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def deaths(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run over targets that fail in every way."""
    folder = tmp_path_factory.mktemp("deaths")
    names = ("plain", "segfault", "exit", "hang", "oom", "load-error", "unavailable", "kill-self")
    tests = [f"suites/performance/test_performance.py::test_{name}" for name in ("load", *TIMED, "memory")]
    return run(folder / "build", *arguments(folder, *names), "--call-timeout=1", "-pno:allure_pytest", *tests)


@pytest.mark.parametrize(
    ("technique", "status", "reason"),
    [
        ("plain", "passed", ""),
        ("segfault", "crashed", "host died: signal SIGSEGV"),
        ("exit", "crashed", "host died: exit code 3"),
        ("hang", "crashed", "hang: no answer within 1 s"),
        ("oom", "crashed", "out of memory while loading: MemoryError: Unable to allocate"),
        ("load-error", "failed", "loading raised ValueError: these weights have 3 heads"),
        ("kill-self", "crashed", "host died: signal SIGKILL"),
        ("unavailable", "skipped", "the fake accelerator is not here: plug one in"),
    ],
)
def test_a_broken_target_fails_as_itself(deaths: Run, technique: str, status: str, reason: str) -> None:
    """A target that dies is that case's failure with its diagnosis; every other case has its own verdict."""
    case = deaths.cases[technique]
    assert case["status"] == status
    assert case["reason"].startswith(reason)


def test_a_run_with_deaths_is_red_and_whole(deaths: Run) -> None:
    """Deaths make the run red; it ends by itself, and no diagnosis is told twice or hidden by a later error."""
    assert deaths.code == 1
    assert len(deaths.results["cases"]) == 8
    assert "During handling" not in deaths.output
    assert not [text for case in deaths.cases.values() for text in case["checks"].values() if "benchmark" in text]


def test_a_target_that_dies_twice_is_given_up(deaths: Run) -> None:
    """A target is started anew for the next test, but after two deaths the rest is skipped, with the diagnosis."""
    for technique, diagnosis in (("kill-self", "signal SIGKILL"), ("hang", "no answer within 1 s")):
        loaded, first, second, rest = deaths.cases[technique]["checks"].values()
        assert loaded == "passed"
        assert first.startswith("failed")
        assert second.startswith("failed")
        assert rest.startswith("skipped: not run: the target died 2 times")
        assert all(diagnosis in text for text in (first, second, rest))


@pytest.mark.skipif(sys.platform != "linux", reason="no other system can begin a peak anew")
def test_a_proof_is_no_part_of_the_peak(tmp_path: Path) -> None:
    """Memory that is taken to prove what runs does not count as the target's, what it takes later does."""
    with ForkServer([], {}, tmp_path).start(30) as host:
        before, after, later = host.call(deeds.peaks)
    assert after - before < 50
    assert 80 < later - after < 150
