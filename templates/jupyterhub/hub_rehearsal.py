"""Accounts for a rehearsal, made for it and removed afterwards."""

import secrets
import shutil
import time

from hub_api import Hub, room
from hub_front import authority
from hub_people import PASSWORDS, PEOPLE, book, install, sentence, turn_out
from hub_state import ROOT, Sorry, alone, keep, read

FIRST, MOST = 60001, 999
STALE = 1800
"""Seconds after which a rehearsal that nobody ended is taken for one whose computer died."""

LATE = 900
"""Seconds that one which is planned to last long may need beyond that."""

HOMES = ROOT / "home/.rehearsal"


def begin(given):
    """Make accounts for a rehearsal.

    Args:
        given: ``{"users": 127, "seconds": 360}``, the second for how long it is planned; with ``"force": true`` another
            rehearsal that seems to run is ended.
    """
    count = given.get("users")
    if type(count) is not int or not 1 <= count <= MOST:
        raise Sorry(f"a rehearsal has 1 to {MOST} users")
    until = planned_end()
    if until is not None and not given.get("force") and time.time() < until:
        raise Sorry("another rehearsal is going on; `vcluster rehearse` with --force ends it")
    if until is not None:
        end()
    hub = Hub()
    used = sum(len(user.get("servers") or {}) for user in hub.users())
    more, fits, wrong = room()
    if count > more:
        raise Sorry("; ".join([f"room for {more} more notebooks, not for {count}: {used} of people run", *wrong]))
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
        known["rehearsal"] = {"since": time.time(), "seconds": float(given.get("seconds") or 0)}
        keep(PEOPLE, known)
        install(known)
        keep(PASSWORDS, {**(read(PASSWORDS) or {}), "rehearsal": word})
    front = read("front.json") or {}
    return {"users": names, "password": word, "capacity": fits, "url": front.get("url"), **authority()}


def planned_end():
    """Until when the rehearsal may go on whose accounts are there; None when there are none."""
    known = book()
    if not _guests(known):
        return None
    planned = known.get("rehearsal") or {}
    return planned.get("since", 0.0) + max(STALE, planned.get("seconds", 0.0) + LATE)


def _guests(known):
    return {name: entry for name, entry in known["people"].items() if entry["kind"] == "rehearsal"}


def end():
    """Take everything of a rehearsal away: servers, sessions, accounts, homes, the password. None there: no error.

    With whom it does not go stays for the next time, which is the next rehearsal's beginning at the latest.
    """
    with alone():
        known, words = book(), read(PASSWORDS) or {}
        gone = _guests(known)
        # From here on nobody of them gets in. Their names stay until all that they run has ended, as for people.
        if words.get("rehearsal"):
            keep(PASSWORDS, {**words, "rehearsal": None})
        if known.pop("rehearsal", None):
            keep(PEOPLE, known)
    problems = turn_out(gone) if gone else {}
    with alone():
        known = book()
        for name in set(gone) - set(problems):
            known["people"].pop(name, None)
        if gone:
            keep(PEOPLE, known)
        install(known)
        for home in HOMES.iterdir() if HOMES.is_dir() else ():
            if home.name not in known["people"]:
                shutil.rmtree(home, ignore_errors=True)
    return {"removed": len(gone) - len(problems), "problem": sentence(problems.values())}
