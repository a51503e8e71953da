"""The lab's own Nova driver: a server is a QEMU of the local cloud's kind, with an OpenStack machine's surroundings.

Configure Nova with ``compute_driver = lab_qemu.QemuDriver`` and this folder in ``nova.virt``'s path, and with
``resume_guests_state_on_host_boot = true`` if machines should come back when Nova does. ``PYTHONPATH`` has this folder,
the folder of ``lab_nova`` and the repository (for ``vcluster``). Environment:

- ``LAB_QEMU_DIR``: where machines, boot volumes and networks lie. A path of at most 60 bytes: sockets lie in it.
- ``LAB_IMAGE``: a folder of the local cloud's image cache (``disk.qcow2``, ``kernel``, ``initrd``), default the newest.
  Every image in Glance stands for it, so that nobody uploads a gigabyte; only a snapshot of this driver's is really
  read.
- ``LAB_FIP_PORTS``: the TCP ports of a floating IP, default ``22,80,443,6443``.
- ``VCLUSTER_CACHE``: where it is remembered whether this host has an accelerator that works.

What a machine has of OpenStack: one network card for each port, on a segment of its own network, with the port's MAC
address; Nova's own config drive, made by Nova's own code, so that addresses, gateway, MTU and user data are what Nova
and Neutron say (the addresses as static ones: nobody answers DHCP); a gateway that is a router on that segment; a
floating IP that leads to it. A config drive is always there, because there is no metadata service, which would serve
the same. What it lacks: security groups are not enforced, a floating IP has only the ports above, volumes are attached
only as boot disks, and nothing migrates.

A snapshot, and so a shelved server, is the disk's own layer, uploaded to Glance and read back.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from lab_keeper import Child, Keeper
from lab_machine import Card, Image, Machine, Size
from lab_monitor import MonitorError
from lab_nova import LabDriver
from lab_segment import Segment
from nova import context as nova_context
from nova import exception, objects
from nova.api.metadata import base as instance_metadata
from nova.compute import power_state, task_states
from nova.image import glance
from nova.network import model as network_model
from nova.virt import configdrive, driver, fake, hardware
from nova.virt import event as virtevent
from oslo_log import log as logging

from vcluster.clouds.local.accel import Accel, accelerator, qemu_binary
from vcluster.clouds.local.image import list_images
from vcluster.errors import VclusterError
from vcluster.places import cache_root

__all__ = ["QemuDriver"]

LOG = logging.getLogger("nova.virt.lab_qemu")

LAYER_OF = "vcluster_lab_layer_of"
"""Property of a snapshot's image: the name of the image that the layer stands on."""

_LOOK = 1.0
"""Seconds between two looks which floating IPs lead where."""


class _Host:
    """What all computes of this process share: they stand on one machine."""

    def __init__(self) -> None:
        self.root = Path(os.environ["LAB_QEMU_DIR"]).absolute()
        self.image = Image(_image_folder())
        self.ports = [int(port) for port in os.environ.get("LAB_FIP_PORTS", "22,80,443,6443").split(",")]
        self.root.mkdir(parents=True, mode=0o700, exist_ok=True)
        self.machines: dict[str, tuple[QemuDriver, Machine]] = {}
        self.segments: dict[str, Segment] = {}
        self.keeper = Keeper(self._exited)
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name="lab-floating", daemon=True).start()

    @property
    def accel(self) -> Accel:
        """How machines run here; tried at the first call."""
        return accelerator(cache_root())

    def machine(self, owner: QemuDriver, instance: objects.Instance) -> Machine:
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


def _static(network_info: Any) -> Any:
    """The same for machines on networks without DHCP: nobody here answers it, so the config drive has the addresses."""
    plain = json.loads(json.dumps(list(network_info)))
    for vif in plain:
        for subnet in vif["network"]["subnets"]:
            subnet["meta"].pop("enable_dhcp", None)
    return network_model.NetworkInfo.hydrate(plain)


@cache
def _host() -> _Host:
    return _Host()


class QemuDriver(LabDriver):
    """FakeDriver whose servers are machines."""

    capabilities: ClassVar[dict[str, bool]] = {**LabDriver.capabilities, "supports_image_type_qcow2": True}

    def init_host(self, host: str) -> None:
        super().init_host(host)
        lab = _host()
        for instance in objects.InstanceList.get_by_host(nova_context.get_admin_context(), host):
            # All machines ended with the Nova that ran them; a disk that is there can be started.
            machine = lab.machine(self, instance)
            if machine.disk.exists():
                self.instances[instance.uuid] = fake.FakeInstance(instance.name, power_state.SHUTDOWN, instance.uuid)

    # -- life --------------------------------------------------------------------------------------------

    def spawn(  # noqa: PLR0917
        self,
        context: Any,
        instance: objects.Instance,
        image_meta: Any,
        injected_files: Any,
        admin_password: str | None,
        allocations: Any,
        network_info: Any = None,
        block_device_info: Any = None,
        power_on: bool = True,
        accel_info: Any = None,
    ) -> None:
        super().spawn(
            context,
            instance,
            image_meta,
            injected_files,
            admin_password,
            allocations,
            network_info,
            block_device_info,
            power_on,
            accel_info,
        )
        lab = _host()
        machine = lab.machine(self, instance)
        try:
            self._make_disk(context, machine, instance, image_meta, block_device_info)
            extra = {"admin_pass": admin_password} if admin_password else {}
            metadata = instance_metadata.InstanceMetadata(
                instance, content=injected_files, extra_md=extra, network_info=_static(network_info)
            )
            with configdrive.ConfigDriveBuilder(instance_md=metadata) as builder:
                builder.make_drive(str(machine.seed))
            machine.seed.chmod(0o600)
            if power_on:
                self._switch_on(machine, instance, network_info)
        except (VclusterError, RuntimeError, OSError) as error:
            LOG.exception("cannot make machine %s", instance.uuid)
            super().destroy(context, instance, network_info, block_device_info)
            lab.forget(instance.uuid)
            raise exception.InstanceDeployFailure(reason=str(error)) from error

    def _make_disk(
        self, context: Any, machine: Machine, instance: objects.Instance, image_meta: Any, block_device_info: Any
    ) -> None:
        volume = _boot_volume(block_device_info)
        if volume is not None:
            machine.create_disk(volume["volume_size"] or 0, volume=_volume_file(volume))
            return
        with tempfile.TemporaryDirectory(dir=_host().root, prefix="image-") as folder:
            layer = Path(folder, "layer.qcow2") if _is_layer(context, image_meta) else None
            if layer is not None:
                glance.API().download(context, image_meta.id, dest_path=str(layer))
            machine.create_disk(instance.flavor.root_gb, layer=layer)

    def _switch_on(self, machine: Machine, instance: objects.Instance, network_info: Any) -> None:
        lab = _host()
        flavor = instance.flavor
        size = Size(flavor.vcpus, flavor.memory_mb, flavor.root_gb)
        machine.start(size, lab.cards(instance, network_info), lab.accel)

    def destroy(  # noqa: PLR0917
        self,
        context: Any,
        instance: objects.Instance,
        network_info: Any,
        block_device_info: Any = None,
        destroy_disks: bool = True,
        destroy_secrets: bool = True,
    ) -> None:
        _host().forget(instance.uuid)
        volume = _boot_volume(block_device_info)
        if volume is not None and volume["delete_on_termination"] and instance.task_state == task_states.DELETING:
            _volume_file(volume).unlink(missing_ok=True)
        super().destroy(context, instance, network_info, block_device_info, destroy_disks, destroy_secrets)

    def power_off(self, instance: objects.Instance, timeout: int = 0, retry_interval: int = 0) -> None:
        super().power_off(instance, timeout, retry_interval)
        machine = _host().machine(self, instance)
        if timeout:
            machine.power_down()
        else:
            machine.kill()

    def power_on(  # noqa: PLR0917
        self,
        context: Any,
        instance: objects.Instance,
        network_info: Any,
        block_device_info: Any = None,
        accel_info: Any = None,
        share_info: Any = None,
    ) -> None:
        super().power_on(context, instance, network_info, block_device_info, accel_info, share_info)
        self._switch_on(_host().machine(self, instance), instance, network_info)

    def reboot(  # noqa: PLR0917
        self,
        context: Any,
        instance: objects.Instance,
        network_info: Any,
        reboot_type: str,
        block_device_info: Any = None,
        bad_volumes_callback: Any = None,
        accel_info: Any = None,
        share_info: Any = None,
    ) -> None:
        machine = _host().machine(self, instance)
        if reboot_type.lower() == "soft":
            machine.power_down()
        else:
            machine.kill()
        self.power_on(context, instance, network_info, block_device_info)

    def resume_state_on_host_boot(
        self,
        context: Any,
        instance: objects.Instance,
        network_info: Any,
        share_info: Any,
        block_device_info: Any = None,
    ) -> None:
        self.power_on(context, instance, network_info, block_device_info)

    def pause(self, instance: objects.Instance) -> None:
        _host().machine(self, instance).pause()
        self.instances[instance.uuid].state = power_state.PAUSED

    def unpause(self, instance: objects.Instance) -> None:
        _host().machine(self, instance).resume()
        self.instances[instance.uuid].state = power_state.RUNNING

    def suspend(self, context: Any, instance: objects.Instance) -> None:
        _host().machine(self, instance).pause()
        self.instances[instance.uuid].state = power_state.SUSPENDED

    def resume(
        self,
        context: Any,
        instance: objects.Instance,
        network_info: Any,
        block_device_info: Any = None,
        share_info: Any = None,
    ) -> None:
        self.unpause(instance)

    # -- looking -----------------------------------------------------------------------------------------

    def get_info(self, instance: objects.Instance, use_cache: bool = True) -> hardware.InstanceInfo:
        told = super().get_info(instance, use_cache).state
        alive = _host().machine(self, instance).alive
        return hardware.InstanceInfo(state=told if alive else power_state.SHUTDOWN)

    def get_console_output(self, context: Any, instance: objects.Instance) -> bytes:
        return _host().machine(self, instance).console()

    # -- snapshots ---------------------------------------------------------------------------------------

    def snapshot(self, context: Any, instance: objects.Instance, image_id: str, update_task_state: Any) -> None:
        if instance.uuid not in self.instances:
            raise exception.InstanceNotRunning(instance_id=instance.uuid)
        lab = _host()
        update_task_state(task_state=task_states.IMAGE_PENDING_UPLOAD)
        with tempfile.TemporaryDirectory(dir=lab.root, prefix="snapshot-") as folder:
            layer = Path(folder, "layer.qcow2")
            try:
                lab.machine(self, instance).save_layer(layer)
            except (RuntimeError, OSError, MonitorError) as error:
                raise exception.NovaException(f"cannot copy the disk: {error}") from error
            update_task_state(task_state=task_states.IMAGE_UPLOADING, expected_state=task_states.IMAGE_PENDING_UPLOAD)
            properties = {LAYER_OF: lab.image.folder.name}
            with layer.open("rb") as data:
                metadata = {"disk_format": "qcow2", "container_format": "bare", "properties": properties}
                glance.API().update(context, image_id, metadata, data, purge_props=False)


def _is_layer(context: Any, image_meta: Any) -> bool:
    if not image_meta.obj_attr_is_set("id") or not image_meta.id:
        return False
    known = glance.API().get(context, image_meta.id)["properties"].get(LAYER_OF)
    if known and known != _host().image.folder.name:
        raise RuntimeError(f"the snapshot stands on {known}, and this lab has {_host().image.folder.name}")
    return bool(known)


def _boot_volume(block_device_info: Any) -> Any:
    for mapping in driver.block_device_info_get_mapping(block_device_info):
        if mapping.get("boot_index") == 0:
            return mapping
    return None


def _volume_file(mapping: Any) -> Path:
    return _host().root / "volumes" / f"{mapping['volume_id']}.qcow2"
