"""Passwords of people's own, to the end: through the front door into a notebook that is a job of that person's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.hub.bed import DEFAULT, Bed
from tests.hub.person import Person, person
from vcluster.rehearsal.browser import Failed

pytestmark = pytest.mark.hub

WHO = "import json, os, pwd; print(json.dumps([pwd.getpwuid(os.getuid()).pw_name, 'SLURM_JOB_ID' in os.environ]))"
MINE, OTHER = "my own long password", "another long password"


@contextmanager
def by(method: str) -> Iterator[Bed]:
    """A bed to which people come like that."""
    hub = {**DEFAULT["jupyterhub"], "auth": {"method": method}, "admins": ["boss"]}
    with Bed({**DEFAULT, "jupyterhub": hub}) as bed:
        yield bed


async def gets_in(bed: Bed, name: str, password: str) -> bool:
    async with person(bed.url, bed.ca, name, password) as somebody:
        try:
            await somebody.login()
        except Failed as failed:
            if not failed.reason.startswith("login refused"):
                raise
            return False
        return True


async def computes(bed: Bed, name: str, password: str) -> list[Any]:
    """Who a cell of somebody's runs as, and whether it is in a job."""
    async with person(bed.url, bed.ca, name, password) as somebody:
        try:
            await somebody.start()
            async with somebody.cells() as cell:
                told: list[Any] = json.loads(await cell(WHO))
                return told
        finally:
            await somebody.leave()


async def sign_up(somebody: Person) -> str:
    """What the page says afterwards."""
    await somebody.browser.want("GET", "/hub/signup", 200)
    word = somebody.account.password
    form = {"username": somebody.account.name, "signup_password": word, "signup_password_confirmation": word}
    form["_xsrf"] = somebody.browser.cookie("_xsrf", "/hub/signup")
    answer = await somebody.browser.request("POST", "/hub/signup", form=form)
    assert answer.status == 200
    return answer.body.decode()


def test_native_people_sign_up_and_an_admin_lets_them_in() -> None:
    async def class_begins(bed: Bed) -> None:
        assert not await gets_in(bed, "student-001", MINE)
        async with person(bed.url, bed.ca, "student-001", MINE) as one:
            assert "sent to the admin" in await sign_up(one)
        async with person(bed.url, bed.ca, "nobody-we-know", MINE) as stranger:
            assert "Something went wrong" in await sign_up(stranger)
        assert not await gets_in(bed, "student-001", MINE)
        # A student lets nobody in, and not themselves.
        async with person(bed.url, bed.ca, "student-001", MINE) as one:
            await one.browser.request("GET", "/hub/authorize/student-001")
        assert not await gets_in(bed, "student-001", MINE)
        async with person(bed.url, bed.ca, "boss", bed.passwords()["admin"]) as boss:
            await boss.login()
            await boss.browser.want("GET", "/hub/authorize/student-001", 200)
        assert not await gets_in(bed, "student-001", OTHER)
        assert await computes(bed, "student-001", MINE) == ["student-001", True]
        assert not await gets_in(bed, "nobody-we-know", MINE)

    with by("native") as bed:
        asyncio.run(class_begins(bed))


def test_firstuse_the_first_password_is_theirs_until_it_is_forgotten() -> None:
    async def class_begins(bed: Bed) -> None:
        assert not await gets_in(bed, "student-001", "short")
        assert not await gets_in(bed, "nobody-we-know", MINE)
        assert await computes(bed, "student-001", MINE) == ["student-001", True]
        assert not await gets_in(bed, "student-001", OTHER)
        with bed.hub() as hub:
            assert hub.passwords("student-001").own == ""
        assert await gets_in(bed, "student-001", OTHER)
        assert not await gets_in(bed, "student-001", MINE)

    with by("firstuse") as bed:
        asyncio.run(class_begins(bed))


def test_pam_a_password_of_the_heads_accounts() -> None:
    async def class_begins(bed: Bed) -> None:
        for word in ("", "x", MINE):
            assert not await gets_in(bed, "student-001", word)
        with bed.hub() as hub:
            made = hub.passwords("student-001").own
        assert len(made) >= 12
        assert not await gets_in(bed, "student-001", MINE)
        assert not await gets_in(bed, "student-002", made)
        assert await computes(bed, "student-001", made) == ["student-001", True]
        with bed.hub() as hub:
            assert hub.passwords("student-001", MINE).own == MINE
        assert await gets_in(bed, "student-001", MINE)
        assert not await gets_in(bed, "student-001", made)
        # The head's alone: no other machine has a digest of it.
        assert bed.machines["cpu-1"].run("ls", "/var/lib/extrausers").stdout.split() == ["group", "passwd"]

    with by("pam") as bed:
        asyncio.run(class_begins(bed))
