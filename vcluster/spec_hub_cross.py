"""What can be wrong among several values below ``jupyterhub`` in a spec, each of which is right by itself.

As in :mod:`vcluster.spec_cross`, these look at data as the user wrote it, and leave alone what they do not understand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vcluster import people, spans, spec_hub_k3s
from vcluster.spec_checks import RefusedError, Trouble, nearest, seconds, show
from vcluster.spec_peek import get as _get
from vcluster.spec_peek import items as _list

__all__ = [
    "METHODS",
    "OPTIONS",
    "auth",
    "class_of",
    "cluster",
    "hub",
    "idle",
    "one_place",
    "repository",
    "users_unless_ruled",
]

METHODS = ("shared-password", "native", "firstuse", "github", "cilogon", "globus", "oidc", "pam")
PROVIDERS = frozenset({"github", "cilogon", "globus", "oidc"})
_URLS = ("authorize_url", "token_url", "userdata_url")
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "github": ("url",),
    "cilogon": ("idps", "username_claim"),
    "globus": ("identity_provider",),
    "oidc": ("issuer", *_URLS, "scope", "username_claim", "groups_claim", "login_service"),
}
"""What each identity provider may be told."""

_ADDRESSES = frozenset({"issuer", "url", *_URLS})
_RULES: Mapping[str, frozenset[str]] = {
    "organizations": frozenset({"github"}),
    "groups": frozenset({"globus", "oidc"}),
    "domains": frozenset({"cilogon", "globus", "oidc"}),
}
_LEAST_IDLE_SERVER = 600
_MOST_PEOPLE = people.FIRST_UID - people.FIRST_PERSON


def one_place(data: Any) -> list[Trouble]:
    """A secret is in one place."""
    given = [key for key in ("env", "file") if _get(data, key) is not None]
    if len(given) == 2:
        return [Trouble(("file",), "is given beside env", "leave one of the two out", key=True)]
    known = not isinstance(data, Mapping) or not data
    return [Trouble((), "must be {env: NAME} or {file: path}", "name one of the two")] if not given and known else []


def users_unless_ruled(data: Any) -> Any:
    """``allow`` with ``users`` as it is meant: everybody, unless there is another rule."""
    if isinstance(data, Mapping) and "users" not in data and any(data.get(rule) for rule in _RULES):
        return {"users": False, **data}
    return data


def auth(data: Any) -> list[Trouble]:
    """Every method has what it needs and nothing that it has no use for, and somebody is let in."""
    method = _get(data, "method", METHODS[0])
    if method not in METHODS:
        return []
    return [*_passwords(data, method), *_client(data, method), *_options(data, method), *_allow(data, method)]


def _passwords(data: Any, method: str) -> Iterator[Trouble]:
    useless = {"password": method != "shared-password", "admin_password": method in PROVIDERS}
    for key, none in useless.items():
        if none and _get(data, key) is not None:
            yield Trouble((key,), f"means nothing with method {method}", "leave it out", key=True)


def _client(data: Any, method: str) -> Iterator[Trouble]:
    for key, example in (("client_id", "as the identity provider shows it"), ("client_secret", "{env: NAME}")):
        given = _get(data, key) is not None
        if method in PROVIDERS and not given:
            yield Trouble((key,), f"is missing: method {method} needs it", example)
        if method not in PROVIDERS and given:
            yield Trouble((key,), f"means nothing with method {method}", "leave it out", key=True)


def _options(data: Any, method: str) -> Iterator[Trouble]:
    options = _get(data, "options", {})
    if not isinstance(options, Mapping):
        return
    known = OPTIONS.get(method, ())
    for key, value in options.items():
        if key not in known:
            close = nearest(str(key), known)
            remedy = f"did you mean {close}?" if close else f"known: {', '.join(known)}" if known else "leave it out"
            yield Trouble(("options", str(key)), f"is no option of method {method}", remedy, key=True)
        elif key in _ADDRESSES and isinstance(value, str) and not value.startswith("https://"):
            yield Trouble(("options", str(key)), f"must be an https:// address, got {show(value)}")
    if set(options) - set(known):
        return
    if method == "cilogon" and not options.get("idps"):
        yield Trouble(
            ("options", "idps"),
            "is missing: method cilogon needs it",
            "the entity ids of your institutions, with spaces",
        )
    if method == "oidc" and not options.get("issuer"):
        absent = [key for key in _URLS if not options.get(key)]
        if absent:
            yield Trouble(("options", "issuer"), "is missing: method oidc needs it", f"or {', '.join(absent)}")


def _allow(data: Any, method: str) -> Iterator[Trouble]:
    allow = _get(data, "allow", {})
    rules = [rule for rule in _RULES if _list(allow, rule)]
    for rule in rules:
        if method not in _RULES[rule]:
            what = f"means nothing with method {method}"
            yield Trouble(("allow", rule), what, f"it is for {', '.join(sorted(_RULES[rule]))}", key=True)
    users = _get(allow, "users", not rules)
    if users is True and rules:
        yield Trouble(("allow", "users"), f"lets everybody in, whatever {rules[0]} says", "leave one of the two out")
    if users is False and not rules:
        yield Trouble(("allow", "users"), "lets nobody in: there is no other rule", "leave it out")


def class_of(data: Any) -> list[Trouble]:
    """The names of numbered accounts are none of the CSV's."""
    count, prefix, text = _get(data, "count", 0), _get(data, "prefix", "student"), _get(data, "csv", "")
    if (
        not isinstance(count, int)
        or not isinstance(prefix, str)
        or not isinstance(text, str)
        or isinstance(data, Mapping)
    ):
        return []
    numbered = set(people.pool(count, prefix))
    return [
        Trouble(("csv",), f"line {row.line} of the CSV: {row.name} is the name of a numbered account", "change prefix")
        for row in people.parse_csv(text)[0]
        if row.name in numbered
    ]


def repository(data: Any) -> list[Trouble]:
    """A branch and a folder are those of a repository."""
    if _get(data, "url") is not None:
        return []
    given = [key for key in ("branch", "folder") if _get(data, key) is not None]
    return [Trouble((key,), "is given without url", "add url: the repository's address", key=True) for key in given]


def idle(data: Any) -> list[Trouble]:
    """A server is not called idle before it can say that it is not; nothing is idle longer than it may live."""
    server, kernel, longest = (_span(data, key, default) for key, default in _SPANS)
    if server is not None and 0 < server < _LEAST_IDLE_SERVER:
        return [Trouble(("server",), "must be at least 10m: servers say every 5 minutes whether they are used")]
    return [
        Trouble(("longest",), f"must be at least {key}, which is {spans.spell(value)}")
        for key, value in (("server", server), ("kernel", kernel))
        if value and longest and longest < value
    ][:1]


_SPANS = (("server", "1h"), ("kernel", "1h"), ("longest", "0"))


def _span(data: Any, key: str, default: str) -> float | None:
    value = _get(data, key, default)
    return 0.0 if value in {"0", 0} else spans.seconds(value) if isinstance(value, str) else None


def hub(data: Any) -> list[Trouble]:
    """Profiles tell themselves apart and ask for what there is; an address for letters has letters to get."""
    found = []
    if _get(data, "email") is not None and _get(data, "domain") is None:
        remedy = "it is for Let's Encrypt: add domain, or leave it out"
        found.append(Trouble(("email",), "is given without domain", remedy, key=True))
    profiles = _list(data, "profiles")
    if isinstance(_get(data, "profiles"), list | tuple) and not profiles:
        found.append(Trouble(("profiles",), "must not be empty", "leave it out for one of 1 CPU and 1G"))
    names = [_get(profile, "name", "standard") for profile in profiles]
    for index, name in enumerate(names):
        if name in names[:index]:
            what = f"two profiles are called {show(name)}"
            found.append(Trouble(("profiles", index, "name"), what, "give each its own name"))
    return found


def cluster(data: Any) -> Iterator[Trouble]:
    """The Hub beside the rest of the spec: users, worker groups, limits of jobs, the cloud."""
    section = _get(data, "jupyterhub")
    if section is None:
        return
    place = "jupyterhub"
    if _get(section, "domain") is not None and _get(data, "cloud") == "local":
        remedy = "leave it out: the cluster has a certificate authority of its own"
        yield Trouble(
            (place, "domain"), "means nothing on the local cloud: Let's Encrypt cannot see it", remedy, key=True
        )
    access = _get(data, "access", {})
    hidden = _get(access, "public_ip") is False or (_get(access, "jump") and _get(access, "public_ip") is None)
    if _get(section, "domain") is not None and hidden:
        remedy = "leave it out, or give the head a public address"
        yield Trouble((place, "domain"), "is given although the head has no public address", remedy, key=True)
    for trouble in (*_profiles(data, section), *_names(data, section), *_logins(section)):
        yield trouble.under((place,))


def _profiles(data: Any, section: Any) -> Iterator[Trouble]:
    workers = _list(data, "workers") or [{}]
    groups = [_get(group, "name", "cpu") for group in workers]
    usual = spec_hub_k3s.first_group(groups, _get(data, "scheduler"))
    limit = _get(_get(data, "slurm", {}), "max_time", "UNLIMITED")
    for index, profile in enumerate(_list(section, "profiles")):
        partition = _get(profile, "partition")
        if isinstance(partition, str) and partition not in groups:
            there = ", ".join(str(group) for group in groups)
            yield Trouble(
                ("profiles", index, "partition"), f"there is no group {show(partition)}", f"there is: {there}"
            )
        elif what := _too_many_gpus(profile, workers[groups.index(partition) if partition in groups else usual]):
            remedy = "workers[].gpus says how many each machine has; partition names another group"
            yield Trouble(("profiles", index, "gpus"), what, remedy)
        try:
            asked, most = seconds(_get(profile, "time", "8:00:00")), seconds(limit)
        except RefusedError:
            continue
        if most is not None and (asked is None or asked > most):
            remedy = "lower it, or raise max_time"
            yield Trouble(("profiles", index, "time"), f"must be at most slurm's max_time, {show(limit)}", remedy)


def _too_many_gpus(profile: Any, group: Any) -> str:
    asked, there = _get(profile, "gpus", 0), _get(group, "gpus", 0)
    if not isinstance(asked, int) or not isinstance(there, int) or asked <= there:
        return ""
    name = show(_get(group, "name", "cpu"))
    most = f"must be at most {there}" if there else "must be 0"
    return f"{most}, got {asked}: a worker of group {name} has {there or 'no'} GPU{'' if there == 1 else 's'}"


def _logins(section: Any) -> Iterator[Trouble]:
    """GitHub tells a Hub no e-mail address that it has not been told to show, so those are nobody's there."""
    group = _get(section, "people", {})
    if _get(_get(section, "auth", {}), "method") != "github" or isinstance(group, Mapping):
        return
    lost = [row for row in people.parse_csv(_get(group, "csv", ""))[0] if row.email and not row.login]
    remedy = "GitHub goes by logins: add a column login, or take the address out if the name is the login"
    for row in lost[: people.MOST_TROUBLES]:
        yield Trouble(
            ("people", "csv"), f"line {row.line} of the CSV: {row.name} has an e-mail address and no login", remedy
        )
    if lost[people.MOST_TROUBLES :]:
        more = len(lost) - people.MOST_TROUBLES
        yield Trouble(("people", "csv"), f"and {more} more lines without a login")


def _names(data: Any, section: Any) -> Iterator[Trouble]:
    users = [_get(user, "name") for user in _list(data, "users")]
    for name in users:
        if isinstance(name, str) and name.startswith(people.RESERVED):
            what = f"{show(name)} of users begins with {people.RESERVED}: such names belong to rehearsals"
            yield Trouble((), what, "choose another name")
    group = _get(section, "people", {})
    count, prefix, text = _get(group, "count", 0), _get(group, "prefix", "student"), _get(group, "csv", "")
    if isinstance(group, Mapping) or not isinstance(count, int):
        return  # as the user wrote it: something else is wrong, and the CSV has not been read
    rows = people.parse_csv(text)[0]
    for row in rows:
        if row.name in users:
            what = f"line {row.line} of the CSV: {row.name} is one of users already"
            yield Trouble(("people", "csv"), what, "take the name out of one of the two")
    numbered = people.pool(count, prefix)
    for name in users:
        if name in numbered:
            yield Trouble(("people", "prefix"), f"{name} is one of users already", "choose another prefix")
    if len(rows) + len(numbered) > _MOST_PEOPLE:
        yield Trouble(("people",), f"are {len(rows) + len(numbered)} people, at most {_MOST_PEOPLE} are supported")
