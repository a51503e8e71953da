"""What tests leave on the bed is looked at after each; of one that failed is told what its bed says."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.hub.bed import Bed

LINES = 200
DULL = re.compile(r" 200 GET /hub/api/users/|Skipping XSRF check for insecure request GET /hub/api/users/")
"""What a test asks again and again until something is so."""


@pytest.fixture
def bed(hub_bed: Bed) -> Iterator[Bed]:
    """The bed of all tests; no job is left when the test is over."""
    yield hub_bed
    left = [job for job in hub_bed.jobs() if job[2] != "COMPLETING"]
    assert left == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What fails once in a hundred runs, on a machine that nobody can log in to, must say why by itself."""
    report = yield
    if report.when == "call" and report.failed:
        from tests.hub.bed import Bed

        for bed in (each for each in getattr(item, "funcargs", {}).values() if isinstance(each, Bed)):
            report.sections += _told(bed)
    return report


def _told(bed: Bed) -> Iterator[tuple[str, str]]:
    """The ends of the head's logs, and what Slurm says of jobs and workers."""
    for unit in ("jupyterhub", "jupyterhub-proxy", "slurmctld"):
        with suppress(OSError, subprocess.SubprocessError):
            lines = [line for line in bed.log(unit).splitlines() if not DULL.search(line)]
            yield f"the bed's {unit}", "\n".join(lines[-LINES:])
    for command in (["squeue", "--all", "--states=all"], ["sinfo", "--list-reasons", "--all"]):
        with suppress(OSError, subprocess.SubprocessError):
            yield f"the bed's {command[0]}", bed.head.run(*command, check=False, timeout=30).stdout
