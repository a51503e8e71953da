"""Checks of single values below ``jupyterhub`` in a spec: as in :mod:`vcluster.spec_checks`, each returns the value in
its canonical form or refuses it, and allows a set of characters rather than forbidding some.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vcluster import spans
from vcluster import spec_checks as checks
from vcluster import spec_text as texts
from vcluster.people import EMAIL, RESERVED, person_name
from vcluster.spec_checks import RefusedError, Trouble, show

__all__ = [
    "branch",
    "client_id",
    "domain",
    "each_once",
    "email",
    "folder",
    "image",
    "line",
    "notebook_memory",
    "options",
    "partition",
    "person_name",
    "prefix",
    "profile_name",
    "quota",
    "reference",
    "repository",
    "requirement",
    "requirements",
    "secret_file",
    "span",
    "variable",
    "word",
]

VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"
CLIENT_ID = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}$"
DOMAIN = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
PREFIX = r"^[a-z][a-z0-9_-]{0,24}$"
BRANCH = r"^[A-Za-z0-9_][A-Za-z0-9._/-]{0,127}$"
_VERSION = r"(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|@sha256:[0-9a-f]{64})"
IMAGE = rf"^(?!.*:latest$)[a-z0-9]([a-zA-Z0-9._:/-]{{0,253}}[a-zA-Z0-9])?{_VERSION}$"
FOLDER = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$"
_WORD = r"[A-Za-z0-9][A-Za-z0-9._:@ -]{0,127}"
_VERSIONS = r"(===|==|>=|<=|~=|!=|<|>) ?[A-Za-z0-9][A-Za-z0-9.*+!_-]{0,63}"
_PACKAGE = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?(\[[A-Za-z0-9._, -]{1,200}\])?"
_REQUIREMENT = rf"{_PACKAGE} ?({_VERSIONS}( ?, ?{_VERSIONS}){{0,5}})?"
_CONDITION = r"[a-z_]{2,40} ?(==|!=|>=|<=|~=|<|>| in | not in ) ?(\"[A-Za-z0-9._ -]{1,60}\"|'[A-Za-z0-9._ -]{1,60}')"
_MARKER = rf"( ?; ?{_CONDITION}( (and|or) {_CONDITION}){{0,5}})?"

LEAST_NOTEBOOK = 384
"""MiB below which a server with one kernel does not start reliably: they take about 170 with nothing loaded."""

LEAST_QUOTA = 100
LEAST_IDLE = 60
LONGEST = 3650 * 86400
REQUIREMENTS_BYTES = 64 * 1024


def _matching(regex: str, value: str, wanted: str, remedy: str) -> str:
    if not re.fullmatch(regex.removeprefix("^").removesuffix("$"), value):
        raise RefusedError(f"must be {wanted}, got {show(value)}", remedy)
    return value


def variable(value: str | None) -> str | None:
    """An environment variable's name. What is none is not shown: it may be the secret itself."""
    if value is not None and not re.fullmatch(VARIABLE[1:-1], value):
        raise RefusedError("must be an environment variable's name", "as in {env: HUB_SECRET}, without a $")
    return value


def secret_file(value: str | None, folder: Path | None) -> str | None:
    """A secret's file as an absolute path; whether it is there is asked when it is needed."""
    if value is None:
        return None
    if "\n" in value:
        raise RefusedError("must be a file's name: a secret does not belong into the spec")
    # Without a folder this text was written by vcluster, with absolute paths.
    return str(texts.locate(value, Path("/") if folder is None and value.startswith("/") else folder).absolute())


def reference(value: Any) -> Any:
    """Refuse a secret that was written where it must only be named, without showing it."""
    if isinstance(value, str | int | float | list | tuple):
        raise RefusedError(
            "must be {env: NAME} or {file: path}: a secret does not belong into the spec", "write where it is found"
        )
    return value


def client_id(value: str | None) -> str | None:
    """What an identity provider calls the Hub."""
    return value if value is None else _matching(CLIENT_ID, value, "a client id", "as the identity provider shows it")


def domain(value: str | None) -> str | None:
    """A host name with a dot in it, in lower case."""
    if value is None:
        return None
    remedy = "a host name that you own, as hub.example.org, without https://"
    return _matching(rf"(?=.{{4,253}}$){DOMAIN[1:]}", value.lower().removesuffix("."), "a host name", remedy)


def email(value: str | None) -> str | None:
    """An e-mail address."""
    return value if value is None else _matching(EMAIL, value, "an e-mail address", "as admin@example.org")


def each_once(values: tuple[str, ...]) -> tuple[str, ...]:
    """Names without doubles."""
    found = [Trouble((n,), f"{show(name)} stands here twice") for n, name in enumerate(values) if name in values[:n]]
    if found:
        raise RefusedError(troubles=found)
    return values


def word(value: str) -> str:
    """A name that an identity provider uses: an organization, a group, a domain."""
    return _matching(_WORD, value, "a name", "letters, digits and . _ : @ - and spaces")


def options(value: Any) -> Any:
    """A mapping of texts without control characters."""
    if not isinstance(value, dict):
        raise RefusedError(f"must be a mapping of texts, got {show(value)}", "options: {issuer: …}")
    troubles = [
        Trouble((str(key),), f"must be text, got {show(text)}", quote=True)
        for key, text in value.items()
        if not isinstance(text, str) or not text.isprintable() or not text or len(text) > 1000
    ]
    if troubles:
        raise RefusedError(troubles=troubles)
    return value


def prefix(value: str) -> str:
    """How the names of a class begin."""
    _matching(PREFIX, value, "the beginning of users' names", "lower-case letters, digits, _ and -, a letter first")
    if value.startswith((RESERVED, "vcluster", "systemd-")):
        raise RefusedError(f"{show(value)} is the beginning of names that vcluster uses itself", "choose another")
    return value


def quota(value: object) -> int | None:
    """A size in MiB."""
    size = checks.memory_per_cpu(value)
    if size is not None and size < LEAST_QUOTA:
        raise RefusedError(f"must be at least {LEAST_QUOTA}M, got {show(value)}: a notebook could not even start")
    return size


def notebook_memory(value: object) -> int:
    """A notebook's memory in MiB."""
    size = checks.memory_per_cpu(value)
    if size is None or size < LEAST_NOTEBOOK:
        raise RefusedError(
            f"must be at least {LEAST_NOTEBOOK}M, got {show(value)}: a server and one kernel do not fit into less",
            "1G is a good beginning",
        )
    return size


def profile_name(value: str) -> str:
    """A profile's name."""
    return _matching(checks.NAME, value, "a profile's name", "lower-case letters, digits and hyphens, a letter first")


def line(value: str) -> str:
    """One line of text for people."""
    if not value.isprintable() or len(value) > 200:
        raise RefusedError("must be one line of at most 200 characters", "shorten it")
    return value


def partition(value: str | None) -> str | None:
    """A worker group's name."""
    return value if value is None else checks.group_name(value)


def requirement(value: str) -> str:
    """A Python package, as pip takes it, but without its options, addresses and files."""
    text = " ".join(value.split())
    remedy = "a name, and a version where wanted: numpy, or xarray==2025.9.0"
    return _matching(_REQUIREMENT + _MARKER, text, "a Python package's name", remedy)


def requirements(value: str | None, folder: Path | None) -> str | None:
    """A requirements file's packages, one a line, from its name or its text."""
    if value is None:
        return None
    inline = "\n" in value
    text = (
        value
        if inline
        else texts.read(texts.locate(value, folder), REQUIREMENTS_BYTES, "name it relative to the spec's folder")
    )
    lines, troubles = list[str](), list[Trouble]()
    for number, each in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        bare = re.sub(r"(^|\s)#.*", "", each).strip()
        if not bare:
            continue
        where = f"line {number}" if inline else f"{value}, line {number}"
        if bare.startswith("-"):
            troubles.append(Trouble((), f"{where}: options of pip are not taken, got {show(bare)}", "packages only"))
            continue
        try:
            lines.append(requirement(bare))
        except RefusedError as refusal:
            troubles += (Trouble((), f"{where}: {t.message}", t.remedy) for t in refusal.troubles)
    if not lines and not troubles:
        raise RefusedError("holds no package", "leave it out")
    if troubles:
        raise RefusedError(troubles=troubles)
    return "".join(f"{each}\n" for each in lines)


def repository(value: str | None) -> str | None:
    """A Git repository's address."""
    if value is None:
        return None
    address = checks.url(value)
    if not address or address.count("/") < 3:
        raise RefusedError(f"must be a repository's address, got {show(value)}", "https://git.example.org/course.git")
    return address


def branch(value: str | None) -> str | None:
    """A branch's name."""
    if value is None:
        return None
    if ".." in value or value.endswith(("/", ".", ".lock")) or "//" in value:
        raise RefusedError(f"must be a branch's name, got {show(value)}", "as main")
    return _matching(BRANCH, value, "a branch's name", "as main")


def folder(value: str | None) -> str | None:
    """The name of a folder in a home."""
    return value if value is None else _matching(FOLDER, value, "a folder's name", "one word, without a slash")


def image(value: str | None) -> str | None:
    """A container image that is the same one tomorrow: with a tag or a digest."""
    if value is None:
        return None
    remedy = "a name with a tag, as quay.io/jupyter/scipy-notebook:2025-09-01, or with @sha256:…"
    name, _, tag = value.rpartition("/")[2].partition(":")
    if tag == "latest" or not (tag or "@" in name):
        raise RefusedError(
            f"must say which version, got {show(value)}: an image's latest is another one tomorrow", remedy
        )
    return _matching(IMAGE, value, "a container image", remedy)


def span(value: object) -> str | None:
    """A span of time; ``0`` is never."""
    if value is None:
        return None
    wrong = f"must be a span of time such as 30m, 1h or 1d, got {show(value)}"
    if value in (0, "0") and not isinstance(value, bool):
        return "0"
    if isinstance(value, int) and not isinstance(value, bool):
        raise RefusedError(wrong, f"write {value}m for minutes, {value}h for hours")
    length = spans.seconds(value) if isinstance(value, str) and re.fullmatch(spans.SPAN[1:-1], value) else None
    if length is None:
        raise RefusedError(wrong, "numbers with m, h or d after them, as in 1h30m; 0 for never")
    if not LEAST_IDLE <= length <= LONGEST:
        raise RefusedError(f"must be from one minute to 3650 days, got {show(value)}", "0 for never")
    return spans.spell(length)
