"""Who may use the Hub: their accounts on every machine, their homes, and the class's passwords.

The head's people.json is the truth. From it come ``/var/lib/extrausers`` (read through nsswitch's ``extrausers``) and a
copy of that under ``/home/.vcluster``, from where each worker takes it before a job.
"""

import contextlib
import json
import os
import pwd
import re
import shutil
from pathlib import Path

from hub_api import Down, Hub
from hub_quota import limit
from hub_state import FOLDER, ROOT, Sorry, alone, gid, keep, read, run, write

PEOPLE, PASSWORDS = "people.json", "passwords.json"
NOTEBOOKS, INSTRUCTORS = 2500, 2501
FIRST_ADDED = 20001
EXTRA = ROOT / "var/lib/extrausers"
SHARED = ROOT / "home/.vcluster/extrausers"
HASHES = ROOT / "etc/vcluster/secrets/people-shadow.json"
KEYS = ROOT / "etc/vcluster/keys"

NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
RESERVED = "rehearsal"
KINDS = ("user", "student", "instructor", "rehearsal")


# The book --------------------------------------------------------------------------------------------------------


def book():
    """people.json as it is now."""
    found = read(PEOPLE)
    if found is None:
        raise Sorry("this cluster has no JupyterHub, or it is not configured yet")
    found.setdefault("removed", {})
    found.setdefault("next_uid", FIRST_ADDED)
    return found


def person(given, uid):
    """A complete entry from what was given."""
    kind = given.get("kind") or ("instructor" if given.get("instructor") else "student")
    if kind not in KINDS:
        raise Sorry(f"{kind!r} is no kind of person")
    return {
        "uid": uid,
        "kind": kind,
        "admin": bool(given.get("admin")),
        "instructor": bool(given.get("instructor")) or kind == "instructor",
        "email": str(given.get("email") or ""),
        "login": str(given.get("login") or ""),
        **({"keys": [str(key) for key in given["keys"]]} if given.get("keys") else {}),
    }


def check_names(names):
    """Refuse what cannot be an account, all of it at once."""
    if not names:
        raise Sorry("nobody was named")
    wrong = [name for name in names if not NAME.fullmatch(name)]
    if wrong:
        raise Sorry(f"no name for an account: {', '.join(map(repr, wrong))} (a to z, 0 to 9, - and _, at most 31)")
    reserved = [name for name in names if name.startswith(RESERVED)]
    if reserved:
        # Whoever had such a name would go with the next rehearsal, and their files too.
        raise Sorry(f"names that begin with {RESERVED} belong to rehearsals, choose others: {', '.join(reserved)}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Sorry(f"named twice: {', '.join(twice)}")


def add(given):
    """Let people in.

    Args:
        given: a list of entries, each with its ``name``; one that was removed gets their number and home back.
    """
    names = [str(entry.get("name", "")) for entry in given]
    check_names(names)
    with alone():
        known = book()
        there = [name for name in names if name in known["people"]]
        if there:
            raise Sorry(f"already there: {', '.join(there)}")
        taken = [name for name in names if name not in known["removed"] and _is_account(name)]
        if taken:
            raise Sorry(f"the machines have accounts of their own with these names: {', '.join(taken)}")
        for entry, name in zip(given, names, strict=True):
            old = known["removed"].pop(name, None)
            if old is None:
                uid, known["next_uid"] = known["next_uid"], known["next_uid"] + 1
            else:
                uid = old["uid"]
            known["people"][name] = {**person({**(old or {}), **entry}, uid), "added": True}
        keep(PEOPLE, known)
        problem = install(known)
    return {"added": names, **told(problem)}


def told(problem):
    """A problem as part of an answer, where there is one."""
    return {"problem": problem} if problem else {}


def _is_account(name):
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


def remove(names):
    """Let people in no more: their sessions and jobs end, their files stay.

    Of those who were removed before, what was left the last time is done.
    """
    check_names(names)
    with alone():
        known = book()
        people, removed = known["people"], known["removed"]
        strangers = [name for name in names if name not in people and name not in removed]
        if strangers:
            raise Sorry(f"not known here: {', '.join(strangers)}")
        before = [name for name in names if name not in people]
        for name in names:
            if name in people:
                removed[name] = {**people.pop(name), "leaving": True}
        # From here on nobody of them gets in. Their accounts stay until all that they run has ended, which is told to
        # Slurm and to the Hub's helper by their names.
        keep(PEOPLE, known)
        install(known)
    gone = {name: removed[name] for name in names if removed[name].get("leaving")}
    problems = turn_out(gone)
    with alone():
        known = book()
        for name in set(gone) - set(problems):
            known["removed"].get(name, {}).pop("leaving", None)
        keep(PEOPLE, known)
        problem = sentence(problems.values(), install(known))
    homes = [str(home_of(name, removed[name])) for name in names]
    return {"removed": names, "before": before, "homes": homes, "problem": problem}


def turn_out(people):
    """End the sessions, servers, jobs and processes of people; for each with whom not all of that went, the reason.

    Args:
        people: their names and entries; they have accounts.
    """
    try:
        problems = Hub(timeout=60).forget_all(people)
    except Sorry as error:
        problems = dict.fromkeys(people, str(error))
    problems = {name: f"{why}; their sessions end when they are removed again" for name, why in problems.items()}
    for name in people:
        try:
            run("scancel", "--quiet", f"--user={name}")
        except Sorry as error:
            problems[name] = sentence([problems.get(name, ""), str(error)])
    if people:
        # What came by SSH, and what it left running here. On a worker all that they have is in jobs.
        run("pkill", "--signal", "KILL", "--uid", ",".join(str(each["uid"]) for each in people.values()), check=False)
    return problems


def sentence(problems, *more):
    """All of them as one, each once."""
    return "; ".join(dict.fromkeys(filter(None, [*problems, *more])))


def apply(given):
    """Make the list what the spec says, but for those who were added or removed by hand.

    Args:
        given: every person of the spec, with ``name`` and ``uid``.
    """
    check_names([str(entry.get("name", "")) for entry in given])
    with alone():
        known = book()
        people = known["people"]
        wanted = {entry["name"]: person(entry, int(entry["uid"])) for entry in given}
        gone = [
            name
            for name, entry in people.items()
            if name not in wanted and not entry.get("added") and entry["kind"] != "rehearsal"
        ]
    answer = {"added": [], "removed": gone, "changed": [], "problem": ""}
    if gone:
        answer["problem"] = remove(gone)["problem"]
    with alone():
        known = book()
        people = known["people"]
        for name in gone:  # the spec may have them back
            known["removed"][name]["spec"] = True
        for name, entry in wanted.items():
            old = people.get(name)
            if old is None and name in known["removed"] and not known["removed"][name].pop("spec", False):
                continue
            if old is None:
                entry["uid"] = _number(known, name, entry)
                answer["added"].append(name)
            else:
                entry["uid"] = old["uid"]
                if entry == {key: value for key, value in old.items() if key != "added"}:
                    continue
                answer["changed"].append(name)
            people[name] = entry
        if gone or answer["added"] or answer["changed"]:
            keep(PEOPLE, known)
            answer["problem"] = sentence([answer["problem"], install(known)])
    return answer


def _number(known, name, entry):
    """The number that a new person of the spec gets: the one they had, the spec's, or the next that is nobody's."""
    if name in known["removed"]:
        return known["removed"].pop(name)["uid"]
    taken = {other["uid"] for group in ("people", "removed") for other in known[group].values()}
    if entry["kind"] == "user" or entry["uid"] not in taken:
        return entry["uid"]
    known["next_uid"] += 1
    return known["next_uid"] - 1


def init():
    """What the head's configuration does at every run: the first list and passwords, accounts, homes."""
    with alone():
        if os.geteuid() == 0 and FOLDER.is_dir():
            os.chown(FOLDER, 0, gid("jupyterhub"))
            FOLDER.chmod(0o750)
        for name in (PEOPLE, PASSWORDS):
            first = read(name.replace(".json", ".initial.json"))
            if read(name) is None and first is not None:
                keep(name, first)
        known = book()
        problem = install(known)
    return {"people": len(known["people"]), **told(problem)}


def listed():
    """Everybody with what their server does; without a Hub that answers, without that."""
    known = book()["people"]
    servers, problem = {}, ""
    try:
        for user in Hub(timeout=10).users():
            ready = [bool(server.get("ready")) for server in (user.get("servers") or {}).values()]
            servers[user["name"]] = ("running" if all(ready) else "starting") if ready else ""
    except Down as error:
        problem = str(error)
    people = [
        {
            "name": name,
            **{key: entry[key] for key in ("uid", "kind", "admin", "instructor", "email", "login")},
            "server": servers.get(name, ""),
        }
        for name, entry in sorted(known.items())
        if entry["kind"] != "rehearsal"
    ]
    return {"people": people, "problem": problem}


# Accounts and homes ------------------------------------------------------------------------------------------------


def home_of(name, entry):
    """Where somebody's files are."""
    return Path("/home/.rehearsal" if entry["kind"] == "rehearsal" else "/home") / name


def passwd_lines(people, hashes=()):
    """Accounts as /etc/passwd has them; those of the spec's ``users`` are in that itself."""
    rows = sorted((entry["uid"], name, entry) for name, entry in people.items() if entry["kind"] != "user")
    return "".join(
        f"{name}:{'x' if name in hashes else '*'}:{uid}:{uid}::{home_of(name, entry)}:/bin/bash\n"
        for uid, name, entry in rows
    )


def group_lines(people):
    """Everybody's own group, and the two for all."""
    rows = sorted((entry["uid"], name) for name, entry in people.items() if entry["kind"] != "user")
    teachers = sorted(name for name, entry in people.items() if entry["instructor"] and not entry.get("leaving"))
    lines = [f"notebooks:*:{NOTEBOOKS}:{','.join(sorted(people))}", f"instructors:*:{INSTRUCTORS}:{','.join(teachers)}"]
    return "".join(f"{line}\n" for line in [*lines, *(f"{name}:*:{uid}:" for uid, name in rows)])


def install(known):
    """Put accounts where the machines look for them, and make the homes that are not there. Call it alone.

    Gives what could not be done although everybody can log in, or an empty text.
    """
    people = known["people"]
    leaving = {name: entry for name, entry in known["removed"].items() if entry.get("leaving")}
    accounts, hashes, problem = {**leaving, **people}, own_hashes(), ""
    for folder in (EXTRA, SHARED.parent, SHARED, KEYS):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder.chmod(0o755)
    # Homes first: who is known has one.
    for name, entry in people.items():
        if entry["kind"] != "user":
            make_home(name, entry)
    try:
        limit(people)
    except (Sorry, ValueError) as error:
        problem = f"new people are held to no quota: {error}"
    if hashes:  # people log in by the head's own passwords (pam), which no other machine has
        lines = (f"{name}:{hashes[name]}:19000:0:99999:7:::\n" for name in sorted(people) if name in hashes)
        replaced(EXTRA / "shadow", "".join(lines), 0o640, "shadow")
    replaced(EXTRA / "passwd", passwd_lines(accounts, hashes), 0o644)
    replaced(SHARED / "passwd", passwd_lines(accounts), 0o644)
    for folder in (EXTRA, SHARED):
        replaced(folder / "group", group_lines(accounts), 0o644)
    for name, entry in {**known["removed"], **people}.items():
        if entry["kind"] != "user":  # whose keys lie there from the first boot
            install_keys(name, entry.get("keys") if name in people else None)
    return problem


def install_keys(name, keys):
    """With which keys somebody may log in by SSH: root's file, and none in a home.

    A student who may write that could come back from a notebook to where Slurm holds them to nothing.
    """
    if keys:
        replaced(KEYS / name, "".join(f"{key}\n" for key in keys), 0o644)
    else:
        (KEYS / name).unlink(missing_ok=True)


def replaced(path, text, mode, group="root"):
    """Write a file if it is not so already."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write(path, text, mode, group)


def own_hashes():
    """Name to hash of the passwords that people of the head's accounts have; for root alone."""
    try:
        return json.loads(HASHES.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def make_home(name, entry):
    """A home from /etc/skel, whole or not at all; one that is there is left as it is."""
    home = ROOT / home_of(name, entry).relative_to("/")
    if home.exists() or home.is_symlink():
        return
    home.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = home.parent / f".new.{name}"
    shutil.rmtree(draft, ignore_errors=True)
    skeleton = ROOT / "etc/skel"
    if skeleton.is_dir():
        shutil.copytree(skeleton, draft, symlinks=True)
    else:
        draft.mkdir()
    if os.geteuid() == 0:
        for path in (draft, *draft.rglob("*")):
            os.chown(path, entry["uid"], entry["uid"], follow_symlinks=False)
    draft.chmod(0o700)
    draft.rename(home)
