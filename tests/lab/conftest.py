"""A project of their own for tests that ask for ``bed``, and what tests leave for a person to read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lab.cloud_bed import Bed
    from tests.lab.lab import LabClient

REPORT = "report"
"""The property of a test whose lines are printed when all is over, from whatever process they come."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for lines in (value for name, value in report.user_properties if name == REPORT):
                terminalreporter.section(report.nodeid, sep="-")
                terminalreporter.write_line("\n".join(lines))


@pytest.fixture
def bed(lab: LabClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    """A project that is empty before the test and after it; the sweeps have one full of neighbours instead."""
    from tests.lab.cloud_bed import Bed

    made = Bed(lab, tmp_path)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(made.clouds_yaml))
    yield made
    left = made.everything()
    made.close()
    assert left == {}
