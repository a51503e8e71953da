"""A cloud in memory, for users' own tests and ours: a virtual clock, scripted faults, a scheduler that only pretends.

It behaves like an OpenStack rather than like a database: names are not unique, listings can lag, an answer can get
lost after the act was done, and neighbours' resources stand in the same project.
"""

from __future__ import annotations

import threading
import uuid as uuids
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from vcluster.clouds.base import ClusterSummary, Notify
from vcluster.clouds.faults import Fault, FaultScript, Trouble
from vcluster.clouds.memory_control import MemoryControl
from vcluster.clouds.memory_parts import FLAVORS, Entry, Listed, VirtualClock, shown
from vcluster.errors import ConflictError, PermanentError, QuotaError
from vcluster.model import (
    ClusterRef,
    CommandResult,
    Endpoint,
    Flavor,
    ImageRequest,
    Machine,
    MachineRequest,
    MachineState,
    Network,
    Observed,
    Port,
    PortRequest,
    Role,
)

__all__ = ["FLAVORS", "Fault", "FaultScript", "MemoryCloud", "MemoryControl", "Trouble", "VirtualClock"]


@dataclass
class MemoryCloud:
    """An in-process cloud.

    Attributes:
        faults: what goes wrong, and when.
        lag: seconds that listings lag behind acts.
        build_time: seconds from create to ACTIVE.
        ready_time: seconds from ACTIVE to the first job.
        quota: how many machines the project may have; -1 means no limit.
        after_effect: called after every single side effect with its number; may raise to simulate a crash.
    """

    name: str = "memory"
    clock: VirtualClock = field(default_factory=VirtualClock)
    faults: FaultScript = field(default_factory=FaultScript)
    lag: float = 0.0
    build_time: float = 10.0
    ready_time: float = 30.0
    delete_time: float = 2.0
    boot_timeout: float = 300.0
    quota: int = -1
    guarded: tuple[str, ...] = ("169.254.169.254",)
    creator: str = "me"
    after_effect: Callable[[int], None] | None = None

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self._networks: dict[str, Listed[Network]] = {}
        self._ports: dict[str, Listed[Port]] = {}
        self._machines: dict[str, Entry] = {}
        self._notes: dict[str, dict[str, str]] = {}
        self._names: dict[str, ClusterRef] = {}
        self._calls: dict[str, int] = {}
        self._effects = 0
        self._serial = 0

    # Identity and time ---------------------------------------------------------------------------------------

    def ref(self, name: str) -> ClusterRef:
        """The identity of a cluster of this name."""
        ref = ClusterRef(name, "memory-project", self.creator)
        self._names[ref.id] = ref
        return ref

    def now(self) -> float:
        """The virtual clock."""
        return self.clock.now()

    def flavor(self, name: str) -> Flavor:
        """One of small, medium, large."""
        for flavor in FLAVORS:
            if flavor.name == name:
                return flavor
        names = ", ".join(flavor.name for flavor in FLAVORS)
        raise PermanentError(f"there is no flavor {name!r}", remedy=f"take one of {names}")

    def image(self, request: ImageRequest, notify: Notify, cancel: threading.Event | None = None) -> str:
        """Every image is there."""
        return request.source or "memory-image"

    def check_room(self, ref: ClusterRef, flavors: Sequence[Flavor]) -> None:
        """Compare with ``quota``."""
        used = len(self._alive())
        if 0 <= self.quota < used + len(flavors):
            message = f"quota for machines: {len(flavors)} asked, {used} used, {self.quota} allowed"
            raise QuotaError(message, remedy="lower the counts in the spec, or ask for more quota")

    # Reads ---------------------------------------------------------------------------------------------------

    def observe(self, ref: ClusterRef) -> Observed:
        """What listings show now, lag included."""
        with self.call("observe"):
            now = self.now()
            self._age()
            machines = [e for e in self._machines.values() if e.cluster == ref.id and e.seen_from <= now]
            return Observed(
                networks=tuple(x.thing for x in self._networks.values() if shown(x, ref, now)),
                ports=tuple(x.thing for x in self._ports.values() if shown(x, ref, now)),
                machines=tuple(self.picture(entry) for entry in machines),
                notes=dict(self._notes.get(ref.id, {})),
            )

    def clusters(self) -> Sequence[ClusterSummary]:
        """Every cluster that has a resource."""
        with self.call("clusters"):
            found = []
            for ref in self._names.values():
                mine = [e for e in self._machines.values() if e.cluster == ref.id]
                ports = [x for x in self._ports.values() if x.cluster == ref.id]
                networks = [x for x in self._networks.values() if x.cluster == ref.id]
                if mine or ports or networks:
                    active = sum(self.picture(e).state is MachineState.ACTIVE for e in mine)
                    created = min(
                        [e.seen_from for e in mine] + [p.seen_from for p in ports] + [n.seen_from for n in networks]
                    )
                    found.append(ClusterSummary(ref, len(mine), active, created))
            return found

    def console(self, ref: ClusterRef, uuid: str, lines: int) -> str:
        """A console of one line."""
        entry = self._own(ref, uuid)
        return f"{entry.machine.name}: {entry.machine.fault or 'booted'}\n" if entry else ""

    def forward(self, ref: ClusterRef, uuid: str) -> Endpoint | None:
        """The head alone has a way in."""
        entry = self._own(ref, uuid)
        return entry.machine.endpoint if entry else None

    # Writes --------------------------------------------------------------------------------------------------

    def create_network(self, ref: ClusterRef, tag: str) -> Network:
        """Make a network."""
        with self.call("create_network"):
            network = Network(self._uuid(), tag, "10.77.0.0/16")
            self._networks[network.uuid] = Listed(network, ref.id, self.now() + self.lag)
            return network

    def create_ports(self, ref: ClusterRef, requests: Sequence[PortRequest]) -> Sequence[Port]:
        """Make ports in one call; names need not be unique."""
        with self.call("create_ports"):
            if any(request.network not in self._networks for request in requests):
                raise ConflictError("the network is gone")
            made = []
            for request in requests:
                self._serial += 1
                high, low = divmod(self._serial % 60_000 + 10, 250)
                address, mac = f"10.77.{high}.{low + 1}", f"52:54:00:00:{high:02x}:{low:02x}"
                now = self.now()
                port = Port(self._uuid(), request.tag, request.name, address, mac, created=now, network=request.network)
                self._ports[port.uuid] = Listed(port, ref.id, now + self.lag)
                made.append(port)
            return made

    def create_machine(self, ref: ClusterRef, request: MachineRequest) -> Machine:
        """Make a machine on its port."""
        with self.call("create_machine", request.name):
            held = self._ports.get(request.port.uuid)
            if held is None:
                raise ConflictError(f"there is no port {request.port.uuid} any more")
            if held.thing.device:
                raise ConflictError(f"port {request.port.uuid} is in use")
            if 0 <= self.quota <= len(self._alive()):
                message = f"quota for machines: 1 asked, {len(self._alive())} used, {self.quota} allowed"
                raise QuotaError(message, remedy="lower the counts in the spec, or ask for more quota")
            now = self.now()
            endpoint = Endpoint("127.0.0.1", 22) if request.role is Role.HEAD else None
            machine = Machine(
                uuid=self._uuid(),
                tag=request.tag,
                name=request.name,
                role=request.role,
                group=request.group,
                state=MachineState.BUILD,
                flavor=request.flavor.name,
                port=request.port.uuid,
                address=request.port.address,
                started=now,
                endpoint=endpoint,
            )
            trouble, after = self.faults.machine(request.name)
            self._machines[machine.uuid] = Entry(
                machine,
                ref.id,
                now + self.lag,
                now + self.build_time,
                self.ready_time,
                trouble,
                now + after,
            )
            held.thing = replace(held.thing, device=machine.uuid)
            return machine

    def delete_machine(self, ref: ClusterRef, uuid: str) -> None:
        """Let a machine go after ``delete_time``."""
        with self.call("delete_machine"):
            if (entry := self._own(ref, uuid)) and entry.gone_at == float("inf"):
                entry.gone_at = self.now() + self.delete_time

    def delete_ports(self, ref: ClusterRef, uuids: Sequence[str]) -> None:
        """Delete ports; one that a machine holds is in use."""
        with self.call("delete_ports"):
            self._age()
            mine = [x for u in uuids if (x := self._ports.get(u)) and x.cluster == ref.id]
            if any(x.thing.device in self._machines for x in mine):
                raise ConflictError("a machine holds the port")
            for listed in mine:
                del self._ports[listed.thing.uuid]

    def delete_network(self, ref: ClusterRef, uuid: str) -> None:
        """Delete a network; one with ports is in use."""
        with self.call("delete_network"):
            listed = self._networks.get(uuid)
            if listed is None or listed.cluster != ref.id:
                return
            if any(x.thing.network == uuid for x in self._ports.values()):
                raise ConflictError("the network has ports")
            del self._networks[uuid]
            if not any(x.cluster == ref.id for x in self._networks.values()):
                self._notes.pop(ref.id, None)

    def start_machine(self, ref: ClusterRef, uuid: str) -> None:
        """Boot a machine that is off."""
        with self.call("start_machine"):
            self._boot(ref, uuid)

    def reboot_machine(self, ref: ClusterRef, uuid: str) -> None:
        """Boot again; a machine that died comes back."""
        with self.call("reboot_machine"):
            self._boot(ref, uuid)

    def stop_machine(self, ref: ClusterRef, uuid: str) -> None:
        """Shut down at once."""
        with self.call("stop_machine"):
            if entry := self._own(ref, uuid):
                entry.machine, entry.trouble = replace(entry.machine, state=MachineState.SHUTOFF), Trouble.NONE
                entry.active_at = float("inf")

    def annotate(self, ref: ClusterRef, notes: dict[str, str]) -> None:
        """Write or remove notes."""
        with self.call("annotate"):
            mine = self._notes.setdefault(ref.id, {})
            mine.update(notes)
            for key in [key for key, value in notes.items() if not value]:
                del mine[key]

    def close(self) -> None:
        """Nothing to close."""

    # What stands in for SSH ----------------------------------------------------------------------------------

    def control(self, ref: ClusterRef) -> MemoryControl:
        """The pretended scheduler of one cluster."""
        return MemoryControl(self, ref)

    def execute(self, ref: ClusterRef, command: str) -> CommandResult:
        """Pretend to run a command on the head: ``hostname`` and ``srun … hostname`` answer, others echo."""
        names = sorted(m.name for m in self.observe(ref).workers())
        if "hostname" in command:
            text = "".join(f"{name}\n" for name in names) if "srun" in command else "head\n"
            return CommandResult(text, "", 0)
        return CommandResult(f"{command}\n", "", 0)

    # For tests -----------------------------------------------------------------------------------------------

    def entries(self, ref: ClusterRef) -> list[Entry]:
        """A cluster's machines with their hidden life."""
        return [entry for entry in self._machines.values() if entry.cluster == ref.id]

    def resources(self) -> list[str]:
        """The tag of everything that exists, whoever's it is."""
        with self.lock:
            self._age()
            tags = [x.thing.tag for x in self._networks.values()] + [x.thing.tag for x in self._ports.values()]
            return tags + [e.machine.tag for e in self._machines.values()]

    def kill(self, name: str) -> None:
        """Let every machine of this name die now."""
        with self.lock:
            for entry in self._machines.values():
                if entry.machine.name == name:
                    entry.trouble, entry.trouble_at = Trouble.DIES, self.now()

    def occupy(self, name: str, seconds: float) -> None:
        """Let users' jobs run on a machine for so long."""
        with self.lock:
            for entry in self._machines.values():
                if entry.machine.name == name:
                    entry.busy_until = self.now() + seconds

    def lose(self, name: str) -> None:
        """Let somebody else have deleted a machine, disk and all."""
        with self.lock:
            for entry in self._machines.values():
                if entry.machine.name == name:
                    entry.gone_at = self.now()
            self._age()

    # Inside --------------------------------------------------------------------------------------------------

    @property
    def listing_lag(self) -> float:
        """The scripted lag."""
        return self.lag

    @contextmanager
    def call(self, name: str, subject: str = "") -> Iterator[None]:
        with self.lock:
            number = self._calls[name] = self._calls.get(name, 0) + 1
            fault = self.faults.call(name, number, subject)
            fault.before()
            yield
            if name not in ("observe", "clusters"):
                self._effects += 1
                if self.after_effect is not None:
                    self.after_effect(self._effects)
            fault.after()

    def _uuid(self) -> str:
        self._serial += 1
        return str(uuids.UUID(int=self._serial, version=4))

    def _own(self, ref: ClusterRef, uuid: str) -> Entry | None:
        with self.lock:
            self._age()
            entry = self._machines.get(uuid)
            if entry is not None and entry.cluster != ref.id:
                raise PermanentError(f"machine {uuid} is not of cluster {ref.name}")
            return entry

    def _alive(self) -> list[Entry]:
        with self.lock:
            self._age()
            return list(self._machines.values())

    def _age(self) -> None:
        now = self.now()
        for uuid in [u for u, e in self._machines.items() if e.gone_at <= now]:
            entry = self._machines.pop(uuid)
            if held := self._ports.get(entry.machine.port):
                held.thing = replace(held.thing, device="")

    def _boot(self, ref: ClusterRef, uuid: str) -> None:
        if entry := self._own(ref, uuid):
            now = self.now()
            entry.machine = replace(entry.machine, state=MachineState.BUILD, started=now, fault="")
            entry.active_at = now + self.build_time
            entry.drained = False
            if entry.trouble in (Trouble.DIES, Trouble.ERROR):
                entry.trouble = Trouble.NONE

    def picture(self, entry: Entry) -> Machine:
        now, state, fault = self.now(), entry.machine.state, entry.machine.fault
        if entry.gone_at != float("inf"):
            state = MachineState.DELETING
        elif entry.trouble in (Trouble.ERROR, Trouble.DIES) and entry.trouble_at <= now:
            state, fault = MachineState.ERROR, f"scripted: {entry.trouble}"
        elif state is MachineState.BUILD and entry.active_at <= now:
            state = MachineState.ACTIVE
        if state is not entry.machine.state:
            entry.machine = replace(entry.machine, state=state, fault=fault)
        return entry.machine
