"""A browser that trusts the bed's certificate authority, and keeps screenshots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser.chromium import Launch, launcher, shots, trusting, window

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.hub.bed import Bed


@pytest.fixture(scope="module")
def launch() -> Iterator[Launch]:
    """Starts a browser. A module's, since Playwright's loop lets no other run beside it."""
    with launcher() as start:
        yield start


@pytest.fixture(scope="module", name="trusting")
def _trusting(hub_bed: Bed, launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with trusting(launch, hub_bed.ca, tmp_path_factory.mktemp("home")) as browser:
        yield browser


@pytest.fixture
def page(trusting: Browser) -> Iterator[Page]:
    """A window of somebody who was never here."""
    with window(trusting) as page:
        yield page


@pytest.fixture
def shot(page: Page, request: pytest.FixtureRequest) -> Iterator[Callable[[str], None]]:
    """Keeps what the window shows, under the test's name and a word; and what it showed last."""
    with shots(page, request.node.name) as keep:
        yield keep


@pytest.fixture(autouse=True)
def _nobody_left(hub_bed: Bed) -> Iterator[None]:
    """A test that fails in the middle leaves no server to the next, and none a file: other tests have the same bed."""
    yield
    hub_bed.head.run("scancel", "--name=jupyter-vcluster")
    hub_bed.head.run("rm", "-f", "/srv/shared/welcome.txt")
