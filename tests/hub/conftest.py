"""What tests leave on the bed is looked at after each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.hub.bed import Bed


@pytest.fixture
def bed(hub_bed: Bed) -> Iterator[Bed]:
    """The bed of all tests; no job is left when the test is over."""
    yield hub_bed
    left = [job for job in hub_bed.jobs() if job[2] != "COMPLETING"]
    assert left == []
