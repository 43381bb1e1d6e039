"""Whether a case has become worse since its baseline was recorded. Takes its own measurements, in fresh processes."""

from __future__ import annotations

import pytest

from fixtures.baseline.comparison import disturbed
from fixtures.baseline.conditions import conditions
from fixtures.baseline.run import Keeper, examine, explain, file_verdicts, measured, numbers, worse
from fixtures.provision import Target, Workbench
from fixtures.results import CaseRecord


def test_not_slower(
    keeper: Keeper, target: Target, workbench: Workbench, record: CaseRecord, request: pytest.FixtureRequest
) -> None:
    """The case is not slower or larger than its baseline, by more than noise and more than the least effect."""
    if not target.subject.fits_twice(target.session.device):
        workbench.close()
    if keeper.gate.record:
        entry = keeper.new(target.case)
        entry.launches = measured(target, record, None)
        entry.numbers |= numbers(target)
        entry.conditions = conditions()
        if (told := disturbed(entry.launches)) is not None:
            record.notes.append(f"baseline: {told}; record it again")
        return
    entry = keeper.entry(target.case)
    if not entry.launches:
        pytest.skip(f"{keeper.place} holds no times of this case")
    keeper.measured.add(target.case.id)
    changes = examine(target, record, entry, keeper.gate.effect)
    red = file_verdicts(record, keeper, entry, changes) + worse(target.case, entry, numbers(target))
    if red:
        pytest.fail(explain(keeper, target.case, entry, red, request.config), pytrace=False)
