"""What a Kubernetes agent has for pods: its flavor without what the machine, kubelet and Kubernetes' own pods keep.

The one place for these numbers: kubelet is told them, and :mod:`vcluster.capacity` reckons with them.
"""

from __future__ import annotations

from typing import NamedTuple

from vcluster.model import Flavor

__all__ = ["KUBELET", "MOST_PODS", "Reserved", "Room", "room"]


class Reserved(NamedTuple):
    """Thousandths of a processor, and MiB."""

    cpu: int
    memory: int


DAEMONS = Reserved(100, 512)
"""k3s, containerd, sshd and the system: kubelet's ``kube-reserved``."""

EVICTION = 100
"""MiB below which kubelet evicts pods (Kubernetes' own default, which k3s replaces by limits for disks alone)."""

SYSTEM_PODS = Reserved(200, 160)
"""What coredns and metrics-server ask for together (100m and 70Mi each), as if every agent had them."""

KERNEL = 0.025
"""The part of a flavor's memory that a Linux never shows: page structures alone take 1.6 %."""

KUBELET = (
    f"kube-reserved=cpu={DAEMONS.cpu}m,memory={DAEMONS.memory}Mi",
    f"eviction-hard=memory.available<{EVICTION}Mi,nodefs.available<5%,imagefs.available<5%",
)
"""``kubelet-arg`` of every agent."""

MOST_PODS = 100
"""Notebooks on one agent: kubelet takes 110 pods, and some are not notebooks."""


class Room(NamedTuple):
    """What pods may ask for on a machine: thousandths of a processor, and MiB."""

    cpu: int
    memory: int


def room(flavor: Flavor) -> Room:
    """What is left of a flavor."""
    memory = flavor.memory - round(flavor.memory * KERNEL) - DAEMONS.memory - EVICTION - SYSTEM_PODS.memory
    return Room(max(0, flavor.cpus * 1000 - DAEMONS.cpu - SYSTEM_PODS.cpu), max(0, memory))
