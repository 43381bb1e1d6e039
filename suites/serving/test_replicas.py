"""Two replicas behind a real HAProxy with a Redis that they share, as deployed: one may die, and nobody notices."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from fixtures.serving import gauges, process_tree
from fixtures.serving.chat_client import chat
from fixtures.serving.client import Client
from fixtures.serving.crowd import Job, answered, ask_all
from fixtures.serving.distinct import distinct
from fixtures.serving.endpoints import ENDPOINTS
from fixtures.serving.fault_table import FaultTable
from fixtures.serving.haproxy import Proxy, haproxy
from fixtures.serving.ledger import Ledger
from fixtures.serving.programs import await_that
from fixtures.serving.redis_server import RedisServer
from fixtures.serving.run import StartServer
from fixtures.serving.server import Server
from fixtures.serving.traffic import Traffic, honest, questions
from targets.api import Unavailable

pytestmark = pytest.mark.usefixtures("local")

SOME = 200
SEEN_S = 15.0
"""HAProxy asks each replica every second, and believes a death after two."""


@dataclass(frozen=True)
class Cluster:
    """Two replicas, and what is before them."""

    replicas: tuple[Server, ...]
    proxy: Proxy

    @property
    def front(self) -> Server:
        """What clients ask."""
        return self.proxy.server

    def alive(self) -> int:
        """How many replicas HAProxy believes to be up, by its own metrics."""
        with urllib.request.urlopen(f"{self.proxy.operations}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        told = [line for line in lines if line.startswith("haproxy_server_status{") and 'state="UP"' in line]
        return sum(line.endswith(" 1") for line in told)


@pytest.fixture
def cluster(own_server: StartServer, redis_server: RedisServer, serving: Ledger) -> Iterator[Cluster]:
    """Two replicas of sentiment and chat that are up in the eyes of HAProxy."""
    arguments = ("--tasks", "sentiment,chat", "--cache", redis_server.url)
    try:
        with ExitStack() as stack:
            replicas = tuple(stack.enter_context(own_server(*arguments)) for _ in range(2))
            found = Cluster(replicas, stack.enter_context(haproxy(replicas, serving.build / "haproxy")))
            await_that(lambda: found.alive() == 2, "HAProxy sees both replicas", SEEN_S)
            yield found
    except Unavailable as reason:
        pytest.skip(str(reason))


def jobs(count: int) -> list[Job]:
    """Different questions."""
    endpoint = ENDPOINTS["sentiment"]
    return [(endpoint.path, endpoint.body(request)) for request in distinct(endpoint, count)]


def test_replicas_share_work_and_cache(cluster: Cluster) -> None:
    """Both replicas answer, and what one has answered the other finds in the cache."""
    asked = jobs(100)
    first = answered(ask_all(cluster.front, asked, 8), asked)
    before = [gauges.read(each) for each in cluster.replicas]
    shares = [each.sum("nlp_requests_total", task="sentiment") for each in before]
    assert min(shares) > 0, f"the replicas have answered {shares} requests"
    again = [answered(ask_all(each, asked, 4), asked) for each in cluster.replicas]
    hits = [
        gauges.read(each).since(old, "nlp_cache_requests_total", result="hit")
        for each, old in zip(cluster.replicas, before, strict=True)
    ]
    assert again == [first, first]
    assert min(hits) > max(shares), f"hits {hits}, own answers {shares}: nothing was shared"


def test_a_replica_is_killed(cluster: Cluster, faults: FaultTable) -> None:
    """Killed under load, a replica costs no request: HAProxy asks the other one, and sees the death."""
    law = "every request is answered rightly by the other replica; HAProxy takes the dead one out"
    with faults.trying("kill -9 of a replica behind HAProxy", law) as row:
        with traffic_of(cluster) as traffic:
            traffic.more(SOME)
            for process in process_tree.whole(cluster.replicas[0]):
                process.kill()
            traffic.more(2 * SOME)
            took = await_that(lambda: cluster.alive() == 1, "HAProxy sees the death", SEEN_S)
            traffic.more(SOME)
        row.seen = f"{traffic.summary()}; slowest {traffic.slowest_s():.2f} s; taken out after {took:.1f} s"
        traffic.allowed("right")


def test_a_replica_is_stopped(cluster: Cluster, faults: FaultTable) -> None:
    """Stopped under load, as in a rolling update, a replica finishes what it has, and nothing is lost."""
    law = "every request is answered rightly; the replica ends with exit code 0"
    with faults.trying("SIGTERM of a replica behind HAProxy", law) as row:
        with traffic_of(cluster) as traffic:
            traffic.more(SOME)
            process = process_tree.server_process(cluster.replicas[1])
            process.terminate()
            code = process.wait(30)
            traffic.more(SOME)
        row.seen = f"{traffic.summary()}; slowest {traffic.slowest_s():.2f} s; exit code {code}"
        traffic.allowed("right")
        assert code == 0


def traffic_of(cluster: Cluster) -> Traffic:
    """Honest clients of the proxy. What the replicas tell of themselves cannot be asked there."""
    like = honest(cluster.replicas[0], "sentiment")
    return Traffic(cluster.front, questions(cluster.front, jobs(60)), like.clients, like.within)


def test_redis_dies_behind_replicas(cluster: Cluster, redis_server: RedisServer, faults: FaultTable) -> None:
    """Without the cache that they share, replicas answer as before."""
    law = "every request is answered rightly"
    with faults.trying("kill -9 of the Redis of two replicas", law) as row:
        with traffic_of(cluster) as traffic:
            traffic.more(SOME)
            redis_server.kill()
            traffic.more(2 * SOME)
        row.seen = f"{traffic.summary()}; slowest {traffic.slowest_s():.2f} s"
        traffic.allowed("right")


def test_what_passes_through_the_proxy(cluster: Cluster) -> None:
    """Problems, request ids, streams and chats pass through HAProxy as they are."""
    with Client(cluster.front.url) as client:
        refused = client.post("/sentiment", {"texts": []}, {"X-Request-ID": "abc-123"})
        assert (refused.status, refused.trouble) == (422, None)
        assert refused.json()["instance"] == "abc-123"
        assert client.get("/metrics").status == 404, "one replica's metrics are no use to the outside"
        body = {"messages": [{"role": "user", "content": "Hello."}], "stream": True}
        lines = [line for _, line in client.stream("/v1/chat/completions", body) if line]
        assert lines[-1] == b"data: [DONE]"
    with chat(cluster.front.url) as talk:
        first = talk.ask("Remember the number 47.")
        assert talk.ask("What is my number?").end["tokens"] > first.end["tokens"]
