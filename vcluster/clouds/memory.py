"""A cloud in memory, for users' own tests and ours: a virtual clock, scripted faults, a scheduler that only pretends.

It behaves like an OpenStack rather than like a database: names are not unique, listings can lag, an answer can get
lost after the act was done, and neighbours' resources stand in the same project.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vcluster.clouds.base import ClusterSummary, Notify
from vcluster.clouds.faults import Fault, FaultScript, Trouble
from vcluster.clouds.memory_around import Around
from vcluster.clouds.memory_control import MemoryControl
from vcluster.clouds.memory_head import PretendedHead
from vcluster.clouds.memory_project import MemoryProject
from vcluster.clouds.memory_store import FLAVORS, FOREVER, Entry, Listed, VirtualClock, shown
from vcluster.errors import ConflictError, PermanentError
from vcluster.model import (
    Allowance,
    ClusterRef,
    Endpoint,
    Flavor,
    ImageRequest,
    Layout,
    Machine,
    MachineRequest,
    MachineState,
    Network,
    Observed,
    Part,
    PartRequest,
    Port,
    PortRequest,
    Role,
    VolumeRequest,
    Wishes,
)

__all__ = ["FLAVORS", "Fault", "FaultScript", "MemoryCloud", "MemoryControl", "Trouble", "VirtualClock"]

_CIDRS = ("10.77.0.0/16", "172.20.0.0/16", "192.168.0.0/16")


@dataclass
class MemoryCloud(MemoryProject):
    """The :class:`vcluster.clouds.base.Cloud` in memory; made with what :class:`MemoryProject` takes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._around = Around(self, self.store)
        self._names: dict[str, ClusterRef] = {}

    # Identity and time ---------------------------------------------------------------------------------------

    @property
    def place(self) -> str:
        """Where it all is."""
        return f"memory-project, as {self.creator}"

    def ref(self, name: str) -> ClusterRef:
        """The identity of a cluster of this name."""
        ref = ClusterRef(name, "memory-project", self.creator)
        self._names[ref.id] = ref
        return ref

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

    def zones(self) -> Sequence[str]:
        """What ``zone_names`` says."""
        with self.call("zones"):
            return self.zone_names

    def check_room(self, ref: ClusterRef, flavors: Sequence[Flavor]) -> None:
        """Compare with ``quota``."""
        self._check_room(len(flavors))

    def check_user_data(self, user_data: str) -> None:
        """Any will do."""

    def allowances(self) -> Mapping[str, Allowance]:
        """What ``quota`` and ``limits`` say."""
        with self.call("allowances"):
            machines = {} if self.quota < 0 else {"instances": self.machines_allowance()}
            return {**self._around.allowances(), **machines}

    def layout(self, ref: ClusterRef, wishes: Wishes, observed: Observed) -> Layout:
        """Nothing, unless ``parts`` is set."""
        return self._around.layout(ref, wishes, observed) if self.parts else Layout()

    # Reads ---------------------------------------------------------------------------------------------------

    def observe(self, ref: ClusterRef, since: Observed | None = None) -> Observed:
        """What listings show now, lag included."""
        with self.call("observe" if since is None else "observe machines"):
            now = self.now()
            self.store.age(now)
            entries = [e for e in self.store.machines.values() if e.cluster == ref.id and e.seen_from <= now]
            machines = tuple(entry.picture(now) for entry in entries)
            if since is not None:
                return replace(since, machines=machines)
            ports = tuple(listed.thing for listed in shown(self.store.ports.values(), ref, now))
            foreign = self.there is not None and any(port.network == self.there.uuid for port in ports)
            return Observed(
                networks=(
                    *(self._network(one) for one in shown(self.store.networks.values(), ref, now)),
                    *([self.there] if foreign and self.there else []),
                ),
                ports=ports,
                machines=machines,
                notes=dict(self.store.notes.get(ref.id, {})),
                parts=self._around.pictures(ref, now),
            )

    def offspring(self, ref: ClusterRef) -> Sequence[Part]:
        """What :meth:`MemoryProject.bear` made."""
        with self.call("offspring"):
            self.store.age(self.now())
            return self._around.offspring(ref, self.now())

    def clusters(self) -> Sequence[ClusterSummary]:
        """Every cluster that has a resource."""
        with self.call("clusters"):
            self.store.age(self.now())
            first: dict[str, float] = {}
            for cluster, created in self.store.cluster_of_all():
                first[cluster] = min(created, first.get(cluster, FOREVER))
            return [self._summary(self._names[cluster], created) for cluster, created in first.items()]

    def _summary(self, ref: ClusterRef, created: float) -> ClusterSummary:
        machines = [entry.picture(self.now()) for entry in self.entries(ref)]
        heads = [
            x.thing for x in self.store.ports.values() if x.cluster == ref.id and x.thing.tag == ref.tag(Role.HEAD)
        ]
        return ClusterSummary(
            ref,
            machines=len(machines),
            active=sum(m.state is MachineState.ACTIVE for m in machines),
            created=created,
            flavors=tuple((m.flavor, m.state) for m in machines),
            notes=dict(self.store.notes.get(ref.id, {})),
            headless=not any(m.role is Role.HEAD for m in machines),
            claimed=max((port.created for port in heads), default=0.0),
        )

    def console(self, ref: ClusterRef, uuid: str, lines: int) -> str:
        """A console of one line."""
        entry = self._own(ref, uuid)
        return f"{entry.machine.name}: {entry.machine.fault or 'booted'}\n" if entry else ""

    def forward(self, ref: ClusterRef, uuid: str) -> Endpoint | None:
        """The head alone has a way in."""
        entry = self._own(ref, uuid)
        return entry.machine.endpoint if entry else None

    # Writes: network, ports, parts, notes ----------------------------------------------------------------------

    def create_network(self, ref: ClusterRef, tag: str, apart: Sequence[str] = ()) -> Network:
        """Make a network; with ``parts`` it has no addresses before it has a subnet."""
        with self.call("create_network"):
            self._around.check_quota("networks")
            network = Network(self.store.uuid(), tag, _cidr(apart), created=self.now())
            listed = self.store.networks[network.uuid] = Listed(network, ref.id, self.now() + self.lag)
            return self._network(listed)

    def create_ports(self, ref: ClusterRef, requests: Sequence[PortRequest]) -> Sequence[Port]:
        """Make ports in one call; names need not be unique."""
        with self.call("create_ports"):
            self._around.check_quota("ports", len(requests))
            if any(not self._has_addresses(request.network) for request in requests):
                raise ConflictError("the network is gone, or has no subnet")
            made = [self._port(request) for request in requests]
            groups = [self._around.groups_of(ref, port) if self.parts else frozenset[str]() for port in made]
            for port, mine in zip(made, groups, strict=True):
                self.store.groups[port.uuid] = mine
                subnet = self._around.subnet_for(ref, port.network)
                self.store.ports[port.uuid] = Listed(replace(port, subnet=subnet), ref.id, port.created + self.lag)
            return made

    def _port(self, request: PortRequest) -> Port:
        uuid = self.store.uuid()
        high, low = divmod(self.store.serial % 60_000 + 10, 250)
        return Port(
            uuid=uuid,
            tag=request.tag,
            name=request.name,
            address=str(self._first_address(request.network) + high * 256 + low + 1),
            mac=f"52:54:00:00:{high:02x}:{low:02x}",
            created=self.now(),
            network=request.network,
            claim=request.claim,
        )

    def delete_ports(self, ref: ClusterRef, uuids: Sequence[str]) -> None:
        """Delete ports; one that a machine holds is in use."""
        with self.call("delete_ports"):
            self.store.age(self.now())
            mine = [x for u in uuids if (x := self.store.ports.get(u)) and x.cluster == ref.id]
            if any(x.thing.device in self.store.machines for x in mine):
                raise ConflictError("a machine holds the port")
            for listed in mine:
                del self.store.ports[listed.thing.uuid]
                del self.store.groups[listed.thing.uuid]

    def delete_network(self, ref: ClusterRef, uuid: str) -> None:
        """Delete a network; one with ports or a subnet is in use."""
        with self.call("delete_network"):
            listed = self.store.networks.get(uuid)
            if listed is None or listed.cluster != ref.id:
                return
            users = {x.link for x in self.store.parts.values()} | {x.thing.network for x in self.store.ports.values()}
            if uuid in users:
                raise ConflictError("the network has ports or a subnet")
            del self.store.networks[uuid]
            if not self.parts and not any(x.cluster == ref.id for x in self.store.networks.values()):
                self.store.notes.pop(ref.id, None)

    def create_part(self, ref: ClusterRef, request: PartRequest, observed: Observed) -> Part:
        """Make a part, or complete it."""
        return self._around.create(ref, request, observed)

    def create_volume(self, ref: ClusterRef, request: VolumeRequest) -> Part:
        """Make a volume."""
        return self._around.create_volume(ref, request)

    def delete_part(self, ref: ClusterRef, part: Part) -> None:
        """Delete a part that nothing uses."""
        self._around.delete(ref, part)

    def keep_volumes(self, ref: ClusterRef, parts: Sequence[Part]) -> None:
        """Mark volumes as kept."""
        self._around.keep(ref, parts)

    def annotate(self, ref: ClusterRef, notes: dict[str, str]) -> None:
        """Write or remove notes."""
        with self.call("annotate"):
            self._around.check_notes(ref)
            mine = {**self.store.notes.get(ref.id, {}), **notes}
            self.store.notes[ref.id] = {key: value for key, value in mine.items() if value}

    # Writes: machines ------------------------------------------------------------------------------------------

    def create_machine(self, ref: ClusterRef, request: MachineRequest) -> Machine:
        """Make a machine on its port."""
        with self.call("create_machine", request.name):
            held = self.store.ports.get(request.port.uuid)
            volume = self.store.parts.get(request.volume)
            if held is None:
                raise ConflictError(f"there is no port {request.port.uuid} any more")
            if held.thing.device:
                raise ConflictError(f"port {request.port.uuid} is in use")
            if request.volume and (volume is None or not self._around.picture(volume).ready):
                raise ConflictError(f"volume {request.volume} is not ready")
            if volume is not None and self._around.user_of(volume):
                raise ConflictError(f"volume {request.volume} is in use")
            self._check_room(1)
            now, head = self.now(), request.role is Role.HEAD
            machine = Machine(
                uuid=self.store.uuid(),
                tag=request.tag,
                name=request.name,
                role=request.role,
                group=request.group,
                state=MachineState.BUILD,
                flavor=request.flavor.name,
                port=request.port.uuid,
                address=request.port.address,
                started=now,
                endpoint=Endpoint("127.0.0.1", 22) if head else None,
                doors={port: Endpoint("127.0.0.1", 20000 + port) for port in request.doors},
                host_key=request.host_key,
                self_contained=request.self_contained,
            )
            trouble, after = self.faults.machine(request.name, request.zone)
            self.store.machines[machine.uuid] = Entry(
                machine,
                ref.id,
                seen_from=now + self.lag,
                active_at=now + self.build_time,
                ready_after=self.ready_time,
                trouble=trouble,
                trouble_at=now + after,
                volume=request.volume,
                head=PretendedHead(request.user_data) if head else None,
            )
            held.thing = replace(held.thing, device=machine.uuid)
            return machine

    def delete_machine(self, ref: ClusterRef, uuid: str) -> None:
        """Let a machine go after ``delete_time``."""
        with self.call("delete_machine"):
            if (entry := self._own(ref, uuid)) and entry.gone_at == FOREVER:
                entry.gone_at = self.now() + self.delete_time

    def start_machine(self, ref: ClusterRef, uuid: str) -> None:
        """Boot a machine that is off."""
        with self.call("start_machine"):
            if (entry := self._own(ref, uuid)) and entry.machine.state is MachineState.SHELVED:
                raise ConflictError(f"machine {entry.machine.name} is shelved")
            self._boot(ref, uuid)

    def reboot_machine(self, ref: ClusterRef, uuid: str) -> None:
        """Boot again; a machine that died comes back."""
        with self.call("reboot_machine"):
            self._boot(ref, uuid)

    def stop_machine(self, ref: ClusterRef, uuid: str) -> None:
        """Shut down at once."""
        with self.call("stop_machine"):
            self._rest(ref, uuid, MachineState.SHUTOFF)

    def shelve_machine(self, ref: ClusterRef, uuid: str) -> None:
        """Shelve at once."""
        with self.call("shelve_machine"):
            self._rest(ref, uuid, MachineState.SHELVED)

    def unshelve_machine(self, ref: ClusterRef, uuid: str) -> None:
        """Boot a shelved machine."""
        with self.call("unshelve_machine"):
            if (entry := self._own(ref, uuid)) and entry.machine.state is MachineState.SHELVED:
                self._boot(ref, uuid)

    def close(self) -> None:
        """Nothing to close."""

    # Inside --------------------------------------------------------------------------------------------------

    def _has_addresses(self, network: str) -> bool:
        if self.there is not None and network == self.there.uuid:
            return True
        listed = self.store.networks.get(network)
        return listed is not None and bool(self._network(listed).cidr)

    def _network(self, listed: Listed[Network]) -> Network:
        subnet = any(x.link == listed.thing.uuid for x in self.store.parts.values())
        return listed.thing if subnet or not self.parts else replace(listed.thing, cidr="")

    def _first_address(self, network: str) -> ipaddress.IPv4Address:
        listed = self.store.networks.get(network)
        return ipaddress.IPv4Network(listed.thing.cidr if listed is not None else _CIDRS[0]).network_address


def _cidr(apart: Iterable[str]) -> str:
    others = [ipaddress.IPv4Network(network) for network in apart]
    return next(c for c in _CIDRS if not any(ipaddress.IPv4Network(c).overlaps(other) for other in others))
