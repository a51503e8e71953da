"""Debian's Chromium, which trusts a Hub's certificate authority as a person's would, and what people do with it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tenacity import Retrying, retry_if_exception_type, stop_after_delay

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = [
    "SHOTS",
    "WHERE",
    "Launch",
    "launcher",
    "log_in",
    "log_out",
    "new_notebook",
    "press_until",
    "run_cell",
    "shots",
    "trusting",
    "window",
]

CHROMIUM = "/usr/bin/chromium"
SHOTS = Path(os.environ.get("VCLUSTER_SHOTS", "build/browser"))
"""Where screenshots are kept."""

PATIENCE = 120.0
"""Seconds for JupyterLab to show something, and for a cell; machines in emulation want more."""

AGAIN = 10.0
"""Seconds after which what did nothing is pressed again: a page takes no notice before its script is there."""

WHERE = (
    "import json, os, socket; "
    "print(json.dumps([socket.gethostname(), os.environ['SLURM_JOB_ID'], os.listdir('/srv/shared')]))"
)
"""A cell that says where it runs, and what is in the shared folder."""

Launch = Callable[[Path], "Browser"]
"""Starts a browser whose person has this home."""


@contextmanager
def launcher() -> Iterator[Launch]:
    """While it is open its thread can run no other event loop: Playwright's stands there."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:

        def start(home: Path) -> Browser:
            return playwright.chromium.launch(
                executable_path=CHROMIUM, args=[*flags, "--disable-gpu"], env={**os.environ, "HOME": str(home)}
            )

        yield start


@contextmanager
def trusting(launch: Launch, ca: str, home: Path) -> Iterator[Browser]:
    """A browser into which an authority's certificate, a PEM, was imported.

    Args:
        home: an empty folder.
    """
    database, file = home / ".pki/nssdb", home / "ca.pem"
    database.mkdir(parents=True)
    file.write_text(ca)
    certutil = ["certutil", "-d", f"sql:{database}"]
    subprocess.run([*certutil, "-N", "--empty-password"], check=True)
    subprocess.run([*certutil, "-A", "-n", "hub", "-t", "C,,", "-i", file], check=True)
    browser = launch(home)
    yield browser
    browser.close()


@contextmanager
def window(browser: Browser, patience: float = PATIENCE) -> Iterator[Page]:
    """A window of somebody who was never here.

    Args:
        patience: seconds for one step.
    """
    from playwright.sync_api import expect

    # Its own five seconds are less than a busy machine may take for a page.
    expect.set_options(timeout=patience * 1000)
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-US")
    context.set_default_timeout(patience * 1000)
    yield context.new_page()
    context.close()


@contextmanager
def shots(page: Page, test: str) -> Iterator[Callable[[str], None]]:
    """Gives what keeps a picture of the window under the test's name and a word; the last one is kept anyway."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", test).strip("-")

    def keep(word: str) -> None:
        page.screenshot(path=str(SHOTS / f"{name}-{word}.png"))

    try:
        yield keep
    finally:
        keep("last")


def log_in(page: Page, url: str, name: str, password: str) -> None:
    page.goto(url)
    page.fill("#username_input", name)
    page.fill("#password_input", password)
    page.click("#login_submit")


def new_notebook(page: Page, patience: float = PATIENCE) -> None:
    """Open one from JupyterLab's launcher and wait until its kernel has nothing to do.

    Args:
        patience: seconds for each of the two.
    """
    from playwright.sync_api import expect

    page.locator('.jp-LauncherCard[data-category="Notebook"]').first.click(timeout=patience * 1000)
    indicator = page.locator(".jp-Notebook-ExecutionIndicator")
    expect(indicator).to_have_attribute("data-status", "idle", timeout=patience * 1000)


def run_cell(page: Page, code: str, patience: float = PATIENCE) -> str:
    """Type a line into the new notebook's first cell and run it; what it printed, which ends with ``]``.

    What is asked before JupyterLab has the kernel's ear is lost now and then, so it is asked again.
    """
    from playwright.sync_api import expect

    editor = page.locator(".jp-Notebook .jp-CodeCell .cm-content").first
    output = page.locator(".jp-OutputArea-output pre").first
    editor.click()
    page.keyboard.insert_text(code)
    expect(editor).to_contain_text(code[-20:])

    def run(wait: float) -> None:
        editor.click(timeout=wait)
        page.keyboard.press("Shift+Enter")

    press_until(run, lambda wait: expect(output).to_contain_text("]", timeout=wait), patience)
    return output.inner_text()


def log_out(page: Page, url: str, patience: float = PATIENCE) -> None:
    """Stop the server and leave."""
    from playwright.sync_api import expect

    page.goto(f"{url}hub/home")
    stop = page.locator("#stop")
    press_until(lambda wait: stop.click(timeout=wait), lambda wait: expect(stop).to_be_hidden(timeout=wait), patience)
    page.goto(f"{url}hub/logout")
    expect(page.locator("#password_input")).to_be_visible()


def press_until(press: Callable[[float], None], expected: Callable[[float], None], patience: float) -> None:
    """Press, and again while what is expected does not come.

    Args:
        press: gets the milliseconds it may take; a button that can't be pressed any more is no failure.
        expected: an assertion, which gets the milliseconds to wait.
        patience: seconds after which it is not pressed again.

    Raises:
        AssertionError: of ``expected``, when it did not come.
    """
    from playwright.sync_api import TimeoutError as PressedInVain

    again = Retrying(retry=retry_if_exception_type(AssertionError), stop=stop_after_delay(patience), reraise=True)
    for attempt in again:
        with attempt:
            with contextlib.suppress(PressedInVain):
                press(AGAIN * 1000)
            expected(AGAIN * 1000)
