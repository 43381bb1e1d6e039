"""Faults done to the server for real, under honest load: nothing is lost, nothing is mixed, and it goes on."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from functools import partial

import pytest

from fixtures.serving import gauges, process_tree
from fixtures.serving.client import Client
from fixtures.serving.fault_table import FaultTable
from fixtures.serving.full_disk import Disk, small_disk, writing_nowhere
from fixtures.serving.ledger import Ledger
from fixtures.serving.programs import await_that
from fixtures.serving.redis_server import RedisServer
from fixtures.serving.run import StartServer
from fixtures.serving.server import Server
from fixtures.serving.server import serving as start_server
from fixtures.serving.traffic import Traffic, honest

pytestmark = pytest.mark.usefixtures("local")

SOME = 150
"""Requests that are answered before, during and after a fault, so that each has its share of them."""
BACK_S = 20.0
"""An engine with an embedded model is back by then, on a machine that is busy with the load itself."""
QUICK_S = 1.0
"""The longest that a request may take because of a Redis: many times its time-out, a fraction of anybody's patience."""
BACKGROUND = ("sentiment", "ner")


def restarts(server: Server) -> dict[str, int]:
    """How often each engine was started again."""
    told = json.loads(server.ask("/ready")[1])["tasks"]
    return {task: found["restarts"] for task, found in told.items()}


def is_back(server: Server, count: int) -> bool:
    """Whether engines have been restarted so often in all, and all of them are ready."""
    return server.ask("/ready")[0] == 200 and sum(restarts(server).values()) >= count


def test_kill_an_engine(own_server: StartServer, faults: FaultTable) -> None:
    """Killed under load, an engine costs its own requests a wait or a 503, other tasks nothing, and it comes back."""
    law = "its requests are answered, late or by 503; the other task's all rightly; the server lives; it is back"
    with (
        faults.trying("kill -9 of an engine, thrice", law) as row,
        own_server("--tasks", ",".join(BACKGROUND), "--cache", "off") as server,
        ExitStack() as stack,
    ):
        loads = {name: stack.enter_context(honest(server, name)) for name in BACKGROUND}
        took = []
        for turn in range(1, 4):
            for each in loads.values():
                each.more(SOME)
            victim = process_tree.engines(server)[0]
            victim.kill()
            assert server.ask("/health")[0] == 200
            took.append(await_that(partial(is_back, server, turn), "the engine is back", BACK_S))
        for each in loads.values():
            each.more(SOME)
        stack.close()
        hit = [task for task, count in restarts(server).items() if count]
        for name, each in loads.items():
            each.allowed("right", *(("503",) if name in hit else ()))
        died = [line for line in events(server) if line["event"] == "engine_died"]
        assert len(died) == 3, f"the log tells of {len(died)} deaths: {died}"
        back = ", ".join(f"{seconds:.1f}" for seconds in took)
        row.seen = "; ".join(f"{name}: {each.summary()}" for name, each in loads.items()) + f"; back after {back} s"


def events(server: Server) -> list[dict[str, object]]:
    """The lines of a server's log."""
    assert server.log is not None
    return [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]


def test_freeze_an_engine(own_server: StartServer, faults: FaultTable) -> None:
    """An engine that stops answering is ended after the time it is given, and replaced; others notice nothing."""
    law = "it is ended after --hang-s and replaced; its requests are answered or get 503; the other task's all rightly"
    arguments = ("--tasks", ",".join(BACKGROUND), "--cache", "off", "--hang-s", "2")
    with (
        faults.trying("freeze an engine (SIGSTOP)", law) as row,
        own_server(*arguments) as server,
        ExitStack() as stack,
    ):
        loads = {name: stack.enter_context(honest(server, name)) for name in BACKGROUND}
        for each in loads.values():
            each.more(SOME)
        process_tree.engines(server)[0].suspend()
        took = await_that(lambda: is_back(server, 1), "the engine is replaced", BACK_S)
        for each in loads.values():
            each.more(SOME)
        stack.close()
        hit = [task for task, count in restarts(server).items() if count]
        for name, each in loads.items():
            each.allowed("right", *(("503",) if name in hit else ()))
        row.seen = "; ".join(f"{n}: {each.summary()}" for n, each in loads.items()) + f"; replaced after {took:.1f} s"


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_redis_is_gone(fault: str, own_server: StartServer, redis_server: RedisServer, faults: FaultTable) -> None:
    """Killed or frozen under load, Redis fails no request and slows none noticeably; it is used again once back."""
    name = {"kill": "kill -9 of Redis", "freeze": "freeze Redis (SIGSTOP)"}[fault]
    law = f"every request is answered rightly within {QUICK_S:g} s; the cache is used again once Redis is back"
    with (
        faults.trying(name, law) as row,
        own_server("--tasks", "sentiment", "--cache", redis_server.url) as server,
        honest(server, "sentiment") as traffic,
    ):
        await_that(redis_server.keys, "answers are kept", BACK_S)
        traffic.more(SOME)
        began = time.perf_counter()
        redis_server.kill() if fault == "kill" else redis_server.freeze()
        traffic.more(4 * SOME)
        redis_server.start() if fault == "kill" else redis_server.thaw()
        before = gauges.read(server)
        took = await_that(lambda: hits(server, before) > 0, "the cache is used again", BACK_S)
        traffic.more(SOME)
        slowest = traffic.slowest_s(began)
        row.seen = f"{traffic.summary()}; slowest {slowest * 1e3:.0f} ms; used again {took:.1f} s after it was back"
        traffic.allowed("right")
        assert slowest < QUICK_S, f"a request took {slowest:.2f} s"


def hits(server: Server, before: gauges.Gauges) -> float:
    """Answers from the cache since then."""
    return gauges.read(server).since(before, "nlp_cache_requests_total", result="hit")


def test_redis_is_full(own_server: StartServer, redis_server: RedisServer, faults: FaultTable) -> None:
    """A Redis that takes nothing more fails no request and slows none noticeably."""
    law = f"every request is answered rightly within {QUICK_S:g} s, and errors of the cache are counted"
    with (
        faults.trying("full Redis", law) as row,
        own_server("--tasks", "sentiment", "--cache", redis_server.url) as server,
    ):
        redis_server.ask("CONFIG SET maxmemory-policy noeviction")
        redis_server.ask("CONFIG SET maxmemory 1")
        began = time.perf_counter()
        with honest(server, "sentiment") as traffic:
            traffic.more(2 * SOME)
        errors = gauges.read(server).sum("nlp_cache_requests_total", result="error")
        row.seen = f"{traffic.summary()}; slowest {traffic.slowest_s(began) * 1e3:.0f} ms; {errors:.0f} errors counted"
        traffic.allowed("right")
        assert traffic.slowest_s(began) < QUICK_S
        assert errors > 0


def test_no_room_for_logs(serving: Ledger, faults: FaultTable) -> None:
    """A disk that fills up with the log costs log lines, never a request; how many is said once there is room."""
    law = (
        "every request is answered rightly; lines are lost, and how many is told when there is room again; exit code 0"
    )
    with faults.trying("full disk for logs (tmpfs)", law) as row, small_disk(serving.build / "small", 96) as disk:
        with (
            start_server(["--tasks", "sentiment", "--cache", "off"], disk.folder / "server.log") as server,
            honest(server, "sentiment") as traffic,
        ):
            filled = await_full(disk, traffic)
            traffic.more(2 * SOME)
            disk.make_room()
            await_that(lambda: lost_lines(disk), "the log tells how many lines were lost", BACK_S)
            traffic.more(SOME)
        row.seen = f"{traffic.summary()}; full after {filled} requests; {lost_lines(disk)} lines lost, and told"
        traffic.allowed("right")


def await_full(disk: Disk, traffic: Traffic) -> int:
    """Wait until nothing more fits; after how many requests that was."""
    await_that(lambda: disk.free_kib == 0, "the disk is full", 60.0)
    return len(traffic.outcomes)


def lost_lines(disk: Disk) -> int:
    """How many lines the log says were lost."""
    lines = (disk.folder / "server.log").read_text(errors="replace").splitlines()
    return sum(json.loads(line)["lines"] for line in lines if '"log lines lost"' in line and line.endswith("}"))


def test_log_that_takes_nothing(faults: FaultTable) -> None:
    """A log to which nothing can be written from the first line on (/dev/full) keeps the server from nothing."""
    law = "it starts, answers every request rightly, and stops with exit code 0"
    with faults.trying("log on /dev/full", law) as row:
        with writing_nowhere(["--tasks", "sentiment", "--cache", "off"]) as server:
            with honest(server, "sentiment") as traffic:
                traffic.more(2 * SOME)
            traffic.allowed("right")
            code = ended(server)
        row.seen = f"{traffic.summary()}; exit code {code}"
        assert code == 0


def ended(server: Server) -> int:
    """The exit code of a server that is told to stop."""
    process = process_tree.server_process(server)
    process.terminate()
    return int(process.wait(30))


def test_sigterm_under_load(own_server: StartServer, faults: FaultTable) -> None:
    """Told to stop, the server answers what it has accepted, streams included, and ends with exit code 0."""
    law = "every accepted request gets its whole answer, streams too; later ones are refused; exit code 0"
    with (
        faults.trying("SIGTERM under load", law) as row,
        own_server("--tasks", "sentiment,generation", "--cache", "off") as server,
    ):
        traffic = honest(server, "sentiment", 16, leave_when_refused=True)
        with traffic, Client(server.url) as streaming:
            traffic.more(2 * SOME)
            body = {"prompt": "Once there was", "max_tokens": 400, "temperature": 1.5, "seed": 3, "stream": True}
            lines = (line for _, line in streaming.stream("/generate", body) if line)
            first = next(lines)
            began, tree = time.perf_counter(), process_tree.whole(server)
            tree[0].terminate()
            rest = [json.loads(line.removeprefix(b"data: ")) for line in lines]
            code = tree[0].wait(40)
            took = time.perf_counter() - began
            traffic.join()
        row.seen = f"{traffic.summary()}; a stream of {len(rest)} more frames was finished; exit {code} in {took:.1f} s"
        assert first.startswith(b"data: ")
        assert rest[-1]["type"] == "done", f"the stream ended with {rest[-1]}"
        traffic.allowed("right", "refused")
        assert code == 0, f"exit code {code}"
        stopped = [line for line in events(server) if line["event"] == "stopped"]
        assert [line["cut_off"] for line in stopped] == [0], f"the log says {stopped}"
        await_that(lambda: not any(each.is_running() for each in tree), "no process is left behind", 5.0)


def test_more_than_the_queue_holds(own_server: StartServer, faults: FaultTable) -> None:
    """Beyond its queue the server says 429 and when to try again; what it takes it answers rightly."""
    law = "what is taken is answered rightly; the rest gets 429 with Retry-After; nothing else happens"
    with (
        faults.trying("64 clients, a queue of 4", law) as row,
        own_server("--tasks", "translation", "--cache", "off", "--max-queue", "4", "--max-batch-size", "2") as server,
        honest(server, "translate", 64) as traffic,
    ):
        traffic.more(20, "429")
        traffic.more(SOME)
        row.seen = traffic.summary()
        traffic.allowed("right", "429")
