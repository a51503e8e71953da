"""What a cloud's operator has set up before the first user comes: flavors, images, networks, zones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.lab.layout import ZONES

if TYPE_CHECKING:
    from openstack.connection import Connection

__all__ = ["EXTERNAL", "FLAVORS", "IMAGES", "furnish"]

#: Name -> vCPUs, memory in MiB, disk in GiB. As on Jetstream2, but for the "lab" ones: "lab.head" and "lab.worker" are
#: what QEMU machines take here, "lab.huge" fits no host.
FLAVORS = {
    "m3.tiny": (1, 3072, 20),
    "m3.small": (2, 6144, 20),
    "m3.quad": (4, 15360, 20),
    "m3.medium": (8, 30720, 60),
    "m3.large": (16, 61440, 60),
    "m3.xl": (32, 128000, 60),
    "m3.2xl": (64, 256000, 60),
    "r3.large": (64, 512000, 60),
    "g3.small": (4, 15360, 60),
    "g3.medium": (8, 30720, 60),
    "lab.head": (1, 2048, 10),
    "lab.worker": (1, 1024, 10),
    "lab.huge": (1, 1024, 1_000_000),
}
IMAGES = ("debian-12", "Featured-Ubuntu22", "Featured-Ubuntu24", "Featured-Debian12")
EXTERNAL = "public"


def furnish(admin: Connection) -> None:
    """Make all that."""
    for name, (vcpus, ram, disk) in FLAVORS.items():
        admin.compute.create_flavor(name=name, vcpus=vcpus, ram=ram, disk=disk, is_public=True)
    for name in IMAGES:
        admin.image.create_image(
            name=name,
            data=b"An image that no machine starts from.",
            container_format="bare",
            disk_format="raw",
            visibility="public",
            validate_checksum=False,
        )
    network = admin.network
    public = network.create_network(
        name=EXTERNAL,
        is_router_external=True,
        is_default=True,
        provider_network_type="flat",
        provider_physical_network="public",
    )
    # Floating IPs are loopback addresses: a driver that runs real machines can listen on them.
    network.create_subnet(
        name=EXTERNAL,
        network_id=public.id,
        ip_version=4,
        cidr="127.100.0.0/16",
        gateway_ip="127.100.0.1",
        is_dhcp_enabled=False,
    )
    # Where "get me a network" takes its subnets from.
    network.create_subnet_pool(
        name="auto", is_shared=True, is_default=True, prefixes=["10.200.0.0/16"], default_prefix_length=24
    )
    for name, hosts in ZONES.items():
        zone = admin.compute.create_aggregate(name=name, availability_zone=name)
        for host in hosts:
            admin.compute.add_host_to_aggregate(zone, host)
