"""What exists: frozen pictures of a cloud's resources, and what is asked of a cloud."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from vcluster.identity import ClusterRef, PartKind, Role

__all__ = [
    "Allowance",
    "ClusterRef",
    "CommandResult",
    "Endpoint",
    "Flavor",
    "Health",
    "ImageRequest",
    "Layout",
    "Machine",
    "MachineRequest",
    "MachineState",
    "Network",
    "Observed",
    "Part",
    "PartKind",
    "PartRequest",
    "Port",
    "PortRequest",
    "Role",
    "Slot",
    "VolumeRequest",
    "Wishes",
]


class MachineState(StrEnum):
    """A machine's life as the cloud tells it (the names follow Nova's where it has one)."""

    BUILD = "BUILD"
    ACTIVE = "ACTIVE"
    SHUTOFF = "SHUTOFF"
    SHELVED = "SHELVED"
    ERROR = "ERROR"
    DELETING = "DELETING"
    UNKNOWN = "UNKNOWN"


class Health(StrEnum):
    """What the scheduler on the head says of a machine.

    UNKNOWN: nobody could be asked. BOOTING: no word yet since it started. READY: a job ran on it since
    this boot. BUSY: it is drained but users' jobs still run on it. DRAINED: drained, and empty.
    FAILED: it said itself that its configuration failed.
    """

    UNKNOWN = "unknown"
    BOOTING = "booting"
    READY = "ready"
    BUSY = "busy"
    DRAINED = "drained"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Flavor:
    """A machine size. ``memory`` is in MiB, ``disk`` in GiB."""

    name: str
    cpus: int
    memory: int
    disk: int


@dataclass(frozen=True, slots=True)
class Slot:
    """A place that a machine of the cluster may fill: the head, or worker ``n`` of a group (``cpu-1``).

    Attributes:
        root_disk: GiB of a volume to boot from; 0 for the flavor's own disk.
        zone: availability zone; empty for the cloud's choice.
        image: the cloud's name or id of an image for this place; empty for the cluster's.
    """

    name: str
    role: Role
    group: str
    flavor: Flavor
    root_disk: int = 0
    zone: str = ""
    image: str = ""


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """What a machine's disk starts from.

    Attributes:
        source: a path, a URL or the cloud's own name for an image; empty for the cloud's default.
        sha256: hex digest that a fetched image must have; empty for no check.
        install: the install steps, a shell script that runs as root: while the default image is built,
            or at first boot on any other.
        apt_mirror: where Debian packages come from, empty for the host's own sources.
        ca: PEM text of a certificate authority to trust, or empty.
    """

    source: str = ""
    sha256: str = ""
    install: str = ""
    apt_mirror: str = ""
    ca: str = ""


@dataclass(frozen=True, slots=True)
class Network:
    """A cluster's private network. ``cidr`` as ``10.77.0.0/24`` (empty while it has no subnet); ``mtu`` in bytes.

    Attributes:
        foreign: it was there before the cluster and carries no tag: used, never changed or deleted.
        created: seconds since the epoch, by the cloud's clock; 0 where it is not known.
    """

    uuid: str
    tag: str
    cidr: str
    mtu: int = 1500
    foreign: bool = False
    created: float = 0.0


@dataclass(frozen=True, slots=True)
class Port:
    """An address on the private network, made before the machine that will use it.

    Attributes:
        device: the machine's uuid while one holds the port, else an empty string.
        network: the network's uuid.
        created: seconds since the epoch, by the cloud's clock.
        claim: on the head's port, the fingerprint of the secret of whoever made it (see :class:`PortRequest`).
        subnet: the cluster's own subnet that it is on, by uuid; empty where that is not known, or is not its own.
    """

    uuid: str
    tag: str
    name: str
    address: str
    mac: str
    device: str = ""
    created: float = 0.0
    network: str = ""
    claim: str = ""
    subnet: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One resource of a :class:`PartKind`.

    Attributes:
        name: tells two of one kind apart (``head`` and ``members`` for security groups, the machine's for volumes).
        ready: it is complete and can be used.
        fault: why it never will be, in the cloud's words; such a part is deleted and made anew.
        used_by: uuid of what holds it, else an empty string: a volume's machine, a floating IP's port, a gateway's
            router, a port in a security group or on a subnet (the head's where it is one of them), else a subnet's
            network.
        created: seconds since the epoch, by the cloud's clock.
        kept: a person asked for it to stay when its cluster went.
        network: uuid of the network that a subnet or a gateway is on, else an empty string.
        status: a volume's state in the cloud's own word, for people; empty where there is none.
        maker: the software on the cluster that made it, for people (``Kubernetes``); empty: vcluster did. Such a part
            goes with the cluster, and is not looked at before (see :meth:`vcluster.clouds.base.Cloud.offspring`).
    """

    uuid: str
    tag: str
    kind: PartKind
    name: str
    ready: bool = True
    fault: str = ""
    used_by: str = ""
    created: float = 0.0
    kept: bool = False
    network: str = ""
    status: str = ""
    maker: str = ""


@dataclass(frozen=True, slots=True)
class PartRequest:
    """What is asked of a cloud for one part; ``detail`` is the cloud's own, from its :class:`Layout`."""

    kind: PartKind
    name: str
    tag: str
    detail: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """What is asked of a cloud for a volume to boot from. ``size`` in GiB; ``image`` is an id."""

    name: str
    tag: str
    size: int
    image: str
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a spec says about a cluster's surroundings.

    Attributes:
        network: name or id of a network that exists; empty: the cloud chooses one, or makes one.
        external_network: name or id of the network that floating IPs come from; empty: the only one, or ``public``.
        public_ip: whether the head gets an address that is reached from outside.
        floating_ip: an address that exists, for the head; empty: a new one.
        allow_from: networks from which SSH to the head is let in.
        doors: other TCP ports of the head that people reach, each with the networks from which it is let in.
        slots: how many places for machines the network must have room for.
        zones: availability zones that machines shall be in.
        apart: networks that one of the cluster's own must not overlap.
    """

    network: str = ""
    external_network: str = ""
    public_ip: bool = True
    floating_ip: str = ""
    allow_from: tuple[str, ...] = ("0.0.0.0/0",)
    doors: Mapping[int, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    slots: int = 1
    zones: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """What a cloud needs around a cluster's machines.

    Attributes:
        network: one that exists and is used as it is; None: the cluster gets its own.
        parts: every standing part that the cluster shall have (volumes are not among them).
    """

    network: Network | None = None
    parts: tuple[PartRequest, ...] = ()


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much of one resource a project may use; ``limit`` -1 is no limit.

    ``resource`` is one of instances, cores, ram (MiB), ports, networks, subnets, routers, security_groups,
    security_group_rules, floating_ips, server_groups, server_group_members (``used`` 0), volumes, gigabytes.
    """

    resource: str
    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a person's computer reaches a machine's SSH; ``jump`` is ``user@host[:port]`` to go through, or empty."""

    host: str
    port: int
    jump: str = ""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command on a machine gave back."""

    stdout: str
    stderr: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Machine:
    """A virtual machine.

    Attributes:
        port: uuid of its port.
        started: when it was last told to boot, seconds since the epoch by the cloud's clock.
        fault: why it is in ERROR, in the cloud's words; or what else is odd about its state.
        endpoint: how it is reached from outside (the head), or None.
        doors: where its other ports are reached from outside, by port (a head that is asked for them).
        host_key: the head's public SSH host key, as its create call said it; empty where the cloud does not keep it.
        self_contained: what runs on it makes nothing on the cloud, as its create call said; False: nobody knows.
    """

    uuid: str
    tag: str
    name: str
    role: Role
    group: str
    state: MachineState
    flavor: str
    port: str
    address: str
    started: float = 0.0
    fault: str = ""
    endpoint: Endpoint | None = None
    host_key: str = ""
    self_contained: bool = False
    doors: Mapping[int, Endpoint] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    @property
    def web(self) -> Endpoint | None:
        """Where its port 443 is reached from outside, or None."""
        return self.doors.get(443)


@dataclass(frozen=True, slots=True)
class PortRequest:
    """What is asked of a cloud for one port; identity goes with the call. ``network`` is a uuid.

    Attributes:
        claim: with the head's port, the fingerprint of the secret that this run will use. The oldest claim holds.
    """

    name: str
    tag: str
    network: str = ""
    claim: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class MachineRequest:
    """What is asked of a cloud for one machine; identity and configuration go with the call.

    ``user_data`` holds secrets, so this class has a ``repr`` without it.

    Attributes:
        volume: uuid of the volume to boot from, which goes with the machine; empty for the flavor's own disk.
        zone: availability zone, or empty.
        host_key: the head's public SSH host key, to be kept with the machine for other computers to read.
        doors: its ports that shall be reached from outside beside SSH, where that does not go by itself.
        self_contained: what will run on it makes nothing on the cloud; to be kept with the machine, too.
    """

    name: str
    tag: str
    role: Role
    group: str
    flavor: Flavor
    port: Port
    image: str
    user_data: str
    volume: str = ""
    zone: str = ""
    host_key: str = ""
    doors: tuple[int, ...] = ()
    self_contained: bool = False

    def __repr__(self) -> str:
        return f"MachineRequest({self.name!r}, {self.flavor.name!r}, port={self.port.uuid!r})"


@dataclass(frozen=True, slots=True)
class Observed:
    """All that was seen of one cluster at one moment.

    Attributes:
        notes: the few words that a later run must know without the user's file: ``spec`` (digest),
            ``ready-at`` (seconds since the epoch, set once the cluster was first Ready),
            ``attempts/<machine>`` (how often it failed, and which boot failed last).
        health: machine name to :class:`Health`; empty when the head could not be asked.
    """

    networks: tuple[Network, ...] = ()
    ports: tuple[Port, ...] = ()
    machines: tuple[Machine, ...] = ()
    notes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    health: Mapping[str, Health] = field(default_factory=lambda: MappingProxyType({}))
    parts: tuple[Part, ...] = ()

    @property
    def empty(self) -> bool:
        """True when nothing of the cluster exists, but for what a person asked to keep."""
        own = any(not network.foreign for network in self.networks)
        return not (own or self.ports or self.machines or any(not part.kept for part in self.parts))

    @property
    def head(self) -> Machine | None:
        """The head's machine, if there is one."""
        return next((m for m in self.machines if m.role is Role.HEAD), None)

    def workers(self) -> Iterator[Machine]:
        """Every worker's machine."""
        return (m for m in self.machines if m.role is Role.WORKER)

    def with_health(self, health: Mapping[str, Health]) -> Observed:
        """The same picture with the scheduler's word on the machines that are on; it may not know yet which died."""
        active = {machine.name for machine in self.machines if machine.state is MachineState.ACTIVE}
        told = {name: word for name, word in health.items() if name in active}
        return replace(self, health=MappingProxyType(told))
