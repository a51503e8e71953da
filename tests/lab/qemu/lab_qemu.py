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
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from lab_host import the_host
from lab_machine import Machine, Size
from lab_monitor import MonitorError
from lab_nova import LabDriver
from nova import context as nova_context
from nova import exception, objects
from nova.api.metadata import base as instance_metadata
from nova.compute import power_state, task_states
from nova.image import glance
from nova.network import model as network_model
from nova.virt import configdrive, driver, fake, hardware
from oslo_log import log as logging

from vcluster.errors import VclusterError

__all__ = ["QemuDriver"]

LOG = logging.getLogger("nova.virt.lab_qemu")

LAYER_OF = "vcluster_lab_layer_of"
"""Property of a snapshot's image: the name of the image that the layer stands on."""


class QemuDriver(LabDriver):
    """FakeDriver whose servers are machines."""

    capabilities: ClassVar[dict[str, bool]] = {**LabDriver.capabilities, "supports_image_type_qcow2": True}

    def init_host(self, host: str) -> None:
        super().init_host(host)
        lab = the_host()
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
        lab = the_host()
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
        with tempfile.TemporaryDirectory(dir=the_host().root, prefix="image-") as folder:
            layer = Path(folder, "layer.qcow2") if _is_layer(context, image_meta) else None
            if layer is not None:
                glance.API().download(context, image_meta.id, dest_path=str(layer))
            machine.create_disk(instance.flavor.root_gb, layer=layer)

    def _switch_on(self, machine: Machine, instance: objects.Instance, network_info: Any) -> None:
        lab = the_host()
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
        the_host().forget(instance.uuid)
        volume = _boot_volume(block_device_info)
        if volume is not None and volume["delete_on_termination"] and instance.task_state == task_states.DELETING:
            _volume_file(volume).unlink(missing_ok=True)
        super().destroy(context, instance, network_info, block_device_info, destroy_disks, destroy_secrets)

    def power_off(self, instance: objects.Instance, timeout: int = 0, retry_interval: int = 0) -> None:
        super().power_off(instance, timeout, retry_interval)
        machine = the_host().machine(self, instance)
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
        self._switch_on(the_host().machine(self, instance), instance, network_info)

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
        machine = the_host().machine(self, instance)
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
        the_host().machine(self, instance).pause()
        self.instances[instance.uuid].state = power_state.PAUSED

    def unpause(self, instance: objects.Instance) -> None:
        the_host().machine(self, instance).resume()
        self.instances[instance.uuid].state = power_state.RUNNING

    def suspend(self, context: Any, instance: objects.Instance) -> None:
        the_host().machine(self, instance).pause()
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
        alive = the_host().machine(self, instance).alive
        return hardware.InstanceInfo(state=told if alive else power_state.SHUTDOWN)

    def get_console_output(self, context: Any, instance: objects.Instance) -> bytes:
        return the_host().machine(self, instance).console()

    # -- snapshots ---------------------------------------------------------------------------------------

    def snapshot(self, context: Any, instance: objects.Instance, image_id: str, update_task_state: Any) -> None:
        if instance.uuid not in self.instances:
            raise exception.InstanceNotRunning(instance_id=instance.uuid)
        lab = the_host()
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
    if known and known != the_host().image.folder.name:
        raise RuntimeError(f"the snapshot stands on {known}, and this lab has {the_host().image.folder.name}")
    return bool(known)


def _boot_volume(block_device_info: Any) -> Any:
    for mapping in driver.block_device_info_get_mapping(block_device_info):
        if mapping.get("boot_index") == 0:
            return mapping
    return None


def _volume_file(mapping: Any) -> Path:
    return the_host().root / "volumes" / f"{mapping['volume_id']}.qcow2"


def _static(network_info: Any) -> Any:
    """The same for machines on networks without DHCP: nobody here answers it, so the config drive has the addresses."""
    plain = json.loads(json.dumps(list(network_info)))
    for vif in plain:
        for subnet in vif["network"]["subnets"]:
            subnet["meta"].pop("enable_dhcp", None)
    return network_model.NetworkInfo.hydrate(plain)
