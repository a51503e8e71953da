"""The one place that knows which clouds there are."""

from __future__ import annotations

import os
from pathlib import Path

from vcluster.clouds.base import Cloud
from vcluster.errors import UsageError
from vcluster.model import ClusterRef

__all__ = ["DEFAULT_CLOUD", "connect", "default_cloud", "ref_of"]

DEFAULT_CLOUD = "local"


def default_cloud() -> str:
    """The cloud of a cluster that is given by its name alone: ``VCLUSTER_CLOUD``, or ``local``.

    ``OS_CLOUD`` is not looked at: many have it set for other programs, and a word in the environment that was not
    meant for vcluster must not turn `vcluster down demo` to another cluster.
    """
    return os.environ.get("VCLUSTER_CLOUD") or DEFAULT_CLOUD


def connect(name: str, home: Path) -> Cloud:
    """A cloud by the name that specs have for it.

    Args:
        name: ``local``, or a cloud's name in clouds.yaml.
        home: vcluster's folder on this computer.

    Raises:
        UsageError: there is no such cloud.
        CloudError: it does not let us in.
    """
    if name == DEFAULT_CLOUD:
        from vcluster.clouds.local import LocalCloud

        return LocalCloud(home)
    from vcluster.clouds.openstack import OpenStackCloud

    return OpenStackCloud.connect(name)


def ref_of(cloud: Cloud, name: str, owner: str = "") -> ClusterRef:
    """Which cluster a name means.

    Args:
        cloud: where it is.
        name: the cluster's.
        owner: whose it is, a user's name or id; empty for the caller's own.

    Raises:
        UsageError: that owner has none of this name.
    """
    mine = cloud.ref(name)
    if not owner or owner in (mine.owner, mine.creator):
        return mine
    named = [summary.ref for summary in cloud.clusters() if summary.ref.name == name]
    found = {ref.id: ref for ref in named if owner in (ref.owner, ref.creator)}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        ids = ", ".join(ref.creator for ref in found.values())
        raise UsageError(f"several users called {owner!r} have a cluster {name!r}", remedy=f"say which by id: {ids}")
    owners = ", ".join(sorted({ref.owner or ref.creator for ref in named} - {""}))
    raise UsageError(
        f"{owner!r} has no cluster {name!r} on {cloud.name}",
        remedy=f"one of that name is owned by: {owners}" if owners else "`vcluster list` shows those there are",
    )
