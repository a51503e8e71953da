"""Bad luck in the middle of a class, on the bed; ``make drills`` does the same on VMs."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.hub.bed import Bed
from tests.hub.person import hub_answers, server_gone, student, until, works

pytestmark = pytest.mark.hub

WHERE = "import json, os, socket; print(json.dumps([socket.gethostname(), os.environ['SLURM_JOB_ID']]))"


def test_a_hub_that_is_killed_cuts_nobody_off(bed: Bed) -> None:
    async def drill() -> None:
        async with student(bed, "student-001") as one, one.cells() as cell:
            before = json.loads(await cell(WHERE))
            bed.head.run("systemctl", "kill", "-s", "KILL", "jupyterhub")
            for _ in range(10):
                assert json.loads(await cell(WHERE)) == before
                await asyncio.sleep(0.2)
            await until("the Hub knows the server again", lambda: hub_answers(one))
            assert json.loads(await cell(WHERE)) == before

    asyncio.run(drill())


def test_a_proxy_that_is_killed_finds_everybody_again(bed: Bed) -> None:
    async def drill() -> None:
        async with student(bed, "student-001") as one:
            assert await works(one)
            bed.head.run("systemctl", "kill", "-s", "KILL", "jupyterhub-proxy")
            await until("the kernel answers through the new proxy", lambda: works(one), 20.0)

    asyncio.run(drill())


def test_a_worker_that_dies_takes_a_server_and_no_file_along(bed: Bed) -> None:
    async def drill() -> None:
        async with student(bed, "student-002") as one:
            async with one.cells() as cell:
                host, job = json.loads(await cell(WHERE))
                await cell("open('homework.txt', 'w').write('done')")
            bed.machines[host].kill()
            bed.head.run("scontrol", "update", f"NodeName={host}", "State=DOWN", "Reason=drill")
            await until("the Hub sees that the server is gone", lambda: server_gone(one), 120.0)
            await one.spawn()
            await one.lab()
            await one.open_kernel()
            async with one.cells() as cell:
                other, other_job = json.loads(await cell(WHERE))
                assert (await cell("print(open('homework.txt').read())")).strip() == "done"
            assert other != host
            assert other_job != job
            bed.machines[host].boot(bed.tree, bed.root / "shared")
            bed.start_units(host)
            bed.head.run("scontrol", "update", f"NodeName={host}", "State=RESUME", check=False)

    asyncio.run(drill())
    bed.wait_for_workers()


def test_a_head_that_is_rebooted_finds_the_servers_again(bed: Bed) -> None:
    async def drill() -> None:
        async with student(bed, "student-003") as one:
            async with one.cells() as cell:
                before = json.loads(await cell(WHERE))
            bed.reboot("head")
            await until("the kernel answers as before", lambda: works(one), 120.0)
            await until("the Hub knows the server", lambda: hub_answers(one), 60.0)
            async with one.cells() as cell:
                assert json.loads(await cell(WHERE)) == before

    asyncio.run(drill())
    bed.wait_for_workers()


def test_a_full_home_starts_a_server_all_the_same(bed: Bed) -> None:
    """A full disk of a user's own, on the worker and on the head."""

    async def drill() -> None:
        async with student(bed, "student-004") as one, one.cells() as cell:
            told = await cell(
                "try:\n    open('x', 'w').write('y' * 99999)\nexcept OSError as error:\n    print(error.strerror)"
            )
            assert told.strip() == "No space left on device"

    home = "/home/student-004"
    uid = bed.head.run("id", "-u", "student-004").stdout.strip()
    try:
        for machine in bed.machines.values():
            machine.run("mount", "-t", "tmpfs", "-o", f"size=64k,mode=700,uid={uid},gid={uid}", "tmpfs", home)
            machine.run("sh", "-c", f"head -c 99999 /dev/zero > {home}/full", check=False)
        asyncio.run(drill())
    finally:
        for machine in bed.machines.values():
            machine.run("umount", "-l", home, check=False)
