"""Everything that is made. Identity is in each create call, so a crash between two calls leaves nothing unmarked.

No call here is repeated by itself: whether one that failed was done is seen at the next look.
"""

from __future__ import annotations

import base64
import gzip
import ipaddress
from collections.abc import Sequence
from dataclasses import replace

from vcluster.chosen import chosen_network, chosen_part, chosen_parts, chosen_ports
from vcluster.clouds.openstack import marks, pictures
from vcluster.clouds.openstack.connect import Services
from vcluster.clouds.openstack.known import Known
from vcluster.clouds.openstack.lookups import Kept, Lookups
from vcluster.clouds.openstack.observe import GROUPS, group_listing
from vcluster.clouds.openstack.rest import Json
from vcluster.errors import CloudError, ConflictError, PermanentError, QuotaError
from vcluster.model import (
    ClusterRef,
    Machine,
    MachineRequest,
    MachineState,
    Network,
    Observed,
    Part,
    PartKind,
    PartRequest,
    Port,
    PortRequest,
    Role,
    VolumeRequest,
)

__all__ = ["USER_DATA_LIMIT", "Maker", "packed"]

USER_DATA_LIMIT = 65535
"""Characters of base64 that Nova takes."""

SSH = 22


def packed(user_data: str) -> str:
    """User data as Nova takes it: gzip (cloud-init knows it), then base64. The same text gives the same letters.

    Raises:
        PermanentError: it is too large.
    """
    text = base64.b64encode(gzip.compress(user_data.encode(), mtime=0)).decode()
    if len(text) > USER_DATA_LIMIT:
        raise PermanentError(
            f"a machine's user data is {len(text)} characters packed ({len(user_data.encode())} bytes plain), "
            f"and Nova takes {USER_DATA_LIMIT}",
            remedy="fewer or shorter files, users, keys or scripts in the spec; large files belong in an image",
        )
    return text


class Maker:
    """Makes things.

    Args:
        services: the cloud.
        lookups: for flavors' ids.
        known: groups that were seen; is told of everything made.
    """

    def __init__(self, services: Services, lookups: Lookups, known: Known) -> None:
        self._services = services
        self._lookups = lookups
        self._known = known
        self._zones = Kept(self._ask_zones)

    # Network and ports -----------------------------------------------------------------------------------------

    def network(self, ref: ClusterRef, tag: str) -> Network:
        body = {"network": {"name": ref.name, "description": tag}}
        told = self._services.network.post("/networks", body, doing="create network")["network"]
        self._known.made(ref, told["id"])
        return pictures.network(told, [], tag=tag)

    def ports(self, ref: ClusterRef, requests: Sequence[PortRequest]) -> list[Port]:
        """All in one call, all or none."""
        if not requests:
            return []
        head, members = (self._group(ref, PartKind.SECURITY_GROUP, name) for name in GROUPS)
        missing = [name for name, uuid in zip(GROUPS, (head, members), strict=True) if not uuid]
        if missing:
            raise ConflictError(f"create ports: security group {' and '.join(missing)} of {ref.name} is not there")
        is_head = {r.name for r in requests if r.tag == ref.tag(Role.HEAD)}
        bodies = [
            {
                "network_id": r.network,
                "name": marks.port_name(ref, r.name, r.claim),
                "description": r.tag,
                "security_groups": [head, members] if r.name in is_head else [members],
            }
            for r in requests
        ]
        doing = f"create {len(requests)} ports" if len(requests) > 1 else f"create port {bodies[0]['name']}"
        try:
            made = self._services.network.post("/ports", {"ports": bodies}, doing=doing)["ports"]
        except ConflictError:
            self._known.forget_groups(ref)
            raise
        self._known.made(ref, *(told["id"] for told in made))
        return [port for told in made if (port := pictures.port(ref, told)) is not None]

    # Machines --------------------------------------------------------------------------------------------------

    def machine(self, ref: ClusterRef, request: MachineRequest) -> Machine:
        """One POST."""
        body = self._server(ref, request)
        hints: Json = {}
        if request.role is Role.WORKER and (group := self._known.group(ref, PartKind.SERVER_GROUP, "workers")):
            hints = {"os:scheduler_hints": {"group": group}}
        now = self._services.clock.now()
        doing = f"create server {body['name']}"
        try:
            told = self._services.compute.post("/servers", {"server": body} | hints, doing=doing)
        except QuotaError as error:
            # Nova refused before it made anything: without the group, machines may share a host.
            if not hints or "group" not in error.message:
                raise
            told = self._services.compute.post("/servers", {"server": body}, doing=doing)
        except PermanentError as error:
            # Somebody deleted the group; the next look has it made anew.
            if not hints or hints["os:scheduler_hints"]["group"] not in error.message:
                raise
            self._known.forget_groups(ref)
            raise ConflictError(error.message) from error
        uuid = str(told["server"]["id"])
        self._known.made(ref, uuid)
        machine = Machine(
            uuid=uuid,
            tag=request.tag,
            name=request.name,
            role=request.role,
            group=request.group,
            state=MachineState.BUILD,
            flavor=request.flavor.name,
            port=request.port.uuid,
            address=request.port.address,
            started=now,
            endpoint=None,
            host_key=request.host_key,
        )
        point = pictures.endpoint(machine, self._known.public())
        return replace(machine, endpoint=point)

    def _server(self, ref: ClusterRef, request: MachineRequest) -> Json:
        metadata = marks.volume_mark(ref, request.tag, request.name) | {
            marks.GROUP: request.group,
            marks.PORT: request.port.uuid,
        }
        if request.host_key:
            metadata[marks.HOST_KEY] = request.host_key
        body: Json = {
            "name": f"{ref.name}-{request.name}",
            "flavorRef": self._lookups.flavor_id(request.flavor.name),
            "networks": [{"port": request.port.uuid}],
            "user_data": packed(request.user_data),
            "config_drive": True,
            "metadata": metadata,
            "tags": [marks.MARK, marks.server_tag(ref)],
        }
        if request.zone:
            body["availability_zone"] = request.zone
        if request.volume:
            body["block_device_mapping_v2"] = [
                {
                    "boot_index": 0,
                    "uuid": request.volume,
                    "source_type": "volume",
                    "destination_type": "volume",
                    "delete_on_termination": True,
                }
            ]
        else:
            body["imageRef"] = request.image
        return body

    def volume(self, ref: ClusterRef, request: VolumeRequest) -> Part:
        body: Json = {
            "name": f"{ref.name}-{request.name}",
            "size": request.size,
            "imageRef": request.image,
            "metadata": marks.volume_mark(ref, request.tag, request.name),
        }
        # Cinder's zones need not be Nova's: only one that it knows is asked for.
        if request.zone and request.zone in self._zones.get():
            body["availability_zone"] = request.zone
        doing = f"create volume {body['name']}"
        told = self._services.volume.post("/volumes", {"volume": body}, doing=doing)["volume"]
        self._known.made(ref, told["id"])
        part = pictures.volume(ref, told | {"metadata": body["metadata"]})
        assert part is not None
        return part

    def _ask_zones(self) -> frozenset[str]:
        told = self._services.volume.get("/os-availability-zone", doing="list Cinder's zones")
        return frozenset(str(zone["zoneName"]) for zone in told.get("availabilityZoneInfo", []))

    # Parts -----------------------------------------------------------------------------------------------------

    def part(self, ref: ClusterRef, request: PartRequest, observed: Observed) -> Part:
        """Make one, or complete the one that is not ready."""
        old = chosen_part(observed, request.kind, request.name)
        make = {
            PartKind.SUBNET: self._subnet,
            PartKind.ROUTER: self._router,
            PartKind.GATEWAY: self._gateway,
            PartKind.SECURITY_GROUP: self._security_group,
            PartKind.SERVER_GROUP: self._server_group,
            PartKind.FLOATING_IP: self._floating_ip,
        }.get(request.kind)
        if make is None:
            raise PermanentError(f"a {request.kind} is not made in this way")
        part = make(ref, request, observed, old)
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
        return _made(pictures.subnet(ref, told))

    def _router(self, ref: ClusterRef, request: PartRequest, observed: Observed, old: Part | None) -> Part:
        body = {
            "name": ref.name,
            "description": request.tag,
            "external_gateway_info": {"network_id": _detail(request, "network")},
        }
        told = self._services.network.post("/routers", {"router": body}, doing="create router")["router"]
        return _made(pictures.router(ref, told))

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
        service.put(path, {"port_id": old.uuid}, doing="attach the subnet to its router")
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
        rules = {"security_group_rules": _rules(old.uuid, request)}
        service.post("/security-group-rules", rules, doing=f"open security group {request.name}")
        return Part(old.uuid, request.tag, request.kind, request.name, created=old.created)

    def _server_group(self, ref: ClusterRef, request: PartRequest, observed: Observed, old: Part | None) -> Part:
        body = {"name": marks.server_group_name(ref), "policies": ["soft-anti-affinity"]}
        told = self._services.compute.post("/os-server-groups", {"server_group": body}, doing="create server group")
        return _made(pictures.server_group(ref, told["server_group"]))

    def _floating_ip(self, ref: ClusterRef, request: PartRequest, observed: Observed, old: Part | None) -> Part:
        """Bound to the head's port from the first moment; one that the spec names is only bound."""
        port = _head_port(ref, observed)
        service, given = self._services.network, request.detail.get("uuid", "")
        if given or old is not None:
            uuid = given or (old.uuid if old is not None else "")
            body: Json = {"floatingip": {"port_id": port.uuid}}
            told = service.put(f"/floatingips/{uuid}", body, doing="bind the floating IP")["floatingip"]
        else:
            body = {
                "floatingip": {
                    "floating_network_id": _detail(request, "network"),
                    "port_id": port.uuid,
                    "description": request.tag,
                }
            }
            told = service.post("/floatingips", body, doing="create floating IP")["floatingip"]
        self._known.lend(port.uuid, str(told["floating_ip_address"]))
        return _made(pictures.floating_ip(ref, told, {port.uuid: port}))

    # Inside ----------------------------------------------------------------------------------------------------

    def _group(self, ref: ClusterRef, kind: PartKind, name: str) -> str:
        """A group's uuid, seen in this run or asked for."""
        if not (uuid := self._known.group(ref, kind, name)):
            listed = [pictures.security_group(ref, told) for told in group_listing(self._services, ref)]
            picture = Observed(parts=tuple(part for part in listed if part is not None))
            for part in chosen_parts(picture).values():
                self._known.made_part(ref, part)
            uuid = self._known.group(ref, kind, name)
        return uuid


def _rules(group: str, request: PartRequest) -> list[Json]:
    """The least that works: SSH to the head from where the spec says, and members among themselves."""
    rules: list[Json] = []
    if request.name == "head":
        for prefix in filter(None, request.detail.get("allow_from", "").split(",")):
            rules.append(  # noqa: PERF401
                {
                    "security_group_id": group,
                    "direction": "ingress",
                    "ethertype": f"IPv{ipaddress.ip_network(prefix, strict=False).version}",
                    "protocol": "tcp",
                    "port_range_min": SSH,
                    "port_range_max": SSH,
                    "remote_ip_prefix": str(ipaddress.ip_network(prefix, strict=False)),
                }
            )
        return rules
    return [
        {"security_group_id": group, "direction": "ingress", "ethertype": family, "remote_group_id": group}
        for family in ("IPv4", "IPv6")
    ]


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
