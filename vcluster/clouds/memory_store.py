"""What the memory cloud is made of: a virtual clock, and resources with a hidden life."""

from __future__ import annotations

import threading
import uuid as uuids
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from vcluster.clouds.faults import Trouble
from vcluster.clouds.memory_head import PretendedHead
from vcluster.model import ClusterRef, Flavor, Machine, MachineState, Network, Part, Port

__all__ = ["FLAVORS", "FOREVER", "Entry", "Listed", "Store", "VirtualClock", "shown"]

T = TypeVar("T")
FOREVER = float("inf")

FLAVORS = (Flavor("small", 1, 1024, 8), Flavor("medium", 2, 4096, 20), Flavor("large", 8, 16384, 40))


class VirtualClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def sleep(self, seconds: float, cancel: threading.Event | None = None) -> None:
        """Let time pass at once; ``cancel`` is there for the loop's :class:`Clock` protocol."""
        with self._lock:
            self._now += seconds


@dataclass
class Entry:
    """A machine and its hidden life. ``tied``: its volume goes when it goes."""

    machine: Machine
    cluster: str
    seen_from: float
    active_at: float
    ready_after: float
    trouble: Trouble = Trouble.NONE
    trouble_at: float = 0.0
    gone_at: float = FOREVER
    drained: bool = False
    busy_until: float = 0.0
    volume: str = ""
    tied: bool = True
    head: PretendedHead | None = None

    def picture(self, now: float) -> Machine:
        """The machine as it is now."""
        state, fault = self.machine.state, self.machine.fault
        if self.gone_at != FOREVER:
            state = MachineState.DELETING
        elif (
            self.trouble in (Trouble.ERROR, Trouble.DIES, Trouble.NO_QUOTA, Trouble.NO_HOST) and self.trouble_at <= now
        ):
            state, fault = MachineState.ERROR, f"scripted: {self.trouble}"
        elif state is MachineState.BUILD and self.active_at <= now:
            state = MachineState.ACTIVE
        if state is not self.machine.state:
            self.machine = replace(self.machine, state=state, fault=fault)
        return self.machine


@dataclass
class Listed(Generic[T]):
    """A network, port or part with the moment from which listings show it.

    Attributes:
        link: uuid of what a part hangs on: a subnet's network, a gateway's router, a floating IP's port, a snapshot's
            volume; of a volume of the cluster's own software, the machine that has it.
        subnet: uuid of the subnet that a gateway is on.
        ready_at: when a part is complete, if nothing else makes it so.
        gone_at: when a load balancer is gone that was told to go.
    """

    thing: T
    cluster: str
    seen_from: float
    link: str = ""
    subnet: str = ""
    ready_at: float = 0.0
    gone_at: float = FOREVER


def shown(listed: Iterable[Listed[T]], ref: ClusterRef, now: float) -> Iterator[Listed[T]]:
    """Those of a cluster that a listing shows now."""
    return (one for one in listed if one.cluster == ref.id and one.seen_from <= now)


@dataclass
class Store:
    """All that is in the project, whoever's it is.

    Attributes:
        groups: port uuid to the security groups that it is in.
        notes: cluster id to its notes.
    """

    networks: dict[str, Listed[Network]] = field(default_factory=dict)
    ports: dict[str, Listed[Port]] = field(default_factory=dict)
    machines: dict[str, Entry] = field(default_factory=dict)
    parts: dict[str, Listed[Part]] = field(default_factory=dict)
    groups: dict[str, frozenset[str]] = field(default_factory=dict)
    notes: dict[str, dict[str, str]] = field(default_factory=dict)
    serial: int = 0

    def uuid(self) -> str:
        """A new one; the same in each run of a test."""
        self.serial += 1
        return str(uuids.UUID(int=self.serial << 96, version=4))

    def age(self, now: float) -> None:
        """Let go what is gone by now: a machine takes its volume along, unless it was untied; a mark is no help."""
        for uuid in [u for u, e in self.machines.items() if e.gone_at <= now]:
            entry = self.machines.pop(uuid)
            if held := self.ports.get(entry.machine.port):
                held.thing = replace(held.thing, device="")
            if entry.tied:
                self.parts.pop(entry.volume, None)
        for uuid in [u for u, listed in self.parts.items() if listed.gone_at <= now]:
            del self.parts[uuid]

    def cluster_of_all(self) -> Iterator[tuple[str, float]]:
        """Cluster id and time of creation of everything."""
        for listed in self._listed():
            yield listed.cluster, listed.seen_from
        for entry in self.machines.values():
            yield entry.cluster, entry.seen_from

    def tags(self) -> list[str]:
        """The tag of everything that exists."""
        return [x.thing.tag for x in self._listed()] + [entry.machine.tag for entry in self.machines.values()]

    def _listed(self) -> Iterator[Listed[Network] | Listed[Port] | Listed[Part]]:
        yield from self.networks.values()
        yield from self.ports.values()
        yield from self.parts.values()
