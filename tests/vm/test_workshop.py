"""The workshop's example on real VMs: what `up` says, what a student sees, what nobody sees, and what is open.

The tests run in the order of this file, on one class.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from conftest import Cli, Watch, wait_for
from secret_search import forms, search
from stranger import Stranger
from workshop import NAME, PATIENCE, Workshop

from tests.browser.chromium import WHERE, launcher, log_in, log_out, new_notebook, run_cell, shots, trusting, window
from tests.hub.person import person, student
from vcluster.clouds.local import LocalCloud
from vcluster.clouds.local.records import ClusterFolder
from vcluster.rehearsal.browser import Failed

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]


def test_up_says_where_the_class_is_and_how_it_gets_in(workshop: Workshop) -> None:
    assert workshop.url in workshop.printed
    assert workshop.door["fingerprint"] in workshop.printed.replace("\n", "")
    assert workshop.passwords()["class"] in workshop.printed
    assert workshop.passwords()["admin"] in workshop.printed
    assert workshop.passwords()["class"] not in json.dumps(dict(workshop.door))


def test_status_tells_the_hub_and_the_room_left(workshop: Workshop, cli: Cli) -> None:
    told = cli.json("status", NAME)["hub"]
    assert isinstance(told, dict)
    assert (told["up"], told["servers"], told["url"]) == (True, 0, workshop.url)
    assert told["room"] == told["capacity"] > 0


# A browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(workshop: Workshop, tmp_path: Path) -> Iterator[Page]:
    """A window of somebody who was never here, in a browser that trusts the class's authority."""
    with launcher() as launch, trusting(launch, workshop.ca, tmp_path) as browser, window(browser, PATIENCE) as page:
        yield page


@pytest.mark.browser
def test_a_student_logs_in_runs_a_cell_on_a_worker_and_logs_out(
    workshop: Workshop, page: Page, request: pytest.FixtureRequest
) -> None:
    from playwright.sync_api import expect

    workshop.head.run("sh", "-c", "echo hello > /srv/shared/welcome.txt")
    with shots(page, f"vm-{request.node.name}") as shot:
        page.goto(workshop.url)
        expect(page.locator("#password_input")).to_be_visible()
        shot("1-login")
        log_in(page, workshop.url, "student-001", workshop.passwords()["class"])
        page.wait_for_url(re.compile(r"/user/student-001/lab"), timeout=PATIENCE * 1000)
        new_notebook(page, PATIENCE)
        shot("2-lab")
        host, job, shared = json.loads(run_cell(page, WHERE, PATIENCE))
        shot("3-cell")
        assert host in {"cpu-1", "cpu-2"}
        assert "welcome.txt" in shared
        assert (job, "student-001", "RUNNING", host) in workshop.jobs()
        log_out(page, workshop.url, PATIENCE)
        shot("4-after")
    page.goto(f"{workshop.url}user/student-001/lab")
    expect(page.locator("#password_input")).to_be_visible()
    # The page says so when the Hub begins to end it.
    wait_for("the server's end", lambda: "RUNNING" not in {state for _, _, state, _ in workshop.jobs()}, PATIENCE)


@pytest.mark.browser
@pytest.mark.parametrize(("name", "right"), [("student-002", False), ("stranger", True)])
def test_a_wrong_password_and_a_stranger_get_in_nowhere(workshop: Workshop, page: Page, name: str, right: bool) -> None:
    from playwright.sync_api import expect

    log_in(page, workshop.url, name, workshop.passwords()["class"] if right else "a guess of somebody's")
    expect(page.locator(".login_error")).to_be_visible()
    for place in ("hub/home", f"user/{name}/lab", "hub/admin"):
        page.goto(f"{workshop.url}{place}")
        expect(page.locator("#password_input")).to_be_visible()
    assert workshop.jobs() == []


# A notebook --------------------------------------------------------------------------------------------------------

SPY = """
import os, socket
found = []
for path in ["/var/lib/jupyterhub", "/etc/vcluster/hub/passwords.json", "/etc/vcluster/secrets", "/home/student-002",
             "/etc/shadow", "/opt/vcluster/hub/lib/x", "/var/lib/cloud/instance/user-data.txt", "/run/munge/key"]:
    try:
        os.listdir(path) if os.path.isdir(path) else open(path).read()
        found.append(path)
    except OSError:
        pass
for name, port in [("169.254.169.254", 80), ("10.0.2.2", 22), ("head", 3306), ("head", 8001), ("head", 8000)]:
    try:
        socket.create_connection((name, port), 5).close()
        found.append(f"{name}:{port}")
    except OSError:
        pass
print(found)
"""

FILL = """
import os
try:
    with open("big", "w") as file:
        os.posix_fallocate(file.fileno(), 0, 600 << 20)
    print("stored")
except OSError as error:
    print(error.strerror)
"""


def in_a_notebook(workshop: Workshop, name: str, *cells: str) -> list[str]:
    """What cells of one's notebook print; they are run while a watch on the head notes every process's arguments."""

    async def work(run: Callable[[str], Awaitable[str]]) -> list[str]:
        return [(await run(cell)).strip() for cell in cells]

    async def visit() -> list[str]:
        async with student(workshop, name, PATIENCE) as one, one.cells() as run:
            return await work(run)

    return asyncio.run(visit())


SAMPLE = "umask 077; while sleep 0.3; do cat /proc/[0-9]*/cmdline; done >> /root/arguments 2> /dev/null"


@pytest.fixture(scope="module")
def arguments(workshop: Workshop) -> Iterator[None]:
    """While it lasts head and workers note all processes' arguments in a file of root's."""
    unit = "sample-arguments"
    for machine in workshop.machines.values():
        machine.run("systemd-run", "--quiet", f"--unit={unit}", "sh", "-c", SAMPLE)
    yield
    for machine in workshop.machines.values():
        machine.run("systemctl", "stop", unit)


def test_a_notebook_sees_nothing_of_the_hub_of_others_or_of_the_cloud(workshop: Workshop, arguments: None) -> None:
    (found,) = in_a_notebook(workshop, "student-001", SPY)
    assert found == "[]"


def test_nobody_stores_more_than_the_quota_and_a_full_home_can_be_tidied_up(workshop: Workshop) -> None:
    told = in_a_notebook(
        workshop, "student-002", FILL, "os.remove('big'); open('small', 'w').write('x'); print(os.path.exists('small'))"
    )
    assert told == ["Disk quota exceeded", "True"]
    assert "500M" in workshop.head.run("quota", "--human-readable", "--user", "student-002").stdout


def test_no_secret_in_arguments_logs_or_what_others_can_read(workshop: Workshop, watch: Watch) -> None:
    needles = forms(workshop.secrets())
    for name, machine in workshop.machines.items():
        seen = machine.run("cat", "/root/arguments").stdout.encode()
        assert b"slurm" in seen, name
        assert not any(needle in seen for needle in needles), name
        assert search(workshop.cluster, name, needles, readable=True) == "", name
    assert "/etc/vcluster/secrets/jupyterhub.env" in search(workshop.cluster, "head", needles, readable=False)
    for worker in ("cpu-1", "cpu-2"):
        assert search(workshop.cluster, worker, needles, readable=False) == "", worker
    assert not [word[:200] for word in watch.seen if any(needle in word.encode() for needle in needles)]
    told_once = [text for text in watch.printed if any(needle in text.encode() for needle in needles)]
    assert told_once == [workshop.printed], "passwords are printed once, by the first up"


# People and rehearsal ----------------------------------------------------------------------------------------------


def test_people_come_and_go_while_the_class_is_on(workshop: Workshop, cli: Cli) -> None:
    async def may(name: str) -> bool:
        async with person(workshop.url, workshop.ca, name, workshop.passwords()["class"], PATIENCE) as somebody:
            try:
                await somebody.login()
            except Failed:
                return False
            return True

    assert not asyncio.run(may("zoe"))
    cli("users", NAME, "add", "zoe")
    assert asyncio.run(may("zoe"))
    on_workers = workshop.head.run("srun", "--nodes=2", "id", "-u", "zoe").stdout.split()
    assert on_workers == workshop.head.run("id", "-u", "zoe").stdout.split() * 2
    cli("users", NAME, "remove", "zoe")
    assert not asyncio.run(may("zoe"))


def test_a_rehearsal_passes_and_leaves_no_account(workshop: Workshop, cli: Cli, tmp_path: Path) -> None:
    before = workshop.head.run("cat", "/var/lib/extrausers/passwd").stdout
    done = cli("rehearse", NAME, "--users", "2", "--within", "10s", "--for", "30s", "--output", str(tmp_path))
    assert "PASSED: all 2 users worked" in done.stdout
    report = json.loads((tmp_path / f"{NAME}-rehearsal.json").read_text())
    assert report["failures"] == []
    assert (tmp_path / f"{NAME}-rehearsal.svg").read_text().startswith("<svg")
    assert workshop.head.run("cat", "/var/lib/extrausers/passwd").stdout == before
    assert workshop.head.run("ls", "-A", "/home/.rehearsal").stdout == ""


# Who is no member --------------------------------------------------------------------------------------------------


def test_a_stranger_on_the_network_finds_three_ports_on_the_head_and_none_on_a_worker(
    workshop: Workshop, vm_home: Path
) -> None:
    cloud, ref = LocalCloud(vm_home, vm_home / "cache"), workshop.cluster.ref
    observed = cloud.observe(ref)
    last = str(list(ipaddress.ip_network(observed.networks[0].cidr).hosts())[-1])
    addresses = {port.name: port.address for port in observed.ports}
    assert last not in addresses.values()
    with Stranger(ClusterFolder(cloud._clouds, ref).sockets, last) as stranger:
        found = {name: stranger.open_ports(addresses[name]) for name in ("head", "cpu-1", "cpu-2")}
    assert found == {"head": {22, 80, 443}, "cpu-1": set(), "cpu-2": set()}


def test_what_is_left_is_idle(workshop: Workshop) -> None:
    """No test left a server; the next ones, and the class, begin with all the room."""
    deadline = time.monotonic() + 300
    while workshop.jobs() and time.monotonic() < deadline:
        time.sleep(5)
    assert workshop.jobs() == []
