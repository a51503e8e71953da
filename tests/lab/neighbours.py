"""The others in a shared project: 200 things of a colleague's, with names much like ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from tests.lab.identity import keystone

if TYPE_CHECKING:
    from openstack.connection import Connection

    from tests.lab.lab import LabClient

__all__ = ["TOTAL", "settle", "unusable_network"]

#: What our own cluster ``demo`` may call its things, and what is one slip away from that.
NAMES = (
    "demo",
    "demo-head",
    "demo-1",
    "demo-cpu-1",
    "demo-worker-1",
    "demo2",
    "demo2-head",
    "demo-2",
    "demos",
    "demo-",
    "demo-head-1",
    "xdemo",
    "my-demo",
    "demo_head",
    "vcluster-demo",
    "vcluster",
)
#: Kind -> how many, with few of what takes long to make. A name may be there more than once, as only key pairs and
#: credentials forbid it.
COUNTS = {
    "network": 5,
    "subnet": 5,
    "router": 1,
    "security group": 30,
    "port": 36,
    "floating IP": 16,
    "server group": 30,
    "key pair": 16,
    "volume": 30,
    "volume snapshot": 8,
    "server": 8,
    "image": 6,
    "application credential": 5,
    "security group rule": 4,
}
TOTAL = sum(COUNTS.values())
_PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIaB4mpWaNlebwCMuRIdnQSTdf/ZGy6r864Yr3IMTdw7 colleague"
_NOTE = "demo of the colleague's; no part of any vcluster"
_AT_ONCE = 4


def names(kind: str) -> list[str]:
    return list(islice(cycle(NAMES), COUNTS[kind]))


def settle(lab: LabClient) -> None:
    """Make them all, ``TOTAL`` in number, unless they are there; return when all are ready.

    Raises:
        RuntimeError: a server or volume did not become ready.
    """
    mine = lab.connection("colleague")
    if any(pair.name == NAMES[0] for pair in mine.compute.keypairs()):
        return
    project = {"project": lab.project_id(), "user": mine.current_user_id}
    with ThreadPoolExecutor(_AT_ONCE) as pool:

        def each(make: Callable[..., Any], items: Iterable[dict[str, Any]]) -> list[Any]:
            return list(pool.map(lambda item: make(**item), items))

        network = mine.network
        networks = each(network.create_network, [{"name": n, "description": _NOTE} for n in names("network")])
        subnets = [
            network.create_subnet(name=one.name, network_id=one.id, ip_version=4, cidr=f"10.{60 + number}.0.0/24")
            for number, one in enumerate(networks)
        ]
        public = network.find_network("public", ignore_missing=False)
        router = network.create_router(name="demo", external_gateway_info={"network_id": public.id})
        network.add_interface_to_router(router, subnet=subnets[0].id)
        groups = each(
            network.create_security_group, [{"name": n, "description": _NOTE} for n in names("security group")]
        )
        for group in groups[: COUNTS["security group rule"]]:
            network.create_security_group_rule(
                security_group_id=group.id, direction="ingress", protocol="tcp", port_range_min=22, port_range_max=22
            )
        ports = list(
            network.create_ports(
                [
                    {"name": n, "network_id": networks[0].id, "description": _NOTE, "security_groups": [groups[0].id]}
                    for n in names("port")
                ]
            )
        )
        servers = _servers(mine, ports, each)
        # The last of them are bound to no port: a pool to take from, for who does not ask whose they are.
        bound = [{"port_id": port.id} for port in ports[: COUNTS["floating IP"] // 2]]
        unbound: list[dict[str, Any]] = [{} for _ in range(COUNTS["floating IP"] - len(bound))]
        each(
            network.create_ip,
            [{"floating_network_id": public.id, "description": _NOTE} | place for place in bound + unbound],
        )
        volumes = _volumes(mine, names("volume"), each)
        _others(mine, project, each)
    for name, volume in zip(names("volume snapshot"), volumes, strict=False):
        mine.block_storage.create_snapshot(volume_id=volume, name=name)
    _wait(lambda: all(s.status == "available" for s in mine.block_storage.snapshots()), "volume snapshots")
    _wait(lambda: _active(mine, [one.id for one in servers]), "servers")


@contextmanager
def unusable_network(lab: LabClient) -> Iterator[None]:
    """While it lasts their one routed network is off, so that who needs a network makes all of it himself."""
    network = lab.connection("colleague").network
    (router,) = network.routers(name="demo", project_id=lab.project_id())
    (leg,) = network.ports(device_id=router.id, device_owner="network:router_interface")

    def switch(*, on: bool) -> None:
        network.update_network(leg.network_id, admin_state_up=on)
        network.update_router(router.id, admin_state_up=on)

    switch(on=False)
    try:
        yield
    finally:
        switch(on=True)


def _servers(
    mine: Connection, ports: list[Any], each: Callable[[Callable[..., Any], Iterable[dict[str, Any]]], list[Any]]
) -> list[Any]:
    flavor = mine.compute.find_flavor("m3.tiny", ignore_missing=False).id
    image = mine.image.find_image("Featured-Ubuntu22", ignore_missing=False).id
    return each(
        mine.compute.create_server,
        [
            {
                "name": name,
                "flavor_id": flavor,
                "image_id": image,
                "availability_zone": "zone-b",  # never real machines
                "networks": [{"port": port.id}],
                "metadata": {"cluster": "demo", "role": "head"},
            }
            for name, port in zip(names("server"), ports, strict=False)
        ],
    )


def _others(
    mine: Connection,
    who: dict[str, Any],
    each: Callable[[Callable[..., Any], Iterable[dict[str, Any]]], list[Any]],
) -> None:
    """What needs nothing else to be there."""
    each(mine.compute.create_server_group, [{"name": n, "policy": "anti-affinity"} for n in names("server group")])
    each(mine.compute.create_keypair, [{"name": n, "public_key": _PUBLIC_KEY} for n in names("key pair")])
    for name in names("image"):
        mine.image.create_image(
            name=name, data=b"private", container_format="bare", disk_format="raw", validate_checksum=False
        )
    for name in names("application credential"):
        keystone(mine).create_application_credential(user=who["user"], name=name)


def _active(mine: Connection, wanted: list[str]) -> bool:
    servers = {server.id: server for server in mine.compute.servers() if server.id in wanted}
    broken = [server.name for server in servers.values() if server.status == "ERROR"]
    if broken:
        raise RuntimeError(f"neighbours' servers in ERROR: {', '.join(broken)}")
    return len(servers) == len(wanted) and all(server.status == "ACTIVE" for server in servers.values())


def _volumes(
    mine: Connection,
    wanted: list[str],
    each: Callable[[Callable[..., Any], Iterable[dict[str, Any]]], list[Any]],
) -> list[str]:
    """Make volumes of these names and return their ids when all are available.

    Raises:
        RuntimeError: one is in error, or they did not become available in time.
    """
    asked = each(
        mine.block_storage.create_volume,
        [{"name": n, "size": 1, "description": _NOTE, "metadata": {"cluster": "demo"}} for n in wanted],
    )
    made = [one.id for one in asked]
    states = _settled(mine, made)
    if broken := [one for one in made if states[one] != "available"]:
        raise RuntimeError(f"{len(broken)} of the neighbours' volumes are in error; log/cinder.log says why")
    return made


def _settled(mine: Connection, wanted: Iterable[str]) -> dict[str, str]:
    """The state of each volume when Cinder has no more to do for any of ``wanted``."""
    states: dict[str, str] = {}

    def ready() -> bool:
        states.clear()
        states.update({volume.id: volume.status for volume in mine.block_storage.volumes()})
        return all(states.get(one) in {"available", "error"} for one in wanted)

    _wait(ready, "volumes", told=lambda: str(sorted(states[one] for one in wanted if one in states)))
    return states


def _wait(ready: Callable[[], bool], what: str, timeout: float = 300.0, told: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the neighbours' {what} were not ready after {timeout:.0f} s {told()}")
        time.sleep(0.5)
