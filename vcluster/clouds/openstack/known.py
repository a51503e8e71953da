"""What this process saw and did itself, so that it is not asked for again. Nothing here is needed by another run."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from vcluster.chosen import chosen_parts
from vcluster.model import ClusterRef, Observed, Part, PartKind

__all__ = ["Known"]


class Known:
    """Uuids that a listing of this run showed with our tag, and a few things that listings do not tell."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own: dict[str, set[str]] = {}
        self._groups: dict[tuple[str, PartKind, str], str] = {}
        self._subnets: dict[tuple[str, str], str] = {}
        self._public: dict[str, str] = {}
        self._told: dict[str, float] = {}
        self._words: dict[str, dict[str, str]] = {}
        self._places: dict[str, set[str]] = {}

    # Identity --------------------------------------------------------------------------------------------------

    def see(self, ref: ClusterRef, observed: Observed, public: Mapping[str, str]) -> None:
        """Take a whole picture.

        Args:
            public: floating address by port uuid.
        """
        uuids = {m.uuid for m in observed.machines} | {p.uuid for p in observed.ports}
        uuids |= {p.uuid for p in observed.parts} | {n.uuid for n in observed.networks if not n.foreign}
        with self._lock:
            self._own.setdefault(ref.id, set()).update(uuids)
            for port in observed.ports:
                self._public.pop(port.uuid, None)
            self._public.update(public)
            for key in [k for k in self._groups if k[0] == ref.id]:
                del self._groups[key]
            if observed.empty:
                self._words.pop(ref.id, None)
                self._places.pop(ref.id, None)
        for part in chosen_parts(observed).values():
            self._name(ref, part)

    def made(self, ref: ClusterRef, *uuids: str) -> None:
        """This process made them, with our tag in the create call."""
        with self._lock:
            self._own.setdefault(ref.id, set()).update(uuids)

    def made_part(self, ref: ClusterRef, part: Part) -> None:
        """As :meth:`made`, for what later calls refer to by name."""
        self.made(ref, part.uuid)
        self._name(ref, part)

    def is_own(self, ref: ClusterRef, uuid: str) -> bool:
        with self._lock:
            return uuid in self._own.get(ref.id, ())

    def _name(self, ref: ClusterRef, part: Part) -> None:
        if part.kind in (PartKind.SECURITY_GROUP, PartKind.SERVER_GROUP):
            with self._lock:
                self._groups[ref.id, part.kind, part.name] = part.uuid

    def group(self, ref: ClusterRef, kind: PartKind, name: str) -> str:
        """A group's uuid; empty when it was not seen."""
        with self._lock:
            return self._groups.get((ref.id, kind, name), "")

    def forget_groups(self, ref: ClusterRef) -> None:
        """They are not there any more: the next call looks again."""
        with self._lock:
            for key in [k for k in self._groups if k[0] == ref.id]:
                del self._groups[key]

    # Places -----------------------------------------------------------------------------------------------------

    def lies(self, ref: ClusterRef, network: str, subnet: str) -> None:
        """The cluster is on this subnet of a network; empty: on whichever it is put."""
        with self._lock:
            self._subnets[ref.id, network] = subnet

    def subnet(self, ref: ClusterRef, network: str) -> str:
        """The subnet that a port must be on; empty when Neutron may choose."""
        with self._lock:
            return self._subnets.get((ref.id, network), "")

    # What listings do not tell ---------------------------------------------------------------------------------

    def booted(self, uuids: Iterable[str], now: float) -> None:
        """This process told these servers to boot."""
        with self._lock:
            self._told.update(dict.fromkeys(uuids, now))

    def told(self, uuid: str) -> float:
        with self._lock:
            return self._told.get(uuid, 0.0)

    def lend(self, port: str, address: str) -> None:
        """A port has this floating address."""
        with self._lock:
            self._public[port] = address

    def public(self) -> dict[str, str]:
        with self._lock:
            return dict(self._public)

    # Notes for which the cloud has no place ---------------------------------------------------------------------

    def remember(self, ref: ClusterRef, key: str, value: str) -> None:
        """A note that could not be written; an empty value forgets it."""
        with self._lock:
            words = self._words.setdefault(ref.id, {})
            words.pop(key, None)
            if value:
                words[key] = value

    def words(self, ref: ClusterRef) -> dict[str, str]:
        """Those notes: newer than what is written."""
        with self._lock:
            return dict(self._words.get(ref.id, {}))

    def take_place(self, ref: ClusterRef, key: str, listed: set[str], most: int) -> bool:
        """Whether a note may be written, when at most so many of its sort shall be; threads may ask at the same time.

        Args:
            listed: the keys of its sort that are written.
        """
        with self._lock:
            places = self._places.setdefault(ref.id, set())
            if key not in listed | places and len(listed | places) >= most:
                return False
            places.add(key)
            return True

    def leave_place(self, ref: ClusterRef, key: str) -> None:
        """The note is taken away."""
        with self._lock:
            self._places.get(ref.id, set()).discard(key)
