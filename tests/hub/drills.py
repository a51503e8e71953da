"""Bad luck in the middle of a class, on whatever machines it is: the bed's, and real VMs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Protocol

from tests.hub.person import Door, hub_answers, server_gone, student, until, works

SAVED_AFTER = 20.0
"""Seconds after which Slurm has surely written down a job that began; before that a head without power loses it."""

WHERE = "import json, os, socket; print(json.dumps([socket.gethostname(), os.environ['SLURM_JOB_ID']]))"


class Asked(Protocol):
    """A machine that one asks as root."""

    def run(self, *words: str) -> object: ...


class House(Door, Protocol):
    """A class's cluster."""

    @property
    def head(self) -> Asked: ...


def hub_is_killed(house: House, name: str, patience: float) -> None:
    """Who works goes on at once and throughout, and the Hub knows the server afterwards.

    Args:
        name: the student's.
        patience: seconds for anything to start.
    """

    async def drill() -> None:
        async with student(house, name, patience) as one, one.cells() as cell:
            before = json.loads(await cell(WHERE))
            house.head.run("systemctl", "kill", "-s", "KILL", "jupyterhub")
            for _ in range(10):
                assert json.loads(await cell(WHERE)) == before
                await asyncio.sleep(0.2)
            await until("the Hub knows the server again", lambda: hub_answers(one), patience)
            assert json.loads(await cell(WHERE)) == before

    asyncio.run(drill())


def proxy_is_killed(house: House, name: str, patience: float) -> None:
    """The kernel answers through the new proxy."""

    async def drill() -> None:
        async with student(house, name, patience) as one:
            assert await works(one)
            house.head.run("systemctl", "kill", "-s", "KILL", "jupyterhub-proxy")
            await until("the kernel answers through the new proxy", lambda: works(one), patience)

    asyncio.run(drill())


def worker_dies(house: House, name: str, patience: float, kill: Callable[[str], None]) -> str:
    """A server goes with its worker and no file does; its owner starts again, on another.

    Args:
        kill: ends the machine of this name as a power cut would; Slurm knows when it returns.

    Returns:
        The name of the worker that died.
    """

    async def drill() -> str:
        async with student(house, name, patience) as one:
            async with one.cells() as cell:
                host, job = json.loads(await cell(WHERE))
                await cell("import os; file = open('homework.txt', 'w'); file.write('done'); file.close(); os.sync()")
            await asyncio.to_thread(kill, host)
            await until("the Hub sees that the server is gone", lambda: server_gone(one), patience)
            await one.spawn()
            await one.lab()
            await one.open_kernel()
            async with one.cells() as cell:
                other, other_job = json.loads(await cell(WHERE))
                assert (await cell("print(open('homework.txt').read())")).strip() == "done"
            assert (other != host, other_job != job) == (True, True)
        return str(host)

    return asyncio.run(drill())


def head_reboots(house: House, name: str, patience: float, reboot: Callable[[], None]) -> None:
    """The kernel is the same one afterwards, and the Hub knows its server.

    Args:
        reboot: returns when the head is on its way.
    """

    async def drill() -> None:
        async with student(house, name, patience) as one:
            async with one.cells() as cell:
                before = json.loads(await cell(WHERE))
                await cell("kept = 'in memory'")
            await asyncio.sleep(SAVED_AFTER)
            await asyncio.to_thread(reboot)
            await until("the kernel answers as before", lambda: works(one), patience)
            await until("the Hub knows the server", lambda: hub_answers(one), patience)
            async with one.cells() as cell:
                assert json.loads(await cell(WHERE)) == before
                assert (await cell("print(kept)")).strip() == "in memory"

    asyncio.run(drill())
