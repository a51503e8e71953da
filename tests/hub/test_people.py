"""People who come and go while the cluster runs: in a moment they can work, and in a moment they cannot."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.hub.bed import Bed
from tests.hub.person import Person, person
from vcluster.errors import UsageError
from vcluster.hub import NewPerson
from vcluster.rehearsal.browser import Failed

pytestmark = pytest.mark.hub

WHO = "import json, os, pwd; print(json.dumps([os.getuid(), pwd.getpwuid(os.getuid()).pw_name, os.getgroups()]))"


async def refused(somebody: Person) -> bool:
    """Whether what was a session is none any more."""
    return (await somebody.browser.request("GET", "/hub/api/user")).status == 403


def test_somebody_is_added_works_and_is_turned_out(bed: Bed) -> None:
    with bed.hub() as hub:
        assert hub.add([NewPerson("late-comer"), NewPerson("helper", instructor=True)]) == ("late-comer", "helper")
        with pytest.raises(UsageError, match="already there: helper"):
            hub.add([NewPerson("helper")])

    async def work() -> None:
        async with person(bed.url, bed.ca, "late-comer", bed.passwords()["class"]) as somebody:
            await somebody.start()
            async with somebody.cells() as cell:
                uid, name, groups = json.loads(await cell(WHO))
            assert (name, uid >= 20001) == ("late-comer", True)
            assert 2500 in groups
            with bed.hub() as hub:
                assert {each.name: each.server for each in hub.people()[0]}["late-comer"] == "running"
                assert hub.status().servers == 1
                gone = hub.remove(["late-comer"])
                assert (gone.homes, gone.problem) == (("/home/late-comer",), "")
                assert hub.status().servers == 0
            assert await refused(somebody)

    asyncio.run(work())
    bed._wait("the job to end", lambda: not bed.jobs())
    assert bed.head.run("id", "late-comer", check=False).returncode == 1
    assert bed.head.run("stat", "-c", "%a", "/home/late-comer").stdout.strip() == "700"

    async def again() -> None:
        async with person(bed.url, bed.ca, "late-comer", bed.passwords()["class"]) as somebody:
            with pytest.raises(Failed, match="login refused"):
                await somebody.login()

    asyncio.run(again())
    with bed.hub() as hub:
        hub.remove(["helper"])


def test_a_new_class_password_holds_at_once_and_for_those_who_come(bed: Bed) -> None:
    old = bed.passwords()["class"]

    async def change() -> None:
        async with person(bed.url, bed.ca, "student-001", old) as inside:
            await inside.login()
            with bed.hub() as hub:
                new = hub.passwords("class").shared
            assert new != old
            assert not await refused(inside)
            async with person(bed.url, bed.ca, "student-002", old) as late:
                with pytest.raises(Failed, match="login refused"):
                    await late.login()
            async with person(bed.url, bed.ca, "student-002", new) as right:
                await right.login()

    try:
        asyncio.run(change())
    finally:
        with bed.hub() as hub:
            hub.passwords("class", old)
