"""A person with a browser, for tests: logs in, starts a server, runs cells, leaves."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from vcluster.rehearsal.browser import Browser, trust
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
    async def cells(self) -> AsyncIterator[Callable[[str], asyncio.Future[str]]]:
        """What runs a cell and returns what it printed."""
        session = uuid.uuid4().hex
        path = f"{self.server}api/kernels/{self.kernel}/channels?session_id={session}"
        async with self.browser.socket(path, PROTOCOL) as socket:
            cells = Cells(socket, session, self.account.name)

            def run(code: str) -> asyncio.Future[str]:
                return asyncio.ensure_future(cells.run(code, 120.0))

            yield run


@asynccontextmanager
async def person(url: str, ca: str, name: str, password: str) -> AsyncIterator[Person]:
    """Somebody whose browser is open; what was started is the test's to stop."""
    begin = time.monotonic()
    async with Browser(url, trust(ca)) as browser:
        yield Person(
            browser,
            Account(name, password),
            Pace(lasting=0.0, start=180.0),
            Visit(name, 0.0),
            lambda: time.monotonic() - begin,
            asyncio.Event(),
        )
