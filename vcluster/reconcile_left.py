"""What a run goes on without because the cloud refuses it: a locked address must not keep machines running."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from vcluster.actions import Action, Power, Verb
from vcluster.errors import CloudError, ConflictError, PermanentError
from vcluster.model import Observed, Role

__all__ = ["LeftOut"]

STOP_TRIES, DELETE_TRIES = 3, 6
"""How often what is in use is tried before it is left out."""

_DELETES = frozenset({Verb.DELETE_MACHINE, Verb.DELETE_PORTS, Verb.DELETE_PART, Verb.DELETE_NETWORK})


class LeftOut:
    """What one run goes on without. A cluster that is brought up goes on without nothing.

    Args:
        warn: takes a sentence for the person who watches.
    """

    def __init__(self, power: Power, warn: Callable[[str], None]) -> None:
        self._power, self._warn = power, warn
        self._refused: dict[str, CloudError] = {}
        self._singly = False

    def takes(self, action: Action, error: BaseException | None, count: int = 100) -> bool:
        """Whether the run goes on without this.

        Args:
            count: how often it was refused.
        """
        worker = action.verb is Verb.STOP and action.names[0] != Role.HEAD
        if self._power is Power.STOPPED and worker:
            again = isinstance(error, ConflictError) and count < STOP_TRIES
            return isinstance(error, (PermanentError, ConflictError)) and not again
        if self._power is not Power.ABSENT or action.verb not in _DELETES:
            return False
        # What is in use may be in use by what is left; if nothing is, it will be free sooner or later.
        conflict = isinstance(error, ConflictError) and bool(self._refused) and count >= DELETE_TRIES
        return isinstance(error, PermanentError) or conflict

    def add(self, action: Action, error: CloudError) -> None:
        """Go on without what was refused."""
        if len(action.uuids) > 1:
            self._singly = True  # one of many is: only calls for one each tell which
            return
        self._refused[action.uuids[0]] = error
        did = "is not stopped" if action.verb is Verb.STOP else "cannot be deleted, all else goes"
        self._warn(f"{action.kind} {action.subject} {did}: {error.message}")

    def rest(self, observed: Observed) -> Observed:
        """The same picture without that, and without the ports and volumes that machines among it hold."""
        if not self._refused:
            return observed
        uuids = set(self._refused)
        held = {machine.port for machine in observed.machines if machine.uuid in uuids}
        return replace(
            observed,
            networks=tuple(x for x in observed.networks if x.uuid not in uuids),
            ports=tuple(x for x in observed.ports if not {x.uuid, x.device} & uuids and x.uuid not in held),
            machines=tuple(x for x in observed.machines if x.uuid not in uuids),
            parts=tuple(x for x in observed.parts if not {x.uuid, x.used_by} & uuids),
        )

    def wave(self, actions: Iterable[Action]) -> tuple[Action, ...]:
        """The same actions, each port in a call of its own where that is needed."""
        return tuple(single for action in actions for single in (_singly(action) if self._singly else [action]))

    def check(self, observed: Observed, name: str) -> None:
        """At the end of a run of `down`.

        Raises:
            PermanentError: something stayed; names it all by uuid.
        """
        kinds = {machine.uuid: f"machine {machine.name}" for machine in observed.machines}
        kinds |= {port.uuid: f"port {port.name}" for port in observed.ports}
        kinds |= {part.uuid: f"{str(part.kind).replace('-', ' ')} {part.name}" for part in observed.parts}
        kinds |= {network.uuid: "network" for network in observed.networks if not network.foreign}
        there = {uuid: error for uuid, error in self._refused.items() if uuid in kinds}
        if self._power is not Power.ABSENT or not there:
            return
        lines = "".join(f"\n  {kinds[uuid]} {uuid}: {error.message}" for uuid, error in there.items())
        raise PermanentError(
            f"{name} is gone but for what the cloud does not let go:{lines}",
            remedy=f"when it may be deleted, `vcluster down {name}` deletes what is left",
        )


def _singly(action: Action) -> Iterator[Action]:
    if action.verb is not Verb.DELETE_PORTS:
        yield action
        return
    for name, uuid in zip(action.names, action.uuids, strict=True):
        yield replace(action, names=(name,), uuids=(uuid,))
