"""Leftovers: what still carries a cluster's mark although its head is gone, found with care and deleted when agreed to.

A cluster is swept when no head of it is there in any state, when every resource of it is older than an hour (one that
does not tell its age counts as the others; alone it is young), when nobody has just claimed it, and when two looks some
seconds apart showed the same. What a person asked to keep stays.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vcluster.access import clock_of
from vcluster.clouds.base import Cloud, ClusterSummary
from vcluster.cluster import Cluster
from vcluster.connect import connect, default_cloud
from vcluster.errors import CancelledError
from vcluster.events import EventHandler
from vcluster.model import ClusterRef, Observed
from vcluster.places import state_root
from vcluster.plan import own

__all__ = ["OLDER_THAN", "Leftover", "Leftovers", "sweep"]

OLDER_THAN = 3600.0
BETWEEN_LOOKS = 5.0

AHEAD = 300.0
"""Seconds by which the cloud's clock may be before this computer's and be believed: what is young must not seem old."""

Agree = Callable[[Sequence["Leftovers"]], bool]
"""Shown what was found; returns whether to delete it."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """One resource; ``created`` in seconds since the epoch, 0 where the cloud does not tell."""

    kind: str
    name: str
    uuid: str
    created: float = 0.0


@dataclass(frozen=True, slots=True)
class Leftovers:
    """All that is left of one cluster.

    Attributes:
        deleted: it is gone now.
    """

    ref: ClusterRef
    things: tuple[Leftover, ...]
    deleted: bool = False


def sweep(
    cloud_name: str | None = None,
    *,
    owner: str = "",
    older_than: float = OLDER_THAN,
    dry_run: bool = False,
    confirm: Agree | None = None,
    on_event: EventHandler | None = None,
    cancel: threading.Event | None = None,
    cloud: Cloud | None = None,
    home: Path | None = None,
) -> tuple[Leftovers, ...]:
    """Find the leftovers of clusters whose head is gone, and delete them.

    Args:
        cloud_name: None means ``VCLUSTER_CLOUD`` or ``local``.
        owner: whose leftovers, a user's name or id; empty for the caller's own.
        older_than: seconds; a cluster of which anything is younger is left alone.
        dry_run: only find.
        confirm: shown what was found before anything is deleted; None agrees.
        on_event: takes every event, from several threads.
        cancel: set it from another thread to stop.
        cloud: where to look; None connects to ``cloud_name``.
        home: vcluster's folder; None means ``VCLUSTER_HOME`` or what is usual on this system.

    Returns:
        What was found, and whether it is gone.

    Raises:
        CloudError: the cloud could not be asked, or did not delete.
        CancelledError: ``cancel`` was set, or ``confirm`` said no.
    """
    home, cancel = home or state_root(), cancel or threading.Event()
    opened = cloud or connect(cloud_name or default_cloud(), home)
    try:
        found = _found(opened, owner, older_than, cancel)
        if not found or dry_run:
            return tuple(found)
        if confirm is not None and not confirm(found):
            raise CancelledError("nothing was changed")
        for number, each in enumerate(found):
            if _unchanged(opened, each, older_than):
                Cluster(each.ref, cloud=opened, home=home, on_event=on_event).down(cancel=cancel)
                found[number] = replace(each, deleted=True)
        return tuple(found)
    finally:
        if cloud is None:
            opened.close()


def _found(cloud: Cloud, owner: str, older_than: float, cancel: threading.Event) -> list[Leftovers]:
    refs = [summary.ref for summary in cloud.clusters() if _is_left(cloud, summary, owner, older_than)]
    first = {ref: _look(cloud, ref, older_than) for ref in refs}
    if not any(first.values()):
        return []
    clock_of(cloud).sleep(max(BETWEEN_LOOKS, 2 * cloud.listing_lag), cancel)
    if cancel.is_set():
        raise CancelledError("interrupted; nothing was changed")
    found = []
    for ref, before in first.items():
        twice = set(before) & set(_look(cloud, ref, older_than)) if before else set()
        if twice:
            found.append(Leftovers(ref, tuple(thing for thing in before if thing in twice)))
    return found


def _is_left(cloud: Cloud, summary: ClusterSummary, owner: str, older_than: float) -> bool:
    mine = cloud.ref(summary.ref.name)
    whose = (summary.ref.owner, summary.ref.creator)
    theirs = owner in whose if owner else mine.id == summary.ref.id
    return theirs and summary.headless and _now(cloud) - summary.claimed >= older_than


def _look(cloud: Cloud, ref: ClusterRef, older_than: float) -> tuple[Leftover, ...]:
    """All that is there of a cluster; nothing of one that has a head, or of which anything is young."""
    observed = own(cloud.observe(ref), ref)
    things = _things(replace(observed, parts=(*observed.parts, *cloud.offspring(ref))))
    dated = [thing.created for thing in things if thing.created]
    young = not dated or max(dated) > _now(cloud) - older_than
    return () if observed.head is not None or young else things


def _now(cloud: Cloud) -> float:
    """The time by which ages count: the cloud's, unless one of its clocks is far ahead."""
    return min(cloud.now(), time.time() + AHEAD)


def _things(observed: Observed) -> tuple[Leftover, ...]:
    return (
        *(Leftover("machine", m.name, m.uuid, m.started) for m in observed.machines),
        *(Leftover(p.kind.replace("-", " "), p.name, p.uuid, p.created) for p in observed.parts if not p.kept),
        *(Leftover("port", p.name, p.uuid, p.created) for p in observed.ports),
        *(Leftover("network", "", n.uuid, n.created) for n in observed.networks if not n.foreign),
    )


def _unchanged(cloud: Cloud, found: Leftovers, older_than: float) -> bool:
    """Whether it may go now: a person may have taken long to agree, and somebody have begun to bring it up."""
    still = {thing.uuid for thing in _look(cloud, found.ref, older_than)}
    return bool(still) and still <= {thing.uuid for thing in found.things}
