from __future__ import annotations

import asyncio
import http.client
import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the server: pip install 'edge-nlp-suite[server]'")

from suites.meta.tiny_server import Running, running
from suites.meta.tools import says, tool
from targets.remote.process import free_port

CONFIG = Path(__file__).resolve().parents[2] / "deploy/haproxy.cfg"
REPLICAS = 2
PATIENCE_S = 120


def test_haproxy_takes_its_file() -> None:
    """HAProxy finds neither an error nor a warning."""
    assert "warning" not in says("haproxy", "-c", "-f", CONFIG).lower()


def test_times_fit_the_server() -> None:
    """HAProxy gives an idle connection up before the server closes it, and waits longer than the server's deadline."""
    from targets.server.guards.serve import KEEP_ALIVE_S
    from targets.server.settings import Limits

    text = CONFIG.read_text()
    times = {name: float(value) for name, value in re.findall(r"(pool-purge-delay|timeout server) (\d+)s", text)}
    assert times["pool-purge-delay"] < KEEP_ALIVE_S
    assert times["timeout server"] > Limits().deadline_s
    assert int(re.findall(r"default-server maxconn (\d+)", text)[0]) < Limits().max_connections


@dataclass(frozen=True)
class Answered:
    """What came back; header names in small letters."""

    status: int
    headers: dict[str, str]
    told: dict[str, Any]


@dataclass
class Farm:
    """HAProxy before its replicas."""

    port: int
    replicas: list[Running]
    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    def ask(self, path: str = "/echo", body: bytes = b"x", name: str = "") -> Answered:
        """One request on a connection of its own, with an id if it has a name."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)) as connection:
            connection.request("POST", path, body=body, headers={"X-Request-ID": name} if name else {})
            answer = connection.getresponse()
            told = json.loads(answer.read())
        return Answered(answer.status, {key.lower(): value for key, value in answer.getheaders()}, told)


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    """The project's own file, with this machine's ports, shorter times, and replicas that run."""
    program = tool("haproxy")
    port, other = free_port(), free_port()
    with ExitStack() as stack:
        replicas = [stack.enter_context(running()) for _ in range(REPLICAS)]
        for replica in replicas:
            threading.Thread(target=drain, args=(replica,), daemon=True).start()
        servers = "\n".join(f"    server r{at} 127.0.0.1:{each.port}" for at, each in enumerate(replicas))
        text = CONFIG.read_text().replace("bind :8000", f"bind 127.0.0.1:{port}")
        text = text.replace("bind :8404", f"bind 127.0.0.1:{other}").replace("http-request 5s", "http-request 500ms")
        text = re.sub(r" *server-template .*", servers, text)
        file = tmp_path / "haproxy.cfg"
        file.write_text(text)
        process = subprocess.Popen([program, "-db", "-f", str(file)], stdout=subprocess.PIPE, text=True)
        stack.callback(process.communicate)
        stack.callback(process.kill)
        made = Farm(port, replicas, process)
        threading.Thread(target=lambda: made.said.extend(process.stdout or ()), daemon=True).start()
        wait(lambda: listens(made))
        yield made


def drain(replica: Running) -> None:
    """Read a replica's log, so that it can be looked at."""
    for line in replica.process.stdout or ():
        replica.told.append(json.loads(line))


def listens(farm: Farm) -> bool:
    try:
        return farm.ask().status == 200
    except OSError:
        return False


def wait(condition: object) -> None:
    """Until it comes true."""
    assert callable(condition)
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "never came true"
        time.sleep(0.02)


def test_requests_pass(farm: Farm) -> None:
    """A request reaches a replica with its id and its client's address, and every replica gets some."""
    for number in range(20):
        answer = farm.ask(name=f"q{number}")
        assert (answer.status, answer.headers["x-request-id"]) == (200, f"q{number}")
    for replica in farm.replicas:
        wait(lambda replica=replica: [line for line in replica.told if line["event"] == "request"])


def test_its_log_holds_no_text(farm: Farm) -> None:
    """HAProxy logs one JSON line a request, without the query."""
    assert farm.ask("/echo?text=secret", b"secret", name="q1").status == 200
    wait(lambda: any('"q1"' in line for line in farm.said))
    (line,) = [json.loads(line) for line in farm.said if '"q1"' in line]
    assert (line["event"], line["status"], line["method"], line["client"]) == ("request", 200, "POST", "127.0.0.1")
    assert "secret" not in "".join(farm.said)


def test_metrics_stay_inside(farm: Farm) -> None:
    """One replica's metrics are not shown to the outside."""
    answer = farm.ask("/metrics")
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_replica_that_goes_costs_nobody_an_answer(farm: Farm, number: signal.Signals) -> None:
    """While clients ask without a pause, a replica is killed or stopped, and every request gets its own answer."""
    failures: list[str] = []
    answered = [0] * 8
    stop = threading.Event()

    def client(at: int) -> None:
        while not stop.is_set():
            body = f"{at}/{answered[at]}".encode()
            answer = farm.ask(body=body)
            if answer.status != 200 or answer.told["bytes"] != len(body):
                failures.append(f"{body.decode()}: {answer.status}")
            answered[at] += 1

    threads = [threading.Thread(target=client, args=(at,)) for at in range(len(answered))]
    for thread in threads:
        thread.start()
    wait(lambda: min(answered) > 3)
    farm.replicas[0].signal(number)
    before = list(answered)
    wait(lambda: min(now - then for now, then in zip(answered, before, strict=True)) > 20)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_without_replicas_it_says_so(farm: Farm) -> None:
    """When no replica is left, clients get a problem document that says when to come again."""
    for replica in farm.replicas:
        replica.signal(signal.SIGKILL)
    wait(lambda: farm.ask().status == 503)
    answer = farm.ask()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.told["status"] == 503


def test_slow_headers_end_at_haproxy(farm: Farm) -> None:
    """A client that trickles its headers is answered 408 by HAProxy, and no replica hears of it."""
    with socket.create_connection(("127.0.0.1", farm.port), timeout=PATIENCE_S) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")
        said = connection.recv(65536)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert not [line for replica in farm.replicas for line in replica.told if line.get("route") == "/health"]


def test_websockets_pass(farm: Farm) -> None:
    """A chat goes through, tokens one by one."""
    pytest.importorskip("websockets", reason="WebSocket: pip install websockets")
    from websockets.asyncio.client import connect

    async def talk() -> list[str]:
        async with connect(f"ws://127.0.0.1:{farm.port}/chat") as chat:
            await chat.send("2")
            return [str(await chat.recv()) for _ in range(3)]

    assert asyncio.run(asyncio.wait_for(talk(), PATIENCE_S)) == ["token", "token", "done"]
