"""Whether a compressed model still says what the reference says: its distributions, token by token."""

from __future__ import annotations

import numpy as np
import pytest

from fixtures.judging import Judge
from fixtures.provision import Target
from fixtures.quality import contract, shared_prefix
from fixtures.results import CaseRecord
from fixtures.statistics import Estimate, scores
from fixtures.verdict import Measurement
from targets.api import Floats
from targets.registry import optimizations

pytestmark = pytest.mark.usefixtures("meaningful")

SLACK = 1.5
"""KL of one quantization level against that of a level with more bits: levels differ by block format too, not by bits
alone (Q4_0 and Q3_K_M on a small model), so a level may be better than its bits say, by this factor and no more."""
NOISE = 1e-6
"""KL below this is rounding (F32 and F16 measured: 1e-9 and 1e-8 nats a token)."""


@pytest.mark.tasks("generation")
def test_divergence(target: Target, reference: Target, judged: Judge, record: CaseRecord) -> None:
    """Next-token distributions stay as near to the FP32 reference's as the optimization's own contract promises."""
    if target.case.is_reference:
        pytest.skip("this case is the reference")
    found = [score for score in target.beside(reference) if score.kl is not None and score.hits is not None]
    if not found:
        pytest.skip("the tokens are not the reference's, so there is nothing to compare position by position")
    tallies = np.array([(score.kl, score.hits, score.tokens) for score in found], dtype=np.float64)

    def means(totals: Floats) -> dict[str, Floats]:
        tokens = totals[..., 2]
        return {"kl_divergence": totals[..., 0] / tokens, "top1_agreement": totals[..., 1] / tokens}

    how = f"{sum(score.tokens for score in found)} positions of {len(found)} texts, against huggingface/fp32"
    measured = scores(tallies, means).items()
    judged(
        *(Measurement(name, estimates={"": each}, how=how, deterministic=True) for name, each in measured),
        limits=contract(target.case),
    )


@pytest.mark.tasks("generation")
def test_divergence_grows_as_bits_shrink(target: Target, record: CaseRecord, siblings: list[CaseRecord]) -> None:
    """A quantization level is no nearer to the reference than one with more bits, beyond what block formats explain."""
    if optimizations[target.case.optimization].gguf_type is None or "kl_divergence" not in record.metrics:
        pytest.skip("no quantization level, or its divergence could not be measured")
    mine, bits = record.metrics["kl_divergence"], record.metrics.get("bits_per_weight", 0.0)
    for other in siblings:
        theirs, their_bits = other.metrics.get("kl_divergence"), other.metrics.get("bits_per_weight")
        if theirs is None or their_bits is None or optimizations[other.optimization].group != "gguf":
            continue
        more, fewer = (theirs, mine) if their_bits > bits else (mine, theirs)
        assert more <= SLACK * fewer + NOISE, (
            f"KL {more:.3g} of {max(bits, their_bits):.2f} bits a weight is above {fewer:.3g} of "
            f"{min(bits, their_bits):.2f} bits ({target.case.optimization} beside {other.optimization}): "
            f"should be at most {SLACK} times it; is a scale wrong?"
        )


@pytest.mark.families("seq2seq", "causal")
def test_token_agreement(target: Target, reference: Target, judged: Judge) -> None:
    """Greedy answers keep to the reference's tokens as far as the device's limits ask."""
    if target.case.is_reference:
        pytest.skip("this case is the reference")
    shares = [shared_prefix(ours, theirs) for ours, theirs in zip(target.answers, reference.answers, strict=True)]
    known = [share for share in shares if share is not None]
    if not known:
        pytest.skip("the engine does not tell its tokens")
    how = f"{len(known)} answers: the share of the reference's tokens before the first other one"
    value = Estimate(sum(known) / len(known), n=len(known))
    judged(Measurement("token_agreement", estimates={"": value}, how=how, deterministic=True))
