"""How long a cluster lives: the words that are written on it, and what becomes of them.

Pure functions on notes. A cluster expires; ``vcluster reap`` shelves it then, and deletes it when it has been shelved
for its grace period. Nothing else than these notes is needed for that, least of all anybody's file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vcluster import spans
from vcluster.actions import NOTE_EXPIRES

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["GRACE", "NOTE_LIFETIME", "NOTE_REAPED", "Expiry", "expiry_of", "extended", "lifetime_notes"]

GRACE = 86400.0
NOTE_LIFETIME = "lifetime"
"""What the spec said: seconds until the cluster expires, a plus, seconds of grace. When the spec says something else
it is counted anew."""
NOTE_REAPED = "reaped-at"
"""When an expired cluster was first found shelved, seconds since the epoch: its grace period counts from there, so that
a reaper that did not run for a week deletes nothing at once."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a cluster's time is up.

    Attributes:
        at: seconds since the epoch.
        grace: seconds that it then stays shelved.
        reaped: since when it is shelved because of that, seconds since the epoch; 0 when it is not.
    """

    at: float
    grace: float = GRACE
    reaped: float = 0.0

    def past(self, now: float) -> bool:
        """Whether the time is up."""
        return now >= self.at

    @property
    def deletion(self) -> float:
        """When the grace period is over, seconds since the epoch; 0 while the cluster is not shelved.

        What says that it was reaped before its end was written by a reaper that met somebody's ``extend``.
        """
        return max(self.reaped, self.at) + self.grace if self.reaped else 0.0

    def doomed(self, now: float) -> bool:
        """Whether the grace period is over, too."""
        return self.past(now) and 0 < self.deletion <= now


def _number(text: str) -> float | None:
    # Anybody who may write tags in the project may have written this.
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None


def expiry_of(notes: Mapping[str, str]) -> Expiry | None:
    """When a cluster with these notes expires; None for one that never does."""
    at = _number(notes.get(NOTE_EXPIRES, ""))
    if at is None:
        return None
    grace = _number(notes.get(NOTE_LIFETIME, "").partition("+")[2])
    reaped = _number(notes.get(NOTE_REAPED, ""))
    return Expiry(at, GRACE if grace is None else grace, reaped or 0.0)


def lifetime_notes(spec: ClusterSpec, notes: Mapping[str, str], now: float) -> dict[str, str]:
    """What must be written for the spec's ``expires``; empty when it stands there already.

    A cluster that is only brought up again lives no longer for it; one whose spec says something else lives that long
    from now on.
    """
    life = spans.seconds(spec.expires or "")
    if life is None:
        return {key: "" for key in (NOTE_EXPIRES, NOTE_LIFETIME, NOTE_REAPED) if key in notes}
    grace = spans.seconds(spec.grace_period or "") or GRACE
    said = f"{life:.0f}+{grace:.0f}"
    if notes.get(NOTE_LIFETIME) == said and expiry_of(notes) is not None:
        return {}
    forgotten = {NOTE_REAPED: ""} if NOTE_REAPED in notes else {}
    return {NOTE_EXPIRES: f"{now + life:.0f}", NOTE_LIFETIME: said, **forgotten}


def extended(notes: Mapping[str, str], seconds: float, now: float) -> dict[str, str] | None:
    """What must be written to let a cluster live longer, counted from its end or from now, whichever is later.

    Returns:
        None for a cluster that never expires.
    """
    expiry = expiry_of(notes)
    if expiry is None:
        return None
    forgotten = {NOTE_REAPED: ""} if NOTE_REAPED in notes else {}
    return {NOTE_EXPIRES: f"{max(expiry.at, now) + seconds:.0f}", **forgotten}
