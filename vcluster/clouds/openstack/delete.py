"""Everything that goes. By uuid alone, and only what is seen to carry the cluster's tag on this side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

from vcluster.clouds.openstack import marks, pictures
from vcluster.clouds.openstack.addresses import Addresses
from vcluster.clouds.openstack.connect import Services
from vcluster.clouds.openstack.known import Known
from vcluster.clouds.openstack.observe import server_groups
from vcluster.clouds.openstack.offspring import Offspring, disk_path
from vcluster.clouds.openstack.rest import Json, Service
from vcluster.errors import CloudError, ConflictError, PermanentError
from vcluster.model import ClusterRef, Part, PartKind

__all__ = ["Remover"]

KEEP_VERSION = "2.85"
"""The first in which a volume's end can be separated from its server's (Nova 22, 2020)."""

_PATHS: Mapping[PartKind, tuple[str, str]] = {
    PartKind.SUBNET: ("/subnets", "subnet"),
    PartKind.ROUTER: ("/routers", "router"),
    PartKind.GATEWAY: ("/ports", "port"),
    PartKind.SECURITY_GROUP: ("/security-groups", "security_group"),
}


class Remover:
    """Deletes things.

    Args:
        services: the cloud.
        known: what a listing of this run showed as ours needs no second look.
        offspring: deletes what the cluster's own software made.
        pool: Neutron has no call for many ports.
    """

    def __init__(self, services: Services, known: Known, offspring: Offspring, pool: Executor) -> None:
        self._services = services
        self._known = known
        self._pool = pool
        self._addresses = Addresses(services, known)
        self._offspring = offspring

    def machine(self, ref: ClusterRef, uuid: str) -> None:
        if self._known.is_own(ref, uuid) or self.is_own_server(ref, uuid):
            self._services.compute.delete(f"/servers/{uuid}", doing=f"delete server {uuid}")

    def is_own_server(self, ref: ClusterRef, uuid: str) -> bool:
        """Whether it is the cluster's; False when it is gone.

        Raises:
            PermanentError: it is another's.
        """
        told = self._services.compute.find(f"/servers/{uuid}", doing=f"look at server {uuid}")
        return told is not None and _check(ref, uuid, (told["server"].get("metadata") or {}).get(marks.MARK))

    def ports(self, ref: ClusterRef, uuids: Sequence[str]) -> None:
        """All are tried; then the first failure counts."""
        asked = [self._pool.submit(self._one, ref, uuid, "/ports", "port") for uuid in uuids]
        failed = [error for answer in asked if (error := answer.exception()) is not None]
        for error in sorted(failed, key=lambda e: isinstance(e, CloudError)):
            raise error

    def network(self, ref: ClusterRef, uuid: str) -> None:
        self._one(ref, uuid, "/networks", "network")

    def part(self, ref: ClusterRef, part: Part) -> None:
        """See :meth:`vcluster.clouds.base.Cloud.delete_part`."""
        if part.kept:
            raise PermanentError(f"{part.kind} {part.uuid} was asked to stay, or was there before: it is not deleted")
        if part.kind in (PartKind.VOLUME, PartKind.SNAPSHOT):
            self._disk(ref, part)
        elif part.maker:
            self._offspring.delete(ref, part)
        elif part.kind is PartKind.SERVER_GROUP:
            if self._known.is_own(ref, part.uuid) or self._is_own_group(ref, part.uuid):
                self._services.compute.delete(f"/os-server-groups/{part.uuid}", doing="delete server group")
        elif part.kind is PartKind.GATEWAY and part.used_by:
            self._detach(ref, part)
        elif part.kind is PartKind.FLOATING_IP:
            self._addresses.delete(ref, part.uuid)
        else:
            self._one(ref, part.uuid, *_PATHS[part.kind])

    def keep(self, ref: ClusterRef, parts: Sequence[Part]) -> None:
        """See :meth:`vcluster.clouds.base.Cloud.keep_volumes`. The mark comes last: a kept volume is kept in fact."""
        for part in parts:
            if not (self._known.is_own(ref, part.uuid) or self._look(ref, part) is not None):
                continue
            for server in self._users(ref, part) if part.kind is PartKind.VOLUME else ():
                self._untie(server, part.uuid)
            path, key = disk_path(part.kind)
            mark = {"metadata": {marks.KEPT: "yes"}}
            self._services.volume.post(f"{path}/{part.uuid}/metadata", mark, doing=f"mark the {key} as kept")

    # Inside ----------------------------------------------------------------------------------------------------

    def _users(self, ref: ClusterRef, part: Part) -> list[str]:
        """The servers that would take the volume with them. Nova knows them also when Cinder does not: a shelved one
        holds its volume by a reservation, which Cinder's listing leaves out.
        """
        params = {"tags": marks.server_tag(ref)}
        listed = self._services.compute.listing("/servers/detail", "servers", doing="list servers", params=params)
        users = {str(told["id"]) for told in listed if part.uuid in pictures.volumes_of(told)}
        return sorted(users | ({part.used_by} if part.used_by else set()))

    def _untie(self, server: str, volume: str) -> None:
        """The volume stays when the server goes."""
        path = f"/servers/{server}/os-volume_attachments"
        body = {"volumeAttachment": {"volumeId": volume, "delete_on_termination": False}}
        try:
            self._services.compute.put(f"{path}/{volume}", body, doing="keep the volume", microversion=KEEP_VERSION)
        except ConflictError:
            told = self._services.compute.find(path, doing="look at the server's volumes") or {}
            if any(str(one.get("volumeId")) == volume for one in told.get("volumeAttachments", [])):
                raise  # else the server is gone, or never had it: it takes nothing along

    def _one(self, ref: ClusterRef, uuid: str, path: str, key: str) -> None:
        service = self._services.network
        if self._known.is_own(ref, uuid) or self._is_own(service, ref, uuid, path, key):
            service.delete(f"{path}/{uuid}", doing=f"delete {key.replace('_', ' ')} {uuid}")

    def _is_own(self, service: Service, ref: ClusterRef, uuid: str, path: str, key: str) -> bool:
        told = service.find(f"{path}/{uuid}", doing=f"look at {key} {uuid}")
        return told is not None and _check(ref, uuid, told[key].get("description"))

    def _is_own_group(self, ref: ClusterRef, uuid: str) -> bool:
        found: list[Json] = [told for told in server_groups(self._services) if told["id"] == uuid]
        if found and pictures.server_group(ref, found[0]) is None:
            raise _not_ours(ref, uuid)
        return bool(found)

    def _look(self, ref: ClusterRef, part: Part) -> Json | None:
        """A volume, or a snapshot, as it is now; None when it is gone.

        Raises:
            PermanentError: it is another's.
        """
        if part.maker:
            return self._offspring.look(ref, part)
        found = self._services.volume.find(f"/volumes/{part.uuid}", doing=f"look at volume {part.uuid}")
        if found is None:
            return None
        told: Json = found["volume"]
        _check(ref, part.uuid, (told.get("metadata") or {}).get(marks.MARK))
        return told

    def _detach(self, ref: ClusterRef, part: Part) -> None:
        """Off its router: that deletes the port as well."""
        if not (
            self._known.is_own(ref, part.uuid) or self._is_own(self._services.network, ref, part.uuid, "/ports", "port")
        ):
            return
        path, body = f"/routers/{part.used_by}/remove_router_interface", {"port_id": part.uuid}
        try:
            self._services.network.put(path, body, doing="detach the subnet from its router")
        except ConflictError:
            # It says so as well when port or router are gone already.
            if self._services.network.find(f"/ports/{part.uuid}", doing="look at the router's port") is not None:
                raise

    def _disk(self, ref: ClusterRef, part: Part) -> None:
        told = self._look(ref, part)
        if told is None:
            return
        path, key = disk_path(part.kind)
        if marks.KEPT in (told.get("metadata") or {}):
            raise PermanentError(f"{key} {part.uuid} was asked to stay: it is not deleted")
        status = str(told.get("status"))
        if status == "deleting":
            return
        if status not in ("available", "error", "error_deleting", "error_restoring", "error_extending"):
            # Cinder would answer 400, which tells nothing apart.
            raise ConflictError(f"delete {key} {part.uuid}: it is {status}")
        self._services.volume.delete(f"{path}/{part.uuid}", doing=f"delete {key} {part.uuid}")


def _check(ref: ClusterRef, uuid: str, text: str | None) -> bool:
    if not ref.owns(marks.tag_in(text)):
        raise _not_ours(ref, uuid)
    return True


def _not_ours(ref: ClusterRef, uuid: str) -> PermanentError:
    return PermanentError(f"{uuid} does not carry the tag of cluster {ref.name}: it is not touched")
