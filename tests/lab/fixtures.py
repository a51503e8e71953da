"""The lab for tests: one for all that ask for it, or the one that ``VCLUSTER_LAB`` names by its folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lab.lab import LabClient


@pytest.fixture(scope="session")
def lab() -> Iterator[LabClient]:
    """A lab with Nova's fake machines, which ends with the tests; for tests with the marker ``lab``."""
    from tests.lab.lab import Lab, remove_stale_folders, running_lab

    running = running_lab()
    if running is not None:
        yield running
        running.close()
        return
    remove_stale_folders()
    with Lab() as mine:
        yield mine
        mine.check()


@pytest.fixture(scope="session")
def neighbours(lab: LabClient) -> LabClient:
    """The lab, with 200 things of a colleague's in the project ``demo``."""
    from tests.lab.neighbours import settle

    settle(lab)
    return lab
