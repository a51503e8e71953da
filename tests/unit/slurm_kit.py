"""A site to render."""

from __future__ import annotations

import ipaddress
from typing import Any

import yaml

from vcluster.model import ClusterRef, Flavor, Network, Port, Role, Slot
from vcluster.secrets import Keyring
from vcluster.spec import ClusterSpec
from vcluster.stacks.base import Site

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPpmqAOcvLZ0bZ2vYmVbXMJbDwRMmDxd5I0Z0jvOGWqx someone@example"
SECRET = bytes(range(32))


def site(*groups: tuple[str, int], guarded: tuple[str, ...] = ("10.0.2.2",), **spec: Any) -> Site:
    """A cluster with groups of ``(name, max_count)``, two CPUs and 4 GiB a worker."""
    groups = groups or (("cpu", 2),)
    raw = {"name": "demo", "cloud": "local", "workers": [{"name": n, "count": c} for n, c in groups], **spec}
    small, big = Flavor("small", 1, 1024, 8), Flavor("big", 2, 4096, 8)
    slots = [Slot("head", Role.HEAD, "", small)]
    slots += [Slot(f"{name}-{n}", Role.WORKER, name, big) for name, count in groups for n in range(1, count + 1)]
    first = ipaddress.ip_address("10.77.0.10")
    ports = {
        slot.name: Port(f"p{i}", "tag", slot.name, str(first + i), "52:54:00:00:00:01") for i, slot in enumerate(slots)
    }
    ref = ClusterRef("demo", "project", "0")
    network = Network("net", ref.tag(Role.NETWORK), "10.77.0.0/16")
    return Site(ref, ClusterSpec.model_validate(raw), network, tuple(slots), ports, Keyring(SECRET), guarded)


def parsed(user_data: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """User data as cloud-init reads it, and its files by path."""
    assert user_data.startswith("#cloud-config\n")
    data = yaml.safe_load(user_data)
    return data, {file["path"]: file for file in data["write_files"]}
