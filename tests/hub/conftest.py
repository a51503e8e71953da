"""One bed for all tests that ask for ``hub_bed``; each leaves it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.hub.bed import Bed


@pytest.fixture(scope="session")
def hub_bed() -> Iterator[Bed]:
    """A head, two workers, four students and a teacher; with the marker ``hub``."""
    from tests.hub.bed import Bed

    with Bed() as bed:
        yield bed


@pytest.fixture
def bed(hub_bed: Bed) -> Iterator[Bed]:
    """The same, and no job is left when the test is over."""
    yield hub_bed
    left = [job for job in hub_bed.jobs() if job[2] != "COMPLETING"]
    assert left == []
