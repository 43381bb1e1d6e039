"""What the harness's own tests print at their end."""

from __future__ import annotations

import pytest

from suites.meta.fault_table import TABLE


def pytest_configure(config: pytest.Config) -> None:
    """A marker of what another test beside it would spoil."""
    config.addinivalue_line("markers", "alone: takes times that hold on a machine with nothing else to do")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of planted faults, where they ran."""
    if TABLE in config.stash:
        terminalreporter.section("planted faults")
        terminalreporter.write_line(config.stash[TABLE])
