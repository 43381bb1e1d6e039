from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures import token_watch
from fixtures.sequential import Goal
from fixtures.spans import Spans
from fixtures.token_watch import TokenLap, TokenPlan
from targets.api import Answer, Request, Tick, Unsupported, no_tick
from targets.generation import answer


class Metronome:
    """A generator that needs `first` seconds for the first token and `gap` for each later one; a word is a token."""

    def __init__(self, first: float = 0.02, gap: float = 0.005, tells: bool = True) -> None:
        self.first, self.gap, self.tells = first, gap, tells
        self.asked: list[Request] = []

    def run(self, batch: Sequence[Request], tick: Tick = no_tick) -> list[Answer]:
        """Sleep, tick, and count."""
        found = []
        for request in batch:
            self.asked.append(request)
            for number in range(request["max_tokens"]):
                time.sleep(self.gap if number else self.first)
                tick()
            count = request["max_tokens"]
            found.append(
                answer("x" * count, None, output_tokens=count, tokens=len(request["prompt"].split()), finish="length")
            )
        return found

    def tokens(self, request: Request) -> list[int]:
        """One a word."""
        if not self.tells:
            raise Unsupported("it does not tell")
        return list(range(len(request["prompt"].split())))


def guest(runner: Any) -> Any:
    return SimpleNamespace(target=runner, spans=Spans())


def test_stamps_are_those_of_the_tokens() -> None:
    """First token, gaps and whole request are what the generator took for them."""
    lap = token_watch.lap(Metronome().run, {"prompt": "a b c", "max_tokens": 5})
    assert len(lap.ticks_ms) == 5
    assert len(lap.gaps_ms) == 4
    assert 20 <= lap.ttft_ms < 35
    assert all(5 <= gap < 15 for gap in lap.gaps_ms)
    assert lap.e2e_ms == pytest.approx(lap.ttft_ms + sum(lap.gaps_ms), abs=2)
    assert (lap.prompt_tokens, lap.output_tokens) == (3, 5)


def test_decode_is_what_follows_the_first_token() -> None:
    """The decode rate counts gaps, so that a slow prefill does not lower it; a single token has none."""
    assert TokenLap((500.0, 510.0, 520.0), 520.0, 9, 3).decode_per_s == pytest.approx(100.0)
    assert TokenLap((500.0,), 500.0, 9, 1).decode_per_s is None


def test_laps_stop_at_least_budget_and_most() -> None:
    """The least laps are taken beyond the budget, the most end it early, and the cap ends all."""
    requests = ({"prompt": "a", "max_tokens": 1},)

    def count(**changes: float) -> int:
        plan = {"least": 5, "most": 50, "budget_s": 0.0, "warm_cap_s": 0.0, "cap_s": 9.0} | changes
        return len(token_watch.watch(guest(Metronome(0.001)), TokenPlan(requests, **plan)).laps)  # type: ignore[arg-type]

    assert count() == 5
    assert count(budget_s=9.0, most=7) == 7
    assert count(cap_s=0.0) == 1


def test_warm_up_is_not_among_the_laps() -> None:
    """Requests before the last three windows agree are told apart."""
    runner = Metronome(0.002)
    plan = TokenPlan(({"prompt": "a", "max_tokens": 1},), 3, 3, 0.0, 5.0, 5.0)
    found = token_watch.watch(guest(runner), plan)
    assert found.steady
    assert found.warm_laps >= 3 * token_watch.WINDOW
    assert len(runner.asked) == found.warm_laps + len(found.laps)


def test_a_decided_limit_ends_it() -> None:
    """Requests end at the first look that decides each limit, in whole passes; samples are those of the metric."""
    requests = tuple({"prompt": "a b", "max_tokens": 4} for _ in range(3))
    far = (Goal("ttft_ms", "p50", "max", 1e4), Goal("itl_ms", "p50", "max", 1e4))
    rate = Goal("decode_tokens_per_s", "p50", "min", 1.0)
    plan = TokenPlan(requests, 7, 500, 9.0, 0.0, 60.0, goals=(*far, rate), patience_s=60.0)
    found = token_watch.watch(guest(Metronome(0.001, 0.0005)), plan)
    assert (len(found.laps), found.stop.decided) == (9, True)
    assert len(found.samples("itl_ms")) == 27
    assert all(len(found.samples(name)) == 9 for name in ("ttft_ms", "tpot_ms", "e2e_ms", "prefill_tokens_per_s"))
    assert found.samples("decode_tokens_per_s") == tuple(lap.decode_per_s for lap in found.laps)


def test_a_limit_on_gaps_counts_gaps() -> None:
    """A percentile of gaps needs as many gaps, not as many requests."""
    goal = Goal("itl_ms", "p95", "max", 1e4)
    plan = TokenPlan(({"prompt": "a", "max_tokens": 16},), 2, 500, 9.0, 0.0, 60.0, goals=(goal,), patience_s=60.0)
    found = token_watch.watch(guest(Metronome(0.0005, 0.0002)), plan)
    assert (len(found.laps), found.stop.decided) == (6, True)  # 15 gaps each, and p95 needs 90


def test_silence_is_an_error() -> None:
    """An engine that never ticks is no measurement of 0 ms."""
    runner = Metronome()
    with pytest.raises(RuntimeError, match="no token"):
        token_watch.lap(lambda batch, _: runner.run(batch), {"prompt": "a", "max_tokens": 1})


@pytest.mark.parametrize("tells", [True, False])
def test_long_prompts_are_long_and_begin_apart(tells: bool) -> None:
    """Prompts have at least the tokens asked for, by whatever count the engine offers, and no common beginning."""
    texts = ["one two three four five", "six seven eight nine ten"]
    found = token_watch.long_requests(guest(Metronome(0, 0, tells)), "generation", texts, 64, 5)
    assert len(found) == 5
    assert all(64 <= len(request["prompt"].split()) <= 72 for request in found)
    assert len({request["prompt"].split()[0] for request in found}) == 5
    assert all(request["max_tokens"] == 1 and request["ignore_eos"] for request in found)
