"""What can be wrong among several values of a spec that only k3s has, each of which is right by itself.

As in :mod:`vcluster.spec_cross`, these look at data as the user wrote it, and leave alone what they do not understand.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any

from vcluster import k3s_checks as checks
from vcluster.spec_checks import RefusedError, Trouble, show
from vcluster.spec_peek import get as _get
from vcluster.spec_peek import items as _list
from vcluster.spec_peek import source as _source

__all__ = [
    "CLOUD",
    "EMBEDDED_REGISTRY",
    "WIREGUARD",
    "cluster",
    "file",
    "k3s",
    "knows_any_registry",
    "openstack",
    "registry",
]

WIREGUARD = (1, 23)
"""The version that brought ``flannel-backend: wireguard-native``."""

EMBEDDED_REGISTRY = (1, 29)
"""The version from which every release has ``embedded-registry``."""

CLOUD = (1, 32)
"""The version from which Cinder's driver needs no credential on workers (cloud-provider-openstack v1.32)."""

_ANY_REGISTRY = {26: 15, 27: 12, 28: 8, 29: 3}
"""Patches that brought the registry ``*`` (k3s documentation, "Embedded Registry Mirror"); v1.30 has it."""

_ARCHIVE = re.compile(r"[A-Za-z0-9._-]+(\.tar(\.(gz|zst|bz2|lz4))?|\.tgz|\.tzst|\.tbz)", re.ASCII)
"""As in k3s' ``pkg/agent/containerd`` and rancher/wharfie's ``tarfile.SupportedExtensions``, for unquoted names."""


def knows_any_registry(numbers: tuple[int, ...]) -> bool:
    """Whether a version's ``registries.yaml`` may have ``*`` for all registries."""
    return numbers[1] > max(_ANY_REGISTRY) or numbers[2] >= _ANY_REGISTRY.get(numbers[1], numbers[2] + 1)


def file(data: Any) -> list[Trouble]:
    """What comes from an address is checked; a checksum alone is that of what the release's own address gives."""
    source = _get(data, "source", "")
    if isinstance(source, str) and source.startswith(("http://", "https://")) and not _get(data, "sha256"):
        return [Trouble(("sha256",), "is missing: what comes from an address must be checked", "sha256sum prints it")]
    return []


def registry(data: Any) -> list[Trouble]:
    """An account is a name and a password; all registries have no one account."""
    found = []
    for key, other in (("username", "password"), ("password", "username")):
        if _get(data, key) is not None and _get(data, other) is None:
            found.append(Trouble((other,), f"is missing: {key} is given", "add it, or leave both out"))
    if _get(data, "name") == "*" and _get(data, "username") is not None:
        found.append(Trouble(("username",), "means nothing with name *", "name the registry", key=True))
    return found


def openstack(data: Any) -> list[Trouble]:
    """A credential is complete."""
    keys = ("auth_url", "application_credential_id", "application_credential_secret")
    given = [key for key in keys if _get(data, key)]
    if not given:
        return []
    return [
        Trouble((key,), f"is missing: {given[0]} is given", "all three belong together")
        for key in keys
        if key not in given
    ]


def k3s(data: Any) -> list[Trouble]:
    """Every option is one that the version has; the program can be checked; networks do not overlap."""
    found: list[Trouble] = []
    wanted = _get(data, "version", checks.DEFAULT_VERSION)
    try:
        numbers = checks.numbers(checks.version(wanted)) if isinstance(wanted, str) else ()
    except RefusedError:
        numbers = ()
    if numbers and _get(data, "flannel_backend") == "wireguard-native" and numbers < WIREGUARD:
        what = f"wireguard-native is not in {wanted}, it came with v1.23"
        found.append(Trouble(("flannel_backend",), what, "take vxlan, or a newer version"))
    if numbers and _get(data, "embedded_registry") is True and numbers < EMBEDDED_REGISTRY:
        what = f"is not in {wanted}, it came with v1.29"
        found.append(Trouble(("embedded_registry",), what, "leave it out, or take a newer version", key=True))
    if numbers and numbers < CLOUD and _get(_get(data, "openstack", {}), "application_credential_id"):
        what = f"needs v1.32 or newer, not {wanted}: older drivers want the credential on every worker"
        found.append(Trouble(("openstack",), what, "take a newer version, or leave it out", key=True))
    found += _checked(data, wanted if numbers else "")
    for index, image in enumerate(_list(data, "images")):
        if not _source(image):
            found.append(Trouble(("images", index, "source"), "is missing", "the archive's address, or its path"))
    found += _archives(data)
    pods, services = (_network(data, key, default) for key, default in _NETWORKS)
    if pods and services and pods.overlaps(services):
        found.append(Trouble(("service_network",), f"overlaps pod_network, {pods}", "take another one"))
    names = [_get(each, "name") for each in _list(data, "registries")]
    for index, name in enumerate(names):
        if name == "*" and numbers and not knows_any_registry(numbers):
            found.append(Trouble(("registries", index, "name"), f"* is not known to {wanted}", "name each registry"))
        if isinstance(name, str) and name in names[:index]:
            found.append(
                Trouble(("registries", index, "name"), f"two entries are called {show(name)}", "make them one")
            )
    return found


def _archives(data: Any) -> Iterator[Trouble]:
    """All lie in one folder of a machine, by the last word of where they come from; k3s takes what ends like one."""
    names: set[str] = set()
    for index, image in enumerate(_list(data, "images")):
        name = str(_source(image)).rpartition("/")[2]
        where = ("images", index, "source")
        if name in names:
            yield Trouble(where, f"another archive is called {show(name)}, too", "give one of them another name")
        elif name and not _ARCHIVE.fullmatch(name):
            what = f"k3s would not take an archive called {show(name)}"
            yield Trouble(
                where, what, "letters, digits, - _ . and at the end .tar, .tar.gz, .tar.zst, .tar.bz2 or .tgz"
            )
        names.add(name)


_NETWORKS = (("pod_network", "10.42.0.0/16"), ("service_network", "10.43.0.0/16"))


def _network(data: Any, key: str, default: str) -> ipaddress.IPv4Network | None:
    value = _get(data, key, default)
    try:
        return ipaddress.IPv4Network(checks.pod_network(value)) if isinstance(value, str) else None
    except RefusedError:
        return None


def _checked(data: Any, version: str) -> Iterator[Trouble]:
    """What a release's own address gives is checked; of the default version the checksum is known."""
    binary = _get(data, "binary", {})
    if version and not _source(binary) and not _get(binary, "sha256") and version not in checks.KNOWN:
        remedy = "binary: {sha256: …}, from sha256sum-amd64.txt of the release"
        yield Trouble(("version",), f"nothing is known of {version} to check its binary by", remedy)


# The whole cluster ---------------------------------------------------------------------------------------------------


def cluster(data: Any) -> Iterator[Trouble]:
    """k3s beside the rest of the spec: what it alone has is refused without it, and what it has no use for with it."""
    if _get(data, "scheduler", "slurm") == "k3s":
        yield from _with_k3s(data)
    else:
        yield from _without_k3s(data)


def _useless(at: tuple[str | int, ...], scheduler: str, remedy: str = "leave it out") -> Trouble:
    return Trouble(at, f"means nothing with scheduler {scheduler}", remedy, key=True)


def _without_k3s(data: Any) -> Iterator[Trouble]:
    if _get(data, "k3s") is not None:
        yield _useless(("k3s",), "slurm", "leave it out, or take scheduler: k3s")
    if _get(_get(data, "head", {}), "count", 1) == 3:
        yield Trouble(("head", "count"), "must be 1 with scheduler slurm", "leave it out, or take scheduler: k3s")
    for index, group in enumerate(_list(data, "workers")):
        for key in ("labels", "taints"):
            if _get(group, key) is not None:
                yield _useless(("workers", index, key), "slurm")


def _with_k3s(data: Any) -> Iterator[Trouble]:
    from vcluster.spec_slurm import SlurmSpec

    slurm = _get(data, "slurm")
    if (isinstance(slurm, Mapping) and slurm) or (isinstance(slurm, SlurmSpec) and slurm != SlurmSpec()):
        yield _useless(("slurm",), "k3s", "leave it out, or take scheduler: slurm")
    if _list(data, "users"):
        yield _useless(("users",), "k3s", "leave it out: Kubernetes knows people by its own means")
    if _get(data, "cloud") == "local" and _get(
        _get(_get(data, "k3s", {}), "openstack", {}), "application_credential_id"
    ):
        yield Trouble(("k3s", "openstack"), "means nothing on the local cloud", "leave it out", key=True)
    section = _get(data, "k3s", {})
    if _get(section, "flannel_backend") == "host-gw" and _get(data, "cloud", "local") not in ("local", "memory"):
        what = "must not be host-gw on OpenStack: a port there drops packets with a pod's address"
        yield Trouble(("k3s", "flannel_backend"), what, "take vxlan, or wireguard-native")
    listed = _get(section, "components")
    if _get(data, "jupyterhub") is not None and isinstance(listed, list | tuple):
        for needed in ("coredns", "servicelb", "traefik"):
            if needed not in listed:
                what = (
                    f"must have {needed}: JupyterHub is reached by it" if needed != "coredns" else "must have coredns"
                )
                yield Trouble(("k3s", "components"), what, "add it, or leave components out")
