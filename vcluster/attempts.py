"""How often something failed, over all runs: the notes on the cluster that bound every repair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vcluster.actions import NOTE_ATTEMPTS
from vcluster.model import Machine, Part

__all__ = ["Attempts", "life_of"]

_UUID_DIGITS = 8
"""A note holds few characters, and one name has never had two lives that these do not tell apart."""


def life_of(thing: Machine | Part) -> str:
    """One boot of one machine, or one part: what fails once, however often it is seen or its repair begun."""
    since = thing.started if isinstance(thing, Machine) else thing.created
    return f"{thing.uuid[:_UUID_DIGITS]}@{int(since)}"


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts' notes, read and written.

    Args:
        notes: the cluster's.
        most: how often a thing that failed is made anew.
    """

    notes: Mapping[str, str]
    most: int

    def made(self, name: str) -> int:
        """How often it failed."""
        return int((self.notes.get(NOTE_ATTEMPTS + name) or "0").split()[0])

    def counted(self, name: str, thing: Machine | Part) -> bool:
        """Whether this one's failure is written already."""
        return self.notes.get(NOTE_ATTEMPTS + name, "").endswith(f" {life_of(thing)}")

    def before(self, name: str, thing: Machine | Part) -> int:
        """Without this one's own failure, which may have been written already by a try that went wrong then."""
        return self.made(name) - self.counted(name, thing)

    def left(self, name: str, thing: Machine | Part) -> bool:
        """Whether this one, which failed, may be made anew."""
        return self.before(name, thing) < self.most

    def another(self, name: str, thing: Machine | Part) -> dict[str, str]:
        """The note that counts this one's failure."""
        return {NOTE_ATTEMPTS + name: f"{self.before(name, thing) + 1} {life_of(thing)}"}

    def spent(self, name: str) -> bool:
        """Whether there is no further try."""
        return self.made(name) > self.most

    def last_failure(self, name: str) -> float:
        """When the life began that failed last, in whole seconds since the epoch; 0 when none did."""
        return float((self.notes.get(NOTE_ATTEMPTS + name) or "@0").rpartition("@")[2])
