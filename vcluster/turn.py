"""Whose turn it is when `down` and another command meet on one cluster: the one that was called last wins.

`down` writes ``down-…`` on the cluster first. Whoever brings the cluster up and meets such a word when he begins writes
``up-…`` over it, and stops when he meets a new one later; `down` stops when it reads ``up-…``. That no word is there
says nothing: a listing may lag, and a word goes with the resource that it was written on.

Whoever puts it to rest (`stop`, `shelve`, `reap`) writes no word, as he wants nothing that a `down` would be in the way
of, and leaves a cluster alone that goes down. The word says when it was written: a `down` that was called long ago has
ended, or died. Where it died before the head was told to go, all that people have is still there, and so nobody deletes
it on the strength of that word: the cluster may be put to rest, and `down`, called again, deletes it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from vcluster import spans
from vcluster.actions import NOTE_LEAVING
from vcluster.clouds.base import Cloud
from vcluster.errors import CancelledError, ConflictError, PermanentError, TemporaryError
from vcluster.model import ClusterRef, MachineState, Observed

__all__ = ["OvertakenError", "Turn", "going_down"]

DOWN, UP = "down-", "up-"

ENDS = 3600.0
"""Seconds after which a `down` has ended; left to itself it takes a quarter of that at most."""


class OvertakenError(CancelledError):
    """Another command has the turn: it was called on this cluster meanwhile, or takes it down just now."""


def going_down(observed: Observed, now: float) -> str:
    """Why a cluster is to be left to the `down` that was called on it; empty where nobody takes it down.

    Args:
        observed: a whole listing.
        now: by the cloud's clock, seconds since the epoch.
    """
    word = observed.notes.get(NOTE_LEAVING, "")
    if not word.startswith(DOWN):
        return ""
    head, written = observed.head, word.rpartition("@")[2]
    # Anybody who may write tags in the project may have written this; without a time it is taken for a new one.
    known = written.isascii() and written.isdigit() and len(written) <= 12
    age = max(0.0, now - float(written)) if known else 0.0
    if age >= ENDS and head is not None and head.state is not MachineState.DELETING:
        return ""
    return "it is being taken down" + (f": `down` was called {spans.spell(age)} ago" if age >= 1 else "")


class Turn:
    """One command's claim to go on; a command keeps it over all of its runs.

    Args:
        leaving: whether this command takes the cluster down.
        resting: whether it only puts it to rest.
        warn: told when this run goes on although others cannot see that it does.
    """

    def __init__(
        self,
        cloud: Cloud,
        ref: ClusterRef,
        *,
        leaving: bool,
        resting: bool = False,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._cloud, self._ref, self._leaving, self._resting = cloud, ref, leaving, resting
        self._word = f"{DOWN if leaving else UP}{secrets.token_hex(4)}@{cloud.now():.0f}"
        self._warn = warn
        self._ignored: str | None = None
        self._unsaid = leaving
        self._there = False

    def check(self, observed: Observed, *, act: bool = True) -> None:
        """Say whose turn it is at the first look, and at each later one find out whether somebody else has.

        Args:
            observed: a whole listing as it came: what only this run remembers must not hide that all is gone.
            act: write the word, if one is due; a command that may still be refused only looks.

        Raises:
            OvertakenError: another command was called on this cluster meanwhile; or it goes down, and this command
                would only put it to rest.
        """
        word = observed.notes.get(NOTE_LEAVING, "")
        if self._ignored is None:
            self._ignored = word
            self._unsaid = self._leaving or (word.startswith(DOWN) and not self._resting)
            if self._resting and (why := going_down(observed, self._cloud.now())):
                name = self._ref.name
                remedy = f"`vcluster down {name}` goes on with it, `vcluster up` with its spec brings it up again"
                raise OvertakenError(f"{name} is left alone: {why}", remedy=remedy)
        elif word not in ("", self._word, self._ignored):
            self._meet(word)
        if act and self._unsaid and not observed.empty:
            self._say()
        if not self._leaving and self._there and observed.empty:
            raise OvertakenError(f"{self._ref.name} was taken down meanwhile")
        self._there = not observed.empty

    def _meet(self, word: str) -> None:
        """A word that was written after this command began."""
        if self._leaving and word.startswith(UP):
            raise OvertakenError(f"another command brings {self._ref.name} up again", remedy="run `down` again")
        if not self._leaving and word.startswith(DOWN):
            raise OvertakenError(f"`vcluster down {self._ref.name}` was called meanwhile")

    def _say(self) -> None:
        try:
            self._cloud.annotate(self._ref, {NOTE_LEAVING: self._word})
        except TemporaryError:
            return  # said again at the next look
        except ConflictError:
            pass  # the last resource went between the look and this word: nothing is left to claim
        except PermanentError as error:
            if not self._leaving:
                raise
            # What cannot be marked must still be deleted.
            self._warn(f"other commands cannot see that {self._ref.name} goes down: {error.message}")
        self._unsaid = False
