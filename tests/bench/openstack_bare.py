"""A cluster's resources by openstacksdk alone, with the fewest calls that do it: the bound that vcluster is held to.

No names are looked up twice, nothing is tagged, observed, retried or mended. It makes the same resources as vcluster in
a project without a network of its own, with as many calls at once and a look at the servers as often::

    python openstack_bare.py up   CLOUD COUNT FILE    # writes the ids to FILE when all servers are ACTIVE
    python openstack_bare.py down CLOUD COUNT FILE    # deletes them, and returns when they are gone
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openstack
from openstack.connection import Connection

AT_ONCE = 16
"""As vcluster's engine."""
POLL = 2.0
"""Seconds between two looks; as vcluster's engine."""
# As large as a worker's from vcluster: rendered, compressed.
USER_DATA = base64.b64encode(bytes(n * 97 % 251 for n in range(9000))).decode()
GROUPS = ("bare-head", "bare-members")


def up(cloud: Connection, count: int) -> dict[str, Any]:
    """Make head and ``count`` workers with all that they need; return the ids when all are ACTIVE."""
    network, compute = cloud.network, cloud.compute
    # Service proxies are made at their first use, which is not safe in several threads.
    image_proxy = cloud.image
    with ThreadPoolExecutor(AT_ONCE) as pool:
        image = pool.submit(lambda: next(image_proxy.images(name="debian-12")).id)
        flavor = pool.submit(lambda: next(f.id for f in compute.flavors() if f.name == "m3.tiny"))
        public = pool.submit(lambda: next(network.networks(name="public")).id)
        net = pool.submit(lambda: network.create_network(name="bare").id)
        groups = [pool.submit(network.create_security_group, name=name) for name in GROUPS]
        workers = pool.submit(lambda: compute.create_server_group(name="bare", policy="soft-anti-affinity").id)
        router = pool.submit(
            lambda: network.create_router(name="bare", external_gateway_info={"network_id": public.result()}).id
        )
        subnet = network.create_subnet(network_id=net.result(), ip_version=4, cidr="10.88.0.0/16").id
        head, members = (group.result().id for group in groups)
        ssh = {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}
        # Neutron takes rules in bulk, but for one group only; with one rule each, bulk saves nothing.
        ruled = [
            pool.submit(network.create_security_group_rule, security_group_id=group, direction="ingress", **rule)
            for group, rule in ((head, ssh), (members, {"remote_group_id": members}))
        ]
        plugged = pool.submit(lambda: network.add_interface_to_router(router.result(), subnet=subnet))
        wanted = [
            {"name": f"bare-{n}", "network_id": net.result(), "security_group_ids": [members] if n else [members, head]}
            for n in range(count + 1)
        ]
        ports = [port.id for port in network.create_ports(wanted)]
        for rule in ruled:
            rule.result()
        plugged.result()
        address = pool.submit(lambda: network.create_ip(floating_network_id=public.result(), port_id=ports[0]).id)

        def boot(number: int) -> str:
            hints = {"scheduler_hints": {"group": workers.result()}} if number else {}
            server = compute.create_server(
                name=f"bare-{number}",
                image_id=image.result(),
                flavor_id=flavor.result(),
                networks=[{"port": ports[number]}],
                user_data=USER_DATA,
                config_drive=True,
                metadata={"owner": "bare"},
                **hints,
            )
            return str(server.id)

        servers = list(pool.map(boot, range(count + 1)))
        wait(lambda: statuses(cloud, servers) == ["ACTIVE"] * len(servers))
        return {
            "address": address.result(),
            "groups": [head, members],
            "network": net.result(),
            "ports": ports,
            "router": router.result(),
            "servers": servers,
            "subnet": subnet,
            "workers": workers.result(),
        }


def statuses(cloud: Connection, servers: Iterable[str]) -> list[str]:
    """The status of those of these servers that still are; raises ``RuntimeError`` when one failed."""
    ours = set(servers)
    found = [server.status for server in cloud.compute.servers(name="^bare-") if server.id in ours]
    if "ERROR" in found:
        raise RuntimeError("a server went to ERROR")
    return found


def wait(done: Callable[[], bool]) -> None:
    """Look until it is done, for ten minutes at most."""
    end = time.monotonic() + 600
    while not done():
        if time.monotonic() > end:
            raise TimeoutError("servers")
        time.sleep(POLL)


def down(cloud: Connection, made: dict[str, Any]) -> None:
    """Delete it all in the order in which the cloud lets go of it."""
    network, compute = cloud.network, cloud.compute
    with ThreadPoolExecutor(AT_ONCE) as pool:
        address = pool.submit(network.delete_ip, made["address"])
        list(pool.map(compute.delete_server, made["servers"]))
        address.result()
        wait(lambda: not statuses(cloud, made["servers"]))
        unplugged = pool.submit(network.remove_interface_from_router, made["router"], subnet=made["subnet"])
        workers = pool.submit(compute.delete_server_group, made["workers"])
        list(pool.map(network.delete_port, made["ports"]))
        unplugged.result()
        router = pool.submit(network.delete_router, made["router"])
        # Its subnet goes with it, and no port holds the groups any more.
        network.delete_network(made["network"])
        list(pool.map(network.delete_security_group, made["groups"]))
        router.result()
        workers.result()


def main() -> None:
    """See the module's docstring."""
    verb, name, count, file = sys.argv[1:]
    ids = Path(file)
    with openstack.connect(cloud=name) as cloud:
        # Nova's versions, once: sixteen threads would each ask.
        cloud.compute.get_endpoint_data()
        if verb == "up":
            ids.write_text(json.dumps(up(cloud, int(count))))
        else:
            down(cloud, json.loads(ids.read_text()))


if __name__ == "__main__":
    main()
