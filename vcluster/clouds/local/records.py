"""The local cloud's own record: one folder for each cluster, one small JSON file for each resource.

::

    <root>/local/<cluster id>/
        cluster.json  lock      who it is; one writer at a time
        network.json            there once the network was asked for
        notes.json
        ports/<name>.json       the name in the file system is what makes a twin impossible
        net/                    sockets of the cluster's switch
        machines/<8 hex>/       machine.json, lock, disk.qcow2, seed.iso, console.log, events.out, qmp.sock, …

A port's user is not written down: it is the machine whose record names the port, so that the two cannot disagree.
"""

from __future__ import annotations

import contextlib
import ipaddress
import uuid as uuids
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from vcluster.clouds.local.files import (
    LOCK,
    NEW,
    TRASH,
    locked,
    private_dir,
    read_json,
    remove_tree,
    sweep,
    sync_dir,
    write_json,
)
from vcluster.errors import CloudError, ConflictError, PermanentError, disk_error
from vcluster.model import ClusterRef, Flavor, Network, Port, PortRequest, Role

__all__ = ["ClusterFolder", "MachineRecord", "Wish", "check_owned"]

FIRST_HOST = 10
"""Addresses below are kept free for whatever a person wants to put on the network by hand."""


class Wish(StrEnum):
    """What a machine was last told to be."""

    BUILDING = "building"
    RUNNING = "running"
    OFF = "off"
    SHELVED = "shelved"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """All that a later process must know to run, stop or remove a machine. Holds no secret.

    Attributes:
        disk_id, kernel, initrd: the image's paths; kernel and initrd are empty for one that boots from its own disk.
        cpus, memory, disk: vCPUs, MiB, GiB.
        ssh_port: port on the host's loopback that leads to SSH; 0 for none.
        doors: its ports that are reached, too, each with the port on the host's loopback that leads there; 0 for none.
        created, started: seconds since the epoch.
        boot_id: which boot of the host it was started in.
        switch: which run of the cluster's switch its QEMU is connected to.
    """

    uuid: str
    tag: str
    name: str
    role: str
    group: str
    flavor: str
    cpus: int
    memory: int
    disk: int
    port: str
    address: str
    mac: str
    image: str
    kernel: str
    initrd: str
    wish: str
    created: float
    started: float = 0.0
    boot_id: str = ""
    switch: str = ""
    ssh_port: int = 0
    doors: tuple[tuple[int, int], ...] = ()

    @property
    def short(self) -> str:
        """The folder's name."""
        return self.uuid[:8]

    @property
    def size(self) -> Flavor:
        """Its flavor, as it was when it was made."""
        return Flavor(name=self.flavor, cpus=self.cpus, memory=self.memory, disk=self.disk)


def check_owned(ref: ClusterRef, tag: str, what: str) -> None:
    """The last look before anything is changed or removed.

    Raises:
        PermanentError: the resource carries another cluster's tag.
    """
    if not ref.owns(tag):
        raise PermanentError(f"{what} carries the tag {tag!r}, which is not of cluster {ref.name!r}: left alone")


class ClusterFolder:
    """One cluster's folder. Reading needs no lock; every change is made under :meth:`lock`."""

    def __init__(self, clouds: Path, ref: ClusterRef) -> None:
        self.clouds = clouds
        self.ref = ref
        self.path = clouds / ref.id
        self.sockets = self.path / "net"

    @contextlib.contextmanager
    def lock(self) -> Iterator[bool]:
        """Be the only one who changes this cluster; gives False when there is no such cluster (any more)."""
        with locked(self.path, what=f"cluster {self.ref.name!r}") as there:
            if there:
                sweep(self.path / "machines")
            yield there

    # -- the cluster itself ------------------------------------------------------------------------------

    def create(self, network: Network, now: float) -> None:
        """Make the folder, whole with its network, in one rename.

        Raises:
            ConflictError: the cluster has a network.
        """
        ref = {"name": self.ref.name, "project": self.ref.project, "creator": self.ref.creator}
        with _clouds_lock(self.clouds):
            if not self.path.exists():
                staging = private_dir(self.clouds / f"{NEW}{self.ref.id}")
                for folder in ("ports", "machines", "net"):
                    private_dir(staging / folder)
                write_json(staging / "cluster.json", {**ref, "created": now})
                write_json(staging / "network.json", asdict(network))
                (staging / LOCK).touch(mode=0o600)
                staging.rename(self.path)
                return
        with self.lock() as there:
            if not there or self.network() is not None:
                raise ConflictError(f"cluster {self.ref.name!r} has a network")
            (self.path / "notes.json").unlink(missing_ok=True)  # of the cluster that was
            write_json(self.path / "network.json", asdict(network))

    @property
    def empty(self) -> bool:
        """Whether nothing of the cluster is left but its folder."""
        return self.network() is None and not self.ports() and not self.machines()

    def remove_if_empty(self) -> None:
        """Take the whole folder away once nothing of the cluster is left. Call it with the lock held."""
        if self.empty:
            remove_tree(self.path)

    def network(self) -> Network | None:
        """The cluster's network, if it has one."""
        return _read(Network, self.path / "network.json")

    # -- notes -------------------------------------------------------------------------------------------

    def notes(self) -> dict[str, str]:
        """The cluster's notes."""
        return {str(key): str(value) for key, value in (read_json(self.path / "notes.json") or {}).items()}

    def annotate(self, notes: dict[str, str]) -> None:
        """Write notes; an empty value removes one. Call it with the lock held."""
        merged = {**self.notes(), **notes}
        write_json(self.path / "notes.json", {key: value for key, value in merged.items() if value})

    # -- ports -------------------------------------------------------------------------------------------

    def ports(self) -> list[Port]:
        """Every port, with the machine that uses it, in the order of their addresses."""
        users = {record.port: record.uuid for record in self.machines()}
        found = (_read(Port, path) for path in sorted((self.path / "ports").glob("*.json")))
        ports = [replace(port, device=users.get(port.uuid, "")) for port in found if port is not None]
        return sorted(ports, key=lambda port: ipaddress.ip_address(port.address))

    def create_ports(self, requests: Sequence[PortRequest], now: float) -> list[Port]:
        """Make all or none; a process killed half way leaves whole ports, which are observed. With the lock held.

        Raises:
            ConflictError: one of the names exists, or there is no network.
            PermanentError: the network has no address left.
        """
        network = self.network()
        if network is None:
            raise ConflictError(f"cluster {self.ref.name!r} has no network to make ports on")
        there = self.ports()
        taken = {port.name for port in there} & {request.name for request in requests}
        if taken:
            raise ConflictError(f"there is a port named {', '.join(sorted(taken))}")
        used = {port.address for port in there}
        free = (str(host) for host in _hosts(network.cidr) if str(host) not in used)
        made: list[Port] = []
        for request in requests:
            check_owned(self.ref, request.tag, f"port {request.name}")
            address = next(free, "")
            if not address:
                raise PermanentError(f"the network {network.cidr} has no address left")
            mac = mac_of(address, outside=False)
            uuid, claim = str(uuids.uuid4()), request.claim
            made.append(Port(uuid, request.tag, request.name, address, mac, "", now, network.uuid, claim))
        folder = self.path / "ports"
        try:
            for port in made:
                write_json(folder / f"{port.name}.json", _without(asdict(port), "device"), name_too=False)
            sync_dir(folder)
        except BaseException as error:
            for port in made:
                (folder / f"{port.name}.json").unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise disk_error(error, "cannot write a port's record") from error
            raise
        return made

    def remove_ports(self, uuids_: Sequence[str]) -> None:
        """Forget ports. Call it with the lock held.

        Raises:
            ConflictError: a machine uses one of them.
        """
        ports = [port for port in self.ports() if port.uuid in set(uuids_)]
        for port in ports:
            check_owned(self.ref, port.tag, f"port {port.name}")
            if port.device:
                raise ConflictError(f"port {port.name} is in use by machine {port.device}")
        for port in ports:
            (self.path / "ports" / f"{port.name}.json").unlink(missing_ok=True)

    # -- machines ----------------------------------------------------------------------------------------

    def machine_path(self, uuid: str) -> Path:
        """A machine's folder."""
        return self.path / "machines" / uuid[:8]

    def machine(self, uuid: str) -> MachineRecord | None:
        """A machine's record, or None when there is none of this uuid."""
        record = _read(MachineRecord, self.machine_path(uuid) / "machine.json") if uuid else None
        return record if record is not None and record.uuid == uuid else None

    def machines(self) -> list[MachineRecord]:
        """Every machine's record, in the order of their creation."""
        try:
            folders = sorted((self.path / "machines").iterdir())
        except FileNotFoundError:
            return []
        found = (_read(MachineRecord, f / "machine.json") for f in folders if not f.name.startswith((NEW, TRASH)))
        return sorted(
            (record for record in found if record is not None), key=lambda record: (record.created, record.name)
        )

    def save(self, record: MachineRecord) -> None:
        """Write a machine's record. Call it with the machine's lock held."""
        write_json(self.machine_path(record.uuid) / "machine.json", asdict(record))

    @contextlib.contextmanager
    def building(self, record: MachineRecord) -> Iterator[None]:
        """Put a new machine's folder in place and hold its lock; while it is held the machine is in BUILD.

        Raises:
            ConflictError: its port or its name is in use, or the port is gone.
        """
        staging = self.path / "machines" / f"{NEW}{record.short}"
        with contextlib.ExitStack() as held:
            with self.lock() as there:
                self._check_port(record, there=there)
                private_dir(staging)
                held.enter_context(locked(staging, what=f"machine {record.name}", create=True))
                write_json(staging / "machine.json", asdict(record))
                staging.rename(self.machine_path(record.uuid))
            yield

    def _check_port(self, record: MachineRecord, *, there: bool) -> None:
        port = next((port for port in self.ports() if port.uuid == record.port), None) if there else None
        if port is None:
            raise ConflictError(f"the port of machine {record.name} is gone")
        check_owned(self.ref, port.tag, f"port {port.name}")
        if port.device:
            raise ConflictError(f"port {port.name} is in use by machine {port.device}")
        if any(other.name == record.name for other in self.machines()):
            raise ConflictError(f"there is a machine named {record.name}")


_Kind = TypeVar("_Kind", MachineRecord, Network, Port)


def _read(kind: type[_Kind], path: Path) -> _Kind | None:
    value = read_json(path)
    try:
        return None if value is None else kind(**value)
    except TypeError as error:
        raise _foreign(path) from error


def _foreign(path: Path) -> PermanentError:
    return PermanentError(
        f"the record {path} was written by another version of vcluster",
        remedy="use that version, or the newest; nothing was changed",
    )


def created_at(folder: Path) -> tuple[ClusterRef, float] | None:
    """Which cluster a folder is of and since when, or None when it is no cluster's."""
    path = folder / "cluster.json"
    value = read_json(path)
    if value is None:
        return None
    try:
        ref = ClusterRef(name=value["name"], project=value["project"], creator=value["creator"])
        return ref, float(value["created"])
    except (KeyError, TypeError, ValueError) as error:
        raise _foreign(path) from error


def tidy(clouds: Path) -> None:
    """Remove what killed processes left, and the folder itself once no cluster lies in it."""
    if not clouds.exists():
        return
    with _clouds_lock(clouds):
        for path in clouds.iterdir():
            _remove_leftover(path)
        if {path.name for path in clouds.iterdir()} == {LOCK}:
            (clouds / LOCK).unlink()  # whoever waits for it looks again, and makes it anew
            for folder in (clouds, clouds.parent):
                with contextlib.suppress(OSError):  # keys and known hosts may lie in the parent
                    folder.rmdir()


def _remove_leftover(path: Path) -> None:
    """Remove a cluster's folder in which nothing is left; one that somebody is at work on, or cannot be read, stays."""
    with contextlib.suppress(CloudError):
        found = created_at(path) if path.is_dir() else None
        folder = ClusterFolder(path.parent, found[0]) if found is not None else None
        if folder is not None and folder.path == path and folder.empty:
            with locked(path, what="a leftover", timeout=0.0) as there:
                if there:
                    folder.remove_if_empty()


@contextlib.contextmanager
def _clouds_lock(clouds: Path) -> Iterator[None]:
    while True:
        private_dir(clouds)
        with locked(clouds, what="the local cloud's folder", create=True) as there:
            if there:
                sweep(clouds)
                yield
                return


def mac_of(address: str, *, outside: bool) -> str:
    """A locally administered MAC that holds the private address, and so is as unique as that."""
    kind = 0x77 if outside else 0x76
    return ":".join(f"{byte:02x}" for byte in (0x02, kind, *ipaddress.IPv4Address(address).packed))


def _hosts(cidr: str) -> Iterator[ipaddress.IPv4Address]:
    network = ipaddress.IPv4Network(cidr)
    return (network.network_address + n for n in range(FIRST_HOST, network.num_addresses - 1))


def _without(value: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name != key}


def role_of(record: MachineRecord) -> Role:
    """The record's role, as the model has it."""
    return Role(record.role)
