"""Whose cluster it is: the head's port is made first, and carries the fingerprint of its maker's secret.

Two runs may make one each. Both look again, and both see the same one as the claim that holds: one that a machine
holds, else the oldest. Only its maker goes on; the other gets the secret from the head that comes of it. Who looked
too early to see an older claim would go on wrongly, so a claim stands only in a look that began some seconds after.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vcluster.actions import NOTE_READY, Goal
from vcluster.model import Machine, MachineState, Observed, Port

__all__ = ["Claim", "Standing", "judge"]

_WATCHED_SHARE = 0.25
"""The share of the patience for which this run itself must have seen a claim without a head, or with one in ERROR."""

_OWN_SHARE = 0.5
"""The share of the patience after which a run renews its own claim: nobody else can be about to take it over."""


class Standing(StrEnum):
    """What a run may do.

    FREE: nobody has claimed the cluster. OURS: our claim holds. YOUNG: it does, but may not be the oldest.
    FOREIGN: somebody else's claim holds. ABANDONED: the claim that is there must go first.
    """

    FREE = "free"
    OURS = "ours"
    YOUNG = "young"
    FOREIGN = "foreign"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class Claim:
    """How the claim stands; ``port`` is the head's port that counts, ``why`` why it must go."""

    standing: Standing
    port: Port | None = None
    why: str = ""


def judge(goal: Goal, seen: Observed, port: Port | None, head: Machine | None, now: float) -> Claim:
    """Who may make machines.

    Args:
        port: the head's port that counts.
        head: the head's machine, in any state.
        now: when the look began that ``seen`` comes from, by the cloud's clock.
    """
    if port is None:
        return Claim(Standing.FREE)
    ours = port.claim in ("", goal.claim) or not goal.claim
    age = now - port.created
    if head is not None and head.state is MachineState.ERROR and not ours and not seen.notes.get(NOTE_READY):
        return _theirs(goal, port, age, now - goal.doubted.get(head.uuid, now))
    if head is not None or not goal.claim:
        return Claim(Standing.OURS if ours else Standing.FOREIGN, port)
    return _ours(goal, seen, port, age) if ours else _theirs(goal, port, age, now - goal.doubted.get(port.uuid, now))


def _ours(goal: Goal, seen: Observed, port: Port, age: float) -> Claim:
    if age < goal.claim_settle:
        return Claim(Standing.YOUNG, port)
    if age > goal.claim_patience * _OWN_SHARE and not seen.machines and not seen.notes.get(NOTE_READY):
        return Claim(Standing.ABANDONED, port, "an old claim, to be renewed")
    return Claim(Standing.OURS, port)


def _theirs(goal: Goal, port: Port, age: float, watched: float) -> Claim:
    if age > goal.claim_patience and watched > goal.claim_patience * _WATCHED_SHARE:
        return Claim(Standing.ABANDONED, port, "its claim was given up")
    return Claim(Standing.FOREIGN, port)
