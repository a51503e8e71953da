"""The making of what stands around machines: subnet, router, groups, floating IP.

As in :mod:`vcluster.clouds.openstack.create`, identity is in each create call and no call is repeated by itself. Two
parts take two calls, a security group its rules and a gateway its router: in between they are there, marked, and not
ready, and the next run completes them.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from vcluster.chosen import chosen_network, chosen_part, chosen_ports
from vcluster.clouds.openstack import errors, groups, marks, pictures
from vcluster.clouds.openstack.addresses import Addresses
from vcluster.clouds.openstack.connect import Services
from vcluster.clouds.openstack.known import Known
from vcluster.errors import CloudError, ConflictError, PermanentError, QuotaError
from vcluster.model import ClusterRef, Network, Observed, Part, PartKind, PartRequest, Port, Role

__all__ = ["PartMaker"]

TAKEN = "already has a port on subnet"
"""Of Neutron's answer when something on a router has, or once had for a moment, an address in the subnet."""


class PartMaker:
    """Makes parts.

    Args:
        services: the cloud.
        known: is told of everything made.
    """

    def __init__(self, services: Services, known: Known) -> None:
        self._services = services
        self._known = known
        self._addresses = Addresses(services, known)

    def make(self, ref: ClusterRef, request: PartRequest, observed: Observed) -> Part:
        """Make one, or complete the one that is not ready."""
        old = chosen_part(observed, request.kind, request.name)
        ways = {
            PartKind.SUBNET: self._subnet,
            PartKind.ROUTER: self._router,
            PartKind.GATEWAY: self._gateway,
            PartKind.SECURITY_GROUP: self._security_group,
            PartKind.SERVER_GROUP: self._server_group,
            PartKind.FLOATING_IP: self._floating_ip,
        }
        way = ways.get(request.kind)
        if way is None:
            raise PermanentError(f"a {request.kind} is not made in this way")
        part = way(ref, request, observed, old)
        self._known.made_part(ref, part)
        return part

    def _subnet(self, ref: ClusterRef, request: PartRequest, observed: Observed, old: Part | None) -> Part:
        network = _own_network(ref, observed)
        body = {
            "network_id": network.uuid,
            "name": ref.name,
            "description": request.tag,
            "ip_version": 4,
            "cidr": _detail(request, "cidr"),
        }
        told = self._services.network.post("/subnets", {"subnet": body}, doing="create subnet")["subnet"]
        self._known.lies(ref, network.uuid, str(told["id"]))
        return _made(pictures.subnet(ref, told))

    def _router(self, ref: ClusterRef, request: PartRequest, observed: Observed, old: Part | None) -> Part:
        pool = _detail(request, "network")
        body = {"name": ref.name, "description": request.tag, "external_gateway_info": {"network_id": pool}}
        try:
            made = self._services.network.post("/routers", {"router": body}, doing="create router")
        except QuotaError as error:
            raise self._no_address(ref, pool, error) from error
        return _made(pictures.router(ref, made["router"]))

    def _gateway(self, ref: ClusterRef, request: PartRequest, observed: Observed, old: Part | None) -> Part:
        """First a port that carries our tag, also where the router was there before; then it is attached."""
        subnet, network = _need(observed, PartKind.SUBNET), _own_network(ref, observed)
        router = request.detail.get("router") or _need(observed, PartKind.ROUTER).uuid
        service = self._services.network
        if old is None:
            if not network.cidr:
                raise ConflictError("create gateway: the network's subnet is not listed yet")
            address = str(ipaddress.ip_network(network.cidr)[1])  # Neutron's default for a subnet's gateway
            body = {
                "network_id": network.uuid,
                "name": f"{ref.name}-gateway",
                "description": request.tag,
                "fixed_ips": [{"subnet_id": subnet.uuid, "ip_address": address}],
            }
            told = service.post("/ports", {"port": body}, doing="create the router's port")["port"]
            old = _made(pictures.gateway(ref, told))
            self._known.made(ref, old.uuid)
        path = f"/routers/{router}/add_router_interface"
        try:
            service.put(path, {"port_id": old.uuid}, doing="attach the subnet to its router")
        except ConflictError as error:
            if TAKEN in str(error):
                # Two legs attached at the same moment that overlap are both refused, and Neutron keeps the record of
                # ours (l3_db._add_router_port): it never attaches this port, and takes another. An attached one stays:
                # a router's port is not deleted in this way.
                service.delete(f"/ports/{old.uuid}", doing="delete the port that is half attached")
            raise
        return replace(old, ready=True, used_by=router)

    def _security_group(self, ref: ClusterRef, request: PartRequest, observed: Observed, old: Part | None) -> Part:
        service = self._services.network
        if old is None:
            members = request.name == "members"
            body = {
                "name": marks.group_name(ref, request.name),
                "description": marks.signed(ref, request.tag) if members else request.tag,
            }
            doing = f"create security group {body['name']}"
            told = service.post("/security-groups", {"security_group": body}, doing=doing)["security_group"]
            old = _made(pictures.security_group(ref, told))
            self._known.made(ref, old.uuid)
        else:
            found = service.find(f"/security-groups/{old.uuid}", doing=f"look at security group {request.name}")
            if found is None:
                raise ConflictError(f"security group {request.name} is gone")
            told = found["security_group"]
        if lacking := groups.lacking(told, request):
            rules = {"security_group_rules": lacking}
            service.post("/security-group-rules", rules, doing=f"open security group {request.name}")
        elif not groups.is_open(told):
            path = f"/security-groups/{old.uuid}/tags/{marks.OPEN}"
            service.put(path, doing=f"mark security group {request.name} as open", safe=True)
        for rule in groups.doubles(told):
            service.delete(f"/security-group-rules/{rule}", doing=f"delete a rule that {request.name} has twice")
        return Part(old.uuid, request.tag, request.kind, request.name, created=old.created)

    def _server_group(self, ref: ClusterRef, request: PartRequest, observed: Observed, old: Part | None) -> Part:
        body = {"name": marks.server_group_name(ref), "policies": ["soft-anti-affinity"]}
        told = self._services.compute.post("/os-server-groups", {"server_group": body}, doing="create server group")
        return _made(pictures.server_group(ref, told["server_group"]))

    def _floating_ip(self, ref: ClusterRef, request: PartRequest, observed: Observed, old: Part | None) -> Part:
        """Bound to the head's port from the first moment; one that the spec names is only bound."""
        try:
            return self._address(ref, request, _head_port(ref, observed), old)
        except PermanentError as error:
            if error.remedy == errors.NO_WAY_OUT and self._has_way_out(request, observed, old):
                raise ConflictError(error.message, remedy=error.remedy) from error
            raise

    def _has_way_out(self, request: PartRequest, observed: Observed, old: Part | None) -> bool:
        """Whether our leg is on a router to the address's network: then it is half attached, or a twin's is just going.

        Both are over in a moment; that a router leads elsewhere is not.
        """
        leg, service = chosen_part(observed, PartKind.GATEWAY, str(PartKind.GATEWAY)), self._services.network
        if leg is None or not leg.used_by:
            return leg is not None
        router = service.find(f"/routers/{leg.used_by}", doing="look at the router")
        if router is None:
            return True
        pool = request.detail.get("network", "")
        if uuid := _address_uuid(request, old):
            address = service.find(f"/floatingips/{uuid}", doing="look at the floating IP") or {}
            pool = address.get("floatingip", {}).get("floating_network_id", "")
        return bool((router["router"].get("external_gateway_info") or {}).get("network_id") == pool)

    def _address(self, ref: ClusterRef, request: PartRequest, port: Port, old: Part | None) -> Part:
        if uuid := _address_uuid(request, old):
            own = "uuid" not in request.detail
            told = self._addresses.bind(ref, uuid, port.uuid, own=own)
        else:
            pool = _detail(request, "network")
            body = {"floating_network_id": pool, "port_id": port.uuid, "description": request.tag}
            try:
                made = self._services.network.post("/floatingips", {"floatingip": body}, doing="create floating IP")
            except QuotaError as error:
                raise self._no_address(ref, pool, error) from error
            told = made["floatingip"]
        self._known.lend(port.uuid, str(told["floating_ip_address"]))
        return _made(pictures.floating_ip(ref, told, {port.uuid: port}))

    def _no_address(self, ref: ClusterRef, pool: str, error: QuotaError) -> QuotaError:
        """A part of the cluster is there by now: that a pool is empty, a user may not ask before."""
        message = error.message
        if error.remedy == errors.POOL_IS_EMPTY:
            told = self._services.network.find(f"/networks/{pool}", doing="look at the external network") or {}
            name = told.get("network", {}).get("name") or pool
            message = f"external network {name!r} has no address left: {message}"
        return QuotaError(
            message,
            remedy="what was made so far stays: the same command goes on from there when there is an address again; "
            f"`vcluster down {ref.name}` deletes it, and with access.floating_ip (one of `openstack floating ip list`) "
            "or another external_network it can be brought up anew",
        )


def _address_uuid(request: PartRequest, old: Part | None) -> str:
    """The floating IP that the spec names, else the one that is there; empty when one is to be made."""
    return request.detail.get("uuid", "") or (old.uuid if old is not None else "")


def _detail(request: PartRequest, word: str) -> str:
    """What the layout chose; of a part that was there then nothing was to be chosen."""
    if word not in request.detail:
        raise PermanentError(
            f"the {str(request.kind).replace('-', ' ')} {request.name} went away while this ran",
            remedy="run the same command again: it chooses anew",
        )
    return request.detail[word]


def _own_network(ref: ClusterRef, observed: Observed) -> Network:
    found = chosen_network(observed)
    if found is None or found.foreign or not ref.owns(found.tag):
        raise ConflictError("the cluster's network is not there")
    return found


def _need(observed: Observed, kind: PartKind) -> Part:
    found = chosen_part(observed, kind, str(kind))
    if found is None:
        raise ConflictError(f"the cluster's {kind} is not there")
    return found


def _head_port(ref: ClusterRef, observed: Observed) -> Port:
    found = next((p for p in chosen_ports(observed).values() if p.tag == ref.tag(Role.HEAD)), None)
    if found is None:
        raise ConflictError("the head's port is not there")
    return found


def _made(part: Part | None) -> Part:
    if part is None:
        raise CloudError("the cloud made it without the description that marks it as ours")
    return part
