"""Servers that nobody uses end, and those that somebody uses do not: the Hub's own culler, in seconds, not hours."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import pytest

from tests.hub.bed import DEFAULT, Bed
from tests.hub.person import Person, server_gone, student, until

pytestmark = pytest.mark.hub

IDLE = 30
LIBRARY = "/usr/local/lib/vcluster/jupyterhub"
CHANGES = {
    # Nobody may ask for so little, and nothing else is another: what is hours on a cluster is seconds here.
    "/etc/vcluster/hub/hub.json": {'  "server": 3600': f'  "server": {IDLE}'},
    f"{LIBRARY}/jupyterhub_config.py": {
        r"    every = max\(60": "    every = max(3",
        r"c\.JupyterHub\.last_activity_interval = .*": "c.JupyterHub.last_activity_interval = 3",
    },
}
ENOUGH = "/srv/shared/enough"
COMPUTES = f"""
import os, time
while not os.path.exists({ENOUGH!r}):
    time.sleep(0.1)
print('done')
"""
POLLED = ("api/kernels", "api/sessions", "api/terminals", "api/kernelspecs", "api/contents?content=1&type=directory")
"""What JupyterLab asks for again and again while its tab is in front."""


@pytest.fixture(scope="module")
def idle_bed() -> Iterator[Bed]:
    with Bed(DEFAULT, changes=CHANGES) as bed:
        yield bed


async def gone(one: Person) -> None:
    """Return when the Hub has ended somebody's server, which is nobody else's to end any more."""
    await until(f"the server of {one.account.name} is gone", lambda: server_gone(one))
    one.spawned, one.kernel = False, ""


async def looks(one: Person) -> float:
    """Look at an open tab until its server is gone; how many seconds that was."""
    begin = time.monotonic()
    async with one.cells():
        while True:
            for path in POLLED:
                if (await one.browser.request("GET", one.server + path, token=one.server)).status != 200:
                    return time.monotonic() - begin
            await asyncio.sleep(1.0)


def test_idle_servers_end_and_busy_ones_do_not(idle_bed: Bed) -> None:
    """One is left alone; one's tab stays in front, with a kernel that does nothing; one computes without a word."""

    async def work() -> None:
        async with (
            student(idle_bed, "student-003") as busy,
            busy.cells(1500.0) as cell,
        ):
            idle_bed.head.run("rm", "-f", ENOUGH)
            began = time.monotonic()
            # A cell that prints nothing while it lasts: what must not be taken for idle.
            computes = cell(COMPUTES)
            async with (
                student(idle_bed, "student-001") as away,
                student(idle_bed, "student-002") as in_front,
            ):
                looked, _, _ = await asyncio.gather(looks(in_front), gone(in_front), gone(away))
            assert looked > IDLE / 2
            await asyncio.sleep(max(0.0, began + 2.5 * IDLE - time.monotonic()))
            idle_bed.head.run("touch", ENOUGH)
            assert (await computes).strip() == "done"

    asyncio.run(work())


def test_what_ends_by_itself_is_as_the_spec_says(idle_bed: Bed) -> None:
    """The bed's seconds are seconds because of what it changes alone."""
    text = idle_bed.head.run("ps", "-eo", "args").stdout
    culler = next(line for line in text.splitlines() if "jupyterhub_idle_culler" in line)
    assert f"--timeout={IDLE}" in culler
    assert json.loads(idle_bed.head.run("cat", "/etc/vcluster/hub/hub.json").stdout)["idle"]["kernel"] == 3600
