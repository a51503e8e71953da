"""The cloud's JSON as our frozen pictures. Pure: nothing here asks anybody."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from vcluster.clouds.openstack import groups, marks
from vcluster.clouds.openstack.rest import Json
from vcluster.model import (
    ClusterRef,
    Endpoint,
    Machine,
    MachineState,
    Network,
    Part,
    PartKind,
    Port,
    Role,
)

__all__ = [
    "ASLEEP",
    "LEGS",
    "floating_ip",
    "for_machines",
    "gateway",
    "lies_on",
    "machine",
    "moment",
    "network",
    "port",
    "reached",
    "router",
    "security_group",
    "server_group",
    "state_of",
    "subnet",
    "volume",
    "volumes_of",
]

SSH = 22
DOORS = (443, 6443)
"""Ports of a head that may be open to people; what is, its security group says."""

LEGS = ("network:router_interface", "network:ha_router_replicated_interface", "network:router_interface_distributed")
"""What a port's owner is called that a router holds: a plain one, a highly available one, a distributed one."""

_STATES = {
    "BUILD": MachineState.BUILD,
    "REBUILD": MachineState.BUILD,
    "REBOOT": MachineState.BUILD,
    "HARD_REBOOT": MachineState.BUILD,
    "ACTIVE": MachineState.ACTIVE,
    "MIGRATING": MachineState.ACTIVE,
    "PASSWORD": MachineState.ACTIVE,
    "VERIFY_RESIZE": MachineState.ACTIVE,
    "SHUTOFF": MachineState.SHUTOFF,
    "SUSPENDED": MachineState.SHUTOFF,
    "PAUSED": MachineState.SHUTOFF,
    "SHELVED": MachineState.SHELVED,
    "SHELVED_OFFLOADED": MachineState.SHELVED,
    "ERROR": MachineState.ERROR,
}
ASLEEP = {"SUSPENDED": "resume", "PAUSED": "unpause"}
"""What a dashboard's buttons bring a server into, and the action that wakes it. It does no work, and holds its place:
to the planner it is off. It keeps its memory, so that no boot begins when it wakes."""

_GOES_ON = {
    "powering-on",
    "unshelving",
    "resuming",
    "unpausing",
    "spawning",
    "networking",
    "block_device_mapping",
    "scheduling",
}
_GONE = {"DELETED", "SOFT_DELETED"}
_VOLUME_READY = {"available", "in-use", "reserved", "attaching", "detaching"}


def moment(text: str | None) -> float:
    """Seconds since the epoch; the services leave the zone out or say Z, and mean UTC. 0 for nothing."""
    if not text:
        return 0.0
    when = datetime.fromisoformat(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def state_of(server: Json) -> MachineState | None:
    """The state of a server; None for one that is gone."""
    status = str(server.get("status", "")).upper()
    task = server.get("OS-EXT-STS:task_state")
    if status in _GONE:
        return None
    if task in ("deleting", "soft-deleting"):
        return MachineState.DELETING
    state = _STATES.get(status, MachineState.UNKNOWN)
    if state in (MachineState.SHUTOFF, MachineState.SHELVED) and task in _GOES_ON:
        return MachineState.BUILD
    if state is MachineState.ERROR and str(task).startswith("reboot"):
        return MachineState.BUILD  # until the task ends Nova goes on saying ERROR, of which it may be the mend
    return state


def machine(ref: ClusterRef, server: Json, ports: Mapping[str, Port], told: float = 0.0) -> Machine | None:
    """A server of the cluster; None when it is another's, or gone.

    Args:
        ports: the cluster's ports by uuid.
        told: when this process told it to boot, if it did. Nova keeps only when it was made; that is never too late,
            so what a scheduler proved since then it proved of this machine.
    """
    metadata: Mapping[str, str] = server.get("metadata") or {}
    tag = marks.tag_in(metadata.get(marks.MARK))
    state = state_of(server)
    role = marks.role_of(tag)
    if not ref.owns(tag) or state is None or role is None:
        return None
    uuid = str(server["id"])
    held = next((p for p in ports.values() if p.device == uuid), None) or ports.get(metadata.get(marks.PORT, ""))
    return Machine(
        uuid=uuid,
        tag=tag,
        name=metadata.get(marks.SLOT) or marks.slot_name(ref, str(server.get("name", ""))),
        role=role,
        group=metadata.get(marks.GROUP, ""),
        state=state,
        flavor=str((server.get("flavor") or {}).get("original_name", "")),
        port=held.uuid if held else metadata.get(marks.PORT, ""),
        address=held.address if held else "",
        started=max(moment(server.get("created")), told),
        fault=str((server.get("fault") or {}).get("message", "")) or _asleep(server),
        host_key=metadata.get(marks.HOST_KEY, ""),
        self_contained=metadata.get(marks.SELF_CONTAINED) == "yes",
    )


def _asleep(server: Json) -> str:
    status = str(server.get("status", "")).upper()
    return f"somebody {status.lower()} it" if status in ASLEEP else ""


def volumes_of(server: Json) -> frozenset[str]:
    """The volumes that a server has, by Nova's book, also while it is shelved."""
    return frozenset(str(one["id"]) for one in server.get("os-extended-volumes:volumes_attached") or ())


def reached(machine: Machine, public: Mapping[str, str]) -> Machine:
    """The same with where it is reached: a head by its floating IP, else its own address (by the spec's jump host).

    Args:
        public: floating address by port uuid.
    """
    address = public.get(machine.port) or machine.address
    if machine.role is not Role.HEAD or not address:
        return machine
    doors = {port: Endpoint(address, port) for port in DOORS}
    return replace(machine, endpoint=Endpoint(address, SSH), doors=doors)


def network(told: Json, subnet: Json | None, *, tag: str) -> Network:
    """A network with the subnet that machines are on; one without our tag is foreign."""
    return Network(
        uuid=told["id"],
        tag=tag,
        cidr=str(subnet["cidr"]) if subnet is not None else "",
        mtu=int(told.get("mtu") or 1500),
        foreign=not tag,
        created=moment(told.get("created_at")),
    )


def for_machines(network: str, subnets: Iterable[Json]) -> list[Json]:
    """The subnets of a network from which a machine's port may get its IPv4 address."""
    mine = [s for s in subnets if s["network_id"] == network and s.get("ip_version") == 4]
    return [s for s in mine if not s.get("service_types")]  # those are for routers' own addresses, and the like


def lies_on(told: Json) -> str:
    """The subnet that a port's IPv4 address is from; empty when it has none."""
    found = (f for f in told.get("fixed_ips", []) if ipaddress.ip_address(f["ip_address"]).version == 4)
    return next((str(fixed.get("subnet_id") or "") for fixed in found), "")


def port(ref: ClusterRef, told: Json) -> Port | None:
    """A port for a machine of the cluster; None when it is another's."""
    tag = marks.tag_in(told.get("description"))
    if not ref.owns(tag) or marks.role_of(tag) not in (Role.HEAD, Role.WORKER):
        return None
    name = str(told.get("name", ""))
    return Port(
        uuid=told["id"],
        tag=tag,
        name=marks.slot_name(ref, name),
        address=_ipv4(told),
        mac=str(told.get("mac_address", "")),
        device=str(told.get("device_id") or ""),
        created=moment(told.get("created_at")),
        network=told["network_id"],
        claim=marks.claim_of(name),
    )


def _ipv4(told: Json) -> str:
    addresses = [str(fixed["ip_address"]) for fixed in told.get("fixed_ips", [])]
    return next((a for a in addresses if ipaddress.ip_address(a).version == 4), addresses[0] if addresses else "")


# Parts ----------------------------------------------------------------------------------------------------------


def _part(
    told: Json, tag: str, kind: PartKind, name: str = "", *, ready: bool = True, used_by: str = "", fault: str = ""
) -> Part:
    return Part(
        uuid=str(told["id"]),
        tag=tag,
        kind=kind,
        name=name or str(kind),
        ready=ready,
        fault=fault,
        used_by=used_by,
        created=moment(told.get("created_at")),
        network=str(told.get("network_id") or ""),
    )


def _tag(ref: ClusterRef, told: Json, kind: PartKind) -> str:
    tag = marks.tag_in(told.get("description"))
    return tag if tag == ref.tag(kind) else ""


def subnet(ref: ClusterRef, told: Json, holder: str = "") -> Part | None:
    """A subnet of the cluster; ``holder`` is a port that has an address from it."""
    tag = _tag(ref, told, PartKind.SUBNET)
    return _part(told, tag, PartKind.SUBNET, used_by=holder or str(told["network_id"])) if tag else None


def router(ref: ClusterRef, told: Json) -> Part | None:
    tag = _tag(ref, told, PartKind.ROUTER)
    return _part(told, tag, PartKind.ROUTER) if tag else None


def gateway(ref: ClusterRef, told: Json, lies: str = "") -> Part | None:
    """A router's leg: a port of ours that a router holds. Held by nobody yet it is not ready.

    Args:
        lies: the subnet that the cluster's machines are on. From any other the leg is no way out for them.
    """
    tag = _tag(ref, told, PartKind.GATEWAY)
    if not tag:
        return None
    on, holder = told.get("device_owner") in LEGS, str(told.get("device_id") or "")
    astray = bool(lies) and lies_on(told) not in ("", lies)
    fault = "it is not on the subnet that the machines are on" if astray else ""
    return _part(told, tag, PartKind.GATEWAY, ready=on, used_by=holder, fault=fault)


def security_group(ref: ClusterRef, told: Json, holder: str = "") -> Part | None:
    """A security group of the cluster; ``holder`` is a port that is in it."""
    tag = _tag(ref, told, PartKind.SECURITY_GROUP)
    if not tag:
        return None
    name = marks.slot_name(ref, str(told.get("name", "")))
    ready = groups.is_open(told) and not groups.doubles(told)
    return _part(told, tag, PartKind.SECURITY_GROUP, name, ready=ready, used_by=holder)


def server_group(ref: ClusterRef, told: Json) -> Part | None:
    if told.get("name") != marks.server_group_name(ref):
        return None
    return _part(told, ref.tag(PartKind.SERVER_GROUP), PartKind.SERVER_GROUP, "workers")


def floating_ip(ref: ClusterRef, told: Json, ports: Mapping[str, Port]) -> Part | None:
    """A floating IP of ours, or one that was there before and that a person gave to our head: that one is kept.

    Ours is ready when a port of the cluster holds it: a person may have given it to another machine.
    """
    tag, held = _tag(ref, told, PartKind.FLOATING_IP), str(told.get("port_id") or "")
    if tag:
        return _part(told, tag, PartKind.FLOATING_IP, "head", ready=held in ports, used_by=held)
    if held in ports:
        lent = ref.tag(PartKind.FLOATING_IP)
        part = _part(told, lent, PartKind.FLOATING_IP, "head", used_by=held)
        return Part(part.uuid, lent, part.kind, part.name, used_by=held, created=part.created, kept=True)
    return None


def volume(ref: ClusterRef, told: Json) -> Part | None:
    metadata: Mapping[str, str] = told.get("metadata") or {}
    tag = marks.tag_in(metadata.get(marks.MARK))
    status = str(told.get("status", ""))
    if tag != ref.tag(PartKind.VOLUME):
        return None
    attached: Sequence[Json] = told.get("attachments") or []
    return Part(
        uuid=told["id"],
        tag=tag,
        kind=PartKind.VOLUME,
        name=metadata.get(marks.SLOT) or marks.slot_name(ref, str(told.get("name", ""))),
        ready=status in _VOLUME_READY,
        fault=f"Cinder says {status}" if status.startswith("error") else "",
        used_by=str(attached[0].get("server_id", "")) if attached else "",
        created=moment(told.get("created_at")),
        kept=marks.KEPT in metadata,
        status=status,
    )
