"""How a run ends: with an outcome, with somebody else's claim, or with an error that says what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vcluster.actions import Goal, Plan, Power
from vcluster.errors import CloudError, PermanentError, QuotaError, VclusterError
from vcluster.model import Observed, Role
from vcluster.plan_limits import PORT_LOST, UNREACHED

__all__ = ["ClaimedError", "Outcome", "final_error", "some"]


class ClaimedError(VclusterError):
    """The cluster was made with another secret than this run's, and its head is on: go on with that secret.

    Args:
        claim: the fingerprint that the secret has.
        observed: the cluster, as it was seen.
    """

    def __init__(self, claim: str, observed: Observed) -> None:
        super().__init__(
            f"this cluster was made with another secret than the one on this computer (claim {claim})",
            remedy="the head has it: it is fetched from there by SSH",
        )
        self.claim, self.observed = claim, observed


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run ended with.

    Attributes:
        changed: whether any action was carried out.
        degraded: wanted workers that the cluster goes on without.
    """

    observed: Observed
    changed: bool
    degraded: tuple[str, ...]


def final_error(current: Plan, goal: Goal, name: str, given_up: Iterable[CloudError], silence: str = "") -> CloudError:
    """The error of a run whose goal cannot be reached.

    Args:
        name: the cluster's.
        given_up: why single machines could not be had.
        silence: why the head tells nothing, or its services do not start; in brackets.
    """
    errors = list(given_up)
    quota = next((error for error in errors if isinstance(error, QuotaError)), None)
    if quota is not None:
        return QuotaError(current.hopeless, remedy=quota.remedy or "ask for less, or free some room")
    remedy = next((error.remedy for error in errors if error.remedy), "")
    why = silence if str(Role.HEAD) in current.lost else ""
    return PermanentError(f"{current.hopeless}{why}", remedy=remedy or _remedy(current, goal, name))


def _remedy(current: Plan, goal: Goal, name: str) -> str:
    head = str(Role.HEAD)
    if goal.power is not Power.RUNNING:
        return f"`vcluster status {name}` shows how it is; `vcluster down {name}` removes it all"
    if current.lost.get(head) == UNREACHED:
        return f"try from where it can be reached; if it hangs, `vcluster stop {name}` and `vcluster start {name}`"
    if head in current.lost and not any(head in action.names for action in current.actions):
        return f"`vcluster logs {name}` shows its console; `vcluster start {name}` tries again, its disk is kept"
    if head in current.lost:
        return f"mend the cause, then `vcluster down {name}` and `vcluster up` again"
    if PORT_LOST in current.lost.values():
        return (
            f"save what is needed (vcluster cp), then `vcluster down {name}` and `vcluster up` give all new addresses"
        )
    anew = f"mend the cause, then `vcluster replace {name} {min(current.lost, default='MACHINE')}` tries anew"
    return anew if current.lost else f"`vcluster status {name}` shows how it is; the same command goes on from there"


def some(phrases: Sequence[str], most: int = 3) -> str:
    """The first few of many phrases."""
    more = f" and {len(phrases) - most} more" if len(phrases) > most else ""
    return "; ".join(phrases[:most]) + more
