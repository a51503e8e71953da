"""What can be wrong among several values of a spec, each of which is right by itself.

These look at data as the user wrote it, so that they also speak when something else is wrong: each takes a model
or anything at all, and leaves alone what it does not understand, since that has been complained about already.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from vcluster import k3s_cross, spec_hub_cross, spec_hub_k3s
from vcluster.spec_checks import Path, RefusedError, Trouble, seconds, show
from vcluster.spec_peek import get as _get
from vcluster.spec_peek import items as _list

__all__ = [
    "MOST_MACHINES",
    "access",
    "cluster",
    "counts",
    "image",
    "price",
    "times",
]

MOST_MACHINES = 4000
LONGEST_HOSTNAME = 63
DEFAULT_GROUP = "cpu"
DEFAULT_COUNT = 2


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_MACHINES


def counts(group: Any) -> list[Trouble]:
    """A worker group's ``min_count <= count <= max_count``."""
    count = _get(group, "count", DEFAULT_COUNT)
    least, most = _get(group, "min_count", count), _get(group, "max_count", count)
    found = []
    if _whole(least) and _whole(count) and least > count:
        found.append(Trouble(("min_count",), f"must be at most count, which is {count}, got {least}"))
    if _whole(most) and _whole(count) and most < count:
        found.append(Trouble(("max_count",), f"must be at least count, which is {count}, got {most}"))
    return found


def times(slurm: Any) -> list[Trouble]:
    """``default_time <= max_time``."""
    try:
        usual, most = (seconds(_get(slurm, key, default)) for key, default in _TIMES)
    except RefusedError:
        return []
    if most is None or (usual is not None and usual <= most):
        return []
    told = show(_get(slurm, "default_time", "1:00:00"))
    return [Trouble(("default_time",), f"must be at most max_time, got {told}", "lower it, or raise max_time")]


_TIMES = (("default_time", "1:00:00"), ("max_time", "UNLIMITED"))


def image(data: Any) -> list[Trouble]:
    """What comes from an address must be checked; a checksum needs something to check."""
    source, checksum = _get(data, "source", ""), _get(data, "sha256", "")
    if isinstance(source, str) and source.startswith(("http://", "https://")) and not checksum:
        return [Trouble(("sha256",), "is missing: what comes from an address must be checked", "sha256sum prints it")]
    if checksum and not source:
        return [Trouble(("sha256",), "is given without a source", "add source: the image's address or path")]
    return []


def access(data: Any) -> list[Trouble]:
    """One way to the head: an address from outside, or a bastion."""
    public, jump, floating = (_get(data, key) for key in ("public_ip", "jump", "floating_ip"))
    if jump is not None and public is True:
        return [Trouble(("jump",), "is given although the head has a public address", "leave one of the two out")]
    if floating is not None and (public is False or jump is not None):
        other = "public_ip is false" if public is False else "jump is given"
        return [Trouble(("floating_ip",), f"is given although {other}", "leave one of the two out")]
    return []


def price(data: Any) -> list[Trouble]:
    """A price is for each virtual CPU or for the whole machine."""
    given = [key for key in ("per_vcpu_hour", "per_hour") if _get(data, key) is not None]
    if len(given) == 2:
        return [Trouble(("per_hour",), "is given beside per_vcpu_hour", "leave one of the two out")]
    return [] if given else [Trouble(("per_vcpu_hour",), "is missing", "or per_hour, for the whole machine")]


def cluster(data: Any) -> list[Trouble]:
    """Names tell groups and users apart, there are not too many machines, and the cloud has a use for every field."""
    found = [*_groups(data), *_users(data), *_not_local(data)]
    found += [*spec_hub_cross.cluster(data), *spec_hub_k3s.cluster(data), *k3s_cross.cluster(data)]
    if _get(data, "grace_period") is not None and _get(data, "expires") is None:
        found.append(Trouble(("grace_period",), "is given without expires", "add expires, as in expires: 8h", key=True))
    return found


_ONLY_OPENSTACK = {
    "": ("network", "external_network", "availability_zone"),
    "head": ("root_disk", "image", "availability_zone"),
    "access": ("public_ip", "floating_ip", "jump"),
}


def _not_local(data: Any) -> Iterator[Trouble]:
    """Fields that the local cloud has no use for are refused: whoever writes them expects something of them."""
    if _get(data, "cloud") != "local":
        return
    places: list[tuple[Path, Any, tuple[str, ...]]] = [
        ((section,) if section else (), _get(data, section) if section else data, keys)
        for section, keys in _ONLY_OPENSTACK.items()
    ]
    places += ((("workers", n), group, _ONLY_OPENSTACK["head"]) for n, group in enumerate(_list(data, "workers")))
    for place, section, keys in places:
        for key in keys:
            if _get(section, key) is not None:
                remedy = "leave it out; the flavor says the disk's size" if key == "root_disk" else "leave it out"
                yield Trouble((*place, key), "means nothing on the local cloud", remedy, key=True)
    for index, group in enumerate(_list(data, "workers")):
        if _get(group, "gpus", 0) != 0:
            yield Trouble(("workers", index, "gpus"), "must be 0 on the local cloud: its machines have none")


def _groups(data: Any) -> Iterator[Trouble]:
    groups = _list(data, "workers")
    if isinstance(_get(data, "workers"), list | tuple) and not groups:
        yield Trouble(("workers",), "must not be empty", "leave it out for two small workers")
        return
    names = [_get(group, "name", DEFAULT_GROUP) for group in groups]
    for index, name in enumerate(names):
        if not isinstance(name, str):
            continue
        place = ("workers", index, "name")
        if name in names[:index]:
            yield Trouble(place, f"two groups are called {show(name)}", "give each its own name")
            continue
        machine = re.fullmatch(r"(.+)-[0-9]+", name)
        if machine and machine[1] in names:
            yield Trouble(
                place, f"{show(name)} is the name of a machine of group {show(machine[1])}", "choose a name such as gpu"
            )
    yield from _sizes(data, groups, names)


def _sizes(data: Any, groups: list[Any], names: list[Any]) -> Iterator[Trouble]:
    cluster_name = _get(data, "name", "")
    total = 0
    for index, (group, name) in enumerate(zip(groups, names, strict=True)):
        count = _get(group, "count", DEFAULT_COUNT)
        most = _get(group, "max_count", count)
        if not _whole(most) or not _whole(count):
            total = -MOST_MACHINES * MOST_MACHINES
            continue
        total += max(most, count)
        # Only names that are right by themselves: longer ones have been complained about.
        host = f"{cluster_name}-{name}-{most}"
        if isinstance(cluster_name, str) and isinstance(name, str) and LONGEST_HOSTNAME < len(host) < 80:
            yield Trouble(
                ("workers", index, "name"),
                f"with the cluster's name makes a host name of {len(host)} characters, at most 63 are allowed",
                "shorten either name",
            )
    if total > MOST_MACHINES:
        yield Trouble(("workers",), f"are {total} machines together, at most {MOST_MACHINES} are supported")
    if groups and total == 0:
        yield Trouble(("workers",), "must have room for one machine at least", "set count or max_count")


def _users(data: Any) -> Iterator[Trouble]:
    names = [_get(user, "name") for user in _list(data, "users")]
    for index, name in enumerate(names):
        if isinstance(name, str) and name in names[:index]:
            yield Trouble(("users", index, "name"), f"two users are called {show(name)}", "give each its own name")
