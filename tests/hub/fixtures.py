"""One bed for all tests that ask for ``hub_bed``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.hub.bed import Bed


@pytest.fixture(scope="session")
def hub_bed() -> Iterator[Bed]:
    """A head, two workers, four students and a teacher; for tests with the marker ``hub``."""
    from tests.hub.bed import LOOKS_OFTEN, Bed

    with Bed(changes=LOOKS_OFTEN) as bed:
        yield bed
