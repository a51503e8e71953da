"""The Hub's passwords: the class's, the admins', and people's own where the Hub or the head keeps them."""

import dbm
import json
import secrets
import time

from hub_people import HASHES, PASSWORDS, book, install, own_hashes
from hub_state import ROOT, Sorry, alone, facts, keep, read, run, write

SHOWN = "shown.json"
"""There once a person has seen the passwords."""

LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""None that is taken for another when it is read from a wall."""

LEAST = {"class": 8, "admin": 12}
LEAST_OWN = 12
DBM_SECONDS = 10


def readable():
    """A password to be read aloud: 79 bits."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(4))


def password(given):
    """Show the passwords, or change one.

    Args:
        given: ``{}`` shows them; ``{"who": "class", "admin" or a person's name}`` makes a new one, or takes
            ``"password"``.

    Returns:
        The class's and the admins'; the class's is None where people have other ways to log in. ``own`` is what a
        person's was made to be, and None where they choose it themselves.
    """
    method = facts().get("auth", {}).get("method", "")
    shared, who, own = method == "shared-password", given.get("who"), None
    with alone():
        known = read(PASSWORDS) or {}
        if who == "class" and not shared:
            raise Sorry(f"people log in by {method}: there is no password for the class")
        if who in LEAST:
            known[who] = given.get("password") or (readable() if who == "class" else secrets.token_hex(16))
            check(known[who], LEAST[who])
            if known.get("class") == known.get("admin"):
                raise Sorry("the class's password and the admins' must differ")
            keep(PASSWORDS, known)
        elif who:
            own = own_password(method, who, given.get("password"))
        if read(SHOWN) is None:
            keep(SHOWN, {"shown": True})
    answer = {"class": known.get("class") if shared else None, "admin": known.get("admin"), "method": method}
    return {**answer, "own": own}


def check(text, least):
    """Refuse a password that is guessed, or that not every keyboard has."""
    if len(text) < least:
        raise Sorry(f"the password needs {least} characters or more")
    if not (text.isascii() and text.isprintable()):
        raise Sorry("a password of printable ASCII, please: keyboards differ")


def own_password(method, name, text):
    """Change one person's password; gives the new one, or None where they choose it themselves."""
    person = book()["people"].get(name)
    if person is None or person["kind"] == "rehearsal":
        raise Sorry(f"not known here: {name}")
    if text:
        check(text, LEAST_OWN)
    if method == "pam":
        text = text or readable()
        _of_the_account(name, person, text)
        return text
    if method == "firstuse":
        if text:
            raise Sorry("the first password that somebody types is theirs: it can be forgotten, not set")
        _forget(name)
        return None
    ways = {
        "shared-password": "people type the class's password, instructors and admins the admins'",
        "native": f"an admin changes it in the Hub, at hub/change-password/{name}",
    }
    raise Sorry(f"{name} has no password here: {ways.get(method, f'people log in by {method}')}")


def _of_the_account(name, person, text):
    digest = run("openssl", "passwd", "-6", "-stdin", stdin=f"{text}\n").strip()
    if person["kind"] == "user":
        run("chpasswd", "--encrypted", stdin=f"{name}:{digest}\n")
        return
    write(HASHES, json.dumps({**own_hashes(), name: digest}) + "\n", 0o600)
    install(book())


def _forget(name):
    """Take a first password away: the next that they type is theirs. The Hub holds the file for moments only."""
    path = ROOT / "var/lib/jupyterhub/first-use.dbm"
    end = time.monotonic() + DBM_SECONDS
    while dbm.whichdb(str(path)) is not None:
        try:
            with dbm.open(str(path), "w") as known:
                if name.encode() in known:
                    del known[name.encode()]
            return
        except dbm.error as error:
            if time.monotonic() > end:
                raise Sorry(f"the Hub holds its passwords: {error}") from error
            time.sleep(0.2)
