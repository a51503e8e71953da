"""The making of networks, ports, machines and volumes.

Identity is in each create call, so a crash between two calls leaves nothing unmarked. No call here is repeated by
itself: whether one that failed was done is seen at the next look.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence

from vcluster.chosen import chosen_parts
from vcluster.clouds.openstack import marks, pictures
from vcluster.clouds.openstack.connect import Services
from vcluster.clouds.openstack.known import Known
from vcluster.clouds.openstack.lookups import Kept, Lookups
from vcluster.clouds.openstack.observe import GROUPS, group_listing
from vcluster.clouds.openstack.rest import Json
from vcluster.errors import ConflictError, PermanentError, QuotaError
from vcluster.model import (
    ClusterRef,
    Machine,
    MachineRequest,
    MachineState,
    Network,
    Observed,
    Part,
    PartKind,
    Port,
    PortRequest,
    Role,
    VolumeRequest,
)

__all__ = ["USER_DATA_LIMIT", "Maker", "packed"]

USER_DATA_LIMIT = 65535
"""Characters of base64 that Nova takes."""


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
        return pictures.network(told, None, tag=tag)

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
            # A subnet may be named by whoever may use the network; an address by its owner alone.
            | ({"fixed_ips": [{"subnet_id": subnet}]} if (subnet := self._known.subnet(ref, r.network)) else {})
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
            self_contained=request.self_contained,
        )
        return pictures.reached(machine, self._known.public())

    def _server(self, ref: ClusterRef, request: MachineRequest) -> Json:
        metadata = marks.volume_mark(ref, request.tag, request.name) | {
            marks.GROUP: request.group,
            marks.PORT: request.port.uuid,
        }
        if request.host_key:
            metadata[marks.HOST_KEY] = request.host_key
        if request.self_contained:
            metadata[marks.SELF_CONTAINED] = "yes"
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
