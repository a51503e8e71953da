"""Accounts for a rehearsal, made for it and removed afterwards."""

import secrets
import shutil
import time

from hub_api import Hub
from hub_front import authority
from hub_people import PASSWORDS, PEOPLE, book, home_of, install, turn_out
from hub_state import ROOT, Sorry, alone, keep, read

FIRST, MOST = 60001, 999
STALE = 1800
"""Seconds after which a rehearsal that nobody ended is taken for one whose computer died."""


def begin(given):
    """Make accounts for a rehearsal.

    Args:
        given: ``{"users": 127}``; with ``"force": true`` another rehearsal that seems to run is ended.
    """
    count = given.get("users")
    if type(count) is not int or not 1 <= count <= MOST:
        raise Sorry(f"a rehearsal has 1 to {MOST} users")
    since = _running()
    if since is not None and not given.get("force") and time.time() - since < STALE:
        raise Sorry("another rehearsal is going on; `vcluster rehearse` with --force ends it")
    if since is not None:
        end()
    hub = Hub()
    used = sum(len(user.get("servers") or {}) for user in hub.users())
    if hub.capacity and used + count > hub.capacity:
        raise Sorry(f"room for {hub.capacity - used} more notebooks, not for {count}: {used} of people run")
    names = [f"rehearsal-{n:03d}" for n in range(1, count + 1)]
    word = secrets.token_hex(16)
    with alone():
        known = book()
        for n, name in enumerate(names):
            known["people"][name] = {
                "uid": FIRST + n,
                "kind": "rehearsal",
                "admin": False,
                "instructor": False,
                "email": "",
                "login": "",
            }
        known["rehearsal"] = {"since": time.time()}
        keep(PEOPLE, known)
        install(known)
        keep(PASSWORDS, {**(read(PASSWORDS) or {}), "rehearsal": word})
    front = read("front.json") or {}
    return {"users": names, "password": word, "capacity": hub.capacity, "url": front.get("url"), **authority()}


def _running():
    """When the rehearsal began whose accounts are there; None when there are none."""
    known = book()
    if any(entry["kind"] == "rehearsal" for entry in known["people"].values()):
        return (known.get("rehearsal") or {}).get("since", 0.0)
    return None


def end():
    """Take everything of a rehearsal away: servers, sessions, accounts, homes, the password. None there: no error."""
    with alone():
        known = book()
        gone = {name: entry for name, entry in known["people"].items() if entry["kind"] == "rehearsal"}
        known["people"] = {name: entry for name, entry in known["people"].items() if name not in gone}
        known.pop("rehearsal", None)
        if gone:
            keep(PEOPLE, known)
        words = read(PASSWORDS) or {}
        if words.get("rehearsal"):
            keep(PASSWORDS, {**words, "rehearsal": None})
    problem = turn_out(list(gone)) if gone else ""
    with alone():
        install(book())
        for name, entry in gone.items():
            shutil.rmtree(ROOT / home_of(name, entry).relative_to("/"), ignore_errors=True)
    return {"removed": len(gone), "problem": problem}
