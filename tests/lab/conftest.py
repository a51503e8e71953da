"""In which order the lab's tests run, and what they leave for a person to read."""

from __future__ import annotations

import pytest

REPORT = "report"
"""The property of a test whose lines are printed when all is over, from whatever process they come."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests among neighbours come last, as nobody takes these away again; or run beside the others, in a lab of their
    own (`-n 2 --dist loadgroup`).
    """

    def crowded(item: pytest.Item) -> bool:
        return "neighbours" in getattr(item, "fixturenames", ())

    items.sort(key=crowded)
    for item in items:
        item.add_marker(pytest.mark.xdist_group("crowded" if crowded(item) else "alone"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for lines in (value for name, value in report.user_properties if name == REPORT):
                terminalreporter.section(report.nodeid, sep="-")
                terminalreporter.write_line("\n".join(lines))
