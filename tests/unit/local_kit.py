"""What the tests of the local cloud share: a cloud in a folder of its own, and records to put into it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from vcluster.clouds.local import LocalCloud
from vcluster.clouds.local.accel import Accel
from vcluster.clouds.local.image import BaseImage
from vcluster.clouds.local.records import MachineRecord, Wish
from vcluster.model import ClusterRef, Flavor, MachineRequest, Network, Port, PortRequest, Role

REF = ClusterRef("demo", "here", "0")
TAG = REF.tag(Role.HEAD)
SMALL = Flavor("small", cpus=1, memory=1536, disk=8)
SECRET = "swordfish"
EMULATED = Accel("tcg", "for the tests")


def local(folder: Path) -> LocalCloud:
    """A cloud whose accelerator is not tried and whose only image, ``x``, has nothing in it."""
    cloud = LocalCloud(folder / "home", folder / "cache")
    cloud._accel = EMULATED
    cloud._images["x"] = BaseImage(id="x", disk=folder / "base.qcow2", kernel=None, initrd=None)
    return cloud


def role_of(name: str) -> Role:
    return Role.HEAD if name == "head" else Role.WORKER


def make_network(cloud: LocalCloud, ref: ClusterRef) -> Network:
    return cloud.create_network(ref, ref.tag(Role.NETWORK))


def make_ports(cloud: LocalCloud, ref: ClusterRef, *names: str) -> Sequence[Port]:
    return cloud.create_ports(ref, [PortRequest(name, ref.tag(role_of(name))) for name in names])


def request_for(ref: ClusterRef, port: Port, *, image: str = "x", flavor: Flavor = SMALL) -> MachineRequest:
    role = role_of(port.name)
    return MachineRequest(
        name=port.name,
        tag=ref.tag(role),
        role=role,
        group="" if role is Role.HEAD else "cpu",
        flavor=flavor,
        port=port,
        image=image,
        user_data=f"#cloud-config\n# {SECRET}\n",
    )


def record_for(ref: ClusterRef, port: Port) -> MachineRecord:
    role = role_of(port.name)
    return MachineRecord(
        uuid=str(uuid.uuid4()),
        tag=ref.tag(role),
        name=port.name,
        role=role.value,
        group="",
        flavor="small",
        cpus=1,
        memory=1536,
        disk=8,
        port=port.uuid,
        address=port.address,
        mac=port.mac,
        image="x",
        kernel="",
        initrd="",
        wish=Wish.BUILDING,
        created=time.time(),
    )
