"""What all computes of one Nova process share, since they stand on one machine: machines, networks, their keeper."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from lab_keeper import Child, Keeper
from lab_machine import Card, Image, Machine
from lab_segment import Segment
from nova import context as nova_context
from nova import exception, objects
from nova.virt import driver
from nova.virt import event as virtevent
from oslo_log import log as logging

from vcluster.clouds.local.accel import Accel, accelerator, qemu_binary
from vcluster.clouds.local.image import list_images
from vcluster.places import cache_root

__all__ = ["Host", "the_host"]

LOG = logging.getLogger("nova.virt.lab_qemu")

_LOOK = 1.0
"""Seconds between two looks which floating IPs lead where."""


class Host:
    """Machines by their server's id, segments by their network's. Any thread may call."""

    def __init__(self) -> None:
        self.root = Path(os.environ["LAB_QEMU_DIR"]).absolute()
        self.image = Image(_image_folder())
        self.ports = [int(port) for port in os.environ.get("LAB_FIP_PORTS", "22,80,443,6443").split(",")]
        self.root.mkdir(parents=True, mode=0o700, exist_ok=True)
        self.machines: dict[str, tuple[driver.ComputeDriver, Machine]] = {}
        self.segments: dict[str, Segment] = {}
        self.keeper = Keeper(self._exited)
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name="lab-floating", daemon=True).start()

    @property
    def accel(self) -> Accel:
        """How machines run here; tried at the first call."""
        return accelerator(cache_root())

    def machine(self, owner: driver.ComputeDriver, instance: objects.Instance) -> Machine:
        """The server's machine, running or not."""
        with self._lock:
            if instance.uuid not in self.machines:
                folder = self.root / "vm" / instance.uuid[:8]
                made = Machine(self.keeper, folder, uuid=instance.uuid, name=instance.name, image=self.image)
                self.machines[instance.uuid] = (owner, made)
            return self.machines[instance.uuid][1]

    def cards(self, instance: objects.Instance, network_info: Any) -> list[Card]:
        """A network card for each port, its network's segment running."""
        cards = []
        for vif in network_info:
            with self._lock:
                segment = self._segment(vif)
                segment.users.add(instance.uuid)
            segment.ensure(qemu_binary())
            cards.append(Card(mac=vif["address"], sockets=segment.sockets))
        return cards

    def _segment(self, vif: Any) -> Segment:
        network = vif["network"]
        if network["id"] not in self.segments:
            subnet = next((subnet for subnet in network["subnets"] if subnet["version"] == 4), None)
            if subnet is None:
                raise RuntimeError(f"network {network['id']} has no subnet of IPv4")
            self.segments[network["id"]] = Segment(
                self.keeper,
                self.root / "net" / network["id"][:8],
                cidr=subnet["cidr"],
                gateway=subnet["gateway"]["address"] or "",
                ports=self.ports,
            )
        return self.segments[network["id"]]

    def forget(self, uuid: str) -> None:
        """A server is gone: so is its machine, and any segment that it was the last on."""
        with self._lock:
            _, machine = self.machines.pop(uuid, (None, None))
            unused = []
            for network, segment in list(self.segments.items()):
                segment.users.discard(uuid)
                if not segment.users:
                    unused.append(self.segments.pop(network))
            # Under the lock, because another server may want the same network now.
            for segment in unused:
                segment.stop()
        if machine is not None:
            machine.remove()

    def _exited(self, child: Child) -> None:
        kind, _, uuid = child.name.partition(" ")
        if kind != "machine" or child.wanted or uuid not in self.machines:
            return
        owner, _ = self.machines[uuid]
        LOG.info("machine %s has switched itself off", uuid)
        # Nova then asks for a state and a stop, which must not wait in the thread that reads the keeper's messages.
        event = virtevent.LifecycleEvent(uuid, virtevent.EVENT_LIFECYCLE_STOPPED)
        threading.Thread(target=owner.emit_event, args=(event,), name="lab-event", daemon=True).start()

    def _watch(self) -> None:
        """Let floating IPs lead to where Neutron says, of which Nova keeps a copy that Neutron brings up to date."""
        pause = threading.Event()
        while not pause.wait(_LOOK):
            try:
                self._follow()
            except Exception:  # the next look may find the database in a better mood
                LOG.exception("cannot follow floating IPs")

    def _follow(self) -> None:
        admin = nova_context.get_admin_context()
        with self._lock:
            segments = dict(self.segments)
            uuids = list(self.machines)
        wanted: dict[str, dict[str, str]] = {network: {} for network in segments}
        for uuid in uuids:
            try:
                found = objects.InstanceInfoCache.get_by_instance_uuid(admin, uuid).network_info
            except exception.InstanceInfoCacheNotFound:
                continue
            for network, floating, fixed in _floating(found):
                wanted.setdefault(network, {})[floating] = fixed
        for network, segment in segments.items():
            segment.forward(wanted[network])


def _image_folder() -> Path:
    if given := os.environ.get("LAB_IMAGE"):
        return Path(given).absolute()
    images = list_images(cache_root())
    if not images:
        raise RuntimeError("there is no image for machines: run `vcluster image build`, or set LAB_IMAGE")
    return images[-1].disk.parent


def _floating(network_info: Any) -> Iterator[tuple[str, str, str]]:
    for vif in network_info:
        for address in vif.fixed_ips():
            for floating in address["floating_ips"]:
                yield vif["network"]["id"], floating["address"], address["address"]


@cache
def the_host() -> Host:
    """The one of this process, made at the first call."""
    return Host()
