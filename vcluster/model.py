"""What exists: frozen pictures of a cloud's resources, and the names and tags that make them ours."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType

__all__ = [
    "ClusterRef",
    "CommandResult",
    "Endpoint",
    "Flavor",
    "Health",
    "ImageRequest",
    "Machine",
    "MachineRequest",
    "MachineState",
    "Network",
    "Observed",
    "Port",
    "PortRequest",
    "Role",
    "Slot",
]

TAG_PREFIX = "vcluster"


class Role(StrEnum):
    """What a resource is for; the last part of its tag."""

    NETWORK = "network"
    HEAD = "head"
    WORKER = "worker"


@lru_cache(maxsize=1024)
def _cluster_id(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:10]


@dataclass(frozen=True, slots=True)
class ClusterRef:
    """Which cluster: the same three words give the same id on every computer.

    Attributes:
        name: the spec's ``name``.
        project: the allocation it lives in (OpenStack project id; for the local cloud the host's machine id).
        creator: who made it (OpenStack user id; for the local cloud the numeric uid).
    """

    name: str
    project: str
    creator: str

    @property
    def id(self) -> str:
        """Ten hex digits of SHA-256 over project, creator and name."""
        return _cluster_id(self.project, self.creator, self.name)

    def tag(self, role: Role) -> str:
        """The mark that every resource carries from its create call on: ``vcluster/<id>/<role>``."""
        return f"{TAG_PREFIX}/{self.id}/{role}"

    def owns(self, tag: str) -> bool:
        """Whether a resource with this tag belongs to this cluster."""
        return tag.startswith(f"{TAG_PREFIX}/{self.id}/")


class MachineState(StrEnum):
    """A machine's life as the cloud tells it (the names follow Nova's where it has one)."""

    BUILD = "BUILD"
    ACTIVE = "ACTIVE"
    SHUTOFF = "SHUTOFF"
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
    """A place that a machine of the cluster may fill: the head, or worker ``n`` of a group (``cpu-1``)."""

    name: str
    role: Role
    group: str
    flavor: Flavor


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
    """A cluster's private network. ``cidr`` as ``10.77.0.0/24``; ``mtu`` in bytes."""

    uuid: str
    tag: str
    cidr: str
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class Port:
    """An address on the private network, made before the machine that will use it.

    Attributes:
        device: the machine's uuid while one holds the port, else an empty string.
        network: the network's uuid.
        created: seconds since the epoch, by the cloud's clock.
    """

    uuid: str
    tag: str
    name: str
    address: str
    mac: str
    device: str = ""
    created: float = 0.0
    network: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a person's computer reaches a machine's SSH."""

    host: str
    port: int


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
        fault: why it is in ERROR, in the cloud's words.
        endpoint: how it is reached from outside (the head), or None.
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


@dataclass(frozen=True, slots=True)
class PortRequest:
    """What is asked of a cloud for one port; identity goes with the call. ``network`` is a uuid."""

    name: str
    tag: str
    network: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class MachineRequest:
    """What is asked of a cloud for one machine; identity and configuration go with the call.

    ``user_data`` holds secrets, so this class has a ``repr`` without it.
    """

    name: str
    tag: str
    role: Role
    group: str
    flavor: Flavor
    port: Port
    image: str
    user_data: str

    def __repr__(self) -> str:
        return f"MachineRequest({self.name!r}, {self.flavor.name!r}, port={self.port.uuid!r})"


_NOTHING: Mapping[str, str] = MappingProxyType({})
_NO_HEALTH: Mapping[str, Health] = MappingProxyType({})


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
    notes: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    health: Mapping[str, Health] = field(default_factory=lambda: _NO_HEALTH)

    @property
    def empty(self) -> bool:
        """True when nothing of the cluster exists."""
        return not (self.networks or self.ports or self.machines)

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
