"""Bad luck in the middle of a class, on the bed; ``make drills`` does the same on VMs."""

from __future__ import annotations

import asyncio

import pytest

from tests.hub.bed import Bed
from tests.hub.drills import head_reboots, hub_is_killed, proxy_is_killed, worker_dies
from tests.hub.person import server_gone, student, until, works

pytestmark = pytest.mark.hub

PATIENCE = 300.0


def test_a_hub_that_is_killed_cuts_nobody_off(bed: Bed) -> None:
    hub_is_killed(bed, "student-001", PATIENCE)


def test_a_proxy_that_is_killed_finds_everybody_again(bed: Bed) -> None:
    proxy_is_killed(bed, "student-001", PATIENCE)


def test_a_worker_that_dies_takes_a_server_and_no_file_along(bed: Bed) -> None:
    def kill(host: str) -> None:
        bed.machines[host].kill()
        bed.head.run("scontrol", "update", f"NodeName={host}", "State=DOWN", "Reason=drill")

    host = worker_dies(bed, "student-002", PATIENCE, kill)
    bed.machines[host].boot(bed.tree, bed.root / "shared")
    bed.start_units(host)
    bed.head.run("scontrol", "update", f"NodeName={host}", "State=RESUME", check=False)
    bed.wait_for_workers()


def test_a_job_that_slurm_queues_once_more_is_no_server_any_more(bed: Bed) -> None:
    """As Slurm does with one that it was still launching when its node died."""

    async def drill() -> None:
        async with student(bed, "student-002") as one:
            ((number, *_),) = bed.jobs()

            async def ended() -> bool:
                return "JobState=COMPLETING" not in bed.head.run("scontrol", "show", "job", number).stdout

            bed.head.run("scontrol", "update", f"JobId={number}", "Requeue=1")
            bed.head.run("scontrol", "requeue", number)
            await until("the Hub sees that the server is gone", lambda: server_gone(one))
            await until("the job has ended", ended)
            told = bed.head.run("scontrol", "show", "job", number).stdout
            assert "JobState=CANCELLED" in told, "it must not start a server that nobody waits for"
            await one.start()
            assert await works(one)

    asyncio.run(drill())


def test_a_head_that_is_rebooted_finds_the_servers_again(bed: Bed) -> None:
    head_reboots(bed, "student-003", PATIENCE, lambda: bed.reboot("head"))
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
