"""The networks, subnets and routers that are there before a cluster, and which of them it may use."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from vcluster.clouds.openstack import marks, pictures
from vcluster.clouds.openstack.connect import Services
from vcluster.clouds.openstack.lookups import nearest
from vcluster.clouds.openstack.rest import GONE, Json
from vcluster.errors import PermanentError, QuotaError
from vcluster.model import Network

__all__ = ["AUTO", "Foreign", "Surroundings", "free_cidr"]

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
        """The network's IPv4 subnets."""
        return [s for s in self.subnets if s["network_id"] == network["id"] and s.get("ip_version") == 4]

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
    """Pictures of networks that are not ours: what is in them does not change, so each is asked for once."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._known: dict[str, Network] = {}

    def know(self, network: Network) -> Network:
        """Remember a picture that was taken on the way."""
        with self._lock:
            return self._known.setdefault(network.uuid, network)

    def get(self, uuid: str) -> Network | None:
        """The network; None when it is not there (any more)."""
        with self._lock:
            if uuid in self._known:
                return self._known[uuid]
        told = self._services.network.find(f"/networks/{uuid}", doing="look at the network")
        if told is None:
            return None
        params = {"network_id": uuid}
        subnets = self._services.network.listing("/subnets", "subnets", doing="look at the subnets", params=params)
        return self.know(pictures.network(told["network"], subnets, tag=""))


def free_cidr(used: Iterable[str], slots: int, start: int) -> str:
    """A private IPv4 network with room for so many machines that overlaps none of these.

    Args:
        used: other subnets of the project; routers cannot connect two that overlap.
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
    raise QuotaError("no private network is left that overlaps none of the project's subnets")


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
