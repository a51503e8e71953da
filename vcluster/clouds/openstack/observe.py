"""What there is of a cluster: one listing per kind of resource, all at the same time.

Each is filtered on the server's side where the service can, to keep the answer small, and checked on this side in any
case: Nova silently drops filters that a user may not use.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from urllib.parse import quote

from vcluster.chosen import chosen_ports
from vcluster.clouds.openstack import marks, pictures
from vcluster.clouds.openstack.connect import Services
from vcluster.clouds.openstack.known import Known
from vcluster.clouds.openstack.networks import Foreign
from vcluster.clouds.openstack.rest import GONE, NOT_HERE, Json, Params
from vcluster.clouds.openstack.stale import StalePorts
from vcluster.model import ClusterRef, Machine, Network, Observed, Part, PartKind, Port, Role

__all__ = ["GROUPS", "Observer", "group_listing", "server_groups", "volumes"]

GROUPS = ("head", "members")
"""The security groups of a cluster."""


class Observer:
    """Looks.

    Args:
        services: the cloud.
        known: is told of every whole picture.
        foreign: pictures of networks that are not ours.
        pool: for the listings.
    """

    def __init__(self, services: Services, known: Known, foreign: Foreign, pool: Executor) -> None:
        self._services = services
        self._known = known
        self._foreign = foreign
        self._pool = pool
        self._stale = StalePorts(services)

    def machines(self, ref: ClusterRef, since: Observed) -> Observed:
        """The machines now; the rest of the picture as it was."""
        ports = {port.uuid: port for port in since.ports}
        machines = self._machines(ref, self._servers(ref), ports, self._known.public())
        self._known.made(ref, *(m.uuid for m in machines))
        return replace(since, machines=machines)

    def whole(self, ref: ClusterRef) -> Observed:
        """Everything that carries the cluster's tag."""
        network, ask = self._services.network, self._pool.submit
        servers = ask(self._servers, ref)
        disks = ask(self._volumes, ref)
        placement = ask(server_groups, self._services)
        words = [ref.tag(Role.HEAD), ref.tag(Role.WORKER), ref.tag(PartKind.GATEWAY)]
        ports = ask(network.listing, "/ports", "ports", doing="list ports", params={"description": words})
        networks = ask(
            network.listing,
            "/networks",
            "networks",
            doing="list networks",
            params={"description": ref.tag(Role.NETWORK)},
        )
        subnets = ask(
            network.listing,
            "/subnets",
            "subnets",
            doing="list subnets",
            params={"description": ref.tag(PartKind.SUBNET)},
        )
        routers = ask(
            network.listing,
            "/routers",
            "routers",
            doing="list routers",
            params={"description": ref.tag(PartKind.ROUTER)},
            none=GONE,
        )
        groups = ask(group_listing, self._services, ref)
        # All of the project's: one that was there before the cluster and is lent to its head carries no tag.
        addresses = ask(
            network.listing,
            "/floatingips",
            "floatingips",
            doing="list floating IPs",
            params={
                "project_id": self._services.identity.project,
                "fields": ("id", "description", "port_id", "floating_ip_address", "created_at"),
            },
            none=GONE,
        )
        told_ports, told_networks, told_subnets = ports.result(), networks.result(), subnets.result()
        told_addresses, told_groups = addresses.result(), groups.result()
        held = {p.uuid: p for told in told_ports if (p := pictures.port(ref, told)) is not None}
        told_servers = servers.result()
        unlisted, gone = self._unlisted(held.values(), {str(told["id"]) for told in told_servers})
        told_servers += unlisted
        held = self._stale.freed(ref, held, gone)
        public = {str(a["port_id"]): str(a["floating_ip_address"]) for a in told_addresses if a.get("port_id")}
        public = {uuid: address for uuid, address in public.items() if uuid in held}
        machines = self._machines(ref, told_servers, held, public)
        order = _in_order(held, machines, told_ports)
        lies = _lies(order)
        own = self._own_networks(ref, told_networks, told_subnets, lies)
        on = _on_subnets(order)
        parts: list[Part | None] = [pictures.subnet(ref, told, on.get(told["id"], "")) for told in told_subnets]
        parts += [pictures.router(ref, told) for told in routers.result()]
        parts += [pictures.gateway(ref, told, lies.get(str(told["network_id"]), "")) for told in told_ports]
        held = _on_own(held, told_ports, {part.uuid for part in parts if part and part.kind is PartKind.SUBNET})
        holders = _holders(ref, told_ports)
        parts += [pictures.security_group(ref, told, holders.get(told["id"], "")) for told in told_groups]
        parts += [pictures.server_group(ref, told) for told in placement.result()]
        parts += [pictures.floating_ip(ref, told, held) for told in told_addresses]
        parts += [pictures.volume(ref, told) for told in disks.result()]
        picture = Observed(
            networks=(*own, *self._foreign_networks(ref, own, held, lies)),
            ports=tuple(held.values()),
            machines=machines,
            parts=tuple(part for part in parts if part is not None),
            notes=marks.notes_of(*_carriers(ref, told_groups, told_ports, told_networks)) | self._known.words(ref),
        )
        self._known.see(ref, picture, public)
        return picture

    # Inside ----------------------------------------------------------------------------------------------------

    def _servers(self, ref: ClusterRef) -> list[Json]:
        params = {"tags": marks.server_tag(ref)}
        return self._services.compute.listing("/servers/detail", "servers", doing="list servers", params=params)

    def _unlisted(self, ports: Iterable[Port], listed: Container[str]) -> tuple[list[Json], set[str]]:
        """Servers that hold a port of the cluster, and no listing shows; and those that Nova does not know at all.

        Not listed is not gone: Nova leaves the servers of a cell out that does not answer. Asked for one of them, it
        says either 404, or that it cannot tell; then nobody may act as if the server were not there.

        Raises:
            TemporaryError: Nova cannot tell.
        """
        asked = sorted({port.device for port in ports if port.device and port.device not in listed})
        if not asked:
            return [], set()
        first = self._server(asked[0])  # alone, since a cell that is down is down for all of them
        found = dict(zip(asked, [first, *self._pool.map(self._server, asked[1:])], strict=True))
        there = [told["server"] for told in found.values() if told is not None]
        return there, {uuid for uuid, told in found.items() if told is None}

    def _server(self, uuid: str) -> Json | None:
        return self._services.compute.find(f"/servers/{quote(uuid, safe='')}", doing=f"look at server {uuid}")

    def _volumes(self, ref: ClusterRef) -> list[Json]:
        # Cinder takes a dictionary in Python's writing.
        params = {"metadata": str({marks.MARK: ref.tag(PartKind.VOLUME)})}
        return volumes(self._services, params)

    def _machines(
        self, ref: ClusterRef, servers: list[Json], ports: Mapping[str, Port], public: Mapping[str, str]
    ) -> tuple[Machine, ...]:
        found = []
        for told in servers:
            machine = pictures.machine(ref, told, ports, self._known.told(str(told.get("id"))))
            if machine is not None:
                found.append(pictures.reached(machine, public))
        return tuple(found)

    def _own_networks(
        self, ref: ClusterRef, networks: list[Json], subnets: list[Json], lies: Mapping[str, str]
    ) -> list[Network]:
        found = []
        for told in networks:
            tag = marks.tag_in(told.get("description"))
            if tag != ref.tag(Role.NETWORK):
                continue
            uuid = str(told["id"])
            ours = [s for s in pictures.for_machines(uuid, subnets) if pictures.subnet(ref, s) is not None]
            # As twins are told apart: see vcluster.chosen.
            ours.sort(key=lambda s: (s["id"] != lies.get(uuid), str(s.get("created_at", "")), str(s["id"])))
            # Always named: somebody may have put a second subnet on our network.
            self._known.lies(ref, uuid, str(ours[0]["id"]) if ours else "")
            found.append(pictures.network(told, ours[0] if ours else None, tag=tag))
        return found

    def _foreign_networks(
        self, ref: ClusterRef, own: list[Network], ports: Mapping[str, Port], lies: Mapping[str, str]
    ) -> list[Network]:
        others = sorted({port.network for port in ports.values()} - {network.uuid for network in own})
        asked = (self._foreign.get(ref, uuid, lies.get(uuid, "")) for uuid in others)
        return [network for network in asked if network is not None]


def server_groups(services: Services) -> list[Json]:
    """All of the project's: Nova has no filter for them."""
    path, doing = "/os-server-groups", "list server groups"
    return services.compute.listing(path, "server_groups", doing=doing, none=NOT_HERE)


def volumes(services: Services, params: Params | None = None) -> list[Json]:
    """The project's volumes: none where there is no Cinder, or none for this user."""
    if not services.has_volumes:
        return []
    path, doing = "/volumes/detail", "list volumes"
    return services.volume.listing(path, "volumes", doing=doing, params=params, none=NOT_HERE)


def group_listing(services: Services, ref: ClusterRef) -> list[Json]:
    """Security groups that have the cluster's names; whose they are is in their description."""
    names = [marks.group_name(ref, part) for part in GROUPS]
    return services.network.listing(
        "/security-groups", "security_groups", doing="list security groups", params={"name": names}
    )


def _holders(ref: ClusterRef, ports: list[Json]) -> dict[str, str]:
    """A port by the security group that it is in: the head's where there is one."""
    holders: dict[str, str] = {}
    for told in sorted(ports, key=lambda t: marks.tag_in(t.get("description")) == ref.tag(Role.HEAD)):
        if ref.owns(marks.tag_in(told.get("description"))):
            holders.update(dict.fromkeys(told.get("security_groups", []), told["id"]))
    return holders


def _in_order(held: Mapping[str, Port], machines: tuple[Machine, ...], ports: list[Json]) -> list[Json]:
    """The ports of the cluster's machines: first those that count, the head's before others; then twins, by age."""
    counts = chosen_ports(Observed(ports=tuple(held.values()), machines=machines)).values()
    rank = {port.uuid: number for number, port in enumerate(counts)}
    ours = [told for told in ports if told["id"] in held]
    return sorted(ours, key=lambda t: (rank.get(t["id"], len(rank)), str(t.get("created_at", "")), str(t["id"])))


def _lies(ports: list[Json]) -> dict[str, str]:
    """The subnet, by network, that the cluster's machines are on: the one that its head is on."""
    lies: dict[str, str] = {}
    for told in ports:
        if subnet := pictures.lies_on(told):
            lies.setdefault(str(told["network_id"]), subnet)
    return lies


def _on_own(held: Mapping[str, Port], ports: list[Json], subnets: set[str]) -> dict[str, Port]:
    """The cluster's ports with the subnet of its own that each is on."""
    on = {str(told["id"]): pictures.lies_on(told) for told in ports}
    return {uuid: replace(port, subnet=on[uuid]) if on[uuid] in subnets else port for uuid, port in held.items()}


def _on_subnets(ports: list[Json]) -> dict[str, str]:
    """A machine's port by the subnet that it is on: the head's where there is one."""
    on: dict[str, str] = {}
    for told in ports:
        on.setdefault(pictures.lies_on(told), str(told["id"]))
    return on


def _carriers(ref: ClusterRef, groups: list[Json], ports: list[Json], networks: list[Json]) -> list[list[str]]:
    """Tags of what notes are written on, in the order in which they count: first of all the head port's group."""
    members = [g for g in groups if g.get("name") == marks.group_name(ref, "members")]
    heads = [p for p in ports if marks.tag_in(p.get("description")) == ref.tag(Role.HEAD)]
    near = {group for told in heads for group in told.get("security_groups", [])}
    found = []
    for carriers in (members, heads, networks):
        ours = [x for x in carriers if ref.owns(marks.tag_in(x.get("description")))]
        found += sorted(ours, key=lambda x: (x["id"] not in near, str(x.get("created_at", "")), str(x["id"])))
    return [list(x.get("tags", [])) for x in found]
