"""Whether a case has become worse since its baseline was recorded. Takes its own measurements, in fresh processes."""

from __future__ import annotations

import pytest

from fixtures.baseline.findings import explain, file_verdicts
from fixtures.baseline.keeper import Keeper
from fixtures.baseline.numbers import numbers, worse
from fixtures.baseline.series import compare_visit, record_visit
from fixtures.provision import Target
from fixtures.results import CaseRecord
from fixtures.telemetry.meter import Meter
from fixtures.verdict import InvalidMeasurement, Outcome
from fixtures.workbench import Workbench


def test_not_slower(
    keeper: Keeper,
    target: Target,
    workbench: Workbench,
    record: CaseRecord,
    meter: Meter,
    request: pytest.FixtureRequest,
) -> None:
    """The case is not slower or larger than its baseline, by more than noise and more than the least effect."""
    if not target.subject.fits_twice(target.session.device):
        workbench.close()
    if keeper.gate.record:
        record_visit(keeper, target, record, meter, request.node)
        return
    entry = keeper.entry(target.case)
    if not entry.launches:
        pytest.skip(f"{keeper.place} holds no times of this case")
    changes = compare_visit(keeper, target, record, meter, request.node, entry)
    keeper.measured.add(target.case.id)
    red, larger = file_verdicts(record, keeper, entry, changes), worse(target.case, entry, numbers(target))
    if not red and not larger:
        return
    story = explain(keeper, target.case, entry, red + larger, request.config)
    if not larger and not any(change.outcome is Outcome.FAIL for change in changes):
        raise InvalidMeasurement(story)
    pytest.fail(story, pytrace=False)
