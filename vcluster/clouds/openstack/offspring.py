"""Finds and deletes what a Kubernetes on the cluster made, by the marks of :mod:`vcluster.clouds.openstack.kubernetes`.

A cloud without Octavia, or without Cinder, is not asked for what it cannot have.
"""

from __future__ import annotations

from concurrent.futures import Executor
from contextlib import suppress
from functools import partial

from vcluster.clouds.openstack import kubernetes
from vcluster.clouds.openstack.addresses import Addresses
from vcluster.clouds.openstack.connect import Services
from vcluster.clouds.openstack.known import Known
from vcluster.clouds.openstack.observe import volumes
from vcluster.clouds.openstack.rest import GONE, NOT_HERE, Json, Params, Service
from vcluster.errors import CloudError, ConflictError, PermanentError
from vcluster.model import ClusterRef, Part, PartKind

__all__ = ["Offspring", "balancers_or_none", "disk_path"]

_BALANCERS = "/lbaas/loadbalancers"
_PATHS = {
    PartKind.LOAD_BALANCER: (_BALANCERS, "loadbalancer"),
    PartKind.SECURITY_GROUP: ("/security-groups", "security_group"),
    PartKind.VOLUME: ("/volumes", "volume"),
    PartKind.SNAPSHOT: ("/snapshots", "snapshot"),
}
_NAMES = ("id", "name", "description", "created_at")


class Offspring:
    """A Kubernetes' things.

    Args:
        services: the cloud.
        known: which ports are the cluster's.
        pool: for the listings.
    """

    def __init__(self, services: Services, known: Known, pool: Executor) -> None:
        self._services, self._pool = services, pool
        self._addresses = Addresses(services, known)

    def listed(self, ref: ClusterRef) -> list[Part]:
        """See :meth:`vcluster.clouds.base.Cloud.offspring`."""
        services = self._services
        mine: Params = {"project_id": services.identity.project, "fields": _NAMES}
        bound = {**mine, "fields": ("id", "description", "created_at", "port_id")}
        network = services.network.listing
        # Cinder takes a dictionary in Python's writing.
        made: Params = {"metadata": str({kubernetes.CSI: ref.kubernetes})}
        asked = {
            PartKind.LOAD_BALANCER: partial(balancers, services),
            PartKind.FLOATING_IP: partial(
                network, "/floatingips", "floatingips", doing="list floating IPs", params=bound, none=GONE
            ),
            PartKind.SECURITY_GROUP: partial(
                network, "/security-groups", "security_groups", doing="list security groups", params=mine
            ),
            PartKind.VOLUME: partial(volumes, services, made),
            PartKind.SNAPSHOT: partial(snapshots, services),
        }
        answers = {kind: self._pool.submit(ask) for kind, ask in asked.items()}
        found = (kubernetes.part(ref, kind, told) for kind, answer in answers.items() for told in answer.result())
        return [part for part in found if part is not None]

    def delete(self, ref: ClusterRef, part: Part) -> None:
        """Delete one of them but a volume or snapshot; gone already, or on its way: no error.

        Raises:
            ConflictError: it is in the middle of a change, or in use.
            PermanentError: it does not carry this cluster's mark any more, or others use it.
        """
        if part.kind is PartKind.FLOATING_IP:
            own = partial(kubernetes.is_own, ref, part.kind)
            self._addresses.delete(ref, part.uuid, own=own, ours=partial(self._has_address, ref))
            return
        told = self.look(ref, part)
        if told is None:
            return
        if part.kind is PartKind.LOAD_BALANCER:
            self._balancer(ref, part, told)
        else:
            self._service(part.kind).delete(f"/security-groups/{part.uuid}", doing=f"delete security group {part.uuid}")

    def look(self, ref: ClusterRef, part: Part) -> Json | None:
        """The thing as it is now; None when it is gone.

        Raises:
            PermanentError: it does not carry this cluster's mark.
        """
        path, key = _PATHS[part.kind]
        doing = f"look at {part.kind.replace('-', ' ')} {part.uuid}"
        found = self._service(part.kind).find(f"{path}/{part.uuid}", doing=doing)
        if found is None:
            return None
        told: Json = found[key]
        if not kubernetes.is_own(ref, part.kind, told):
            raise PermanentError(f"{part.uuid} was not made by the Kubernetes of cluster {ref.name}: it is not touched")
        return told

    # Inside ----------------------------------------------------------------------------------------------------

    def _service(self, kind: PartKind) -> Service:
        if kind is PartKind.LOAD_BALANCER:
            return self._services.balancer
        return self._services.network if kind is PartKind.SECURITY_GROUP else self._services.volume

    def _balancer(self, ref: ClusterRef, part: Part, told: Json) -> None:
        """With its listeners and pools; the port that Octavia made for it goes as well."""
        status = str(told.get("provisioning_status"))
        if status in ("PENDING_DELETE", "DELETED"):
            return
        if other := kubernetes.sharer(ref, told):
            raise PermanentError(f"load balancer {part.uuid} serves another cluster, too ({other}): it is not touched")
        doing = f"delete load balancer {part.uuid}"
        if status.startswith("PENDING"):
            raise ConflictError(f"{doing}: it is {status}")
        self._services.balancer.delete(f"{_BALANCERS}/{part.uuid}?cascade=true", doing=doing)

    def _has_address(self, ref: ClusterRef, port: Json) -> bool:
        """Whether a port is that of a load balancer of the cluster's, which Octavia has not let go yet."""
        params = {"vip_port_id": str(port["id"])}
        near = (told for told in balancers(self._services, params) if told.get("vip_port_id") == port["id"])
        return any(kubernetes.is_own(ref, PartKind.LOAD_BALANCER, told) for told in near)


def balancers(services: Services, params: Params | None = None) -> list[Json]:
    """The project's load balancers: none where there is no Octavia, or none for this user."""
    if not services.has_balancers:
        return []
    asked = {"project_id": services.identity.project} | dict(params or {})
    return services.balancer.listing(
        _BALANCERS, "loadbalancers", doing="list load balancers", params=asked, none=NOT_HERE
    )


def balancers_or_none(services: Services) -> list[Json]:
    """The same for who lists clusters: an Octavia that does not answer must not hide those."""
    with suppress(CloudError):
        return balancers(services)
    return []


def snapshots(services: Services) -> list[Json]:
    """All of the project's snapshots of volumes: by metadata only newer Cinders look."""
    if not services.has_volumes:
        return []
    path, doing = "/snapshots/detail", "list snapshots"
    return services.volume.listing(path, "snapshots", doing=doing, none=NOT_HERE)


def disk_path(kind: PartKind) -> tuple[str, str]:
    """Where Cinder has a volume or a snapshot, and the word around it in an answer."""
    return _PATHS[kind]
