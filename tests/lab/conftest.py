"""What the lab's tests leave for a person to read."""

from __future__ import annotations

import pytest

REPORT = "report"
"""The property of a test whose lines are printed when all is over, from whatever process they come."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for lines in (value for name, value in report.user_properties if name == REPORT):
                terminalreporter.section(report.nodeid, sep="-")
                terminalreporter.write_line("\n".join(lines))
