"""What the engine's tests share: a goal, a loop on the memory cloud, and a perfect world for plans."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field, replace

from vcluster.actions import Goal, Power
from vcluster.clouds.memory import FLAVORS, MemoryCloud
from vcluster.clouds.memory_store import Entry
from vcluster.events import Event, StepStarted
from vcluster.model import ClusterRef, Network, Observed, PartKind, PartRequest, Role, Slot, Wishes
from vcluster.reconcile import Outcome, Reconciler


def slots(workers: int, root_disk: int = 0) -> tuple[Slot, ...]:
    small = FLAVORS[0]
    head = Slot("head", Role.HEAD, "head", small, root_disk)
    return (head, *(Slot(f"cpu-{n}", Role.WORKER, "cpu", small, root_disk) for n in range(1, workers + 1)))


def running(
    workers: int, *, most: int | None = None, minimum: int | None = None, root_disk: int = 0, **more: object
) -> Goal:
    places = slots(most if most is not None else workers, root_disk)
    wanted = frozenset(slot.name for slot in places[: workers + 1])
    goal = Goal(
        Power.RUNNING,
        slots=places,
        wanted=wanted,
        minimum={"cpu": workers if minimum is None else minimum},
        digest="d1",
        boot_timeout=300.0,
    )
    return replace(goal, **more)  # type: ignore[arg-type]


ABSENT = Goal(Power.ABSENT)
STOPPED = Goal(Power.STOPPED)
SHELVED = Goal(Power.SHELVED)


def standing_parts(ref: ClusterRef) -> tuple[PartRequest, ...]:
    """What a cluster on a network of its own needs."""
    return MemoryCloud(parts=True).layout(ref, Wishes(), Observed()).parts


def whole(cloud: MemoryCloud, workers: int, *, name: str = "demo", claim: str = "c1", **more: object) -> Goal:
    """A running cluster with all that this cloud wants around it, and volumes to boot from."""
    ref = cloud.ref(name)
    layout = cloud.layout(ref, Wishes(), cloud.observe(ref))
    more = {"root_disk": 20, "network": layout.network, "parts": layout.parts, "claim": claim, **more}
    return running(workers, **more)  # type: ignore[arg-type]


def volumes(cloud: MemoryCloud, name: str = "demo") -> dict[str, str]:
    """Volume name to the name of the machine that boots from it."""
    observed = cloud.observe(cloud.ref(name))
    machines = {machine.uuid: machine.name for machine in observed.machines}
    return {p.name: machines.get(p.used_by, "") for p in observed.parts if p.kind is PartKind.VOLUME}


@dataclass
class Run:
    """One process's worth of loop: its own ledger and events, on a cloud that outlives it."""

    cloud: MemoryCloud
    name: str = "demo"
    poll: float = 2.0
    events: list[Event] = field(default_factory=list)
    consoles: dict[str, str] = field(default_factory=dict)
    cancel: threading.Event = field(default_factory=threading.Event)

    def loop(self, goal: Goal, *, pool: int = 4, host_key: str = "") -> Reconciler:
        ref = self.cloud.ref(self.name)
        return Reconciler(
            self.cloud,
            ref,
            goal,
            control=self.cloud.control(ref),
            render=lambda slot, network, ports, founded: f"#cloud-config\n# {slot.name} {ports[slot.name].address}\n",
            image=lambda: "memory-image",
            emit=self.events.append,
            clock=self.cloud.clock,
            cancel=self.cancel,
            keep_console=self.consoles.__setitem__,
            pool=pool,
            poll=self.poll,
            host_key=host_key,
        )

    def to(self, goal: Goal, *, timeout: float = 7200.0, pool: int = 4) -> Outcome:
        return self.loop(goal, pool=pool).run(timeout)


THERE = Network("there", "", "10.0.0.0/24", foreign=True)


def steps(events: list[Event]) -> list[str]:
    return [f"{e.action} {e.subject}" for e in events if isinstance(e, StepStarted)]


def entry(cloud: MemoryCloud, machine: str, cluster: str = "demo") -> Entry:
    """A machine as the memory cloud keeps it."""
    return next(entry for entry in cloud.entries(cloud.ref(cluster)) if entry.machine.name == machine)


def one_of_each(observed: Observed) -> None:
    assert set(Counter((p.kind, p.name) for p in observed.parts).values()) <= {1}
    assert set(Counter(p.name for p in observed.ports).values()) <= {1}
    assert set(Counter(m.name for m in observed.machines).values()) <= {1}


def fresh(lag: float = 0.0, *, foreign: bool = False, **more: object) -> MemoryCloud:
    return MemoryCloud(parts=True, lag=lag, there=THERE if foreign else None, **more)  # type: ignore[arg-type]


def clean(cloud: MemoryCloud) -> None:
    Run(cloud).to(ABSENT)
    assert cloud.resources() == []
