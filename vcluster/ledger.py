"""A run's short memory of its own acts, because a cloud's listings may lag behind them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from vcluster.actions import Action, Verb
from vcluster.model import Machine, MachineState, Network, Observed, Port

__all__ = ["Ledger"]

REMEMBER = 60.0
"""Seconds that a creation is believed without being listed; Nova's and Neutron's listings lag by a few."""

SETTLE = 10.0
"""Seconds before a delete, stop, start or reboot that was accepted is asked for again."""

_SETTLING = frozenset({Verb.DELETE_MACHINE, Verb.START, Verb.STOP, Verb.REBOOT, Verb.DELETE_PORTS, Verb.DELETE_NETWORK})


class Ledger:
    """Remembers what was made and asked for; safe from several threads.

    Args:
        now: the loop's clock, in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._made: dict[str, tuple[float, Network | Port | Machine]] = {}
        self._asked: dict[tuple[Verb, str], float] = {}
        self._notes: dict[str, tuple[float, str]] = {}

    def created_network(self, network: Network) -> None:
        """Remember a network."""
        self._remember([network])

    def created_ports(self, ports: Sequence[Port]) -> None:
        """Remember ports."""
        self._remember(ports)

    def created_machine(self, machine: Machine) -> None:
        """Remember a machine."""
        self._remember([machine])

    def _remember(self, things: Iterable[Network | Port | Machine]) -> None:
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
                if action.verb in (Verb.DELETE_MACHINE, Verb.DELETE_PORTS, Verb.DELETE_NETWORK):
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
            listed: list[Network | Port | Machine] = [*observed.networks, *observed.ports, *observed.machines]
            seen = {thing.uuid for thing in listed}
            for uuid in [u for u, (when, _) in self._made.items() if u in seen or self._now() - when > REMEMBER]:
                del self._made[uuid]
            unseen = [thing for _, thing in self._made.values()]
            recent = {key: value for key, (when, value) in self._notes.items() if self._now() - when < REMEMBER}
        networks = [x for x in unseen if isinstance(x, Network)]
        ports = [x for x in unseen if isinstance(x, Port)]
        machines = [x for x in unseen if isinstance(x, Machine)]
        if not unseen and not recent:
            return observed
        return replace(
            observed,
            networks=(*observed.networks, *networks),
            ports=(*observed.ports, *ports),
            machines=(*observed.machines, *(replace(m, state=MachineState.BUILD) for m in machines)),
            notes=MappingProxyType({k: v for k, v in {**observed.notes, **recent}.items() if v}),
        )
