"""A person with a browser, for tests: logs in, starts a server, runs cells, leaves."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

from vcluster.rehearsal.browser import Browser, Failed, trust
from vcluster.rehearsal.client import Account, Pace, Visit, _User
from vcluster.rehearsal.kernel import PROTOCOL, Cells


class Person(_User):
    """A user of a rehearsal whose steps a test takes one by one."""

    async def start(self) -> None:
        """Log in, start a server and open a kernel there."""
        await self.login()
        await self.spawn()
        await self.lab()
        await self.open_kernel()

    @asynccontextmanager
    async def cells(self, patience: float = 300.0) -> AsyncIterator[Callable[[str], asyncio.Future[str]]]:
        """What runs a cell, of at most so many seconds, and returns what it printed."""
        session = uuid.uuid4().hex
        path = f"{self.server}api/kernels/{self.kernel}/channels?session_id={session}"
        async with self.browser.socket(path, PROTOCOL) as socket:
            cells = Cells(socket, session, self.account.name)

            def run(code: str) -> asyncio.Future[str]:
                return asyncio.ensure_future(cells.run(code, patience))

            yield run


@asynccontextmanager
async def person(
    url: str, ca: str, name: str, password: str, patience: float = 300.0, *, profile: str = ""
) -> AsyncIterator[Person]:
    """Somebody whose browser is open; what was started is the test's to stop.

    Args:
        patience: seconds for a server to start.
        profile: what is chosen; empty for the first.
    """
    begin = time.monotonic()
    async with Browser(url, trust(ca)) as browser:
        yield Person(
            browser,
            Account(name, password),
            Pace(lasting=0.0, start=patience, profile=profile),
            Visit(name, 0.0),
            lambda: time.monotonic() - begin,
            asyncio.Event(),
        )


class Door(Protocol):
    """Where students come in."""

    @property
    def url(self) -> str: ...

    @property
    def ca(self) -> str: ...

    def passwords(self) -> Mapping[str, str]: ...


@asynccontextmanager
async def student(door: Door, name: str, patience: float = 300.0, *, profile: str = "") -> AsyncIterator[Person]:
    """A student with a server and a kernel; stopped at the end, whatever happened meanwhile."""
    async with person(door.url, door.ca, name, door.passwords()["class"], patience, profile=profile) as one:
        try:
            await one.start()
            yield one
        finally:
            await one.leave()


async def until(what: str, look: Callable[[], Awaitable[bool]], seconds: float = 300.0) -> None:
    """Return once it is so; what fails on the way is asked again."""
    end = time.monotonic() + seconds
    while True:
        told = what
        try:
            if await look():
                return
        except Failed as failed:
            told = f"{what}: {failed.reason}"
        assert time.monotonic() < end, told
        await asyncio.sleep(0.5)


async def works(one: Person) -> bool:
    """Whether the kernel answers."""
    async with one.cells() as cell:
        return (await cell("print(6 * 7)")).strip() == "42"


async def _servers(one: Person) -> Any:
    """The person's servers, by what the Hub says."""
    answer = await one.browser.want("GET", f"/hub/api/users/{one.account.name}", 200, token="/hub/home")
    return answer.json()["servers"]


async def hub_answers(one: Person) -> bool:
    """Whether the Hub knows of the server."""
    return bool((await _servers(one)).get("", {}).get("ready"))


async def server_gone(one: Person) -> bool:
    """Whether the Hub knows that there is no server any more."""
    return bool(await _servers(one) == {})
