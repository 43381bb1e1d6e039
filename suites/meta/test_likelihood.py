from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fixtures import likelihood
from fixtures.cases import Case
from fixtures.results import CaseRecord
from suites.accuracy import test_likelihood as laws
from targets.api import Floats, Request

VOCABULARY = 7
REQUESTS = [{"prompt": "a"}, {"prompt": "b"}]


def guest(scale: float = 1.0, length: int = 5, shift: int = 0) -> Any:
    """A model of fixed random logits, sharpened by `scale`, whose prompts have `length` tokens."""

    def logits(batch: list[Request]) -> list[list[Floats]]:
        seed = ord(batch[0]["prompt"])
        return [[scale * np.random.default_rng(seed).normal(size=(length, VOCABULARY))]]

    def tokens(request: Request) -> list[int]:
        return [(n + shift) % VOCABULARY for n in range(length)]

    return SimpleNamespace(target=SimpleNamespace(logits=logits, tokens=tokens))


def by_hand(scale: float, seed: int) -> Floats:
    logits = scale * np.random.default_rng(seed).normal(size=(5, VOCABULARY))[:-1]
    chances: Floats = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return chances


def test_likelihood_is_that_of_the_next_tokens(tmp_path: Path) -> None:
    """Each token but the first is scored by what the model gave it after the ones before."""
    (score, _) = likelihood.score(guest(), REQUESTS, tmp_path, True)
    wanted = -sum(by_hand(1.0, ord("a"))[row, row + 1] for row in range(4))
    assert score.tokens == 4
    assert score.nll == pytest.approx(wanted, rel=1e-5)


def test_divergence_from_oneself_is_nothing(tmp_path: Path) -> None:
    """The reference has no divergence from itself and agrees everywhere."""
    likelihood.score(guest(), REQUESTS, tmp_path, True)
    for score in likelihood.score(guest(), REQUESTS, tmp_path, False):
        assert score.kl == pytest.approx(0, abs=1e-6)
        assert score.hits == 4


def test_divergence_is_that_of_the_formula(tmp_path: Path) -> None:
    """KL(reference || case) is the sum of p (log p - log q), in nats."""
    likelihood.score(guest(), REQUESTS, tmp_path, True)
    (score, _) = likelihood.score(guest(scale=2.0), REQUESTS, tmp_path, False)
    ours, theirs = by_hand(2.0, ord("a")), by_hand(1.0, ord("a"))
    assert score.kl == pytest.approx(float((np.exp(theirs) * (theirs - ours)).sum()), rel=1e-4)
    assert score.hits == 4, "sharper logits keep their order"


@pytest.mark.parametrize("other", [{"length": 6}, {"shift": 1}])
def test_other_tokens_are_not_compared(tmp_path: Path, other: dict[str, int]) -> None:
    """A model that reads the text as other tokens has a likelihood, and no divergence."""
    likelihood.score(guest(), REQUESTS, tmp_path, True)
    (score, _) = likelihood.score(guest(**other), REQUESTS, tmp_path, False)
    assert (score.kl, score.hits) == (None, None)
    assert score.nll > 0


def test_kept_log_probabilities_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large vocabulary does not fill the disk: what is not kept is not compared."""
    monkeypatch.setattr(likelihood, "MOST_BYTES", 150)
    likelihood.score(guest(), REQUESTS, tmp_path, True)
    first, second = likelihood.score(guest(), REQUESTS, tmp_path, False)
    assert first.kl is not None
    assert second.kl is None


def test_rows_and_tokens_must_agree(tmp_path: Path) -> None:
    """Logits of another number of tokens are an error, not a misaligned score."""
    broken = guest()
    broken.target.tokens = lambda _: [1, 2]
    with pytest.raises(RuntimeError, match="5 rows of logits for 2 tokens"):
        likelihood.score(broken, REQUESTS, tmp_path, True)


def test_numbers_that_are_none_are_no_zero(tmp_path: Path) -> None:
    """A model that has become NaN has a divergence of NaN, which no limit lets pass."""
    likelihood.score(guest(), REQUESTS, tmp_path, True)
    (score, _) = likelihood.score(guest(scale=float("nan")), REQUESTS, tmp_path, False)
    assert score.kl is not None
    assert np.isnan(score.kl)


def level(name: str, bits: float, kl: float) -> CaseRecord:
    found = CaseRecord("", "generation", "embedded", "llama-cpp-python", name)
    found.metrics = {"bits_per_weight": bits, "kl_divergence": kl}
    return found


@pytest.mark.parametrize(("kl", "sound"), [(2e-3, True), (9e-4, True), (1e-4, False)])
def test_fewer_bits_cannot_be_nearer(kl: float, sound: bool) -> None:
    """A level of four bits that is nearer to the reference than one of eight, beyond the slack, is an alarm."""
    target: Any = SimpleNamespace(case=Case("generation", "embedded", "llama-cpp-python", "q4_k_m"))
    record, others = level("q4_k_m", 4.9, kl), [level("q8_0", 8.5, 1e-3), level("f16", 16.0, 1e-7)]
    if sound:
        laws.test_divergence_grows_as_bits_shrink(target, record, others)
        return
    with pytest.raises(AssertionError, match="is a scale wrong"):
        laws.test_divergence_grows_as_bits_shrink(target, record, others)


def test_another_model_or_text_has_another_key() -> None:
    """What a reference has left is found by the same model and the same texts only."""
    own = likelihood.key("a", REQUESTS)
    assert own == likelihood.key("a", [dict(request) for request in REQUESTS])
    assert own not in (likelihood.key("b", REQUESTS), likelihood.key("a", REQUESTS[:1]))
