from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import guest
from fixtures.cases import Case
from fixtures.devices import detect
from fixtures.host import Host, HostDied, TargetError
from fixtures.versus import interpreter
from fixtures.versus.foreign_host import ForeignServer
from fixtures.versus.interpreter import Interpreter
from fixtures.versus.survey import Question
from suites.meta import deeds
from suites.meta.runs import ROOT, until
from suites.meta.test_host import runs
from suites.meta.wrappers import bare, other_side, script
from targets.api import UserError

PARENT = """
import sys, threading, time
from pathlib import Path
from fixtures.versus.foreign_host import ForeignServer
from fixtures.versus.interpreter import Interpreter
from suites.meta import deeds

server = ForeignServer(Interpreter(Path(sys.executable)), [], {}, Path(sys.argv[1]))
hosts = [server.start(60) for _ in range(2)]
helpers = [host.call(deeds.breed) for host in hosts]
threading.Thread(target=hosts[0].call, args=(deeds.hold,), daemon=True).start()
while "holding" not in hosts[0].log.read_text():
    time.sleep(0.01)
print(*helpers, *(host.pid for host in hosts), server._process.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForeignServer]:
    """A server in another interpreter: this one, found as another is."""
    there = Interpreter(other_side(tmp_path_factory.mktemp("bin")))
    with ForeignServer(there, ["json", "no_such_engine"], {"FROM_US": "yes"}, tmp_path_factory.mktemp("logs")) as made:
        yield made


@pytest.fixture
def host(server: ForeignServer) -> Iterator[Host]:
    """A host there with nothing loaded; a call is a hang after half a second."""
    with server.start(0.5) as made:
        yield made


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
def test_a_death_there_is_diagnosed(host: Host, deed: deeds.Deed, cause: str, words: str) -> None:
    """The end of a host in another environment is told with its cause, its memory and its last words, as of ours."""
    with pytest.raises(HostDied) as caught:
        host.call(deed)
    headline, *log = str(caught.value).splitlines()
    assert cause in headline
    assert 5 < float(headline.rpartition("memory last seen ")[2].removesuffix(" MB")) < 2000
    assert f"  {words}" in log
    assert "foreign_server" not in str(caught.value)
    assert not host.alive


def test_a_host_there_serves_like_ours(host: Host) -> None:
    """It answers calls, brings its spans along, leads a group of its own, and outlives what a target raises."""
    assert host.call(guest.settled_mb) > 0
    assert os.getsid(host.pid) == os.getpgid(host.pid) == host.pid != os.getsid(0)
    with pytest.raises(TargetError, match="ValueError: these weights have 3 heads"):
        host.call(deeds.refuse)
    assert "json" in host.call(deeds.modules)
    assert "pytest" not in host.call(deeds.modules)


def test_two_environments_at_once(server: ForeignServer, host: Host, tmp_path: Path) -> None:
    """Hosts of two interpreters live side by side, each with its own environment and with what the run gives all."""
    there = Interpreter(other_side(tmp_path, LAG="3"))
    with ForeignServer(there, [], {"FROM_US": "no"}, tmp_path) as second, second.start(30) as other:
        found = [[each.call(deeds.told, name) for name in ("LAG", "FROM_US")] for each in (host, other)]
        assert found == [["", "yes"], ["3", "no"]]
        assert host.pid != other.pid


@pytest.mark.parametrize("end", ["close", deeds.segfault, deeds.hold], ids=deeds.named)
def test_helpers_there_die_with_their_host(host: Host, end: deeds.Deed | str) -> None:
    """Processes that a target started there end with its host, however it ends; its log goes as well."""
    helper = host.call(deeds.breed)
    if not isinstance(end, str):
        with pytest.raises(HostDied):
            host.call(end)
    host.close()
    assert until(lambda: not runs(helper) and not runs(host.pid))
    assert not host.log.exists()


def test_what_cannot_cross_is_one_sentence(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that the other side cannot read, and a reply that this side cannot, are told, and the host serves on."""
    module = types.ModuleType("only_here")
    exec("def deed(guest):\n    pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(UserError, match="this interpreter cannot read the call: No module named 'only_here'"):
        host.call(module.__dict__["deed"])
    with pytest.raises(UserError, match=r"a reply of the host cannot be read .* \(No module named 'only_there'\)"):
        host.call(deeds.stranger)
    assert host.call(deeds.modules)


def test_an_interrupted_call_there_is_not_waited_for(server: ForeignServer) -> None:
    """Closing a host there in the middle of a call, as Ctrl-C does, takes no longer than a moment."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with server.start(30) as host:
            threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
            with pytest.raises(KeyboardInterrupt):
                host.call(deeds.wait)
            began = time.perf_counter()
        assert time.perf_counter() - began < 2
    finally:
        signal.signal(signal.SIGINT, before)


def test_nothing_there_outlives_a_killed_parent(tmp_path: Path) -> None:
    """When pytest is killed, the server there ends with every host, one stuck in native code too, and their helpers."""
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 5
        assert all(runs(pid) for pid in pids)
        parent.kill()
    try:
        assert until(lambda: not any(runs(pid) for pid in pids)), f"left: {[pid for pid in pids if runs(pid)]}"
    finally:
        for pid in filter(runs, pids):
            os.kill(pid, signal.SIGKILL)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """Where no host can be started, the last words of the other interpreter are the diagnosis."""
    broken = script(tmp_path / "python", "echo 'no such board' >&2; exit 1")
    wanted = "started no host; its last words: no such board"
    with ForeignServer(Interpreter(broken), [], {}, tmp_path) as server, pytest.raises(HostDied, match=wanted):
        server.start(5)


@pytest.mark.parametrize(
    ("name", "body", "sentence"),
    [
        ("missing", None, "no such interpreter"),
        ("folder", None, "is a folder; give the interpreter in it"),
        ("venv", None, r"is a folder; did you mean .*/venv/bin/python\?"),
        ("plain", None, "cannot be executed"),
        ("no-python", "echo hello", r"is no Python interpreter \(exit code 0\)"),
        ("failing", "exit 7", r"is no Python interpreter \(exit code 7\)"),
        ("old", "echo glance 3 8", "is Python 3.8; the suite needs 3.10 or newer"),
        ("ancient", "echo glance 2 7", "is Python 2.7; the suite needs 3.10 or newer"),
        ("foreign-code", None, "cannot be run"),
    ],
)
def test_what_is_no_interpreter_is_refused(tmp_path: Path, name: str, body: str | None, sentence: str) -> None:
    """What --versus names must be there, executable, a Python, and new enough: else one sentence."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").touch()
    (tmp_path / "plain").touch()
    (tmp_path / "foreign-code").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "foreign-code").chmod(0o755)
    if body is not None:
        script(tmp_path / name, body)
    with pytest.raises(UserError, match=f"^--versus .*{sentence}"):
        interpreter.glance(interpreter.locate(name, tmp_path))


def test_an_interpreter_without_packages_is_refused(tmp_path: Path) -> None:
    """An environment that lacks what every host needs is refused with the command for its own pip."""
    python = bare(tmp_path)
    wanted = rf"lacks numpy, psutil, scipy, .*: {python} -m pip install numpy psutil scipy$"
    with pytest.raises(UserError, match=wanted):
        interpreter.glance(python)


def test_an_interpreter_is_asked_what_it_has(tmp_path: Path) -> None:
    """The survey tells versions, and by case what cannot run there; a name on PATH and a link are kept as they are."""
    cases = (Case("sentiment", "embedded", "absent", "plain"), Case("sentiment", "embedded", "fake", "plain"))
    question = Question(cases, detect(), ("suites.meta.fake",), ("numpy", "nothing-of-this-name"))
    found = interpreter.meet(other_side(tmp_path), question)
    assert set(found.versions) == {"python", "numpy"}
    assert list(found.unavailable) == [cases[0].id]
    assert "a_module_that_nobody_has" in found.unavailable[cases[0].id]
    assert interpreter.locate("sh", tmp_path).name == "sh"
    link = tmp_path / "link"
    link.symlink_to(sys.executable)
    assert interpreter.locate("link", tmp_path) == link
