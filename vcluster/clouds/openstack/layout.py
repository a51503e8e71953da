"""What a cluster needs around its machines, and what of that is there already.

What a cluster has stays as it is: only what is missing is chosen, so a converged run asks nothing here. A choice
depends on nothing but what is there, so that a run after a killed one chooses the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor

from vcluster.chosen import chosen_network, chosen_part
from vcluster.clouds.openstack import marks
from vcluster.clouds.openstack.connect import Services
from vcluster.clouds.openstack.lookups import Lookups
from vcluster.clouds.openstack.networks import Foreign, Surroundings, free_cidr, overlaps, size_of
from vcluster.clouds.openstack.rest import GONE, Json
from vcluster.errors import PermanentError, QuotaError
from vcluster.model import ClusterRef, Layout, Network, Observed, Part, PartKind, PartRequest, Wishes

__all__ = ["LayoutMaker"]

SSH = 22
NO_PUBLIC = "set access.public_ip: false, and access.jump to a host that reaches the network"


class LayoutMaker:
    """Makes a :class:`Layout`.

    Args:
        services: the cloud.
        lookups: for quota.
        foreign: takes the picture of a network that was chosen.
        pool: for questions that do not wait for each other.
    """

    def __init__(self, services: Services, lookups: Lookups, foreign: Foreign, pool: Executor) -> None:
        self.services = services
        self.lookups = lookups
        self.foreign = foreign
        self.pool = pool

    def layout(self, ref: ClusterRef, wishes: Wishes, observed: Observed) -> Layout:
        """See :meth:`vcluster.clouds.base.Cloud.layout`."""
        return _Choice(self, ref, wishes, observed).layout()


class _Choice:
    """One cluster's."""

    def __init__(self, maker: LayoutMaker, ref: ClusterRef, wishes: Wishes, observed: Observed) -> None:
        self._services, self._pool = maker.services, maker.pool
        self._lookups, self._foreign = maker.lookups, maker.foreign
        self.ref, self.wishes, self.seen = ref, wishes, observed
        self._around: Surroundings | None = None
        self._external: list[Json | None] = []

    def layout(self) -> Layout:
        self._services.check_may_change()
        if self.seen.head is None:
            self._lookups.check_zones(self.wishes.zones)
        network = chosen_network(self.seen)  # where its ports are, else its own
        chosen = None if network is not None else self._choose()
        if network is None and chosen is not None:
            subnet = self._subnet(chosen)
            network = self._foreign.know(self.ref, chosen, self.around.ipv4(chosen), str(subnet["id"]))
        foreign = network if network is not None and network.foreign else None
        parts = [self._group("head", self._doors()), self._group("members", {})]
        if self._wants_server_group():
            parts.append(self._part(PartKind.SERVER_GROUP, "workers", {}))
        if foreign is None:
            parts += self._own(network)
        if self.wishes.public_ip:
            parts.append(self._floating_ip(chosen))
        return Layout(foreign, tuple(parts))

    @property
    def around(self) -> Surroundings:
        """The project's networks, asked for when something must be chosen."""
        if self._around is None:
            self._around = Surroundings.ask(self._services, self._pool)
        return self._around

    @property
    def external(self) -> Json | None:
        if not self._external:
            self._external.append(self.around.external(self.wishes.external_network))
        return self._external[0]

    def _has(self, kind: PartKind, name: str = "") -> Part | None:
        return chosen_part(self.seen, kind, name or str(kind))

    def _part(self, kind: PartKind, name: str, detail: Mapping[str, str]) -> PartRequest:
        return PartRequest(kind, name or str(kind), self.ref.tag(kind), detail)

    def _doors(self) -> dict[str, str]:
        """Who is let in where, on the head: networks by port."""
        doors = {SSH: self.wishes.allow_from, **self.wishes.doors}
        return {str(port): ",".join(networks) for port, networks in doors.items() if networks}

    def _group(self, name: str, detail: Mapping[str, str]) -> PartRequest:
        return self._part(PartKind.SECURITY_GROUP, name, detail)

    # Networks --------------------------------------------------------------------------------------------------

    def _choose(self) -> Json | None:
        """A network that is there; None: make one.

        Raises:
            PermanentError: the one that the spec names cannot be used.
            QuotaError: it has no room.
        """
        if self.wishes.network:
            named = self.around.named(self.wishes.network)
            self._check_way_out(named)
            room = self._room(named)
            if room < self.wishes.slots:
                raise QuotaError(
                    f"network {self.wishes.network!r} has no room: {self.wishes.slots} addresses asked, {room} free",
                    remedy="name a larger network, or none: then the cluster makes its own",
                )
            return named
        usable = self.around.usable(self.external)
        if usable is None or self._room(usable) < self.wishes.slots:
            return None
        return None if overlaps(str(self._subnet(usable)["cidr"]), self.wishes.apart) else usable

    def _check_way_out(self, named: Json) -> None:
        if not self.wishes.public_ip or self.wishes.floating_ip:
            return
        foreign_owner = named.get("project_id", named.get("tenant_id")) != self.around.project
        ways = self.around.ways_out(named)
        if self.external is None or self.external["id"] in ways or (foreign_owner and not ways):
            return  # no external network at all is said elsewhere; another project's routers are not seen from here
        raise PermanentError(
            f"network {self.wishes.network!r} has no router to {self.external['name']!r}: "
            "the head's floating IP could not reach it",
            remedy=f"add a router to it; or {NO_PUBLIC}",
        )

    def _subnet(self, network: Json) -> Json:
        """The subnet that the cluster would be on; networks that can be chosen have one."""
        external = self.external if self.wishes.public_ip and not self.wishes.floating_ip else None
        found = self.around.subnet(network, str(external["id"]) if external is not None else "")
        assert found is not None
        return found

    def _room(self, network: Json) -> int:
        """How many addresses the network has left for the cluster, as far as the project sees."""
        subnet = self._subnet(network)
        params = {"network_id": network["id"], "fields": ("id", "fixed_ips")}
        held = self._services.network.listing("/ports", "ports", doing="count a network's ports", params=params)
        if len(self.around.ipv4(network)) > 1:
            held = [p for p in held if any(f.get("subnet_id") == subnet["id"] for f in p.get("fixed_ips", []))]
        return size_of(subnet) - len(held) + len(self.seen.ports)

    def _own(self, network: Network | None) -> list[PartRequest]:
        """Subnet, router and the router's leg, for a network of our own."""
        cidr = network.cidr if network is not None else ""
        parts = [self._part(PartKind.SUBNET, "", {"cidr": cidr or self._cidr()})]
        router, leg = self._has(PartKind.ROUTER), self._has(PartKind.GATEWAY)
        if router is not None:
            return [*parts, self._part(PartKind.ROUTER, "", {}), self._part(PartKind.GATEWAY, "", {})]
        if leg is not None and leg.ready:
            return [*parts, self._part(PartKind.GATEWAY, "", {"router": leg.used_by})]
        if self.external is None:
            if self.wishes.public_ip:
                raise self._no_external()
            return parts
        if (reused := self.around.router(self.external)) is not None:
            return [*parts, self._part(PartKind.GATEWAY, "", {"router": str(reused["id"])})]
        self._check_routers(self.external)
        router_detail = {"network": str(self.external["id"])}
        return [*parts, self._part(PartKind.ROUTER, "", router_detail), self._part(PartKind.GATEWAY, "", {})]

    def _check_routers(self, external: Json) -> None:
        """Where the project may have no further router, say who has the one that there is."""
        other = self.around.clusters_router(external)
        room = self._lookups.neutron_quota().get("routers") if other is not None else None
        if other is None or room is None or not 0 <= room.limit <= room.used:
            return
        whose = marks.cluster_of(str(other["description"]))
        name, listed = str(other.get("name", "")), self._services.network.listing
        params = {"name": f"{name}-members.{whose}", "fields": ("id", "description")}
        groups = listed("/security-groups", "security_groups", doing="find out whose a router is", params=params)
        owners = [s.owner for g in groups if (s := marks.signature(g.get("description"))) and s.id == whose and s.owner]
        by = f" of {owners[0]}" if owners else ""
        raise QuotaError(
            f"quota for routers: 1 asked, {room.used} used, {room.limit} allowed",
            remedy=f"router {other['id']} goes with the cluster {name!r}{by}, so no other can use it: make one for "
            "all (`openstack router create`, with this external network as its gateway) when that cluster is down, "
            "name a network that has a router, or ask for more quota",
        )

    def _cidr(self) -> str:
        used = [str(s["cidr"]) for s in self.around.subnets]
        return free_cidr([*used, *self.wishes.apart], self.wishes.slots, int(self.ref.id, 16))

    # Addresses -------------------------------------------------------------------------------------------------

    def _floating_ip(self, chosen: Json | None) -> PartRequest:
        has = self._has(PartKind.FLOATING_IP, "head")
        if self.wishes.floating_ip:
            return self._named_ip(has)
        if has is not None:
            return self._part(PartKind.FLOATING_IP, "head", {})
        external = self.external
        if external is None:
            raise self._no_external()
        if chosen is not None and not self.wishes.external_network:
            # Where the network's router leads elsewhere than usual, only addresses from there reach it.
            ways = self.around.ways_out(chosen)
            if ways and external["id"] not in ways:
                external = next(n for n in (*self.around.networks, {"id": min(ways)}) if n["id"] in ways)
        self._check_pool(external)
        return self._part(PartKind.FLOATING_IP, "head", {"network": str(external["id"])})

    def _no_external(self) -> PermanentError:
        return PermanentError(
            "the project sees no external network, so the head can have no public address", remedy=NO_PUBLIC
        )

    def _named_ip(self, has: Part | None) -> PartRequest:
        address = self.wishes.floating_ip
        if has is not None and has.kept and has.ready and has.used_by:
            return self._part(PartKind.FLOATING_IP, "head", {"address": address, "uuid": has.uuid})
        params = {"floating_ip_address": address}
        found = self._services.network.listing(
            "/floatingips", "floatingips", doing="find floating IP", params=params, none=GONE
        )
        mine = [f for f in found if f.get("floating_ip_address") == address]
        if not mine:
            raise PermanentError(
                f"the project has no floating IP {address}",
                remedy="leave access.floating_ip out for a new one, or see `openstack floating ip list`",
            )
        if (holder := mine[0].get("port_id")) and holder not in {p.uuid for p in self.seen.ports}:
            raise PermanentError(
                f"floating IP {address} is in use by port {holder}", remedy="free it, or leave access.floating_ip out"
            )
        return self._part(PartKind.FLOATING_IP, "head", {"address": address, "uuid": str(mine[0]["id"])})

    def _check_pool(self, external: Json) -> None:
        """Refuse an empty pool, where the cloud lets us count it."""
        path = f"/network-ip-availabilities/{external['id']}"
        try:
            told = self._services.network.find(path, doing="count the free floating IPs")
        except PermanentError:
            return  # by default this is the operator's alone to know
        counts = (told or {}).get("network_ip_availability")
        if counts and counts["total_ips"] - counts["used_ips"] <= 0:
            raise QuotaError(
                f"external network {external.get('name', external['id'])!r} has no address left: 1 asked, "
                f"{counts['used_ips']} used, {counts['total_ips']} there",
                remedy=f"give a floating IP back, or name one of the project's: access.floating_ip; or {NO_PUBLIC}",
            )

    # Placement -------------------------------------------------------------------------------------------------

    def _wants_server_group(self) -> bool:
        """Workers on different hosts, where the quota for groups and their members has room for all."""
        workers = self.wishes.slots - 1
        if self._has(PartKind.SERVER_GROUP, "workers") is not None:
            return True
        if workers < 2:
            return False
        try:
            told = self._lookups.nova_quota()
        except PermanentError:
            return False  # a cloud that does not tell
        groups, members = told.get("server_groups"), told.get("server_group_members")
        if groups is None or members is None:
            return False
        return (groups.limit < 0 or groups.used < groups.limit) and (members.limit < 0 or workers <= members.limit)
