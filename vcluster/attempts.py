"""How often something failed, over all runs: the notes on the cluster that bound every repair."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vcluster.actions import NOTE_ATTEMPTS
from vcluster.model import Machine, Part

__all__ = ["Attempts", "life_of"]

_NOTE = re.compile(r"(?P<count>[0-9]{1,4}) [^@]*@(?P<since>[0-9a-z]{1,8})")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_SOME = slice(4, 8)
"""Which of a uuid's digits are kept: with the second of its start, enough for the few lives of one name."""


def life_of(thing: Machine | Part) -> str:
    """One boot of one machine, or one part: what fails once, however often it is seen or its repair begun.

    It is short, because a note has few characters and the longest name of a machine has many.
    """
    since = thing.started if isinstance(thing, Machine) else thing.created
    return f"{thing.uuid[_SOME]}@{_base36(int(since))}"


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"


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
        return self._read(name)[0]

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
        return self._read(name)[1]

    def _read(self, name: str) -> tuple[int, float]:
        """What is no such note, whoever wrote it, counts as none."""
        found = _NOTE.fullmatch(self.notes.get(NOTE_ATTEMPTS + name, ""))
        return (int(found["count"]), float(int(found["since"], 36))) if found else (0, 0.0)
