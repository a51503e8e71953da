"""What Kubernetes' own programs for OpenStack write on what they make, and whose it is by that.

The cloud controller manager runs with ``--cluster-name=vcluster-<id>``, Cinder's CSI driver with
``--cluster=vcluster-<id>``. The forms are kubernetes/cloud-provider-openstack's, of ``pkg/openstack/loadbalancer.go``
and ``loadbalancer_sg.go``, ``pkg/csi/cinder/controllerserver.go``. It makes no ports itself: a load balancer's are
Octavia's, and go with it.

A cluster's name is compared whole, never as the beginning of something: another cluster's may go on where ours ends.
Pure: nothing here asks anybody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vcluster.clouds.openstack import marks, pictures
from vcluster.clouds.openstack.rest import Json
from vcluster.identity import TAG_PREFIX
from vcluster.model import ClusterRef, Part, PartKind

__all__ = ["CSI", "MAKER", "id_of", "is_own", "part", "sharer"]

MAKER = "Kubernetes"

CSI = "cinder.csi.openstack.org/cluster"
"""The key in a volume's or snapshot's metadata."""

_SERVICE = r"(?P<namespace>[a-z0-9.-]+)/(?P<name>[a-z0-9.-]+)"
_SAYS = {
    PartKind.LOAD_BALANCER: re.compile(rf"Kubernetes external service {_SERVICE} from cluster (?P<cluster>\S+)"),
    PartKind.FLOATING_IP: re.compile(
        rf"Floating IP for Kubernetes external service {_SERVICE} from cluster (?P<cluster>\S+)"
    ),
    PartKind.SECURITY_GROUP: re.compile(
        rf"Security Group for {_SERVICE} Service LoadBalancer in cluster (?P<cluster>\S+)"
    ),
}
_CLUSTER = re.compile(rf"{TAG_PREFIX}-([0-9a-f]{{10}})")

_SHARES = "kube_service_"
"""How the name of a load balancer begins, and the tag of each Service that has a listener on it."""

_LONGEST = 255
"""Characters, after which the controller cuts a name off."""

_NAMED = ("csi.storage.k8s.io/pvc", "csi.storage.k8s.io/volumesnapshot")
"""Of the keys under which a volume or snapshot has the name of the object that it was made for."""


def id_of(kind: PartKind, told: Json) -> str:
    """The id of the vcluster cluster whose software made it; empty where it is none's."""
    match = _CLUSTER.fullmatch(_cluster(kind, told))
    return match.group(1) if match else ""


def is_own(ref: ClusterRef, kind: PartKind, told: Json) -> bool:
    """Whether this cluster's software made it, by every mark that it writes on such a thing."""
    return _cluster(kind, told) == ref.kubernetes


def part(ref: ClusterRef, kind: PartKind, told: Json) -> Part | None:
    """The thing as one of the cluster's parts; None when it is not its own."""
    if not is_own(ref, kind, told):
        return None
    status = str(told.get("provisioning_status") or told.get("status") or "")
    attached = told.get("attachments") or []
    return Part(
        uuid=str(told["id"]),
        tag=ref.tag(kind),
        kind=kind,
        name=_object(kind, told),
        used_by=str(attached[0].get("server_id", "")) if attached else str(told.get("port_id") or ""),
        created=pictures.moment(told.get("created_at")),
        kept=marks.KEPT in (told.get("metadata") or {}),
        status=status,
        maker=MAKER,
    )


def sharer(ref: ClusterRef, balancer: Json) -> str:
    """Whose Service, of another cluster, has a listener on this load balancer as well: its tag; empty for nobody's."""
    mine = re.compile(rf"{_SHARES}{re.escape(ref.kubernetes)}_[^_]+(_[^_]*)?")
    tags = (str(tag) for tag in balancer.get("tags") or [])
    return next((tag for tag in tags if tag.startswith(_SHARES) and not mine.fullmatch(tag)), "")


def _cluster(kind: PartKind, told: Json) -> str:
    """The name of the Kubernetes cluster that it was made for; empty where its marks do not agree."""
    if kind not in _SAYS:
        return str((told.get("metadata") or {}).get(CSI, ""))
    match = _SAYS[kind].fullmatch(str(told.get("description") or ""))
    if match is None:
        return ""
    namespace, service, cluster = match.group("namespace", "name", "cluster")
    name = str(told.get("name", ""))
    if kind is PartKind.LOAD_BALANCER:
        # A controller that takes another's load balancer over writes its own name, and lets the description be.
        agrees = name == f"{_SHARES}{cluster}_{namespace}_{service}"[:_LONGEST]
    elif kind is PartKind.SECURITY_GROUP:
        agrees = name.startswith("lb-sg-") and (name.endswith(f"-{namespace}-{service}") or len(name) == _LONGEST)
    else:
        agrees = True  # an address has no name
    return cluster if agrees else ""


def _object(kind: PartKind, told: Json) -> str:
    """The Kubernetes object that it was made for, ``namespace/name``: that is what people know it by."""
    if kind in _SAYS:
        match = _SAYS[kind].fullmatch(str(told.get("description") or ""))
        return "/".join(match.group("namespace", "name")) if match else ""
    metadata: Mapping[str, str] = told.get("metadata") or {}
    for key in _NAMED:
        if name := metadata.get(f"{key}/name"):
            return f"{metadata.get(f'{key}/namespace', '')}/{name}"
    return str(told.get("name") or told["id"])
