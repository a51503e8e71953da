"""Who has an account on a cluster with a Hub, with which number: from the spec alone, the same in every run."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vcluster import spec_checks as checks
from vcluster import spec_text as texts
from vcluster.spec_checks import RefusedError, Trouble, show

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = [
    "EMAIL",
    "FIRST_PERSON",
    "FIRST_UID",
    "FIRST_USER",
    "RESERVED",
    "Person",
    "Row",
    "class_size",
    "parse_csv",
    "people",
    "person_name",
    "pool",
    "read_csv",
]

FIRST_USER = 2001
"""UID of the first of the spec's ``users``."""

FIRST_PERSON = 10001
"""UID of the first of all others that the spec names."""

FIRST_UID = 20001
"""UID of the first person who is added while the cluster runs."""

RESERVED = "rehearsal"
"""Names that begin so belong to rehearsals."""

EMAIL = r"^[A-Za-z0-9._%+-]{1,64}@([A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,63}$"
LOGIN = r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,254}"
CSV_BYTES = 512 * 1024
MOST_TROUBLES = 20
_COLUMNS = {
    "name": ("name", "username", "user name", "user"),
    "email": ("email", "e-mail", "mail", "email address", "e-mail address"),
    "login": ("login", "account", "identity"),
    "key": ("key", "ssh key", "ssh_key", "public key", "public_key"),
}
_PLAIN = ("name", "email", "key")


@dataclass(frozen=True, slots=True)
class Person:
    """An account.

    Attributes:
        kind: ``user`` is one of the spec's ``users``, ``student`` one of the class, ``instructor`` has that rank.
        admin: may do anything in the Hub; every admin is an instructor.
        login: what the identity provider calls this person; empty for the name or the e-mail address.
        ssh_keys: public keys; empty for nobody who logs in by SSH.
    """

    name: str
    uid: int
    kind: str
    admin: bool = False
    instructor: bool = False
    email: str = ""
    ssh_keys: tuple[str, ...] = ()
    login: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One person of a CSV, and the line that tells of them, from 1."""

    name: str
    email: str
    login: str
    key: str
    line: int


def people(spec: ClusterSpec) -> tuple[Person, ...]:
    """Everybody with an account: the spec's users, then the CSV, the numbered ones, and instructors of no list.

    Without a Hub there are the users alone.
    """
    hub = spec.jupyterhub
    ranks = (frozenset(hub.instructors), frozenset(hub.admins)) if hub else (frozenset[str](), frozenset[str]())
    teachers, admins = ranks[0] | ranks[1], ranks[1]

    def person(name: str, uid: int, kind: str, row: Row | None = None, keys: tuple[str, ...] = ()) -> Person:
        return Person(
            name,
            uid,
            "instructor" if name in teachers and kind == "student" else kind,
            name in admins,
            name in teachers,
            row.email if row else "",
            (row.key,) if row and row.key else keys,
            row.login if row else "",
        )

    found = [person(user.name, FIRST_USER + n, "user", keys=user.ssh_keys) for n, user in enumerate(spec.users)]
    if hub is None:
        return tuple(found)
    rows = {row.name: row for row in parse_csv(hub.people.csv or "")[0]}
    known = {each.name for each in found}
    named = [*rows, *pool(hub.people.count, hub.people.prefix), *hub.instructors, *hub.admins]
    others = [name for name in dict.fromkeys(named) if name not in known]
    found += (person(name, FIRST_PERSON + n, "student", rows.get(name)) for n, name in enumerate(others))
    return tuple(found)


def pool(count: int, prefix: str) -> tuple[str, ...]:
    """The names of numbered accounts: ``student-001``, …"""
    width = max(3, len(str(count)))
    return tuple(f"{prefix}-{n:0{width}}" for n in range(1, count + 1))


def class_size(spec: ClusterSpec) -> int:
    """For how many notebooks at once the cluster is meant: ``class_size``, or one for everybody; 0 without a Hub."""
    if spec.jupyterhub is None:
        return 0
    return spec.jupyterhub.class_size or len(people(spec))


def person_name(value: str) -> str:
    """The name of somebody in the Hub."""
    if checks.user_name(value).startswith(RESERVED):
        raise RefusedError(f"{value}: names that begin with {RESERVED} belong to rehearsals", "choose another name")
    return value


def read_csv(value: str | None, folder: Path | None) -> str | None:
    """A class's CSV as text, from that text itself (more than one line, or a comma in it) or from a file's name.

    Raises:
        RefusedError: with every wrong line by its number.
    """
    if value is None:
        return None
    inline = "\n" in value or "," in value
    text = (
        value if inline else texts.read(texts.locate(value, folder), CSV_BYTES, "name it relative to the spec's folder")
    )
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]", text):
        raise RefusedError("holds control characters: it is not a text", "save it as CSV, UTF-8")
    rows, troubles = parse_csv(text)
    if troubles:
        which = "" if inline else f"{value}, "
        shown = [Trouble((), f"{which}line {line}: {message}", remedy) for line, message, remedy in troubles]
        if len(shown) > MOST_TROUBLES:
            more = len(shown) - MOST_TROUBLES
            shown[MOST_TROUBLES:] = [Trouble((), f"{which}and {more} more lines that are wrong")]
        raise RefusedError(troubles=shown)
    if not rows:
        raise RefusedError(
            "names nobody" if inline else f"{value} names nobody", "a line for each person: name,e-mail,key"
        )
    return text if text.endswith("\n") else f"{text}\n"


_Wrong = tuple[int, str, str]


def parse_csv(text: str) -> tuple[list[Row], list[_Wrong]]:
    """The people in a CSV, and what is wrong with it: line, message, remedy.

    Commas, semicolons or tabs part the columns; empty lines and lines that begin with ``#`` say nothing.
    """
    rows: list[Row] = []
    wrong: list[_Wrong] = []
    columns: Sequence[str] = ()
    for line, cells in _lines(text, wrong):
        if not columns:
            if headed := _header(cells):
                columns = headed
                unknown = [cell.strip() for cell, column in zip(cells, headed, strict=True) if not column]
                wrong += ((line, f"unknown column {show(cell)}", f"known: {', '.join(_COLUMNS)}") for cell in unknown)
                double = [column for n, column in enumerate(headed) if column and column in headed[:n]]
                wrong += ((line, f"two columns are called {column}", "keep one") for column in double)
                continue
            columns = _PLAIN
        if len(cells) > len(columns):
            wrong.append(
                (line, f"has {len(cells)} columns, there are {len(columns)}", "put texts with commas in quotes")
            )
            continue
        _row(dict(zip(columns, (cell.strip() for cell in cells), strict=False)), line, rows, wrong)
    return rows, wrong


def _lines(text: str, wrong: list[_Wrong]) -> Iterator[tuple[int, list[str]]]:
    first = next((each for each in text.splitlines() if each.strip() and not each.startswith("#")), "")
    delimiter = next((each for each in ",;\t" if each in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    last = 0
    try:
        for cells in reader:
            line, last = last + 1, reader.line_num
            if any(cell.strip() for cell in cells) and not cells[0].lstrip().startswith("#"):
                yield line, cells
    except csv.Error as error:
        wrong.append((last + 1, f"is not CSV: {error}", "close the quotation"))


def _header(cells: Sequence[str]) -> list[str]:
    """The columns that a first line names, empty for unknown ones; an empty list when it is no such line."""
    words = [cell.strip().lower() for cell in cells]
    columns = [next((name for name, ways in _COLUMNS.items() if word in ways), "") for word in words]
    return columns if "name" in columns else []


def _row(cells: dict[str, str], line: int, rows: list[Row], wrong: list[_Wrong]) -> None:
    name, email, login, key = (cells.get(column, "") for column in ("name", "email", "login", "key"))
    before = len(wrong)
    twin = next((row for row in rows if row.name == name), None)
    legal = False
    if not name:
        wrong.append((line, "has no name", "a login name first: lower-case letters and digits"))
    elif twin:
        wrong.append((line, f"{show(name)} stands in line {twin.line} already", "give each person one line"))
    else:
        try:
            legal = bool(person_name(name))
        except RefusedError as refusal:
            wrong += ((line, trouble.message, trouble.remedy) for trouble in refusal.troubles)
    if email and not re.fullmatch(EMAIL[1:-1], email):
        wrong.append((line, f"must be an e-mail address, got {show(email)}", "leave it empty for none"))
    if login and not re.fullmatch(LOGIN, login):
        wrong.append((line, f"must be a name at the identity provider, got {show(login)}", "leave it empty for none"))
    # An identity provider tells people apart by these.
    for what, mine, theirs in (("e-mail address", email, "email"), ("login", login, "login")):
        other = next((row for row in rows if mine and getattr(row, theirs).lower() == mine.lower()), None)
        if other and other.name != name:
            wrong.append((line, f"has the {what} of {other.name} in line {other.line}", "give each person their own"))
    if key:
        try:
            key = _key(key)
        except RefusedError as refusal:
            wrong += ((line, f"the key {trouble.message}", trouble.remedy) for trouble in refusal.troubles)
    if len(wrong) == before:
        rows.append(Row(name, email, login, key, line))
    elif legal:
        # Still there, so that a second one of the same name is told as well.
        rows.append(Row(name, "", "", "", line))


def _key(text: str) -> str:
    if not re.match(r"(ssh|ecdsa|sk)-", text):
        raise RefusedError("is not a public key of a known type", "copy the whole line of the .pub file")
    return texts.public_keys([text], None)[0]
