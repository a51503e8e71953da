"""How often something failed, over all runs: the notes on the cluster that bound every repair."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from vcluster.actions import NOTE_ATTEMPTS
from vcluster.model import Machine, Part, Role

__all__ = ["Attempts", "life_of"]

_NOTE = re.compile(r"(?P<count>[0-9]{1,4})(?P<mark>[ !])[^@]*@(?P<since>[0-9a-z]{1,8})")
_CROWDED = "!"
"""In the place of the space where the cloud had no host for a machine: the longest note has room for no more."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_SOME = slice(4, 8)
"""Which of a uuid's digits are kept: with the second of its start, enough for the few lives of one name."""


def life_of(thing: Machine | Part) -> str:
    """One boot of one machine, or one part: what fails once, however often it is seen or its repair begun.

    It is short, because a note has few characters and the longest name of a machine has many.
    """
    return f"{thing.uuid[_SOME]}@{_base36(_began(thing))}"


def _began(thing: Machine | Part) -> int:
    return int(thing.started if isinstance(thing, Machine) else thing.created)


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"


def _is_server(thing: Machine | Part) -> bool:
    """Whether it is the head or one of its peers, which are rebooted where others are made anew."""
    return isinstance(thing, Machine) and Role.HEAD in (thing.role, thing.group)


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts' notes, read and written.

    Args:
        notes: the cluster's.
        most: how often a thing that failed is made anew.
        now: when the cluster was looked at, seconds since the epoch.
        patience: seconds after which a server that was counted and is in trouble still has failed once more.
    """

    notes: Mapping[str, str]
    most: int
    now: float = 0.0
    patience: float = inf

    def made(self, name: str) -> int:
        """How often it failed."""
        return self._read(name)[0]

    def counted(self, name: str, thing: Machine | Part) -> bool:
        """Whether this one's failure is written already.

        A server is rebooted and keeps its uuid, and some clouds do not tell when: then only the time since it was
        counted tells a further failure from a reboot that was noted but, as the run was killed, not begun.
        """
        count, since = self._read(name)
        note = self.notes.get(NOTE_ATTEMPTS + name, "").replace(_CROWDED, " ")
        if _is_server(thing):
            same = f" {thing.uuid[_SOME]}@" in note
            return same and count > 0 and _began(thing) < since and self.now - since <= self.patience
        return note.endswith(f" {life_of(thing)}")

    def crowded(self, name: str) -> bool:
        """Whether the cloud had no host for it, at least once."""
        found = self._parts(name)
        return found is not None and found["mark"] == _CROWDED

    def before(self, name: str, thing: Machine | Part) -> int:
        """Without this one's own failure, which may have been written already by a try that went wrong then."""
        return self.made(name) - self.counted(name, thing)

    def left(self, name: str, thing: Machine | Part) -> bool:
        """Whether this one, which failed, may be made anew."""
        return self.before(name, thing) < self.most

    def another(self, name: str, thing: Machine | Part, *, crowded: bool = False) -> dict[str, str]:
        """The note that counts this one's failure.

        Args:
            crowded: it failed as the cloud had no host for it; the note says so from then on.
        """
        if _is_server(thing) and self.counted(name, thing):
            return {NOTE_ATTEMPTS + name: self.notes[NOTE_ATTEMPTS + name]}
        life = life_of(thing)
        if _is_server(thing):
            life = f"{thing.uuid[_SOME]}@{_base36(max(int(self.now), _began(thing) + 1))}"
        mark = _CROWDED if crowded or self.crowded(name) else " "
        return {NOTE_ATTEMPTS + name: f"{self.before(name, thing) + 1}{mark}{life}"}

    def spent(self, name: str) -> bool:
        """Whether there is no further try."""
        return self.made(name) > self.most

    def last_failure(self, name: str) -> float:
        """When the life began that failed last, or a server was counted; in whole seconds, 0 when none was."""
        return self._read(name)[1]

    def _read(self, name: str) -> tuple[int, float]:
        """What is no such note, whoever wrote it, counts as none."""
        found = self._parts(name)
        return (int(found["count"]), float(int(found["since"], 36))) if found else (0, 0.0)

    def _parts(self, name: str) -> re.Match[str] | None:
        return _NOTE.fullmatch(self.notes.get(NOTE_ATTEMPTS + name, ""))
