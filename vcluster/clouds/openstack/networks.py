"""The networks, subnets and routers that are there before a cluster, and which of them it may use."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from vcluster.clouds.openstack import marks, pictures
from vcluster.clouds.openstack.connect import Services
from vcluster.clouds.openstack.known import Known
from vcluster.clouds.openstack.lookups import nearest
from vcluster.clouds.openstack.rest import GONE, Json
from vcluster.errors import PermanentError, QuotaError
from vcluster.model import ClusterRef, Network

__all__ = ["AUTO", "Foreign", "Surroundings", "free_cidr", "overlaps", "size_of"]

AUTO = "auto_allocated_network"
"""What Neutron calls the network that it makes for a project that asks (and Jetstream2 has made for each)."""

_OURS = ipaddress.ip_network("10.64.0.0/10")
"""Where our own networks lie: among the private addresses, away from what Docker, k3s and home routers take."""


@dataclass(frozen=True)
class Surroundings:
    """All networks that a project sees, at one moment."""

    project: str
    networks: Sequence[Json]
    subnets: Sequence[Json]
    routers: Sequence[Json]
    legs: Sequence[Json]

    @classmethod
    def ask(cls, services: Services, pool: Executor) -> Surroundings:
        """Four listings at the same time."""
        network = services.network
        legs = {"device_owner": pictures.LEGS, "fields": ("id", "device_id", "network_id", "fixed_ips")}
        asked = [
            pool.submit(network.listing, "/networks", "networks", doing="list networks"),
            pool.submit(network.listing, "/subnets", "subnets", doing="list subnets"),
            pool.submit(network.listing, "/routers", "routers", doing="list routers", none=GONE),
            pool.submit(network.listing, "/ports", "ports", doing="list routers' ports", params=legs),
        ]
        networks, subnets, routers, ports = (answer.result() for answer in asked)
        return cls(services.identity.project, networks, subnets, routers, ports)

    # What is named in a spec -----------------------------------------------------------------------------------

    def named(self, word: str) -> Json:
        """The network of that name or id.

        Raises:
            PermanentError: none, or several; or one that machines cannot be on.
        """
        inside = [n for n in self.networks if not n.get("router:external")]
        found = _pick(word, self.networks, what="network", offer=inside)
        if found.get("router:external"):
            raise PermanentError(
                f"network {word!r} is an external one: machines are not put on it",
                remedy=f"name one of the project's own, or none; {nearest(word, (n['name'] for n in inside))}",
            )
        if not self.ipv4(found):
            raise PermanentError(f"network {word!r} has no IPv4 subnet", remedy="add one, or name another network")
        if not found.get("port_security_enabled", True):
            raise PermanentError(
                f"network {word!r} has no port security, so no security group would guard machines on it",
                remedy=f"openstack network set --enable-port-security {word}; or name another network",
            )
        return found

    def external(self, word: str) -> Json | None:
        """The network that floating IPs come from: the one named, the only one, or `public`. None: there is none.

        Raises:
            PermanentError: none of that name, or several and none named.
        """
        outside = [n for n in self.networks if n.get("router:external")]
        if word:
            return _pick(word, outside, what="external network", offer=outside)
        if len(outside) > 1:
            public = [n for n in outside if n["name"] == "public"]
            if len(public) != 1:
                names = ", ".join(sorted(f"{n['name']} ({n['id']})" for n in outside))
                raise PermanentError("there are several external networks", remedy=f"set external_network: {names}")
            return public[0]
        return outside[0] if outside else None

    # What can be used ------------------------------------------------------------------------------------------

    def ipv4(self, network: Json) -> list[Json]:
        """The network's IPv4 subnets that machines may be on."""
        return pictures.for_machines(network["id"], self.subnets)

    def subnet(self, network: Json, external: str) -> Json | None:
        """The one of them that a cluster is on: all of it on one, or they would not reach each other as neighbours do.

        One from which a floating IP can be reached, else one with a way out, else with a gateway and DHCP; then the
        largest. That depends on nothing that a cluster changes, so that two runs at once choose the same.

        Args:
            external: id of the network that floating IPs come from; empty where none is needed.
        """
        leads = {r["id"]: str((r.get("external_gateway_info") or {}).get("network_id", "")) for r in self.routers}
        ways: dict[str, set[str]] = {}
        for leg in self.legs:
            for fixed in leg.get("fixed_ips", []):
                ways.setdefault(str(fixed.get("subnet_id")), set()).add(leads.get(leg["device_id"], ""))

        def rank(s: Json) -> tuple[object, ...]:
            out = ways.get(s["id"], set())
            serves = bool(s.get("gateway_ip")) and s.get("enable_dhcp", True)
            reached = not external or external in out
            return (not reached, not out - {""}, not serves, -size_of(s), str(s["cidr"]), s["id"])

        return min(self.ipv4(network), key=rank, default=None)

    def ways_out(self, network: Json) -> set[str]:
        """Ids of the external networks to which a router leads from here, as far as the project sees."""
        holders = {leg["device_id"] for leg in self.legs if leg["network_id"] == network["id"]}
        infos = (r.get("external_gateway_info") for r in self.routers if r["id"] in holders)
        return {str(info["network_id"]) for info in infos if info}

    def usable(self, external: Json | None) -> Json | None:
        """``auto_allocated_network``, else the project's only network with a way out; None when it is not clear.

        Another cluster's network is never used: it goes when that cluster goes.
        """
        suitable = [
            n
            for n in self.networks
            if n.get("project_id", n.get("tenant_id")) == self.project
            and not n.get("router:external")
            and not n.get("shared")
            and n.get("admin_state_up", True)
            and n.get("port_security_enabled", True)
            and not marks.tag_in(n.get("description"))
            and any(s.get("gateway_ip") and s.get("enable_dhcp", True) for s in self.ipv4(n))
            and (self.ways_out(n) if external is None else external["id"] in self.ways_out(n))
        ]
        auto = [n for n in suitable if n["name"] == AUTO]
        if len(auto) == 1:
            return auto[0]
        return suitable[0] if len(suitable) == 1 else None

    def router(self, external: Json) -> Json | None:
        """A router of the project with a gateway to the external network, and not of another cluster.

        A project may have only one, so an existing one is used rather than a new one made: the oldest.
        """
        return self._oldest(external, clusters=False)

    def clusters_router(self, external: Json) -> Json | None:
        """A router that would do, were it not another cluster's, with which it goes."""
        return self._oldest(external, clusters=True)

    def _oldest(self, external: Json, *, clusters: bool) -> Json | None:
        found = [
            r
            for r in self.routers
            if r.get("project_id", r.get("tenant_id")) == self.project
            and (r.get("external_gateway_info") or {}).get("network_id") == external["id"]
            and r.get("admin_state_up", True)
            and bool(marks.tag_in(r.get("description"))) == clusters
        ]
        return min(found, key=lambda r: (r.get("created_at", ""), r["id"]), default=None)


class Foreign:
    """Networks that are not ours: what is in them does not change, so each is asked for once.

    Args:
        services: the cloud.
        known: is told which subnet a cluster is on, where there are several.
    """

    def __init__(self, services: Services, known: Known) -> None:
        self._services = services
        self._known = known
        self._lock = threading.Lock()
        self._told: dict[str, tuple[Json, Sequence[Json]]] = {}

    def know(self, ref: ClusterRef, told: Json, subnets: Sequence[Json], subnet: str) -> Network:
        """Remember a network that was seen on the way.

        Args:
            subnets: those of its subnets that machines may be on.
            subnet: the one that the cluster is on; one that is not there means the first.
        """
        with self._lock:
            self._told[told["id"]] = told, subnets
        chosen = next((s for s in subnets if s["id"] == subnet), subnets[0] if subnets else None)
        # Where there is one alone, nothing is named: then a port gets what else the network has, an IPv6 address.
        self._known.lies(ref, told["id"], str(chosen["id"]) if chosen is not None and len(subnets) > 1 else "")
        return pictures.network(told, chosen, tag="")

    def get(self, ref: ClusterRef, uuid: str, subnet: str) -> Network | None:
        """The network; None when it is not there (any more).

        Args:
            subnet: the one that the cluster's ports are on.
        """
        with self._lock:
            told, subnets = self._told.get(uuid, ({}, ()))
        if not told or (subnet and not any(s["id"] == subnet for s in subnets)):
            found = self._services.network.find(f"/networks/{uuid}", doing="look at the network")
            if found is None:
                return None
            params = {"network_id": uuid}
            asked = self._services.network.listing("/subnets", "subnets", doing="look at the subnets", params=params)
            told = found["network"]
            subnets = sorted(pictures.for_machines(uuid, asked), key=lambda s: (str(s["cidr"]), str(s["id"])))
        return self.know(ref, told, subnets, subnet)


def size_of(subnet: Json) -> int:
    """How many addresses a subnet gives away."""
    return sum(
        int(ipaddress.IPv4Address(pool["end"])) - int(ipaddress.IPv4Address(pool["start"])) + 1
        for pool in subnet.get("allocation_pools", [])
    )


def overlaps(cidr: str, others: Iterable[str]) -> bool:
    """Whether an IPv4 network has addresses that one of the others has."""
    network = ipaddress.IPv4Network(cidr)
    return any(network.overlaps(ipaddress.IPv4Network(other)) for other in others)


def free_cidr(used: Iterable[str], slots: int, start: int) -> str:
    """A private IPv4 network with room for so many machines that overlaps none of these.

    Args:
        used: other subnets of the project, as routers cannot connect two that overlap; and what else is taken.
        slots: machines; DHCP, the router and a few repairs need addresses as well.
        start: where to begin looking; different clusters begin elsewhere, so two at once seldom choose the same.

    Raises:
        QuotaError: there is none left.
    """
    size = 24
    while 2 ** (32 - size) < slots * 2 + 16:
        size -= 1
    taken = [ipaddress.ip_network(cidr) for cidr in used]
    blocks = 2 ** (size - _OURS.prefixlen)
    base = int(_OURS.network_address)
    for step in range(min(blocks, 8192)):
        # A stride that is odd visits every block of a power of two once.
        block = (start + step * 257) % blocks
        candidate = ipaddress.ip_network((base + block * 2 ** (32 - size), size))
        if not any(candidate.overlaps(other) for other in taken if other.version == 4):
            return str(candidate)
    raise QuotaError(
        f"no network in {_OURS} is left that overlaps neither a subnet of the project nor what is inside the machines",
        remedy="give the pods and services of a Kubernetes less of it, or name a network that is there",
    )


def _pick(word: str, among: Sequence[Json], *, what: str, offer: Sequence[Json]) -> Json:
    by_id = [n for n in among if n["id"] == word]
    found = by_id or [n for n in among if n["name"] == word]
    if not found:
        raise PermanentError(
            f"the project sees no {what} {word!r}", remedy=nearest(word, (str(n["name"]) for n in offer if n["name"]))
        )
    if len(found) > 1:
        ids = ", ".join(sorted(n["id"] for n in found))
        raise PermanentError(f"{len(found)} networks are named {word!r}", remedy=f"give the id: {ids}")
    return found[0]
