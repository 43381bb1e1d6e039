"""Whether another environment or another model makes a case worse, both measured in one run, in turns."""

from __future__ import annotations

import pytest

from fixtures import report
from fixtures.book import BOOK
from fixtures.judging import Judge, spend
from fixtures.results import CaseRecord
from fixtures.session import KEY
from fixtures.versus.answers import compare_answers
from fixtures.versus.case import Comparison
from fixtures.versus.run import keep_rows, ratio_table


def test_versus(comparison: Comparison, judged: Judge, record: CaseRecord, pytestconfig: pytest.Config) -> None:
    """The case is not slower, larger or worse in the other environment, or with the other model."""
    comparison.run()
    verdicts = comparison.verdicts
    for found in verdicts:
        key = f"{found.metric}.{found.statistic}"
        if found.value is not None:
            record.metrics[key] = found.value
        if found.low is not None:
            record.intervals[key] = (found.low, found.high)
    record.evidence["versus"] = comparison.evidence()
    spend(record, comparison.warm_s, comparison.measure_s)
    rows = keep_rows(pytestconfig, comparison.ours.case, comparison)
    opponent = pytestconfig.stash[KEY].opponent
    assert opponent is not None
    report.attach_text("versus", ratio_table(opponent, rows, pytestconfig.stash[BOOK].environment))
    judged.settle([*verdicts, *compare_answers(comparison.ours, comparison.theirs, record)])
