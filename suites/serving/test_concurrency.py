"""Many at once: nobody gets another one's answer, from the batch, from the cache, or from a request that was joined."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures import report
from fixtures.serving import gauges
from fixtures.serving.checking import Has
from fixtures.serving.crowd import Job, answered, ask_all
from fixtures.serving.direct import Direct
from fixtures.serving.distinct import distinct
from fixtures.serving.endpoints import ENDPOINTS, Endpoint
from fixtures.serving.lesson import sample
from fixtures.serving.likeness import ROUNDING, difference, told, tolerance, unlike
from fixtures.serving.run import StartServer
from fixtures.serving.server import Server

CLIENTS = 50
TEXTS = 500
GENERATED = 100
"""The same of endpoints that generate: each answer is 16 tokens of work."""
TELLING = 0.6
"""Share of the answers that differ from all others: with fewer, answers could be mixed up and nobody would see."""
SAME = 40


def test_everyone_gets_their_own_answer(endpoint: Endpoint, served: Server) -> None:
    """500 different texts from 50 clients at once: each gets the answer that it gets alone, within rounding."""
    count = GENERATED if endpoint.generates else TEXTS
    requests = distinct(endpoint, count)
    jobs: list[Job] = [(endpoint.path, endpoint.body(request)) for request in requests]
    alone = answered(ask_all(served, jobs, 1), jobs)
    before = gauges.read(served)
    together = answered(ask_all(served, jobs, CLIENTS), jobs)
    after = gauges.read(served)
    within = tolerance(served.facts()["tasks"][endpoint.task]["optimization"])
    wrong = [
        f"{job[1]!r:.150}: {found}"
        for job, one, other in zip(jobs, alone, together, strict=True)
        if (found := difference(told(one), told(other), within))
    ]
    assert not wrong, f"{len(wrong)} of {count} answers differ from those given alone:\n" + "\n".join(wrong[:5])
    different = len({repr(told(each)) for each in alone}) / count
    batches = after.since(before, "nlp_batch_size_count", task=endpoint.task)
    gathered = after.since(before, "nlp_batch_size_sum", task=endpoint.task)
    report.attach_text("how", f"{count} texts in {batches:.0f} batches; {different:.0%} of the answers are unique")
    assert different >= TELLING, f"{different:.0%} of the answers are unique: too few to tell a mix-up"
    if batches and endpoint.name in ("sentiment", "ner", "qa"):
        assert gathered / batches > 1.5, f"{gathered:.0f} texts went in {batches:.0f} batches: nothing was batched here"


def test_batched_answers_are_the_runners_own(served: Server, direct: Direct, has: Has) -> None:
    """What 50 clients get at once is what the runner says to each text, called directly and without a batch."""
    for name in ("sentiment", "ner", "qa"):
        endpoint = has(name)
        requests = distinct(endpoint, 200)
        jobs: list[Job] = [(endpoint.path, endpoint.body(request)) for request in requests]
        within = tolerance(served.facts()["tasks"][endpoint.task]["optimization"])
        expected = direct.answers(endpoint.task, requests)
        for job, wanted, found in zip(jobs, expected, answered(ask_all(served, jobs, CLIENTS), jobs), strict=True):
            wrong = unlike(wanted, found, within)
            assert wrong is None, f"{job[1]!r:.150}: {wrong}"


def test_parameters_do_not_mix(served: Server, has: Has) -> None:
    """Requests for different lengths, temperatures, seeds and stops, at once, are each answered by their own."""
    endpoint = has("generate")
    prompts = [endpoint.varied(request) for request in sample(endpoint, 6)]
    jobs: list[Job] = [
        (endpoint.path, {"prompt": prompt, **settings}) for prompt in prompts for settings in variations()
    ]
    alone = answered(ask_all(served, jobs, 1), jobs)
    together = answered(ask_all(served, jobs, 25), jobs)
    for job, one, other in zip(jobs, alone, together, strict=True):
        wrong = difference(told(one), told(other), 0.0)
        assert wrong is None, f"{job[1]}: {wrong}"
        assert told(other)["output_tokens"] <= job[1]["max_tokens"]


def variations() -> list[dict[str, Any]]:
    """Ways to continue a prompt."""
    return [
        {"max_tokens": 4},
        {"max_tokens": 12},
        {"max_tokens": 12, "stop": [" a"]},
        {"max_tokens": 12, "temperature": 1.0, "seed": 1},
        {"max_tokens": 12, "temperature": 1.0, "seed": 2},
        {"max_tokens": 12, "temperature": 1.0, "seed": 1, "top_p": 0.5},
    ]


@pytest.mark.usefixtures("local")
def test_cache_never_answers_another_question(own_server: StartServer, direct: Direct) -> None:
    """With a cache, what differs in a parameter, the task, a space or a sign is a question of its own, twice asked."""
    jobs = near_questions()
    with own_server("--cache", "memory") as cached, own_server("--cache", "off") as plain:
        wanted = answered(ask_all(plain, jobs, 4), jobs)
        first = answered(ask_all(cached, jobs, 4), jobs)
        between = gauges.read(cached)
        again = answered(ask_all(cached, jobs, 4), jobs)
        after = gauges.read(cached)
    for job, right, one, other in zip(jobs, wanted, first, again, strict=True):
        assert one["results"] == other["results"], f"{job}: the kept answer {other} is not the first {one}"
        wrong = difference(right["results"], one["results"], ROUNDING)
        assert wrong is None, f"{job}: {wrong} (with a cache, against without)"
    hits = after.since(between, "nlp_cache_requests_total", result="hit")
    assert hits == len(jobs), f"{hits:.0f} of {len(jobs)} questions were answered from the cache the second time"
    misses = between.sum("nlp_cache_requests_total", result="miss")
    assert misses == len(jobs), f"{misses:.0f} of {len(jobs)} questions were new, should be all: they all differ"


def near_questions() -> list[Job]:
    """Questions that are nearly the same, and whose answers are not to be taken for each other."""
    text = "The tea was cold and the waiter was rude, but I loved the view of Berlin."
    near = [text, text + " ", " " + text, text.lower(), text.replace(".", "!"), text.replace("e", "e\u0301", 1)]
    jobs: list[Job] = [(path, {"texts": [each]}) for path in ("/sentiment", "/ner") for each in near]
    jobs += [
        ("/qa", {"questions": [one], "contexts": [other]}) for one, other in ((text, text[:30]), (text[:30], text))
    ]
    jobs += [("/summarize", {"texts": [text], **each}) for each in ({}, {"max_length": 8}, {"max_length": 9})]
    jobs += [("/translate", {"texts": [text], **each}) for each in ({}, {"max_length": 8}, {"max_length": 9})]
    prompts = [("/generate", {"prompt": text, **each}) for each in variations()]
    return [*jobs, *prompts]


@pytest.mark.usefixtures("local")
def test_replicas_with_different_engines_share_a_cache(own_server: StartServer, redis_url: str) -> None:
    """Two servers that differ in their optimization keep their answers apart in the Redis that they share."""
    endpoint = ENDPOINTS["sentiment"]
    jobs: list[Job] = [(endpoint.path, endpoint.body(request)) for request in distinct(endpoint, 40)]
    arguments = ("--tasks", "sentiment", "--cache", redis_url, "--sentiment-backend", "onnxruntime")
    with (
        own_server(*arguments, "--sentiment-optimization", "fp32") as exact,
        own_server(*arguments, "--sentiment-optimization", "int8") as rough,
    ):
        once = answered(ask_all(exact, jobs, 1), jobs)
        other = answered(ask_all(rough, jobs, 1), jobs)
        again = answered(ask_all(exact, jobs, 1), jobs)
        hits = gauges.read(rough).sum("nlp_cache_requests_total", result="hit")
        kept = gauges.read(exact).sum("nlp_cache_requests_total", result="hit")
    assert hits == 0, f"the int8 server took {hits:.0f} answers of the fp32 server from the cache"
    assert kept > 0, "the fp32 server found none of its own answers: nothing was shared, and nothing is shown"
    assert again == once
    assert other != once, "int8 says the same as fp32 to the last digit: the test cannot tell them apart"


@pytest.mark.usefixtures("local")
def test_same_question_at_once_is_asked_once(own_server: StartServer) -> None:
    """Forty clients with one question at one moment: the engine is asked once, and all get that answer."""
    with own_server("--tasks", "generation", "--cache", "memory") as server:
        job: Job = ("/generate", {"prompt": "Once there was a mouse", "max_tokens": 256, "temperature": 1.0, "seed": 5})
        found = answered(ask_all(server, [job] * SAME, SAME), [job] * SAME)
        told_by = gauges.read(server)
    texts = {each["results"][0]["text"] for each in found}
    assert len(texts) == 1, f"{len(texts)} different answers to one question"
    counts = {result: told_by.sum("nlp_cache_requests_total", result=result) for result in ("hit", "miss", "joined")}
    assert counts["miss"] == 1, f"got {counts}: the engine should be asked once"
    assert counts["hit"] + counts["joined"] == SAME - 1, f"got {counts} for {SAME} questions"
    assert counts["joined"] > 0, f"got {counts}: none was joined, so nothing is shown of joining"
    tokens = told_by.sum("nlp_tokens_total", task="generation")
    each = found[0]["results"][0]
    assert tokens == each["tokens"] + each["output_tokens"], f"the engine wrote {tokens:.0f} tokens for one answer"
