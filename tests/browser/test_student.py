"""What a student sees: the log-in, JupyterLab, a cell on a worker, the shared folder; and who stays outside."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, Error, Locator, Page, expect

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hub.bed import Bed

pytestmark = [pytest.mark.hub, pytest.mark.browser]

Shot = Callable[[str], None]

CELL = (
    "import json, os, socket; "
    "print(json.dumps([socket.gethostname(), os.environ['SLURM_JOB_ID'], os.listdir('/srv/shared')]))"
)


def log_in(page: Page, url: str, name: str, password: str) -> None:
    page.goto(url)
    page.fill("#username_input", name)
    page.fill("#password_input", password)
    page.click("#login_submit")


def run(page: Page, output: Locator) -> None:
    """Run the first cell; what is asked before JupyterLab has the kernel's ear is lost now and then, so ask again."""
    for _ in range(4):
        page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Shift+Enter")
        with contextlib.suppress(AssertionError):
            expect(output).to_contain_text("]", timeout=30_000)
            return
    expect(output).to_contain_text("]")


def test_a_student_works_and_logs_out(hub_bed: Bed, page: Page, shot: Shot) -> None:
    hub_bed.head.run("sh", "-c", "echo hello > /srv/shared/welcome.txt")
    page.goto(hub_bed.url)
    expect(page.locator("#password_input")).to_be_visible()
    shot("1-login")
    log_in(page, hub_bed.url, "student-001", hub_bed.passwords()["class"])
    page.wait_for_url(re.compile(r"/user/student-001/lab"), timeout=180_000)
    page.locator('.jp-LauncherCard[data-category="Notebook"]').first.click(timeout=120_000)
    shot("2-lab")
    editor = page.locator(".jp-Notebook .jp-CodeCell .cm-content").first
    expect(page.locator(".jp-Notebook-ExecutionIndicator")).to_have_attribute("data-status", "idle", timeout=120_000)
    editor.click()
    page.keyboard.insert_text(CELL)
    expect(editor).to_contain_text("SLURM_JOB_ID")
    output = page.locator(".jp-OutputArea-output pre").first
    run(page, output)
    shot("3-cell")
    host, job, shared = json.loads(output.inner_text())
    assert host in hub_bed.machines
    assert host != "head"
    assert "welcome.txt" in shared
    assert (job, "student-001", "RUNNING", host) in hub_bed.jobs()

    page.goto(f"{hub_bed.url}hub/home")
    page.click("#stop")
    expect(page.locator("#stop")).to_be_hidden(timeout=60_000)
    page.goto(f"{hub_bed.url}hub/logout")
    expect(page.locator("#password_input")).to_be_visible()
    shot("4-after")
    page.goto(f"{hub_bed.url}user/student-001/lab")
    expect(page.locator("#password_input")).to_be_visible()
    assert [user for _, user, state, _ in hub_bed.jobs() if state == "RUNNING"] == []


@pytest.mark.parametrize(
    ("name", "right"), [("student-002", False), ("teacher", False), ("root", True), ("stranger", True)]
)
def test_nobody_else_gets_in(hub_bed: Bed, page: Page, shot: Shot, name: str, right: bool) -> None:
    """A student's name with a wrong password, and others with the class's."""
    password = hub_bed.passwords()["class"] if right else "a guess of somebody's"
    log_in(page, hub_bed.url, name, password)
    expect(page.locator(".login_error")).to_be_visible()
    shot("refused")
    for place in ("hub/home", f"user/{name}/lab", "hub/admin"):
        page.goto(f"{hub_bed.url}{place}")
        expect(page.locator("#password_input")).to_be_visible()
    assert name not in [user for _, user, *_ in hub_bed.jobs()]


def test_a_browser_that_does_not_know_the_authority_warns(
    hub_bed: Bed, launch: Callable[[Path], Browser], tmp_path: Path
) -> None:
    browser = launch(tmp_path)
    with pytest.raises(Error, match="ERR_CERT_AUTHORITY_INVALID"):
        browser.new_page().goto(hub_bed.url)
    browser.close()


def test_the_teacher_sees_a_students_server_and_stops_it(
    hub_bed: Bed, trusting: Browser, page: Page, shot: Shot
) -> None:
    student = trusting.new_context().new_page()
    log_in(student, hub_bed.url, "student-003", hub_bed.passwords()["class"])
    student.wait_for_url(re.compile(r"/user/student-003/lab"), timeout=180_000)
    log_in(page, hub_bed.url, "teacher", hub_bed.passwords()["admin"])
    page.goto(f"{hub_bed.url}hub/admin")
    row = page.get_by_role("row").filter(has_text="student-003")
    stop = row.get_by_role("button", name="Stop Server")
    expect(stop).to_be_visible()
    shot("1-admin")
    stop.click()
    expect(row.get_by_role("button", name="Start Server")).to_be_visible()
    shot("2-stopped")
    assert "student-003" not in [user for _, user, state, _ in hub_bed.jobs() if state == "RUNNING"]
    student.context.close()
