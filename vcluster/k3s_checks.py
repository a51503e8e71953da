"""Checks of single values that only k3s has: as in :mod:`vcluster.spec_checks`, each returns the value in its canonical
form or refuses it, and allows a set of characters rather than forbidding some.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vcluster import spec_checks as checks
from vcluster import spec_text as texts
from vcluster.spec_checks import RefusedError, show

__all__ = [
    "COMPONENTS",
    "DEFAULT_VERSION",
    "KNOWN",
    "OLDEST",
    "VERSION",
    "components",
    "credential_id",
    "file_sha256",
    "file_source",
    "head_count",
    "host",
    "labels",
    "numbers",
    "pod_network",
    "region",
    "registry",
    "release",
    "taint",
    "version",
]

DEFAULT_VERSION = "v1.36.5+k3s1"
KNOWN: Mapping[str, str] = {
    DEFAULT_VERSION: "d73847bcd3c5fccef0115b372e2f9a91f3032dc84bbf71518a4617565294d313",
}
"""SHA-256 of the amd64 binary of a release, from its ``sha256sum-amd64.txt``."""

OLDEST = (1, 21)
VERSION = r"^v1\.[0-9]{1,2}\.[0-9]{1,2}\+k3s[0-9]{1,2}$"
COMPONENTS = ("coredns", "local-storage", "metrics-server", "servicelb", "traefik")
_PREFIX = r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?){0,8}/)?"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_TAINT = rf"({_PREFIX}{_LABEL})(=({_LABEL})?)?:(NoSchedule|PreferNoSchedule|NoExecute)"
REGISTRY = r"^(\*|[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?)$"
HOST = r"^[a-z0-9]([a-z0-9.:-]{0,251}[a-z0-9])?$"
_PRIVATE = [ipaddress.IPv4Network(network) for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
_RESERVED_LABELS = ("kubernetes.io", "k8s.io", "k3s.io", "vcluster")


def version(value: str) -> str:
    """A release of k3s that is not too old."""
    if not re.fullmatch(VERSION[1:-1], value):
        remedy = f"as its release is called, {DEFAULT_VERSION}"
        raise RefusedError(f"must be a version of k3s, got {show(value)}", remedy)
    if numbers(value)[:2] < OLDEST:
        oldest = f"v{OLDEST[0]}.{OLDEST[1]}"
        raise RefusedError(f"{value} is too old: the oldest that was tried is {oldest}", f"take {DEFAULT_VERSION}")
    return value


def numbers(value: str) -> tuple[int, ...]:
    """A version's numbers, to compare: ``v1.36.5+k3s1`` as (1, 36, 5, 1)."""
    return tuple(int(number) for number in re.findall(r"[0-9]+", value.replace("k3s", "")))


def release(value: str) -> str:
    """The address of a release's amd64 binary."""
    return f"https://github.com/k3s-io/k3s/releases/download/{value.replace('+', '%2B')}/k3s"


def head_count(value: int | None) -> int | None:
    """One server, or three, of which one may be lost; two are lost with either of them."""
    if value not in (None, 1, 3):
        raise RefusedError(f"must be 1 or 3, got {value}", "etcd needs most of its servers: two are no safer than one")
    return value


def components(value: Any) -> Any:
    """A list of packaged components, each once."""
    if isinstance(value, list | tuple):
        for index, each in enumerate(value):
            if each not in COMPONENTS:
                close = checks.nearest(str(each), COMPONENTS)
                remedy = f"did you mean {close}?" if close else f"there are: {', '.join(COMPONENTS)}"
                message = f"must be one of k3s' components, got {show(each)}"
                raise RefusedError(troubles=[checks.Trouble((index,), message, remedy)])
        return tuple(dict.fromkeys(value))
    return value


def labels(value: Any) -> Any:
    """Node labels, of which some belong to Kubernetes and to us."""
    if not isinstance(value, Mapping):
        return value
    for key, text in value.items():
        if not isinstance(key, str) or not re.fullmatch(_PREFIX + _LABEL, key):
            raise RefusedError(f"must have labels as keys, got {show(key)}", "example.org/disk: fast")
        if key.rpartition("/")[0].endswith(_RESERVED_LABELS):
            raise RefusedError(f"{key} is a label that Kubernetes or vcluster sets itself", "choose another prefix")
        if not isinstance(text, str) or not re.fullmatch(f"({_LABEL})?", text):
            raise RefusedError(
                f"{key} must be a label's value, got {show(text)}", "letters, digits, - _ and ., at most 63; in quotes"
            )
    return dict(value)


def taint(value: str) -> str:
    """A node's taint."""
    if not re.fullmatch(_TAINT, value):
        raise RefusedError(f"must be a taint, got {show(value)}", "as in dedicated=classes:NoSchedule")
    return value


def _network_hint(value: str) -> str:
    """What would be a network, for one whose address has bits behind its length too."""
    try:
        return f"as in {ipaddress.IPv4Network(value, strict=False)}"
    except ValueError:
        return "as in 10.42.0.0/16"


def pod_network(value: str) -> str:
    """A private IPv4 network with room for pods or services."""
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError:
        raise RefusedError(f"must be an IPv4 network, got {show(value)}", _network_hint(value)) from None
    # Not Python's "private", which loopback and link-local are too.
    if not any(network.subnet_of(private) for private in _PRIVATE) or network.prefixlen > 20:
        raise RefusedError(f"must be a private network of /8 to /20, got {value}", "as in 10.42.0.0/16")
    return str(network)


def registry(value: str) -> str:
    """A registry's host, with its port where that is not 443, or ``*`` for all."""
    if not re.fullmatch(REGISTRY[1:-1], value):
        raise RefusedError(
            f"must be a registry's host, got {show(value)}", "as in registry.example.org, without https://"
        )
    return value


def host(value: str) -> str:
    """A host's name or address."""
    if not re.fullmatch(HOST[1:-1], value.lower()):
        raise RefusedError(f"must be a host's name or address, got {show(value)}", "as in k8s.example.org")
    return value.lower()


def credential_id(value: Any) -> Any:
    """An application credential's id."""
    if value is not None and not re.fullmatch(r"[0-9a-f-]{32,36}", str(value)):
        raise RefusedError(f"must be the id of an application credential, got {show(value)}", "32 hexadecimal digits")
    return value


def region(value: Any) -> Any:
    """A region's name."""
    if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", str(value)):
        raise RefusedError(f"must be a region's name, got {show(value)}", "letters, digits, . _ and -")
    return value


def file_source(value: str, folder: Path | None) -> str:
    """An http or https address, or a file's absolute path."""
    if not value or "://" in value:
        return checks.url(value)
    # Without a folder this text was written by vcluster, with absolute paths.
    return str(texts.locate(value, Path("/") if folder is None and value.startswith("/") else folder).absolute())


def file_sha256(source: str) -> str:
    """The checksum of a file that is there; empty where it is not: whoever needs it then is told."""
    try:
        with Path(source).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
