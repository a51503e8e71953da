"""Where files of a Hub on k3s are: those of people, and the Hub's own database. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vcluster.k3s_room import MOST_PODS
from vcluster.stacks.k3s_cloud import ATTACH_LIMIT
from vcluster.stacks.k3s_config import components

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = [
    "CINDER",
    "NFS_FOLDER",
    "NFS_GID",
    "NFS_OPTIONS",
    "NFS_UID",
    "database_class",
    "most_notebooks",
    "storage_of",
    "volume_size",
    "wants_nfs",
    "warnings",
]

CINDER, LOCAL_PATH = "cinder", "local-path"
"""Storage classes: the Cinder CSI driver's, and the one of k3s' component ``local-storage``."""

NFS_FOLDER = "/srv/homes"
"""On the head, for ``storage: nfs``."""

NFS_UID, NFS_GID = 1000, 100
"""Whom files belong to: the account of notebooks in the chart's image and in those of the Jupyter Docker Stacks."""

NFS_OPTIONS = f"rw,sync,no_subtree_check,all_squash,anonuid={NFS_UID},anongid={NFS_GID}"
"""Of the export. Whoever writes is that account: kubelet makes each person's folder as root, who then owned it."""

DEFAULT_VOLUME = 5 * 1024
"""MiB of a person's volume where ``people.quota`` does not say."""

FEW_VOLUMES = 5
"""Volumes on one machine up to which all went well on Jetstream2 (zonca/jupyterhub-deploy-kubernetes-jetstream#23)."""


def storage_of(spec: ClusterSpec) -> str:
    """``none``, ``cinder`` or ``nfs``; on Slurm an empty text."""
    hub, credential = spec.jupyterhub, spec.kubernetes.openstack
    if hub is None or spec.scheduler != "k3s":
        return ""
    return hub.storage or (CINDER if credential.given and credential.volumes else "none")


def wants_nfs(spec: ClusterSpec) -> bool:
    """Whether the head exports :data:`NFS_FOLDER` to all workers, with :data:`NFS_OPTIONS`."""
    return storage_of(spec) == "nfs"


def volume_size(spec: ClusterSpec) -> int:
    """MiB that each person may store, where that is kept."""
    return (spec.jupyterhub.people.quota if spec.jupyterhub else None) or DEFAULT_VOLUME


def most_notebooks(spec: ClusterSpec) -> int:
    """How many notebooks a worker takes, whatever its size: as many pods, and as many volumes where each has one."""
    return min(MOST_PODS, ATTACH_LIMIT) if storage_of(spec) == CINDER else MOST_PODS


def database_class(spec: ClusterSpec) -> str:
    """The storage class of the Hub's database; empty where there is none, so that it is in memory."""
    if "local-storage" in components(spec):
        return LOCAL_PATH
    credential = spec.kubernetes.openstack
    return CINDER if credential.given and credential.volumes else ""


def warnings(spec: ClusterSpec, each: int) -> Iterator[str]:
    """What an organiser should know before the class.

    Args:
        each: how many notebooks fit onto a worker.
    """
    storage = storage_of(spec)
    if storage == "none":
        yield "files go with the notebook: what people make is gone when it ends (jupyterhub.storage)"
    if storage == CINDER and each > FEW_VOLUMES:
        yield (
            f"{each} notebooks on a worker are as many volumes attached to it: on Jetstream2 about {FEW_VOLUMES} went "
            "well; storage: none needs none, which does for an afternoon"
        )
    if storage == "nfs":
        yield "nothing limits what people store on the head's disk: when it is full, nobody can save"
    if storage and not database_class(spec):
        yield "the Hub's database is in memory: a restart of the Hub loses who runs what (component local-storage)"
