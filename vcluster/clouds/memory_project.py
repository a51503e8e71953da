"""The memory cloud without its calls: what it is made with, how a call goes, and what tests do to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import ClassVar

from vcluster.clouds.faults import FaultScript, Trouble
from vcluster.clouds.memory_control import MemoryControl
from vcluster.clouds.memory_head import PretendedHead
from vcluster.clouds.memory_store import FOREVER, Entry, Listed, Store, VirtualClock
from vcluster.errors import PermanentError, QuotaError
from vcluster.model import Allowance, ClusterRef, CommandResult, MachineState, Network, Part, PartKind

__all__ = ["MemoryProject"]


@dataclass
class MemoryProject:
    """An in-process cloud; the base of :class:`vcluster.clouds.memory.MemoryCloud`.

    Attributes:
        faults: what goes wrong, and when.
        lag: seconds that listings lag behind acts.
        build_time: seconds from create to ACTIVE.
        ready_time: seconds from ACTIVE to the first job.
        volume_time: seconds until a volume is ready.
        balancer_time: seconds that a load balancer takes to go.
        quota: how many machines the project may have; -1 means no limit.
        limits: how much of other resources, by the names of :class:`vcluster.model.Allowance`.
        parts: whether a cluster needs security groups, a router and so on, as on an OpenStack.
        zone_names: its availability zones.
        there: with ``parts``, a network that was there before, for all to use.
        after_effect: called after every single side effect with its number; may raise to simulate a crash.
        before_call: called before every call with its name, outside of the lock; may wait.
    """

    name: str = "memory"
    any_size: ClassVar[bool] = True
    clock: VirtualClock = field(default_factory=VirtualClock)
    faults: FaultScript = field(default_factory=FaultScript)
    lag: float = 0.0
    build_time: float = 10.0
    ready_time: float = 30.0
    delete_time: float = 2.0
    volume_time: float = 20.0
    balancer_time: float = 8.0
    boot_timeout: float = 300.0
    quota: int = -1
    limits: dict[str, int] = field(default_factory=dict)
    parts: bool = False
    zone_names: tuple[str, ...] = ()
    there: Network | None = None
    guarded: tuple[str, ...] = ("169.254.169.254",)
    creator: str = "me"
    after_effect: Callable[[int], None] | None = None
    before_call: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.calls: dict[str, int] = {}
        self.released: list[str] = []
        self.store = Store()
        self._effects = 0

    @property
    def listing_lag(self) -> float:
        """The scripted lag."""
        return self.lag

    def now(self) -> float:
        """The virtual clock."""
        return self.clock.now()

    # What stands in for SSH ----------------------------------------------------------------------------------

    def control(self, ref: ClusterRef) -> MemoryControl:
        """The pretended scheduler of one cluster."""
        return MemoryControl(self, ref)

    def execute(self, ref: ClusterRef, command: str, stdin: str = "", machine: str = "head") -> CommandResult:
        """Pretend to run a command on a machine; all but the head know of k3s alone."""
        entries = self.entries(ref)
        head = next((e.head for e in entries if e.head), None) or PretendedHead("")
        workers = sorted(e.machine.name for e in entries if e.head is None)
        return head.execute(command, stdin, workers, machine)

    # For tests -----------------------------------------------------------------------------------------------

    def entries(self, ref: ClusterRef) -> list[Entry]:
        """A cluster's machines with their hidden life."""
        return [entry for entry in self.store.machines.values() if entry.cluster == ref.id]

    def resources(self) -> list[str]:
        """The tag of everything that exists, whoever's it is."""
        with self.lock:
            self.store.age(self.now())
            return self.store.tags()

    def kill(self, name: str) -> None:
        """Let every machine of this name die now."""
        for entry in self._named(name):
            entry.trouble, entry.trouble_at = Trouble.DIES, self.now()

    def occupy(self, name: str, seconds: float) -> None:
        """Let users' jobs run on a machine for so long."""
        for entry in self._named(name):
            entry.busy_until = self.now() + seconds

    def lose(self, name: str) -> None:
        """Let somebody else have deleted a machine, disk and all."""
        for entry in self._named(name):
            entry.gone_at = self.now()

    def bear(self, ref: ClusterRef, kind: PartKind, name: str, *, used_by: str = "", maker: str = "Kubernetes") -> Part:
        """Let a cluster's own software make something, as a Kubernetes does; it goes with ``down`` alone.

        Args:
            kind: a load balancer, a floating IP, a volume, a snapshot or a security group.
            used_by: uuid of the machine that has a volume, or of the volume that a snapshot is of.
        """
        with self.lock:
            now = self.now()
            part = Part(self.store.uuid(), ref.tag(kind), kind, name, created=now, maker=maker)
            self.store.parts[part.uuid] = Listed(part, ref.id, now + self.lag, used_by)
            return part

    # Inside --------------------------------------------------------------------------------------------------

    @contextmanager
    def call(self, name: str, subject: str = "") -> Iterator[None]:
        """Around every call: faults, counting, and the hooks of tests."""
        if self.before_call is not None:
            self.before_call(name)
        with self.lock:
            number = self.calls[name] = self.calls.get(name, 0) + 1
            fault = self.faults.call(name, number, subject)
            fault.before()
            yield
            if name not in ("observe", "observe machines", "offspring", "clusters", "allowances", "zones"):
                self._effects += 1
                if self.after_effect is not None:
                    self.after_effect(self._effects)
            fault.after()

    def _named(self, name: str) -> list[Entry]:
        with self.lock:
            return [entry for entry in self.store.machines.values() if entry.machine.name == name]

    def machines_allowance(self) -> Allowance:
        with self.lock:
            self.store.age(self.now())
            return Allowance("instances", len(self.store.machines), self.quota)

    def _check_room(self, asked: int) -> None:
        room = self.machines_allowance()
        if 0 <= self.quota < room.used + asked:
            message = f"quota for machines: {asked} asked, {room.used} used, {self.quota} allowed"
            raise QuotaError(message, remedy="lower the counts in the spec, or ask for more quota")

    def _own(self, ref: ClusterRef, uuid: str) -> Entry | None:
        with self.lock:
            self.store.age(self.now())
            entry = self.store.machines.get(uuid)
            if entry is not None and entry.cluster != ref.id:
                raise PermanentError(f"machine {uuid} is not of cluster {ref.name}")
            return entry

    def _rest(self, ref: ClusterRef, uuid: str, state: MachineState) -> None:
        if entry := self._own(ref, uuid):
            entry.machine, entry.trouble = replace(entry.machine, state=state), Trouble.NONE
            entry.active_at = FOREVER

    def _boot(self, ref: ClusterRef, uuid: str) -> None:
        if entry := self._own(ref, uuid):
            now = self.now()
            entry.machine = replace(entry.machine, state=MachineState.BUILD, started=now, fault="")
            entry.active_at = now + self.build_time
            if entry.trouble in (Trouble.DIES, Trouble.ERROR):
                entry.trouble = Trouble.NONE
            if entry.head is not None:
                entry.head.hub.proved = False
