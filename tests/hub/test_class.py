"""A small class on the bed: all come in at once, work, and leave nothing behind; who may not come in does not."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from tests.hub.bed import Bed
from tests.hub.person import person, student
from vcluster.errors import UsageError
from vcluster.rehearsal.browser import Failed
from vcluster.rehearsal.client import Pace
from vcluster.rehearsal.run import Script

pytestmark = pytest.mark.hub

QUICK = Script(within=2.0, pace=Pace(lasting=4.0, between=1.0))


def accounts(bed: Bed) -> str:
    return bed.head.run("cat", "/var/lib/extrausers/passwd").stdout


def test_a_class_works_and_leaves_no_trace(bed: Bed) -> None:
    before = accounts(bed)
    report = bed.rehearse(6, QUICK)
    assert report.passed, report.text()
    assert report.users == 6
    assert {host for host, _ in report.hosts} <= {"cpu-1", "cpu-2"}
    assert len({seen.job for seen in report.visits}) == 6
    assert all(seen.cells for seen in report.visits)
    assert accounts(bed) == before
    assert bed.head.run("ls", "-A", "/home/.rehearsal").stdout == ""
    assert bed.passwords()["rehearsal"] is None
    with bed.hub() as hub:
        assert hub.status().servers == 0


def test_too_many_are_refused_before_anything_is_made(bed: Bed) -> None:
    before = accounts(bed)
    with bed.hub() as hub:
        room = hub.status().room
    with pytest.raises(UsageError, match=f"room for {room} more"):
        bed.rehearse(room + 1, QUICK)
    assert accounts(bed) == before


@pytest.mark.parametrize("name", ["student-001", "teacher", "root", "vcluster", "nobody-we-know"])
def test_a_wrong_password_lets_nobody_in(bed: Bed, name: str) -> None:
    async def knock() -> int:
        async with person(bed.url, bed.ca, name, "not the password") as somebody:
            with pytest.raises(Failed, match="login refused"):
                await somebody.login()
            return (await somebody.browser.request("GET", "/hub/api/user")).status

    assert asyncio.run(knock()) == 403


@pytest.mark.parametrize("name", ["root", "vcluster", "nobody-we-know", "rehearsal-001"])
def test_the_class_password_is_for_people_alone(bed: Bed, name: str) -> None:
    async def knock() -> None:
        async with person(bed.url, bed.ca, name, bed.passwords()["class"]) as somebody:
            with pytest.raises(Failed, match="login refused"):
                await somebody.login()

    asyncio.run(knock())


def test_jupyterlab_has_no_debugger_that_neighbours_could_use(bed: Bed) -> None:
    async def page() -> str:
        async with student(bed, "student-001") as one:
            answer = await one.browser.want("GET", f"{one.server}lab", 200)
            return answer.body.decode()

    told = re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', asyncio.run(page()), re.DOTALL)
    assert told is not None
    assert "@jupyterlab/debugger-extension" in json.loads(told[1])["disabledExtensions"]


SPY = """
import glob, os, socket
found = []
for path in ["/var/lib/jupyterhub", "/etc/vcluster/hub/passwords.json", "/etc/vcluster/secrets", "/home/student-002"]:
    try:
        os.listdir(path) if os.path.isdir(path) else open(path).read()
        found.append(path)
    except OSError:
        pass
for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        if os.stat(path).st_uid != os.getuid():
            open(path).read()
            found.append(path)
    except OSError:
        pass
print(found)
"""
WHERE = "import json, os, socket; print(json.dumps([socket.gethostname(), os.environ['SLURM_JOB_ID'], os.getuid()]))"


def test_a_notebook_is_a_job_of_its_user_and_sees_nobody_elses_things(bed: Bed) -> None:
    async def work() -> None:
        async with person(bed.url, bed.ca, "student-001", bed.passwords()["class"]) as student:
            await student.start()
            try:
                async with student.cells() as cell:
                    host, job, uid = json.loads(await cell(WHERE))
                    assert (job, "student-001", "RUNNING", host) in bed.jobs()
                    assert str(uid) == bed.head.run("id", "-u", "student-001").stdout.strip()
                    assert (await cell(SPY)).strip() == "[]"
                    await cell("open('kept.txt', 'w').write('mine')")
                    assert (
                        await cell(
                            "import os; print(os.access('/srv/shared', os.R_OK), os.access('/srv/shared', os.W_OK))"
                        )
                    ).split() == ["True", "False"]
            finally:
                await student.leave()

    asyncio.run(work())
    assert bed.machines["cpu-2"].run("cat", "/home/student-001/kept.txt").stdout == "mine"
