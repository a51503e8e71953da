"""A Kubernetes cluster on the memory cloud: three servers and two agents, and what its machines were asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vcluster import Cluster, ClusterSpec
from vcluster.clouds.memory import MemoryCloud
from vcluster.clouds.memory_k3s import PretendedK3s
from vcluster.k3s_checks import DEFAULT_VERSION

__all__ = ["NAMES", "NEW", "OLD", "SPEC", "Kit"]

OLD, NEW = DEFAULT_VERSION, "v1.37.1+k3s1"
NAMES = ["head", "head-2", "head-3", "cpu-1", "cpu-2"]
SPEC: dict[str, Any] = {
    "name": "demo",
    "cloud": "memory",
    "scheduler": "k3s",
    "head": {"count": 3},
    "workers": [{"name": "cpu", "count": 2}],
}


class Kit:
    """The cluster, brought up.

    Args:
        home: vcluster's folder.
        more: what its spec has besides.
    """

    def __init__(self, home: Path, **more: Any) -> None:
        self.home, self.more = home, more
        self.cloud = MemoryCloud(parts=True)
        self.events: list[Any] = []
        self.demo = self.cluster()
        self.demo.up()
        self.events.clear()

    def cluster(self, **more: Any) -> Cluster:
        """The cluster by its spec, with something changed in it."""
        spec = ClusterSpec.model_validate({**SPEC, **self.more, **more})
        return Cluster(spec, cloud=self.cloud, home=self.home, on_event=self.events.append)

    def upgraded(self, version: str = NEW, sha256: str = "a" * 64, **more: Any) -> Cluster:
        """The cluster by its spec with another k3s."""
        binary = {"source": "https://example.org/k3s", "sha256": sha256}
        return self.cluster(k3s={"version": version, "binary": binary, **more})

    @property
    def k3s(self) -> PretendedK3s:
        """What its machines pretend."""
        head = next(entry.head for entry in self.cloud.entries(self.demo.ref) if entry.head)
        return head.k3s

    def asked(self, *verbs: str) -> list[str]:
        """Which machines were asked for these, as ``cpu-1 upgrade``."""
        calls = (" ".join(call.split()[:2]) for call in self.k3s.asked)
        return [call for call in calls if call.split()[1] in verbs]

    def drained(self) -> list[str]:
        """The machines that take no pods."""
        return [entry.machine.name for entry in self.cloud.entries(self.demo.ref) if entry.drained]

    def told(self) -> str:
        """All that events said."""
        return "\n".join(map(str, self.events))
