"""A worker dies under twenty notebooks: all of their owners start again on the other one, and find their files."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.hub.bed import DEFAULT, LOOKS_OFTEN, Bed
from tests.hub.person import Person, person, server_gone, until

pytestmark = pytest.mark.hub

CROWD = 20
SPEC: dict[str, Any] = {
    **DEFAULT,
    # Twenty of the smallest notebooks fill one worker to the last.
    "workers": [{"name": "cpu", "count": 2, "flavor": {"cpus": 4, "memory": "8G", "disk": "8G"}}],
    "jupyterhub": {
        **DEFAULT["jupyterhub"],
        "people": {"count": CROWD, "prefix": "student"},
        "profiles": [{"name": "standard", "memory": "384M"}],
        "cpu_oversubscribe": 5,
    },
}
PATIENCE = 600.0


@pytest.fixture(scope="module")
def crowded_bed() -> Iterator[Bed]:
    with Bed(SPEC, changes=LOOKS_OFTEN) as bed:
        yield bed


def set_node(bed: Bed, name: str, state: str) -> None:
    bed.head.run("scontrol", "update", f"NodeName={name}", f"State={state}", "Reason=drill")


def where(bed: Bed) -> Counter[str]:
    """How many notebooks run on each worker."""
    return Counter(host for _, _, state, host in bed.jobs() if state == "RUNNING")


async def works(one: Person) -> str:
    """Go to the server, as after a click; what the homework says there."""
    await one.browser.want("GET", f"{one.server}lab", 200)
    answer = await one.browser.want("GET", f"{one.server}api/contents/homework.txt", 200, token=one.server)
    text: str = answer.json()["content"]
    return text


def test_all_of_twenty_start_again(crowded_bed: Bed) -> None:
    bed = crowded_bed
    names = [f"student-{n:03d}" for n in range(1, CROWD + 1)]
    homework = {name: f"homework of {name}" for name in names}
    for name, text in homework.items():
        bed.head.run("runuser", "-u", name, "--", "sh", "-c", f"cat > /home/{name}/homework.txt", stdin=text)

    async def drill() -> None:
        async with AsyncExitStack() as stack:
            word = bed.passwords()["class"]
            crowd = [await stack.enter_async_context(person(bed.url, bed.ca, name, word, PATIENCE)) for name in names]
            try:
                await asyncio.gather(*(one.login() for one in crowd))
                set_node(bed, "cpu-2", "DRAIN")
                await asyncio.gather(*(one.spawn() for one in crowd))
                assert where(bed) == {"cpu-1": CROWD}
                set_node(bed, "cpu-2", "RESUME")
                await asyncio.to_thread(bed.machines["cpu-1"].kill)
                set_node(bed, "cpu-1", "DOWN")
                await asyncio.gather(
                    *(until("the Hub sees that a server is gone", lambda one=one: server_gone(one)) for one in crowd)
                )
                await asyncio.gather(*(one.spawn() for one in crowd))
                assert where(bed) == {"cpu-2": CROWD}
                told = await asyncio.gather(*(works(one) for one in crowd))
                assert dict(zip(names, told, strict=True)) == homework
            finally:
                await asyncio.gather(*(one.leave() for one in crowd), return_exceptions=True)

    asyncio.run(drill())
