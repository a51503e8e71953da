"""The end of clusters whose time is up: shelved when they expire, deleted after a grace period on the shelf.

For cron, every few minutes, from any computer that has credentials; more than one at a time does no harm.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from vcluster.clouds.base import Cloud, ClusterSummary
from vcluster.cluster import Cluster
from vcluster.connect import connect, default_cloud
from vcluster.errors import CancelledError, VclusterError
from vcluster.events import EventHandler
from vcluster.expiry import expiry_of
from vcluster.model import ClusterRef
from vcluster.places import state_root

__all__ = ["Reaped", "reap"]


@dataclass(frozen=True, slots=True)
class Reaped:
    """What became of one cluster whose time is up.

    Attributes:
        act: ``shelve``, ``delete``, ``wait`` (it is shelved and has some grace left) or ``sweep`` (its head is gone:
            that is for ``vcluster sweep``).
        done: whether it was done, as opposed to only said.
        deletion: when it is or was to be deleted, seconds since the epoch; 0 when that is not known yet.
        error: why it could not be done; empty when it could.
    """

    ref: ClusterRef
    act: str
    done: bool
    deletion: float = 0.0
    error: str = ""


def reap(
    cloud_name: str | None = None,
    *,
    owner: str = "",
    dry_run: bool = False,
    wait_jobs: float = 0.0,
    on_event: EventHandler | None = None,
    cancel: threading.Event | None = None,
    cloud: Cloud | None = None,
    home: Path | None = None,
) -> tuple[Reaped, ...]:
    """Shelve what has expired, and delete what was shelved for its grace period since.

    Args:
        cloud_name: None means ``VCLUSTER_CLOUD`` or ``local``.
        owner: whose clusters, a user's name or id; empty for the caller's own.
        dry_run: only say what would be done.
        wait_jobs: seconds that running jobs may take to end before a cluster is shelved.
        on_event: takes every event, from several threads.
        cancel: set it from another thread to stop.
        cloud: where to look; None connects to ``cloud_name``.
        home: vcluster's folder; None means ``VCLUSTER_HOME`` or what is usual on this system.

    Returns:
        One entry for each cluster whose time is up. An error with one of them is in its entry, and stops no other.

    Raises:
        CloudError: the cloud could not be asked which clusters there are.
        CancelledError: ``cancel`` was set.
    """
    home, cancel = home or state_root(), cancel or threading.Event()
    opened = cloud or connect(cloud_name or default_cloud(), home)
    try:
        due = [summary for summary in opened.clusters() if _is_due(opened, summary, owner)]
        case = _Case(opened, home, on_event, cancel, dry_run, wait_jobs)
        return tuple(reaped for summary in due if (reaped := case.close(summary)) is not None)
    finally:
        if cloud is None:
            opened.close()


def _is_due(cloud: Cloud, summary: ClusterSummary, owner: str) -> bool:
    ref = summary.ref
    theirs = owner in (ref.owner, ref.creator) if owner else cloud.ref(ref.name).id == ref.id
    expiry = expiry_of(summary.notes)
    return theirs and expiry is not None and expiry.past(cloud.now())


@dataclass(frozen=True)
class _Case:
    cloud: Cloud
    home: Path
    on_event: EventHandler | None
    cancel: threading.Event
    dry_run: bool
    wait_jobs: float

    def close(self, summary: ClusterSummary) -> Reaped | None:
        """Do what is due; None where somebody extended the cluster meanwhile, takes it down or brings it up."""
        ref = summary.ref
        if summary.headless:
            return Reaped(ref, "sweep", done=False)
        try:
            cluster = Cluster(ref, cloud=self.cloud, home=self.home, on_event=self.on_event)
            act, deletion = cluster.end(dry_run=self.dry_run, wait_jobs=self.wait_jobs, cancel=self.cancel)
            if not act:
                return None
            return Reaped(ref, act, done=not self.dry_run and act != "wait", deletion=deletion)
        except CancelledError:
            raise
        except VclusterError as error:
            return Reaped(ref, "", done=False, error=error.message)
