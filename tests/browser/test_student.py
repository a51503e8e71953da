"""What a student sees: the log-in, JupyterLab, a cell on a worker, the shared folder; and who stays outside."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, Error, Page, expect

from tests.browser.chromium import WHERE, log_in, log_out, new_notebook, run_cell, window

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hub.bed import Bed

pytestmark = [pytest.mark.hub, pytest.mark.browser]

Shot = Callable[[str], None]


def running(bed: Bed) -> set[str]:
    """Whose servers run. The page says that one is stopped when the Hub begins to end it."""
    return {user for _, user, state, _ in bed.jobs() if state == "RUNNING"}


def test_a_student_works_and_logs_out(hub_bed: Bed, page: Page, shot: Shot) -> None:
    hub_bed.head.run("sh", "-c", "echo hello > /srv/shared/welcome.txt")
    page.goto(hub_bed.url)
    expect(page.locator("#password_input")).to_be_visible()
    shot("1-login")
    log_in(page, hub_bed.url, "student-001", hub_bed.passwords()["class"])
    page.wait_for_url(re.compile(r"/user/student-001/lab"), timeout=300_000)
    new_notebook(page)
    shot("2-lab")
    host, job, shared = json.loads(run_cell(page, WHERE))
    shot("3-cell")
    assert host in hub_bed.machines
    assert host != "head"
    assert "welcome.txt" in shared
    assert (job, "student-001", "RUNNING", host) in hub_bed.jobs()

    log_out(page, hub_bed.url)
    shot("4-after")
    page.goto(f"{hub_bed.url}user/student-001/lab")
    expect(page.locator("#password_input")).to_be_visible()
    hub_bed._wait("the end of every server", lambda: not running(hub_bed))


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
    with window(trusting) as student:
        log_in(student, hub_bed.url, "student-003", hub_bed.passwords()["class"])
        student.wait_for_url(re.compile(r"/user/student-003/lab"), timeout=300_000)
        log_in(page, hub_bed.url, "teacher", hub_bed.passwords()["admin"])
        page.goto(f"{hub_bed.url}hub/admin")
        row = page.get_by_role("row").filter(has_text="student-003")
        stop = row.get_by_role("button", name="Stop Server")
        expect(stop).to_be_visible()
        shot("1-admin")
        stop.click()
        expect(row.get_by_role("button", name="Start Server")).to_be_visible()
        shot("2-stopped")
        hub_bed._wait("the end of the student's server", lambda: "student-003" not in running(hub_bed))
