"""Who a resource belongs to, and what for: the names and tags that make it ours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

__all__ = ["ClusterRef", "PartKind", "Role", "natural"]

TAG_PREFIX = "vcluster"


class Role(StrEnum):
    """What a resource is for; the last part of its tag."""

    NETWORK = "network"
    HEAD = "head"
    WORKER = "worker"


class PartKind(StrEnum):
    """A resource beside network, ports and machines that a cloud needs for a cluster; the last part of its tag.

    GATEWAY is the router's leg on the cluster's own subnet. LOAD_BALANCER and SNAPSHOT (of a volume) are only ever made
    by the cluster's own software. A cloud that needs none of them has none.
    """

    SUBNET = "subnet"
    ROUTER = "router"
    GATEWAY = "gateway"
    SECURITY_GROUP = "security-group"
    SERVER_GROUP = "server-group"
    FLOATING_IP = "floating-ip"
    VOLUME = "volume"
    LOAD_BALANCER = "load-balancer"
    SNAPSHOT = "snapshot"


@lru_cache(maxsize=1024)
def _cluster_id(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:10]


@dataclass(frozen=True, slots=True)
class ClusterRef:
    """Which cluster: the same three words give the same id on every computer.

    Attributes:
        name: the spec's ``name``.
        project: the allocation it lives in (OpenStack project id; for the local cloud the host's machine id).
        creator: who made it (OpenStack user id; for the local cloud the numeric uid).
        known_id: the id, where only that could be read off a resource and not the three words.
        owner: the creator's name for people, where it is known.
    """

    name: str
    project: str
    creator: str
    known_id: str = ""
    owner: str = field(default="", compare=False)

    @property
    def id(self) -> str:
        """Ten hex digits of SHA-256 over project, creator and name."""
        return self.known_id or _cluster_id(self.project, self.creator, self.name)

    @property
    def kubernetes(self) -> str:
        """What a Kubernetes of this cluster is told to call it: what that makes on the cloud bears this name."""
        return f"{TAG_PREFIX}-{self.id}"

    def tag(self, role: Role | PartKind) -> str:
        """The mark that every resource carries from its create call on: ``vcluster/<id>/<role>``."""
        return f"{TAG_PREFIX}/{self.id}/{role}"

    def owns(self, tag: str) -> bool:
        """Whether a resource with this tag belongs to this cluster."""
        return tag.startswith(f"{TAG_PREFIX}/{self.id}/")


def natural(name: str) -> tuple[str, int]:
    """The key by which people sort machines: ``cpu-2`` before ``cpu-10``."""
    group, _, number = name.rpartition("-")
    return (group, int(number)) if number.isdigit() else (name, 0)
