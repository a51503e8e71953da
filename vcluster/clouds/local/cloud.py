"""``cloud: local``: machines under QEMU on this host, as an ordinary user, with no daemon but the machines themselves.

A machine outlives the process that made it. Everything that another process must know lies in the folder that
:mod:`vcluster.clouds.local.records` describes; the order of the steps is such that a process killed between any two
leaves something that is observed for what it is, and can be deleted.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid as uuids
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vcluster.clouds.base import ClusterSummary, Notify
from vcluster.clouds.local import accel, room, seed, state, switch, vm
from vcluster.clouds.local.files import (
    NEW,
    TRASH,
    locked,
    private_dir,
    remove_tree,
    write_atomic,
)
from vcluster.clouds.local.processes import machine_id
from vcluster.clouds.local.records import ClusterFolder, MachineRecord, Wish, check_owned, created_at, mac_of, tidy
from vcluster.clouds.plain import PlainCloud
from vcluster.errors import ConflictError, PermanentError, VclusterError, disk_errors
from vcluster.model import (
    ClusterRef,
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
)
from vcluster.places import cache_root, state_root

if TYPE_CHECKING:
    from vcluster.clouds.local.image import BaseImage

__all__ = ["LocalCloud"]


class LocalCloud(PlainCloud):
    """The :class:`vcluster.clouds.base.Cloud` of this host.

    Args:
        home: where state lies; default ``VCLUSTER_HOME``, or what is usual on this system.
        cache: where images lie; default ``VCLUSTER_CACHE``, or what is usual on this system.
    """

    name = "local"

    listing_lag = 0.0

    @property
    def place(self) -> str:
        """This computer, and where on its disk."""
        return f"this computer ({self._clouds})"

    guarded = ("10.0.2.0/24", "169.254.169.254")
    """Any address of QEMU's user network may lead to the host's own loopback, not only 10.0.2.2; IPv6 is off there."""

    def __init__(self, home: Path | None = None, cache: Path | None = None) -> None:
        self._home = (home or state_root()).resolve()
        self._cache = (cache or cache_root()).resolve()
        self._clouds = self._home / "local"
        self._lock = threading.Lock()
        self._accel: accel.Accel | None = None
        self._said = False
        self._images: dict[str, BaseImage] = {}

    # -- what the cloud is -------------------------------------------------------------------------------

    @property
    @disk_errors("cannot try how machines run here")
    def accelerator(self) -> accel.Accel:
        """How machines are run here; tried at the first call."""
        with self._lock:
            if self._accel is None:
                self._accel = accel.accelerator(self._cache)
            return self._accel

    @property
    def boot_timeout(self) -> float:
        """Seconds; emulation on a busy host is slow."""
        return 300.0 if self.accelerator.native else 1500.0

    @property
    def _grace(self) -> float:
        return 60.0 if self.accelerator.native else 180.0

    def ref(self, name: str) -> ClusterRef:
        """This host, this state folder, this user: two state folders never meet."""
        return ClusterRef(name=name, project=f"{machine_id()}:{self._home}", creator=str(os.getuid()))

    def now(self) -> float:
        return time.time()

    def flavor(self, name: str) -> Flavor:
        if name not in room.FLAVORS:
            sizes = ", ".join(f"{f.name} ({f.cpus} cpu, {f.memory} MiB, {f.disk} GiB)" for f in room.FLAVORS.values())
            raise PermanentError(f"the local cloud has no flavor {name!r}", remedy=f"one of: {sizes}")
        return room.FLAVORS[name]

    @disk_errors("cannot have the image")
    def image(self, request: ImageRequest, notify: Notify, cancel: threading.Event | None = None) -> str:
        from vcluster.clouds.local.image import ensure_image

        found = self.accelerator
        with self._lock:
            say, self._said = not self._said and not found.native, True
        if say:
            notify(f"machines run in software emulation, which is slow: {found.detail}")
        image = ensure_image(request, private_dir(self._cache), notify, home=self._home, cancel=cancel)
        with self._lock:
            self._images[image.id] = image
        return image.id

    @disk_errors("cannot see what room there is")
    def check_room(self, ref: ClusterRef, flavors: Sequence[Flavor]) -> None:
        switch.check_socket_path(self._clouds / ref.id)
        room.check(self._clouds, self._folders(), flavors, self.accelerator)

    # -- looking -----------------------------------------------------------------------------------------

    @disk_errors("cannot read what there is")
    def observe(self, ref: ClusterRef, since: Observed | None = None) -> Observed:
        folder = self._folder(ref)
        network = folder.network()
        machines = state.picture(folder, folder.machines())
        return Observed(
            networks=() if network is None else (network,),
            ports=tuple(folder.ports()),
            machines=machines,
            notes={} if network is None else folder.notes(),
        )

    @disk_errors("cannot read what there is")
    def clusters(self) -> Sequence[ClusterSummary]:
        summaries = []
        for path in self._cluster_paths():
            found = created_at(path)
            if found is None:
                continue
            folder = self._folder(found[0])
            if folder.empty:
                continue
            machines = state.picture(folder, folder.machines())
            active = sum(machine.state is MachineState.ACTIVE for machine in machines)
            summaries.append(ClusterSummary(found[0], machines=len(machines), active=active, created=found[1]))
        return summaries

    @disk_errors("cannot read the console")
    def console(self, ref: ClusterRef, uuid: str, lines: int) -> str:
        path = self._folder(ref).machine_path(uuid)
        return vm.tail(path / "console.log", lines) or vm.tail(path / "qemu.log", lines)

    @disk_errors("cannot read what there is")
    def forward(self, ref: ClusterRef, uuid: str) -> Endpoint | None:
        record = self._folder(ref).machine(uuid)
        return Endpoint("127.0.0.1", record.ssh_port) if record is not None and record.ssh_port else None

    # -- networks, ports, notes --------------------------------------------------------------------------

    @disk_errors("cannot make the cluster's folder")
    def create_network(self, ref: ClusterRef, tag: str, apart: Sequence[str] = ()) -> Network:
        check_owned(ref, tag, "the network")
        folder = self._folder(ref)
        switch.check_socket_path(folder.path)
        cidr, now = switch.choose_cidr(switch.host_routes(), apart), self.now()
        folder.create(network := Network(str(uuids.uuid4()), tag, cidr, created=now), now)
        return network

    @disk_errors("cannot write what there is")
    def create_ports(self, ref: ClusterRef, requests: Sequence[PortRequest]) -> Sequence[Port]:
        folder = self._folder(ref)
        with folder.lock() as there:
            if not there:
                raise ConflictError(f"cluster {ref.name!r} has no network to make ports on")
            return folder.create_ports(requests, self.now())

    @disk_errors("cannot remove ports")
    def delete_ports(self, ref: ClusterRef, uuids: Sequence[str]) -> None:
        folder = self._folder(ref)
        with folder.lock() as there:
            if there:
                folder.remove_ports(uuids)
        self._tidy(folder)

    @disk_errors("cannot remove the cluster's folder")
    def delete_network(self, ref: ClusterRef, uuid: str) -> None:
        folder = self._folder(ref)
        with folder.lock() as there:
            network = folder.network() if there else None
            if network is not None and network.uuid == uuid:
                check_owned(ref, network.tag, "the network")
                if folder.machines() or folder.ports():
                    raise ConflictError(f"the network of cluster {ref.name!r} is in use")
                switch.stop(folder.sockets)
                remove_tree(folder.path)  # in one rename: never a cluster without its network, but with its notes
        self._tidy(folder)

    @disk_errors("cannot write the cluster's notes")
    def annotate(self, ref: ClusterRef, notes: dict[str, str]) -> None:
        folder = self._folder(ref)
        with folder.lock() as there:
            if not there:
                raise ConflictError(f"nothing of cluster {ref.name!r} is there to write notes on")
            folder.annotate(notes)

    # -- machines ----------------------------------------------------------------------------------------

    @disk_errors("cannot make the machine")
    def create_machine(self, ref: ClusterRef, request: MachineRequest) -> Machine:
        check_owned(ref, request.tag, f"machine {request.name}")
        folder = self._folder(ref)
        network = folder.network()
        if network is None:
            raise ConflictError(f"cluster {ref.name!r} has no network")
        switch.check_socket_path(folder.path)
        image = self._image(request.image)
        record = self._record(request, image)
        path = folder.machine_path(record.uuid)
        with folder.building(record):
            try:
                vm.create_disk(path, image.disk, record.disk)
                write_atomic(path / "seed.iso", self._seed(record, request, network))
                vm.launch(folder, record, self.accelerator)
            except BaseException:  # Ctrl-C too: what cannot be finished is not left half done
                vm.end(path, record)
                remove_tree(path)
                raise
        found = next((m for m in self.observe(ref).machines if m.uuid == record.uuid), None)
        if found is None:
            raise ConflictError(f"machine {request.name} was deleted as soon as it was made")
        return found

    @disk_errors("cannot remove the machine")
    def delete_machine(self, ref: ClusterRef, uuid: str) -> None:
        folder = self._folder(ref)
        path = folder.machine_path(uuid)
        if folder.machine(uuid) is None:
            return
        with locked(path, what=f"machine {uuid}", timeout=self._grace + 30) as there:
            record = folder.machine(uuid) if there else None
            if record is not None:
                check_owned(ref, record.tag, f"machine {record.name}")
                with contextlib.suppress(OSError):  # on a full disk it goes all the same
                    folder.save(replace(record, wish=Wish.DELETED))
                vm.end(path, record)
                remove_tree(path)
        self._tidy(folder)

    def start_machine(self, ref: ClusterRef, uuid: str) -> None:
        self._with_machine(ref, uuid, self._start)

    def stop_machine(self, ref: ClusterRef, uuid: str) -> None:
        self._with_machine(ref, uuid, self._stop)

    def shelve_machine(self, ref: ClusterRef, uuid: str) -> None:
        self._with_machine(ref, uuid, self._shelve)

    def unshelve_machine(self, ref: ClusterRef, uuid: str) -> None:
        self._with_machine(ref, uuid, self._start)

    def reboot_machine(self, ref: ClusterRef, uuid: str) -> None:
        self._with_machine(ref, uuid, self._reboot)

    def _start(self, folder: ClusterFolder, record: MachineRecord) -> None:
        if state.live(folder, [record]):
            if record.wish != Wish.RUNNING:
                folder.save(replace(record, wish=Wish.RUNNING))
            return
        self._boot(folder, record)

    def _stop(self, folder: ClusterFolder, record: MachineRecord, wish: Wish = Wish.OFF) -> None:
        if not _whole(folder, record):  # it stays in ERROR, to be deleted
            vm.end(folder.machine_path(record.uuid), record)
            return
        # The wish first: a machine that goes down from here on does so because it was told to.
        folder.save(replace(record, wish=wish))
        vm.power_down(folder.machine_path(record.uuid), record, grace=self._grace)

    def _shelve(self, folder: ClusterFolder, record: MachineRecord) -> None:
        self._stop(folder, record, Wish.SHELVED)

    def _reboot(self, folder: ClusterFolder, record: MachineRecord) -> None:
        if vm.resume(folder, record):
            return
        vm.end(folder.machine_path(record.uuid), record)
        self._boot(folder, record)

    def _boot(self, folder: ClusterFolder, record: MachineRecord) -> None:
        if not _whole(folder, record):
            raise PermanentError(
                f"machine {record.name} has no disk to boot from", remedy="delete it; `vcluster up` makes another"
            )
        vm.launch(folder, record, self.accelerator)

    @disk_errors("cannot change the machine")
    def _with_machine(self, ref: ClusterRef, uuid: str, act: Callable[[ClusterFolder, MachineRecord], None]) -> None:
        folder = self._folder(ref)
        with locked(folder.machine_path(uuid), what=f"machine {uuid}", timeout=self._grace + 30) as there:
            record = folder.machine(uuid) if there else None
            if record is None:
                raise ConflictError(f"cluster {ref.name!r} has no machine {uuid}")
            check_owned(ref, record.tag, f"machine {record.name}")
            act(folder, record)

    # -- helpers -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Nothing is held open, and machines live on; what killed processes left half made is swept up."""
        with contextlib.suppress(VclusterError, OSError):  # the next one will
            tidy(self._clouds)

    def _folder(self, ref: ClusterRef) -> ClusterFolder:
        return ClusterFolder(self._clouds, ref)

    def _cluster_paths(self) -> list[Path]:
        there = self._clouds.iterdir() if self._clouds.is_dir() else ()
        return sorted(p for p in there if p.is_dir() and not p.name.startswith((NEW, TRASH)))

    def _folders(self) -> list[ClusterFolder]:
        found = [created_at(path) for path in self._cluster_paths()]
        return [self._folder(one[0]) for one in found if one is not None]

    def _tidy(self, folder: ClusterFolder) -> None:
        with folder.lock() as there:
            if there:
                folder.remove_if_empty()
        tidy(self._clouds)

    def _image(self, image_id: str) -> BaseImage:
        with self._lock:
            known = self._images.get(image_id)
        if known is None:
            from vcluster.clouds.local.image import BaseImage, list_images

            known = next((image for image in list_images(self._cache) if image.id == image_id), None)
            if known is None and Path(image_id).is_file():  # the user's own, which lies where it lies
                known = BaseImage(image_id, Path(image_id), None, None)
        if known is None:
            raise PermanentError(f"there is no image {image_id} in {self._cache}", remedy="run `vcluster up` again")
        return known

    def _record(self, request: MachineRequest, image: BaseImage) -> MachineRecord:
        flavor = request.flavor
        return MachineRecord(
            uuid=str(uuids.uuid4()),
            tag=request.tag,
            name=request.name,
            role=request.role.value,
            group=request.group,
            flavor=flavor.name,
            cpus=flavor.cpus,
            memory=flavor.memory,
            disk=flavor.disk,
            port=request.port.uuid,
            address=request.port.address,
            mac=request.port.mac,
            image=image.id,
            kernel=str(image.kernel or ""),
            initrd=str(image.initrd or ""),
            wish=Wish.BUILDING,
            created=self.now(),
            doors=tuple((port, 0) for port in request.doors),
        )

    def _seed(self, record: MachineRecord, request: MachineRequest, network: Network) -> bytes:
        return seed.seed_iso(
            instance_id=record.uuid,
            hostname=record.name,
            user_data=request.user_data,
            network=seed.network_config(
                private_mac=record.mac,
                address=record.address,
                prefix=int(network.cidr.rpartition("/")[2]),
                mtu=network.mtu,
                outside_mac=mac_of(record.address, outside=True),
            ),
        )


def _whole(folder: ClusterFolder, record: MachineRecord) -> bool:
    """Whether a machine can be booted; one whose deletion was interrupted can, since its files go in one rename."""
    path = folder.machine_path(record.uuid)
    return record.wish != Wish.BUILDING and all((path / name).exists() for name in ("disk.qcow2", "seed.iso"))
