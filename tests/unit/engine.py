"""What the engine's tests share: a goal, a loop on the memory cloud, and a perfect world for plans."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

from vcluster.actions import Goal, Power
from vcluster.clouds.memory import FLAVORS, MemoryCloud
from vcluster.events import Event
from vcluster.model import Role, Slot
from vcluster.reconcile import Outcome, Reconciler


def slots(workers: int) -> tuple[Slot, ...]:
    small = FLAVORS[0]
    head = Slot("head", Role.HEAD, "head", small)
    return (head, *(Slot(f"cpu-{n}", Role.WORKER, "cpu", small) for n in range(1, workers + 1)))


def running(workers: int, *, most: int | None = None, minimum: int | None = None, **more: object) -> Goal:
    places = slots(most if most is not None else workers)
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


@dataclass
class Run:
    """One process's worth of loop: its own ledger and events, on a cloud that outlives it."""

    cloud: MemoryCloud
    name: str = "demo"
    poll: float = 2.0
    events: list[Event] = field(default_factory=list)
    consoles: dict[str, str] = field(default_factory=dict)
    cancel: threading.Event = field(default_factory=threading.Event)

    def loop(self, goal: Goal, *, pool: int = 4) -> Reconciler:
        ref = self.cloud.ref(self.name)
        return Reconciler(
            self.cloud,
            ref,
            goal,
            control=self.cloud.control(ref),
            render=lambda slot, network, ports: f"#cloud-config\n# {slot.name} {ports[slot.name].address}\n",
            image=lambda: "memory-image",
            emit=self.events.append,
            clock=self.cloud.clock,
            cancel=self.cancel,
            keep_console=self.consoles.__setitem__,
            pool=pool,
            poll=self.poll,
        )

    def to(self, goal: Goal, *, timeout: float = 7200.0, pool: int = 4) -> Outcome:
        return self.loop(goal, pool=pool).run(timeout)
