"""What the harness's own tests share, and print at their end."""

from __future__ import annotations

import pytest

from suites.meta.fault_table import TABLE


def pytest_configure(config: pytest.Config) -> None:
    """A marker of what another test beside it would spoil."""
    config.addinivalue_line("markers", "alone: takes times that hold on a machine with nothing else to do")


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine of the server that died is started again at once."""
    monkeypatch.setattr("targets.server.engine.engine.FIRST_PAUSE_S", 0.01)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of planted faults, where they ran."""
    if TABLE in config.stash:
        terminalreporter.section("planted faults")
        terminalreporter.write_line(config.stash[TABLE])
