"""What stands around machines in a memory cloud that is asked to be like an OpenStack: the parts and their rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vcluster.chosen import chosen_network, chosen_part, chosen_ports
from vcluster.clouds.memory_store import FOREVER, Listed, Store, shown
from vcluster.errors import ConflictError, PermanentError, QuotaError
from vcluster.model import (
    Allowance,
    ClusterRef,
    Layout,
    MachineState,
    Observed,
    Part,
    PartKind,
    PartRequest,
    Port,
    Role,
    VolumeRequest,
    Wishes,
)

if TYPE_CHECKING:
    from vcluster.clouds.memory_project import MemoryProject

__all__ = ["Around"]

_RESOURCE = {
    PartKind.SUBNET: "subnets",
    PartKind.ROUTER: "routers",
    PartKind.SECURITY_GROUP: "security_groups",
    PartKind.SERVER_GROUP: "server_groups",
    PartKind.FLOATING_IP: "floating_ips",
    PartKind.VOLUME: "volumes",
}
_STANDING = (
    (PartKind.SECURITY_GROUP, "head"),
    (PartKind.SECURITY_GROUP, "members"),
    (PartKind.SERVER_GROUP, "workers"),
)
_OF_OWN_NETWORK = ((PartKind.ROUTER, "router"), (PartKind.SUBNET, "subnet"), (PartKind.GATEWAY, "gateway"))


class Around:
    """Parts, quota, and what depends on what. Called with the cloud's lock held."""

    def __init__(self, cloud: MemoryProject, store: Store) -> None:
        self._cloud, self._store = cloud, store

    # What there shall be -------------------------------------------------------------------------------------

    def layout(self, ref: ClusterRef, wishes: Wishes, observed: Observed) -> Layout:
        """The network that is there already for all, else an own one; security and server groups; a floating IP."""
        there = self._cloud.there
        if wishes.network and (there is None or wishes.network != there.uuid):
            raise PermanentError(f"there is no network {wishes.network!r}")
        known = chosen_network(observed)
        foreign = there if known is None or known.foreign else None
        keys = list(_STANDING) + ([] if foreign else list(_OF_OWN_NETWORK))
        if wishes.public_ip:
            keys.append((PartKind.FLOATING_IP, "head"))
        return Layout(foreign, tuple(PartRequest(kind, name, ref.tag(kind)) for kind, name in keys))

    def allowances(self) -> Mapping[str, Allowance]:
        """What is limited."""
        return {name: Allowance(name, self._used(name), limit) for name, limit in self._cloud.limits.items()}

    def check_quota(self, resource: str, asked: int = 1) -> None:
        """Refuse what is too much."""
        limit, used = self._cloud.limits.get(resource, -1), self._used(resource)
        if 0 <= limit < used + asked:
            raise QuotaError(f"quota for {resource}: {asked} asked, {used} used, {limit} allowed")

    def _used(self, resource: str) -> int:
        if resource == "instances":
            return len(self._store.machines)
        if resource == "ports":
            return len(self._store.ports)
        if resource == "networks":
            return len(self._store.networks)
        kinds = [kind for kind, word in _RESOURCE.items() if word == resource]
        return sum(listed.thing.kind in kinds for listed in self._store.parts.values())

    # Pictures ------------------------------------------------------------------------------------------------

    def pictures(self, ref: ClusterRef, now: float) -> tuple[Part, ...]:
        """Every part of a cluster that listings show, but for what its own software made."""
        return tuple(self.picture(one) for one in shown(self._store.parts.values(), ref, now) if not one.thing.maker)

    def offspring(self, ref: ClusterRef, now: float) -> tuple[Part, ...]:
        """What a cluster's own software made, as far as listings show it."""
        return tuple(self.picture(one) for one in shown(self._store.parts.values(), ref, now) if one.thing.maker)

    def picture(self, listed: Listed[Part]) -> Part:
        """A part with what uses it, and whether it is complete."""
        part, user = listed.thing, listed.link
        if part.maker:
            return replace(part, used_by=self.user_of(listed), ready=listed.gone_at == FOREVER)
        ready = part.ready and listed.ready_at <= self._cloud.now() and not part.fault
        if part.kind is PartKind.FLOATING_IP:
            user = user if user in self._store.ports else ""
            ready = bool(user)
        elif part.kind is PartKind.VOLUME:
            user = self._machine_with(part.uuid, told=True)
            word = "error" if part.fault else "creating" if not ready else "in-use" if user else "available"
            return replace(part, ready=ready, used_by=user, status=word)
        elif part.kind is PartKind.SECURITY_GROUP:
            user = self._in_group(part.uuid)
        elif part.kind is PartKind.SUBNET:
            user = self._on_subnet(part.uuid) or user
        subnet = self._store.parts.get(listed.subnet)
        network = {PartKind.SUBNET: listed.link, PartKind.GATEWAY: subnet.link if subnet else ""}.get(part.kind, "")
        lies = self._lies(listed.cluster, network) if part.kind is PartKind.GATEWAY else ""
        fault = part.fault or ("it is on another subnet" if lies and lies != listed.subnet else "")
        return replace(part, ready=ready, used_by=user, network=network, fault=fault)

    def _machine_with(self, volume: str, *, told: bool = False) -> str:
        """Who has a volume; where it is ``told``, as Cinder does: of a machine on the shelf it says nothing."""
        users = {uuid: entry for uuid, entry in self._store.machines.items() if entry.volume == volume}
        on_shelf = MachineState.SHELVED
        return next((u for u, e in users.items() if not (told and e.machine.state is on_shelf)), "")

    def _in_group(self, uuid: str) -> str:
        return _first(self._store.ports[u].thing for u, groups in self._store.groups.items() if uuid in groups)

    def _on_subnet(self, uuid: str) -> str:
        return _first(listed.thing for listed in self._store.ports.values() if listed.thing.subnet == uuid)

    # Making --------------------------------------------------------------------------------------------------

    def create(self, ref: ClusterRef, request: PartRequest, observed: Observed) -> Part:
        """Make a part or complete it; a security group is made without its rules, and then gets them."""
        old = chosen_part(observed, request.kind, request.name)
        listed = self._store.parts.get(old.uuid) if old else None
        if listed is None:
            with self._cloud.call("create_part", f"{request.kind} {request.name}"):
                link = self._link(request.kind, observed)
                if resource := _RESOURCE.get(request.kind):
                    self.check_quota(resource)
                ready = request.kind is not PartKind.SECURITY_GROUP
                part = Part(self._store.uuid(), request.tag, request.kind, request.name, ready)
                listed = self._keep(ref, part, link)
                if request.kind is PartKind.GATEWAY:
                    listed.subnet = self._uuid_of(observed, PartKind.SUBNET, "subnet")
            if ready:
                return self.picture(listed)
        with self._cloud.call("complete_part", f"{request.kind} {request.name}"):
            if request.kind is PartKind.FLOATING_IP:
                listed.link = self._link(request.kind, observed)
            listed.thing = replace(listed.thing, ready=True)
            return self.picture(listed)

    def create_volume(self, ref: ClusterRef, request: VolumeRequest) -> Part:
        """Make a volume, which takes its time to be ready, or never will be when the script says so."""
        with self._cloud.call("create_volume", request.name):
            self.check_quota("volumes")
            fault = "scripted: it fails" if self._cloud.faults.volume(request.name) else ""
            part = Part(self._store.uuid(), request.tag, PartKind.VOLUME, request.name, fault=fault)
            listed = self._keep(ref, part, "")
            hangs = self._cloud.faults.hangs(request.name)
            listed.ready_at = FOREVER if hangs else self._cloud.now() + self._cloud.volume_time
            return self.picture(listed)

    def _keep(self, ref: ClusterRef, part: Part, link: str) -> Listed[Part]:
        now = self._cloud.now()
        listed = Listed(replace(part, created=now), ref.id, now + self._cloud.lag, link)
        self._store.parts[part.uuid] = listed
        return listed

    def _link(self, kind: PartKind, observed: Observed) -> str:
        """What a part hangs on, by what its maker saw."""
        match kind:
            case PartKind.SUBNET:
                network = chosen_network(observed)
                uuid = self._there(network.uuid if network else "", self._store.networks, "network")
                # Two that come at the same moment are both taken, as by Neutron.
                there = [x for x in self._store.parts.values() if x.link == uuid]
                if any(one.seen_from <= self._cloud.now() for one in there):
                    raise ConflictError("the network has a subnet with the same addresses")
                return uuid
            case PartKind.GATEWAY:
                subnet = self._uuid_of(observed, PartKind.SUBNET, "subnet")
                self._there(subnet, self._store.parts, "subnet")
                if any(listed.subnet == subnet for listed in self._store.parts.values()):
                    raise ConflictError("the subnet has a gateway")
                return self._there(self._uuid_of(observed, PartKind.ROUTER, "router"), self._store.parts, "router")
            case PartKind.FLOATING_IP:
                head = next((p for p in chosen_ports(observed).values() if p.tag.endswith(f"/{Role.HEAD}")), None)
                port = self._there(head.uuid if head else "", self._store.ports, "port of the head")
                subnet = self._store.ports[port].thing.subnet
                legs = {x.subnet for x in self._store.parts.values() if x.thing.kind is PartKind.GATEWAY}
                if subnet and subnet not in legs:
                    raise ConflictError("the external network is not reachable from the port's subnet")
                return port
            case _:
                return ""

    @staticmethod
    def _uuid_of(observed: Observed, kind: PartKind, name: str) -> str:
        part = chosen_part(observed, kind, name)
        return part.uuid if part else ""

    @staticmethod
    def _there(uuid: str, things: Mapping[str, object], what: str) -> str:
        if uuid not in things:
            raise ConflictError(f"the {what} is not there")
        return uuid

    def subnet_for(self, ref: ClusterRef, network: str) -> str:
        """The subnet for a new port: the one that the head's port is on, else the newest: its maker knows no other."""
        subnets = [x.thing for x in self._store.parts.values() if x.link == network and x.cluster == ref.id]
        newest = max(((s.created, s.uuid) for s in subnets), default=(0.0, ""))[1]
        return self._lies(ref.id, network) or newest

    def _lies(self, cluster: str, network: str) -> str:
        """The subnet of the oldest port of a head on this network; empty while there is none."""
        ports = [x for x in self._store.ports.values() if x.cluster == cluster and x.thing.network == network]
        heads = [
            (x.thing.created, x.thing.uuid, x.thing.subnet) for x in ports if x.thing.tag.endswith(f"/{Role.HEAD}")
        ]
        return min(heads, default=(0.0, "", ""))[2]

    def groups_of(self, ref: ClusterRef, port: Port) -> frozenset[str]:
        """The security groups for a new port: those that the head's port is in, else the oldest of each name.

        Raises:
            ConflictError: there are none yet.
        """
        names = ("head", "members") if port.tag.endswith(f"/{Role.HEAD}") else ("members",)
        heads = [
            x.thing for x in self._store.ports.values() if x.cluster == ref.id and x.thing.tag == ref.tag(Role.HEAD)
        ]
        known: frozenset[str] = frozenset()
        for head in sorted(heads, key=lambda p: (p.device not in self._store.machines, p.created, p.uuid)):
            known = known or self._store.groups.get(head.uuid, frozenset())
        chosen = []
        for name in names:
            groups = [
                listed.thing
                for listed in self._store.parts.values()
                if listed.cluster == ref.id
                and (listed.thing.kind, listed.thing.name) == (PartKind.SECURITY_GROUP, name)
            ]
            if not groups:
                raise ConflictError(f"there is no security group {name}")
            chosen.append(min(groups, key=lambda g: (g.uuid not in known, g.created, g.uuid)).uuid)
        return frozenset(chosen)

    # Unmaking ------------------------------------------------------------------------------------------------

    def delete(self, ref: ClusterRef, part: Part) -> None:
        """Delete a part that nothing uses."""
        with self._cloud.call("delete_part", f"{part.kind} {part.name}"):
            listed = self._store.parts.get(part.uuid)
            if listed is None:
                return
            self._check_mine(ref, listed)
            if listed.thing.kept:
                raise PermanentError(f"volume {part.name} is kept")
            if (now := self.picture(listed)).status == "creating":
                raise ConflictError(f"delete volume {now.uuid}: it is creating")
            if user := self.user_of(listed):
                raise ConflictError(f"{part.kind} {part.name} is in use by {user}")
            if part.kind is PartKind.LOAD_BALANCER and self._cloud.balancer_time:
                listed.gone_at = min(listed.gone_at, self._cloud.now() + self._cloud.balancer_time)
                return
            del self._store.parts[part.uuid]
            if self._cloud.parts and not any(one.cluster == ref.id for one in self._carriers()):
                self._store.notes.pop(ref.id, None)

    def keep(self, ref: ClusterRef, parts: Sequence[Part]) -> None:
        """Untie volumes from their machines, as far as the caller says whose they are, and mark them as kept."""
        with self._cloud.call("keep_volumes"):
            for part in parts:
                if listed := self._store.parts.get(part.uuid):
                    self._check_mine(ref, listed)
                    if part.used_by in self._store.machines and not listed.thing.maker:
                        self._store.machines[part.used_by].tied = False
                    listed.thing = replace(listed.thing, kept=True)

    def check_notes(self, ref: ClusterRef) -> None:
        """Notes need something to be written on: a security group; where there are none, what vcluster made."""
        mine = [one.thing.maker for one in self._store.parts.values() if one.cluster == ref.id]
        bare = bool(mine) and all(mine) and not any(one.cluster == ref.id for one in self._store.networks.values())
        if bare or (self._cloud.parts and not any(one.cluster == ref.id for one in self._carriers())):
            raise ConflictError("nothing is there to write notes on")

    def _carriers(self) -> list[Listed[Part]]:
        groups = [one for one in self._store.parts.values() if one.thing.kind is PartKind.SECURITY_GROUP]
        return [one for one in groups if not one.thing.maker]

    def _check_mine(self, ref: ClusterRef, listed: Listed[Part]) -> None:
        if listed.cluster != ref.id:
            raise PermanentError(f"{listed.thing.kind} {listed.thing.uuid} is not of cluster {ref.name}")

    def user_of(self, listed: Listed[Part]) -> str:
        """What must go before a part can."""
        part, parts = listed.thing, self._store.parts.values()
        if part.maker:
            of_it = (one.thing.uuid for one in parts if one.link == part.uuid)
            return listed.link if listed.link in self._store.machines else next(of_it, "")
        match part.kind:
            case PartKind.SUBNET:
                return self._on_subnet(part.uuid) or self._at_subnet(listed)
            case PartKind.ROUTER:
                return "a subnet" if any(p.link == part.uuid for p in parts) else ""
            case PartKind.GATEWAY:
                subnet = self._store.parts.get(listed.subnet)
                near = {u for u, p in self._store.ports.items() if subnet and p.thing.network == subnet.link}
                return next((p.link for p in parts if p.thing.kind is PartKind.FLOATING_IP and p.link in near), "")
            case PartKind.VOLUME:
                return self._machine_with(part.uuid)
            case _:
                return self.picture(listed).used_by if part.kind is PartKind.SECURITY_GROUP else ""

    def _at_subnet(self, subnet: Listed[Part]) -> str:
        """What else keeps a subnet: its router's leg, and load balancers, which have an address in it."""
        for one in self._store.parts.values():
            if one.thing.kind is PartKind.GATEWAY and one.subnet == subnet.thing.uuid:
                return "a router"
            if one.thing.kind is PartKind.LOAD_BALANCER and one.cluster == subnet.cluster:
                return one.thing.uuid
        return ""


def _first(ports: Iterable[Port]) -> str:
    """The head's port where it is among these."""
    return next((p.uuid for p in sorted(ports, key=lambda p: not p.tag.endswith(f"/{Role.HEAD}"))), "")
