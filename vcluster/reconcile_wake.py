"""Machines that are switched on in vain: a cloud without room for one takes the call and does nothing."""

from __future__ import annotations

from vcluster.actions import Verb

__all__ = ["WAKES", "Wakes"]

WAKES = (Verb.START, Verb.UNSHELVE)
TRIES = 5
PAUSE = 15.0
"""Seconds between the first time that a machine is switched on and the second; each pause is longer by as many."""


class Wakes:
    """How often one run asked for which machine; times are the loop's, in seconds."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[int, float]] = {}

    def woke(self, uuid: str, now: float) -> float:
        """Count that it was asked for; gives when it may be again, ever later."""
        count = self._of.get(uuid, (0, 0.0))[0] + 1
        until = now + PAUSE * count
        self._of[uuid] = (count, until)
        return until

    def asleep(self, now: float) -> frozenset[str]:
        """Those that nothing came of, by uuid."""
        return frozenset(uuid for uuid, (count, until) in self._of.items() if count >= TRIES and until <= now)
