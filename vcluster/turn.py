"""Whose turn it is when `down` and another command meet on one cluster: the one that was called last wins.

`down` writes a word of its own on the cluster first. Whoever brings the cluster up takes that word away when he
begins, and stops when he meets a new one; `down` stops when its word is gone.
"""

from __future__ import annotations

import secrets

from vcluster.actions import NOTE_LEAVING
from vcluster.clouds.base import Cloud
from vcluster.errors import CancelledError, ConflictError, TemporaryError
from vcluster.model import ClusterRef, Observed

__all__ = ["Turn"]


class Turn:
    """One run's claim to go on.

    Args:
        leaving: whether this run takes the cluster down.
    """

    def __init__(self, cloud: Cloud, ref: ClusterRef, *, leaving: bool) -> None:
        self._cloud, self._ref, self._leaving = cloud, ref, leaving
        self._word = secrets.token_hex(4) if leaving else ""
        self._ignored: str | None = None
        self._began = False
        self._heard = False
        self._there = False

    def check(self, observed: Observed) -> None:
        """Claim the cluster at the first look, and at each later one find out whether somebody else has.

        Args:
            observed: the listing as it came: what only this run remembers must not hide that all is gone.

        Raises:
            CancelledError: another command was called on this cluster meanwhile.
        """
        word = observed.notes.get(NOTE_LEAVING, "")
        if not self._began:
            self._began = True
            self._ignored = word
            if not observed.empty and word != self._word:
                self._write(self._word)
            self._there = not observed.empty
            return
        if self._leaving:
            self._heard = self._heard or word == self._word
            if self._heard and word != self._word and not observed.empty:
                raise CancelledError(f"another command brings {self._ref.name} up again", remedy="run `down` again")
            return
        if word and word != self._ignored:
            raise CancelledError(f"`vcluster down {self._ref.name}` was called meanwhile")
        if self._there and observed.empty:
            raise CancelledError(f"{self._ref.name} was taken down meanwhile")
        self._there = not observed.empty

    def _write(self, word: str) -> None:
        try:
            self._cloud.annotate(self._ref, {NOTE_LEAVING: word})
        except ConflictError:
            # The last resource went between the look and this word: nothing is left to claim.
            return
        except TemporaryError:
            self._began = False  # said again at the next look
            return
        # Where listings lag, the word counts as written only when it was read once.
        self._heard = self._cloud.listing_lag == 0
