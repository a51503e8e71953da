"""Proof that the Hub starts servers: one is started as a person's would be and stopped again, once a boot of the head.

It never competes with people: who works has proved it, and where no room is left, or somebody rehearses, it waits for
another time.
"""

import shutil
import time
from urllib.parse import quote

from hub_api import OK, Hub, moment
from hub_people import PEOPLE, book, home_of, install
from hub_rehearsal import planned_end
from hub_state import ROOT, Sorry, alone, facts, keep, read, run

NAME, UID = "rehearsal-probe", 60000
"""An account that is nobody's: the names of rehearsals are no person's, and a rehearsal's numbers begin after this."""

PROOF = "proof.json"
LOCK = ROOT / "run/vcluster-hub-probe.lock"
SECONDS = 600
STOP_SECONDS = 300
QUEUE_SECONDS = 30
"""How long a job may wait for its turn behind other people's: between two jobs a worker is cleared for a moment."""

NOTHING = {"seconds": 0.0, "host": "", "skipped": "", "problem": ""}
TOO_MANY = 429
LOG = ".local/state/vcluster/notebook.log"


def proved():
    """Whether a server was started since the head booted."""
    return (read(PROOF) or {}).get("boot") == _boot()


def probe(given):
    """Start a server and stop it, unless that was done since the head's boot.

    Args:
        given: ``{"seconds": 600}``: how long it may take to be ready.

    Returns:
        ``seconds`` and ``host``; or why none was started, in ``skipped``; and in ``problem`` what is left of it.
    """
    with alone(LOCK):  # whoever comes second waits, and finds it done
        if proved():
            return {**NOTHING, **{key: read(PROOF)[key] for key in ("seconds", "host")}}
        _clear()  # of one that was killed
        hub, partition = Hub(timeout=60), facts()["profiles"][0]["partition"]
        skipped = _not_now(hub, partition)
        if skipped:
            return {**NOTHING, "skipped": skipped}
        problem = ""
        try:
            told = _start(hub, partition, given.get("seconds", SECONDS))
        except Sorry:
            if NAME in book()["people"]:
                raise
            told = {"skipped": "a rehearsal began"}  # and took what is in its way
        finally:
            try:
                _clear()
            except Sorry as error:  # a server that started is a proof all the same
                problem = str(error)
        return {**NOTHING, **told, "problem": problem}


def _boot():
    return (ROOT / "proc/sys/kernel/random/boot_id").read_text().strip()


def _booted():
    return time.time() - float((ROOT / "proc/uptime").read_text().split()[0])


def _not_now(hub, partition):
    """Why no server is to be started now; an empty text when one is."""
    if time.time() < (planned_end() or 0.0):
        return "a rehearsal is going on"
    servers = [server for user in hub.users() for server in (user.get("servers") or {}).values()]
    since = _booted()
    if any(server.get("ready") and moment(server.get("started")) > since for server in servers):
        _remember(0.0, "")
        return "people's servers run"
    if hub.capacity and len(servers) >= hub.capacity:
        return "no room is left"
    if run("squeue", "--noheader", f"--partition={partition}", "--states=PENDING", "--format=%i").strip():
        return "jobs wait for the workers"
    able = run("sinfo", "--noheader", f"--partition={partition}", "--states=idle,mixed,allocated", "--format=%D")
    return "" if sum(map(int, able.split())) else "no worker is there for it"


def _remember(seconds, host):
    keep(PROOF, {"boot": _boot(), "seconds": seconds, "host": host})


def _start(hub, partition, seconds):
    """Start a server; how long it took, or why it was given up.

    Raises:
        Sorry: it did not start, for no fault of anybody else's.
    """
    with alone():
        known = book()
        person = {"uid": UID, "kind": "rehearsal", "admin": False, "instructor": False, "email": "", "login": ""}
        known["people"][NAME] = person
        keep(PEOPLE, known)
        install(known)
    began, waiting = time.monotonic(), None
    hub.add(NAME)
    if hub.ask("POST", f"/users/{quote(NAME)}/server", {}, expected=(*OK, TOO_MANY))[1] == TOO_MANY:
        return {"skipped": "the Hub is busy with people's servers"}
    while True:
        server = (hub.ask("GET", f"/users/{quote(NAME)}")[0].get("servers") or {}).get("")
        took = time.monotonic() - began
        state, reason, host = _job()
        if server and server.get("ready"):
            _remember(round(took, 1), host)
            return {"seconds": round(took, 1), "host": host}
        if server is None:
            raise Sorry(f"{hub.why_not(NAME)}{_last_words()}")
        if took > seconds:
            job = f"its job is {state or 'not there'}{f' ({reason})' if state == 'PENDING' else ''}"
            raise Sorry(f"none was ready within {seconds:.0f} seconds: {job}{_last_words()}")
        behind = state == "PENDING" and reason in ("Resources", "Priority") and _others(partition)
        waiting = (waiting or time.monotonic()) if behind else None
        if waiting and time.monotonic() - waiting > QUEUE_SECONDS:
            return {"skipped": "the workers are busy with other jobs"}
        time.sleep(1)


def _job():
    """State, reason and machine of its job; empty when it has none."""
    line = run("squeue", "--noheader", f"--user={NAME}", "--format=%T|%r|%N", check=False).strip()
    state, _, rest = (line.splitlines() or [""])[0].partition("|")
    reason, _, host = rest.partition("|")
    return state, reason, host


def _others(partition):
    """Whether other jobs run where it wants to."""
    names = run("squeue", "--noheader", f"--partition={partition}", "--states=RUNNING", "--format=%u", check=False)
    return any(name != NAME for name in names.split())


def _last_words():
    """What its server said last: with the home its log goes."""
    try:
        lines = (ROOT / "home/.rehearsal" / NAME / LOG).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"; the last line of its log: {last[-200:]}" if last else ""


def _clear():
    """Take server, jobs, account and home away; not there: no error.

    Who cannot be taken away now stays in the book for the next time: a job is ended in its owner's name.
    """
    entry = book()["people"].get(NAME)
    if entry is None:
        return
    Hub(timeout=60).forget(NAME, STOP_SECONDS)
    run("scancel", "--quiet", f"--user={NAME}")
    with alone():
        known = book()
        known["people"].pop(NAME, None)
        keep(PEOPLE, known)
        install(known)
    shutil.rmtree(ROOT / home_of(NAME, entry).relative_to("/"), ignore_errors=True)
