"""Whose turn it is when `down` and another command meet on one cluster: the one that was called last wins.

`down` writes ``down-…`` on the cluster first. Whoever brings the cluster up and meets such a word when he begins writes
``up-…`` over it, and stops when he meets a new one later; `down` stops when it reads ``up-…``. That no word is there
says nothing: a listing may lag, and a word goes with the resource that it was written on.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from vcluster.actions import NOTE_LEAVING
from vcluster.clouds.base import Cloud
from vcluster.errors import CancelledError, ConflictError, PermanentError, TemporaryError
from vcluster.model import ClusterRef, Observed

__all__ = ["Turn"]

DOWN, UP = "down-", "up-"


class Turn:
    """One command's claim to go on; a command keeps it over all of its runs.

    Args:
        leaving: whether this command takes the cluster down.
        warn: told when this run goes on although others cannot see that it does.
    """

    def __init__(
        self, cloud: Cloud, ref: ClusterRef, *, leaving: bool, warn: Callable[[str], None] = lambda _: None
    ) -> None:
        self._cloud, self._ref, self._leaving = cloud, ref, leaving
        self._word = f"{DOWN if leaving else UP}{secrets.token_hex(4)}"
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
            CancelledError: another command was called on this cluster meanwhile.
        """
        word = observed.notes.get(NOTE_LEAVING, "")
        if self._ignored is None:
            self._ignored = word
            self._unsaid = self._leaving or word.startswith(DOWN)
        elif word not in ("", self._word, self._ignored):
            self._meet(word)
        if act and self._unsaid and not observed.empty:
            self._say()
        if not self._leaving and self._there and observed.empty:
            raise CancelledError(f"{self._ref.name} was taken down meanwhile")
        self._there = not observed.empty

    def _meet(self, word: str) -> None:
        """A word that was written after this command began."""
        if self._leaving and word.startswith(UP):
            raise CancelledError(f"another command brings {self._ref.name} up again", remedy="run `down` again")
        if not self._leaving and word.startswith(DOWN):
            raise CancelledError(f"`vcluster down {self._ref.name}` was called meanwhile")

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
