"""A whole rehearsal: users arrive at random moments of a span, work, and leave; all of it in one thread."""

from __future__ import annotations

import asyncio
import random
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from vcluster.errors import CloudError
from vcluster.rehearsal.browser import trust
from vcluster.rehearsal.client import Account, Door, Pace, Visit, visit

__all__ = ["Hub", "Rehearsal", "Script", "Told", "guests", "rehearse"]

END_TRIES = 3

FILES, FILES_EACH = 256, 8
"""Files that this process may have open beside the users', and each user's: a browser has up to six connections."""

TELL_EVERY = 5.0
"""Seconds between two words on how it goes."""

Told = Callable[[str], None]


class Hub(Protocol):
    """What makes the accounts of a rehearsal and takes them away: :class:`vcluster.hub.Hub`."""

    def rehearsal_begin(self, users: int, *, seconds: float = 0.0, force: bool = False) -> Mapping[str, Any]:
        """Gives ``users``, ``password``, ``url`` and ``ca``."""
        ...

    def rehearsal_end(self) -> str:
        """Gives what could not be done, or an empty text."""
        ...


@contextmanager
def guests(
    hub: Callable[[], AbstractContextManager[Hub]],
    users: int,
    told: Told,
    *,
    seconds: float = 0.0,
    force: bool = False,
) -> Iterator[tuple[Door, tuple[Account, ...]]]:
    """The door and accounts that are nobody's, and gone afterwards.

    Args:
        hub: opens the way to the Hub, once for each end.
        told: takes what could not be taken away, so that somebody can do it by hand.
        seconds: how long the rehearsal is planned to last.

    Raises:
        UsageError: there is no room, or another rehearsal is going on.
        CloudError: the head did not answer.
    """
    with hub() as one:
        made = one.rehearsal_begin(users, seconds=seconds, force=force)
    try:
        password = str(made["password"])
        yield Door(str(made["url"]), str(made.get("ca") or "")), tuple(Account(n, password) for n in made["users"])
    finally:
        if problem := _end(hub):
            told(f"the rehearsal's accounts are not all gone ({problem}); the next rehearsal takes them away")


def _end(hub: Callable[[], AbstractContextManager[Hub]]) -> str:
    problem = ""
    for _ in range(END_TRIES):
        try:
            with hub() as one:
                return one.rehearsal_end()
        except CloudError as error:
            problem = error.message
    return problem


@dataclass(frozen=True, slots=True)
class Script:
    """What is rehearsed.

    Attributes:
        within: seconds within which all arrive, at random.
        pace: how they work.
        seed: of the moments of arrival, so that two rehearsals can be compared.
    """

    within: float
    pace: Pace
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What came of it. ``began`` is in seconds since the epoch, ``seconds`` how long all took."""

    script: Script
    visits: tuple[Visit, ...]
    began: float
    seconds: float
    cancelled: bool


def rehearse(
    door: Door,
    accounts: Sequence[Account],
    script: Script,
    *,
    told: Told = lambda _: None,
    cancel: threading.Event | None = None,
) -> Rehearsal:
    """Send the users in and wait until all have left.

    Args:
        accounts: one for each user; they exist, and nobody else uses them.
        told: takes a sentence on how it goes, now and then.
        cancel: set from another thread, it sends all users home.
    """
    with _open_files(FILES + FILES_EACH * len(accounts)):
        return asyncio.run(_rehearse(door, accounts, script, told, cancel or threading.Event()))


@contextmanager
def _open_files(needed: int) -> Iterator[None]:
    """Let this process open so many files, as far as it may; the limit is put back afterwards, being everybody's.

    A shell on macOS allows 256, and a class's browsers need more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft == resource.RLIM_INFINITY or soft >= most:
        yield
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _rehearse(
    door: Door, accounts: Sequence[Account], script: Script, told: Told, cancel: threading.Event
) -> Rehearsal:
    tls = trust(door.ca) if door.url.startswith("https:") else trust("")
    moments = arrivals(len(accounts), script.within, script.seed)
    visits = tuple(Visit(account.name, due) for account, due in zip(accounts, moments, strict=True))
    began, start, over = time.time(), time.monotonic(), asyncio.Event()

    def now() -> float:
        return time.monotonic() - start

    async def one(account: Account, seen: Visit) -> None:
        await _wait(over, seen.due - now())
        if not over.is_set():
            await visit(door, tls=tls, account=account, seen=seen, pace=script.pace, now=now, over=over)

    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(_watch(visits, now, told, cancel, over))
        users = [group.create_task(one(account, seen)) for account, seen in zip(accounts, visits, strict=True)]
        await asyncio.wait(users)
        watcher.cancel()
    return Rehearsal(script, visits, began, now(), cancel.is_set())


def arrivals(count: int, within: float, seed: int) -> list[float]:
    """Moments in seconds, evenly spread at random, the first at 0, in order."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    moments = sorted(dice.uniform(0, within) for _ in range(count))
    return [moment - moments[0] for moment in moments]


async def _wait(over: asyncio.Event, seconds: float) -> None:
    if seconds > 0:
        # What is waited for is not needed: whoever waits looks at the event afterwards.
        await asyncio.wait([asyncio.ensure_future(over.wait())], timeout=seconds)


async def _watch(
    visits: Sequence[Visit], now: Callable[[], float], told: Told, cancel: threading.Event, over: asyncio.Event
) -> None:
    """Tell how it goes, and pass a wish to stop on."""
    next_word = TELL_EVERY
    while True:
        await asyncio.sleep(0.2)
        if cancel.is_set() and not over.is_set():
            told("stopping: all users leave")
            over.set()
        if now() >= next_word:
            next_word = now() + TELL_EVERY
            told(state_of(visits))


def state_of(visits: Sequence[Visit]) -> str:
    """One line for a person: how many users are where."""
    count: Counter[str] = Counter()
    for seen in visits:
        count["arrived"] += bool(seen.began)
        count["logged in"] += "login" in seen.done
        count["servers up"] += "spawn" in seen.done
        count["first cells"] += "cell" in seen.done
        count["gone"] += bool(seen.left)
        count["failed"] += bool(seen.failed)
    words = [
        f"{count[word]} {word}" for word in ("arrived", "logged in", "servers up", "first cells", "gone", "failed")
    ]
    return f"of {len(visits)}: " + ", ".join(words)
