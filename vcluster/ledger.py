"""A run's short memory of its own acts, because a cloud's listings may lag behind them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from vcluster.actions import Action, Verb
from vcluster.model import Machine, MachineState, Network, Observed, Part, Port

__all__ = ["Ledger", "Thing"]

REMEMBER = 60.0
"""Seconds that a creation is believed without being listed; Nova's and Neutron's listings lag by a few."""

SETTLE = 10.0
"""Seconds before a delete, stop, start or reboot that was accepted is asked for again."""

_DELETES = frozenset({Verb.DELETE_MACHINE, Verb.DELETE_PORTS, Verb.DELETE_NETWORK, Verb.DELETE_PART})
_SETTLING = _DELETES | {Verb.START, Verb.STOP, Verb.REBOOT, Verb.SHELVE, Verb.UNSHELVE}

Thing = Network | Port | Machine | Part


class Ledger:
    """Remembers what was made and asked for; safe from several threads.

    Args:
        now: the loop's clock, in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._made: dict[str, tuple[float, Thing]] = {}
        self._asked: dict[tuple[Verb, str], float] = {}
        self._notes: dict[str, tuple[float, str]] = {}

    def created(self, *things: Thing) -> None:
        """Remember what was made, or completed."""
        with self._lock:
            self._made.update({thing.uuid: (self._now(), thing) for thing in things})

    def noted(self, notes: Mapping[str, str]) -> None:
        """Remember words written on the cluster."""
        with self._lock:
            self._notes.update({key: (self._now(), value) for key, value in notes.items()})

    def did(self, action: Action) -> None:
        """Remember an accepted change or delete."""
        with self._lock:
            for uuid in action.uuids:
                self._asked[action.verb, uuid] = self._now()
                if action.verb in _DELETES:
                    self._made.pop(uuid, None)

    def settling(self, action: Action) -> bool:
        """Whether this very thing was asked for a moment ago, so that the cloud may not show it yet."""
        if action.verb not in _SETTLING:
            return False
        with self._lock:
            return any(self._now() - self._asked.get((action.verb, u), float("-inf")) < SETTLE for u in action.uuids)

    def merge(self, observed: Observed) -> Observed:
        """Add to a listing what this run made and it does not show yet."""
        with self._lock:
            unseen = self._unseen(observed)
            recent = {key: value for key, (when, value) in self._notes.items() if self._now() - when < REMEMBER}
        if not unseen and not recent:
            return observed
        fresh = {uuid: thing for uuid, thing in unseen.items() if isinstance(thing, Part)}
        machines = [replace(x, state=MachineState.BUILD) for x in unseen.values() if isinstance(x, Machine)]
        return replace(
            observed,
            networks=(*observed.networks, *(x for x in unseen.values() if isinstance(x, Network))),
            ports=(*observed.ports, *(x for x in unseen.values() if isinstance(x, Port))),
            machines=(*observed.machines, *machines),
            parts=(*(part for part in observed.parts if part.uuid not in fresh), *fresh.values()),
            notes=MappingProxyType({k: v for k, v in {**observed.notes, **recent}.items() if v}),
        )

    def without_deleted(self, observed: Observed) -> Observed:
        """The same picture without what this run deleted since, machines excepted: those take their time to go."""
        with self._lock:
            gone = {uuid for verb, uuid in self._asked if verb in _DELETES and verb is not Verb.DELETE_MACHINE}
        return replace(
            observed,
            networks=tuple(x for x in observed.networks if x.uuid not in gone),
            ports=tuple(x for x in observed.ports if x.uuid not in gone),
            parts=tuple(x for x in observed.parts if x.uuid not in gone),
        )

    def _unseen(self, observed: Observed) -> dict[str, Thing]:
        """What listings do not show, or show as it was before this run completed it; forget what they do show."""
        listed: list[Thing] = [*observed.networks, *observed.ports, *observed.machines, *observed.parts]
        seen = {thing.uuid: thing for thing in listed}
        for uuid, (when, thing) in list(self._made.items()):
            age, shown = self._now() - when, seen.get(uuid)
            behind = isinstance(thing, Part) and isinstance(shown, Part) and thing.ready and not shown.ready
            if age > REMEMBER or (shown is not None and not (behind and age < SETTLE)):
                del self._made[uuid]
        return {uuid: thing for uuid, (_, thing) in self._made.items()}
