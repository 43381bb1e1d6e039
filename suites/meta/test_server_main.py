from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the server: pip install 'edge-nlp-suite[server]'")

from suites.meta.tiny_server import ROOT, Running, running, started, status
from targets.api import UserError
from targets.remote.process import free_port
from targets.server.guards import listening


def test_it_says_where_it_listens() -> None:
    """Port 0 takes a free one, and one JSON line says which, when requests are already answered there."""
    with running() as server:
        assert status(server) == 200
        line = server.told[-1]
        assert (line["level"], line["pid"]) == ("info", server.pid)
        server.signal()
        assert server.end() == 0
        assert [each["event"] for each in server.told][-3:] == ["stopping", "closed", "stopped"]


def test_a_start_that_the_user_can_mend() -> None:
    """What the user asked for and cannot have is one sentence and exit code 2."""
    with started(start="mistake") as server:
        out, errors = server.process.communicate(timeout=300)
        assert (server.process.returncode, errors) == (2, "the model is missing\n")
        assert "trace" not in out


def test_a_start_that_fails() -> None:
    """Any other failure to start is logged with its message and its place, and ends with exit code 3."""
    with started(start="broken") as server:
        assert server.end() == 3
        told = next(line for line in server.told if line["event"] == "could not start or stop")
        assert told["message"] == "the model is missing"
        assert told["exception"][0]["type"] == "OSError"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full: Linux")
def test_a_full_disk_for_logs_fails_no_request() -> None:
    """Where no log can be written, requests are answered, and the end is orderly."""
    port = free_port()
    code = f"from targets.server.guards import listening as l; b = l.bind; l.bind = lambda h, p, **k: b(h, {port}, **k)"
    start = f"import json, sys; {code}; from suites.meta.tiny_server import main; raise SystemExit(main({{}}))"
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            [sys.executable, "-c", start], stdout=full, cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        with Running(process, port) as server:
            answered = patiently(server, 20)
            assert answered == [200] * 20
            server.signal()
            assert process.wait(20) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""


def test_a_log_that_nobody_reads_stops_nothing() -> None:
    """A pipe that is full of unread log lines stops neither requests nor the end."""
    with running() as server:
        assert patiently(server, 400, "/nowhere") == [404] * 400  # more lines than a pipe holds (64 KiB)
        server.signal()
        assert server.process.wait(20) == 0


def patiently(server: Running, times: int, path: str = "/health") -> list[int]:
    """The status of each of some requests; the server may still be starting."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    end = time.monotonic() + 120
    while True:
        try:
            connection.connect()
            break
        except ConnectionRefusedError:
            assert time.monotonic() < end, "it never listened"
            time.sleep(0.02)
    statuses = []
    for _ in range(times):
        connection.request("POST", path, body=b"x")
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
    connection.close()
    return statuses


@pytest.mark.parametrize(
    ("host", "port", "complaint"),
    [
        ("no such host", 0, "is no address of this machine"),
        ("192.0.2.1", 0, "no interface of this machine has that address; choose 127.0.0.1"),
    ],
)
def test_an_address_that_cannot_be_had(host: str, port: int, complaint: str) -> None:
    """What is wrong with an address is one sentence with what to do."""
    with pytest.raises(UserError, match=complaint):
        listening.bind(host, port)


def test_a_port_that_is_taken() -> None:
    """A port in use is said so, with the way out."""
    with listening.bind("127.0.0.1", 0) as first:
        first.listen()
        with pytest.raises(UserError, match="another program listens there; choose another port with --port, or 0"):
            listening.bind("127.0.0.1", first.getsockname()[1])


def test_open_files_suffice_for_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """The soft limit is raised to what is needed; a hard limit below it is refused with the largest number allowed."""
    raised: list[Any] = []
    monkeypatch.setattr("resource.setrlimit", lambda _, limits: raised.append(limits))
    for limits in ((64, 1024), (64, 4096), (64, -1), (4096, 4096)):
        monkeypatch.setattr("resource.getrlimit", lambda _, limits=limits: limits)
        listening.allow_descriptors(512)
    assert raised == [(1024, 1024), (2816, 4096), (2816, -1)], "with room for a flood where there is any"
    monkeypatch.setattr("resource.getrlimit", lambda _: (64, 1024))
    with pytest.raises(UserError, match="allow at most 768 with --max-connections"):
        listening.allow_descriptors(10_000)


FAKES = """
import sys, types
from types import SimpleNamespace as Names
from targets.api import UserError
from suites.meta.tiny_server import Tiny

def parse(arguments, environment):
    if arguments == ["--wrong"]:
        raise UserError("--wrong is no option. Known: --port.")
    limits = Names(max_body_bytes=1 << 20, max_connections=8)
    keys = __import__("pathlib").Path(arguments[0]) if arguments else None
    place = {"host": "127.0.0.1", "port": 0, "log_level": "info"}
    return Names(**place, limits=limits, api_key_file=keys, cors_origins=(), shutdown_s=5)

class App(Tiny):
    routes = [Names(path="/health"), Names(path="/echo")]

for name, things in {"settings": {"parse": parse}, "app": {"create_app": lambda settings: App()}}.items():
    module = sys.modules[f"targets.server.{name}"] = types.ModuleType(name)
    vars(module).update(things)

from targets.server.__main__ import main
raise SystemExit(main(sys.argv[1:]))
"""


def program(*arguments: str) -> Running:
    """`python -m targets.server` with settings and an application of its own."""
    return Running(
        subprocess.Popen(
            [sys.executable, "-c", FAKES, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )
    )


def test_the_program(tmp_path: Path) -> None:
    """The program puts settings, guards and application together: its key is asked for, its log names the route."""
    keys = tmp_path / "keys"
    keys.write_text("k" * 32)
    with program(str(keys)) as server:
        server.port = int(server.until("listening")["url"].rpartition(":")[2])
        assert status(server) == 200
        assert status(server, "/echo", b"x") == 401
        assert server.until("request")["route"] == "/echo"
        server.signal()
        assert server.end() == 0


@pytest.mark.parametrize(("argument", "sentence"), [("--wrong", "Known: --port"), ("/nowhere/keys", "cannot be read")])
def test_a_mistake_is_a_sentence(argument: str, sentence: str) -> None:
    """A wrong option or file ends the program with exit code 2 and one sentence."""
    with program(argument) as server:
        out, errors = server.process.communicate(timeout=300)
    assert (server.process.returncode, out) == (2, "")
    assert errors.startswith("error: ")
    assert sentence in errors
    assert errors.count("\n") == 1
