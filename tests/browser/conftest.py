"""Debian's Chromium, which trusts the bed's certificate authority as a person's would, and keeps screenshots."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.hub.bed import Bed

CHROMIUM = "/usr/bin/chromium"
SHOTS = Path(os.environ.get("VCLUSTER_SHOTS", "build/browser"))


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[[Path], Browser]]:
    """Starts a browser whose person has this home. A module's, since Playwright's loop lets no other run beside it."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:

        def start(home: Path) -> Browser:
            return playwright.chromium.launch(
                executable_path=CHROMIUM, args=[*flags, "--disable-gpu"], env={**os.environ, "HOME": str(home)}
            )

        yield start


@pytest.fixture(scope="module")
def trusting(
    hub_bed: Bed, launch: Callable[[Path], Browser], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    """A browser into which the authority's certificate was imported."""
    home = tmp_path_factory.mktemp("home")
    database, ca = home / ".pki/nssdb", home / "ca.pem"
    database.mkdir(parents=True)
    ca.write_text(hub_bed.ca)
    certutil = ["certutil", "-d", f"sql:{database}"]
    subprocess.run([*certutil, "-N", "--empty-password"], check=True)
    subprocess.run([*certutil, "-A", "-n", "bed", "-t", "C,,", "-i", ca], check=True)
    browser = launch(home)
    yield browser
    browser.close()


@pytest.fixture
def page(trusting: Browser) -> Iterator[Page]:
    """A window of somebody who was never here."""
    context = trusting.new_context(viewport={"width": 1280, "height": 800}, locale="en-US")
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def shot(page: Page, request: pytest.FixtureRequest) -> Iterator[Callable[[str], None]]:
    """Keeps what the window shows, under the test's name and a word; and what it showed last."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", request.node.name).strip("-")

    def keep(word: str) -> None:
        page.screenshot(path=str(SHOTS / f"{name}-{word}.png"))

    yield keep
    keep("last")


@pytest.fixture(autouse=True)
def _nobody_left(hub_bed: Bed) -> Iterator[None]:
    """A test that fails in the middle leaves no server to the next."""
    yield
    hub_bed.head.run("scancel", "--name=jupyter")
