"""One user of a rehearsal: logs in, starts a server, opens a kernel, runs cells and leaves; timed step by step."""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
import uuid
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Any

from vcluster.rehearsal.browser import Answer, Browser, Failed, plain
from vcluster.rehearsal.kernel import PROTOCOL, Cells

__all__ = ["Account", "Door", "Pace", "Visit", "visit"]

FIRST_CELL = """\
import json, os, socket
try:
    import numpy
    total = int(numpy.arange(1000).sum())
except ImportError:
    total = sum(range(1000))
print(json.dumps([socket.gethostname(), os.environ.get("SLURM_JOB_ID", ""), total]))
"""
TOTAL = 499500

STEPS = ("login", "spawn", "lab", "kernel", "cell")
"""Until the first cell is done; afterwards come ``cells`` and ``leave``."""


@dataclass(frozen=True, slots=True)
class Door:
    """The way in: the public address, ending in a slash, and the PEM of its own certificate authority or ``""``."""

    url: str
    ca: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Account:
    name: str
    password: str


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things may take and how users work, in seconds.

    Attributes:
        lasting: how long a user works after the first cell.
        between: the mean pause between two cells.
        start: patience for a server that starts.
        cell: patience for a cell.
        profile: the profile that is asked for; empty for the first.
    """

    lasting: float
    between: float = 10.0
    start: float = 900.0
    cell: float = 120.0
    profile: str = ""


@dataclass(slots=True)
class Visit:
    """What a user met. Times are seconds since the rehearsal began.

    Attributes:
        began: when a step began, by its name.
        done: when it was done.
        cells: when each later cell began, and how many seconds it took.
        host: the machine that the kernel ran on; ``job`` its job's number.
        failed: the step that failed, or empty; ``reason`` is why.
        left: whether the server was stopped and the user logged out, or why not.
    """

    user: str
    due: float
    began: dict[str, float] = field(default_factory=dict)
    done: dict[str, float] = field(default_factory=dict)
    cells: list[tuple[float, float]] = field(default_factory=list)
    host: str = ""
    job: str = ""
    failed: str = ""
    reason: str = ""
    left: str = ""

    def took(self, step: str) -> float | None:
        """Seconds for a step, or None when it was not done."""
        return self.done[step] - self.began[step] if step in self.done else None

    @property
    def until_cell(self) -> float | None:
        """Seconds from the beginning of the log-in to the end of the first cell."""
        return self.done["cell"] - self.began["login"] if "cell" in self.done else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(slots=True)
class _User:
    browser: Browser
    account: Account
    pace: Pace
    seen: Visit
    now: Callable[[], float]
    over: asyncio.Event
    spawned: bool = False
    kernel: str = ""

    @property
    def server(self) -> str:
        return f"/user/{self.account.name}/"

    async def step(self, name: str, work: Any) -> Any:
        """Time a step; one that fails is noted with its reason."""
        self.seen.began.setdefault(name, self.now())
        try:
            result = await work
        except Failed as failed:
            self.seen.failed, self.seen.reason = name, failed.reason
            raise
        self.seen.done[name] = self.now()
        return result

    # The steps -------------------------------------------------------------------------------------------------

    async def login(self) -> None:
        await self.browser.want("GET", "/hub/login", 200)
        form = {
            "username": self.account.name,
            "password": self.account.password,
            "_xsrf": self.browser.cookie("_xsrf", "/hub/login"),
        }
        answer = await self.browser.request("POST", "/hub/login", form=form, until=bool)
        if answer.status == 403:
            raise Failed("login refused: wrong password, or not allowed")
        if answer.status != 302:
            raise Failed(f"POST /hub/login: {answer.status}")

    async def spawn(self) -> None:
        answer = await self.browser.request("GET", "/hub/spawn", until=self._is_server)
        if answer.status == 200 and b'name="profile"' in answer.body:
            form = {"profile": self.pace.profile or _first_profile(answer.body)}
            path = f"/hub/spawn?_xsrf={self.browser.cookie('_xsrf', '/hub/')}"
            answer = await self.browser.request("POST", path, form=form, until=self._is_server)
        self.spawned = True
        if self._is_server(answer.path):
            return
        if answer.status != 200 or "/spawn-pending/" not in answer.path:
            raise Failed(_refusal(answer))
        try:
            async with asyncio.timeout(self.pace.start):
                await self._progress()
        except TimeoutError:
            raise Failed(f"no server after {self.pace.start:.0f} s") from None

    def _is_server(self, path: str) -> bool:
        return path.startswith(self.server)

    async def _progress(self) -> None:
        """Follow the progress as the page does, and connect again when the stream is cut, as the page does."""
        page = f"/hub/spawn-pending/{self.account.name}"
        while True:
            path = f"/hub/api/users/{self.account.name}/server/progress"
            async with aclosing(self.browser.events(path, page)) as events:
                async for event in events:
                    if event.get("ready"):
                        return
                    if event.get("failed"):
                        text = str(event.get("message", "")).replace(self.account.name, "NAME")
                        raise Failed(f"spawn failed: {' '.join(text.split())[:200]}")
            await asyncio.sleep(1 + random.random())  # noqa: S311 - no secret
            if self.over.is_set():
                raise Failed("stopped")

    async def lab(self) -> None:
        """The page, its first script, and what it asks the server for; the server's own log-in is on the way."""
        page = await self.browser.want("GET", f"{self.server}lab", 200)
        scripts = re.findall(rb'<script[^>]+src="([^"]+)"', page.body)
        for script in scripts[:2]:
            await self.browser.want("GET", script.decode(), 200)
        for path in ("api/kernelspecs", "api/sessions", "lab/api/settings", "api/contents?content=1&type=directory"):
            await self.browser.want("GET", self.server + path, 200, token=self.server)

    async def open_kernel(self) -> None:
        answer = await self.browser.want(
            "POST", f"{self.server}api/kernels", 201, token=self.server, data={"name": "python3"}
        )
        self.kernel = str(answer.json()["id"])

    async def first(self, cells: Cells) -> None:
        printed = await cells.run(FIRST_CELL, max(self.pace.cell, 300.0))
        try:
            self.seen.host, self.seen.job, total = json.loads(printed)
        except ValueError:
            raise Failed("the first cell printed something else") from None
        if total != TOTAL:
            raise Failed("the first cell counted wrong")

    async def work(self, cells: Cells) -> None:
        """Cells with pauses between them, until the time is over."""
        end = self.now() + self.pace.lasting
        while (left := end - self.now()) > 0 and not self.over.is_set():
            pause = min(left, self.pace.between * (0.5 + random.random()))  # noqa: S311 - no secret
            if await _set_within(self.over, pause):
                return
            number, begin = random.randrange(1000), self.now()  # noqa: S311 - no secret
            printed = await cells.run(f"print(sum(i * i for i in range(20000)) + {number})", self.pace.cell)
            if printed.strip() != str(2666466670000 + number):
                raise Failed("a cell printed something else")
            self.seen.cells.append((begin, self.now() - begin))

    async def leave(self) -> None:
        """Stop the kernel and the server and log out."""
        if self.kernel:
            path = f"{self.server}api/kernels/{self.kernel}"
            await self.browser.request("DELETE", path, token=self.server)
        if self.spawned:
            await self._stop()
        await self.browser.want("GET", "/hub/logout", 200)
        after = await self.browser.request("GET", f"/hub/api/users/{self.account.name}", token="/hub/home")  # noqa: S106
        if after.status != 403:
            raise Failed(f"after the log-out the Hub still answers {after.status}")

    async def _stop(self) -> None:
        path = f"/hub/api/users/{self.account.name}/server"
        for _ in range(120):
            answer = await self.browser.request("DELETE", path, token="/hub/home")  # noqa: S106
            if answer.status in {204, 404}:
                return
            if answer.status not in {202, 400}:  # 400: still starting or stopping
                raise Failed(f"DELETE {plain(path)}: {answer.status}")
            await asyncio.sleep(1)
        raise Failed("the server does not stop")

    async def go(self) -> None:
        await self.step("login", self.login())
        await self.step("spawn", self.spawn())
        await self.step("lab", self.lab())
        await self.step("kernel", self.open_kernel())
        session = uuid.uuid4().hex
        self.seen.began["cell"] = self.now()
        path = f"{self.server}api/kernels/{self.kernel}/channels?session_id={session}"
        try:
            async with self.browser.socket(path, PROTOCOL) as socket:
                cells = Cells(socket, session, self.account.name)
                await self.step("cell", self.first(cells))
                await self.step("cells", self.work(cells))
        except Failed as failed:
            if not self.seen.failed:
                self.seen.failed, self.seen.reason = "cell", failed.reason
            raise


async def visit(
    door: Door,
    *,
    tls: ssl.SSLContext,
    account: Account,
    seen: Visit,
    pace: Pace,
    now: Callable[[], float],
    over: asyncio.Event,
) -> None:
    """Do all of it; what was met is in ``seen``, and nothing that a server or a network does is raised.

    Args:
        now: seconds since the rehearsal began.
        over: set when the rehearsal is to end early; what was started is stopped.
    """
    async with Browser(door.url, tls) as browser:
        user = _User(browser, account, pace, seen, now, over)
        try:
            await user.go()
        except Failed:
            pass  # noted where it happened
        finally:
            seen.began["leave"] = now()
            try:
                await user.leave()
                seen.done["leave"] = now()
                seen.left = "yes"
            except Failed as failed:
                seen.left = failed.reason


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _first_profile(page: bytes) -> str:
    for element in re.findall(rb'<(?:input|option)[^>]*name="profile"[^>]*>|<option[^>]*>', page):
        if value := re.search(rb'value="([^"]*)"', element):
            return value[1].decode()
    return ""


def _refusal(answer: Answer) -> str:
    known = {429: "the Hub is full or starts too many servers at once", 403: "spawning is not allowed"}
    why = re.search(rb"<p[^>]*>\s*([^<]*?(?:limit|full|[Ss]pawn)[^<]*?)\s*<", answer.body)
    text = " ".join(why[1].decode(errors="replace").split()) if why else ""
    return f"spawn refused: {answer.status}, {known.get(answer.status, text or plain(answer.path))}"
