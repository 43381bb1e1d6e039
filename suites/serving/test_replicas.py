"""Two replicas behind a real HAProxy with a Redis that they share, as deployed: one may die, and nobody notices."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice

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
TRIES = 5
SEEN_S = 15.0
"""HAProxy asks each replica every second, and believes a death after two."""


@dataclass(frozen=True)
class Cluster:
    """Two replicas, what is before them, and what they share."""

    replicas: tuple[Server, ...]
    proxy: Proxy
    redis: RedisServer

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


@contextmanager
def made(own_server: StartServer, serving: Ledger) -> Iterator[Cluster]:
    """Two replicas of sentiment and chat that are up in the eyes of HAProxy. Skips where a program is missing."""
    try:
        with ExitStack() as stack:
            redis = stack.enter_context(RedisServer(serving.build / "logs" / "redis.log"))
            arguments = ("--tasks", "sentiment,chat", "--cache", redis.url)
            replicas = tuple(stack.enter_context(own_server(*arguments)) for _ in range(2))
            proxy = stack.enter_context(haproxy(replicas, serving.build / "haproxy"))
            found = Cluster(replicas, proxy, redis)
            await_that(lambda: found.alive() == 2, "HAProxy sees both replicas", SEEN_S)
            yield found
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def cluster(own_server: StartServer, serving: Ledger) -> Iterator[Cluster]:
    """One that is left as it was found."""
    if serving.options.url:
        pytest.skip("this test starts servers of its own; leave --url out")
    with made(own_server, serving) as found:
        yield found


@pytest.fixture
def breakable(own_server: StartServer, serving: Ledger) -> Iterator[Cluster]:
    """One of the test's own."""
    with made(own_server, serving) as found:
        yield found


def jobs(count: int) -> list[Job]:
    """Different questions."""
    endpoint = ENDPOINTS["sentiment"]
    return [(endpoint.path, endpoint.body(request)) for request in distinct(endpoint, count)]


def test_replicas_share_work_and_cache(cluster: Cluster) -> None:
    """Both replicas answer, alike, and what one has answered the other finds in the cache."""
    asked = jobs(100)
    first = answered(ask_all(cluster.front, asked, 8), asked)
    shares = [gauges.read(each).sum("nlp_requests_total", task="sentiment") for each in cluster.replicas]
    assert min(shares) > 0, f"the replicas have answered {shares} requests"
    for each in cluster.replicas:
        assert answered(ask_all(each, asked, 4), asked) == first
    one, other = cluster.replicas
    news = iter(jobs(300)[100:])
    for _ in range(TRIES):  # where the machine has no time for Redis, a replica leaves it alone for a while
        some = list(islice(news, 20))
        known = cluster.redis.keys()
        answered(ask_all(one, some, 1), some)
        kept = cluster.redis.keys() - known
        before = gauges.read(other)
        answered(ask_all(other, some, 1), some)
        hits = gauges.read(other).since(before, "nlp_cache_requests_total", result="hit")
        if hits:
            return
    pytest.fail(f"of 20 answers that the other replica had given (and {kept} it had kept) none was found")


def test_a_replica_is_killed(breakable: Cluster, faults: FaultTable) -> None:
    """Killed under load, a replica costs no request: HAProxy asks the other one, and sees the death."""
    law = "every request is answered rightly by the other replica; HAProxy takes the dead one out"
    with faults.trying("kill -9 of a replica behind HAProxy", law) as row:
        with traffic_of(breakable) as traffic:
            traffic.more(SOME)
            for process in process_tree.whole(breakable.replicas[0]):
                process.kill()
            traffic.more(2 * SOME)
            took = await_that(lambda: breakable.alive() == 1, "HAProxy sees the death", SEEN_S)
            traffic.more(SOME)
        row.seen = f"{traffic.summary()}; slowest {traffic.slowest_s():.2f} s; taken out after {took:.1f} s"
        traffic.allowed("right")


def test_a_replica_is_stopped(breakable: Cluster, faults: FaultTable) -> None:
    """Stopped under load, as in a rolling update, a replica finishes what it has, and nothing is lost."""
    law = "every request is answered rightly; the replica ends with exit code 0"
    with faults.trying("SIGTERM of a replica behind HAProxy", law) as row:
        with traffic_of(breakable) as traffic:
            traffic.more(SOME)
            process = process_tree.server_process(breakable.replicas[1])
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


def test_redis_dies_behind_replicas(cluster: Cluster, faults: FaultTable) -> None:
    """Without the cache that they share, replicas answer as before."""
    law = "every request is answered rightly"
    with faults.trying("kill -9 of the Redis of two replicas", law) as row:
        with traffic_of(cluster) as traffic:
            traffic.more(SOME)
            cluster.redis.kill()
            traffic.more(2 * SOME)
            cluster.redis.start()
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
