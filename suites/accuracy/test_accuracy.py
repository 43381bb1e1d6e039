"""Whether each case is right: on labelled data, and beside the FP32 reference."""

from __future__ import annotations

import numpy as np
import pytest

from fixtures import report
from fixtures.judging import Judge
from fixtures.provision import Target
from fixtures.quality import contract, evaluate, marks
from fixtures.records import keep_answers
from fixtures.results import CaseRecord
from fixtures.shares import mcnemar, wilson
from fixtures.statistics import Estimate, scores
from fixtures.verdict import Measurement
from targets.registry import optimizations

pytestmark = pytest.mark.usefixtures("meaningful")


def test_score(target: Target, judged: Judge, record: CaseRecord, request: pytest.FixtureRequest) -> None:
    """Every score of the task on labelled data reaches its limit."""
    found = evaluate(target)
    record.slices = found.slices
    keep_answers(request.config, target, found)
    report.attach_json("scores", {name: estimate.value for name, estimate in found.scores.items()})
    report.attach_json("slices", found.slices)
    if found.missing:
        pytest.skip(found.missing)
    how = f"{len(target.answers)} examples of {target.subject.dataset.source}"
    judged(
        *(
            Measurement(name, estimates={"": estimate}, how=how, deterministic=True)
            for name, estimate in found.scores.items()
        )
    )


def test_drop(target: Target, reference: Target, judged: Judge) -> None:
    """The primary score loses no more against FP32 than the optimization's own contract allows."""
    if target.case.is_reference:
        pytest.skip("this case is the reference")
    primary = target.task.primary
    ours, theirs = evaluate(target), evaluate(reference)
    if missing := ours.missing or theirs.missing:
        pytest.skip(missing)
    paired = np.hstack([theirs.tallies, ours.tallies])
    width = ours.tallies.shape[1]
    direction = next(score for score in target.task.scores if score.name == primary)

    def lost(totals: np.ndarray) -> dict[str, np.ndarray]:
        before, after = (target.task.totals_to_scores(half)[primary] for half in np.split(totals, [width], axis=-1))
        return {"drop": direction.loss(before, after)}

    drop = scores(paired, lost, bounds=(-1.0, 1.0))["drop"]
    how = f"{primary} of huggingface/fp32 less that of this case, on the same {len(paired)} examples"
    judged(Measurement("drop", estimates={"": drop}, how=how, deterministic=True), limits=contract(target.case))


def test_same_examples_right(target: Target, reference: Target, judged: Judge, record: CaseRecord) -> None:
    """McNemar's test says how likely chance alone parts the examples that only this case or only FP32 gets right."""
    if target.case.is_reference:
        pytest.skip("this case is the reference")
    ours, theirs = marks(target), marks(reference)
    if ours is None or theirs is None:
        pytest.skip("no score of this task marks an example as right or wrong")
    found = mcnemar(ours.right, theirs.right)
    record.evidence["mcnemar"] = {"score": ours.score, "gained": found.gained, "lost": found.lost, "n": found.n}
    judged.inform(Measurement.of("mcnemar_p", found.p, how=f"{ours.score}: {found}", deterministic=True))


def test_agreement(target: Target, reference: Target, judged: Judge) -> None:
    """The answers are those of the FP32 reference on as many examples as the optimization's own contract promises."""
    if target.case.is_reference:
        pytest.skip("this case is the reference")
    same = [target.task.same(a, b) for a, b in zip(target.answers, reference.answers, strict=True)]
    differing = [
        {"example": example.id, "reference": theirs, "case": ours}
        for example, ours, theirs, agree in zip(
            target.subject.examples, target.answers, reference.answers, same, strict=True
        )
        if not agree
    ]
    if differing:
        report.attach_json("answers unlike the reference's", differing[:50])
    share = wilson(sum(same), len(same))
    how = f"{len(same)} examples; first unlike: {', '.join(str(item['example']) for item in differing[:3]) or 'none'}"
    judged(Measurement("agreement", estimates={"": share}, how=how, deterministic=True), limits=contract(target.case))


@pytest.mark.families("encoder")
def test_logits(target: Target, reference: Target, judged: Judge, record: CaseRecord) -> None:
    """Where an optimization keeps the arithmetic, its logits are those of PyTorch FP32 within its own tolerance."""
    if target.case.is_reference:
        pytest.skip("this case is the reference")
    pairs = list(zip(target.mix_logits, reference.mix_logits, strict=True))
    shapes = [([a.shape for a in ours], [b.shape for b in theirs]) for ours, theirs in pairs]
    assert all(ours == theirs for ours, theirs in shapes), f"shapes differ from the reference's: {shapes[:3]}"
    gaps = [np.abs(a - b).max() for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True)]
    worst = float(np.max(gaps))  # unlike max(), it lets no NaN hide behind a number
    bound = optimizations[target.case.optimization].logit_tolerance
    if bound is None:
        record.notes.append(f"logits differ from the reference's by up to {worst:.3g}; no bound in its contract")
    judged(
        Measurement(
            "logit_difference",
            estimates={"": Estimate(worst, n=len(pairs))},
            how=f"{len(pairs)} requests",
            deterministic=True,
        ),
        limits=contract(target.case),
    )
