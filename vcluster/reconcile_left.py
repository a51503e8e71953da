"""What a run goes on without because the cloud refuses it: a locked address must not keep machines running.

A volume is the one thing that nothing else depends on, and the one that hangs most: while Cinder makes or deletes it,
it cannot be deleted, and that can be for ever. So it is tried for some minutes, and then all else is done without it. A
load balancer is worse: it may hang as well, and all else comes after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from vcluster.actions import Action, Power, Verb
from vcluster.errors import CloudError, ConflictError, PermanentError
from vcluster.model import Observed, PartKind, Role

__all__ = ["LeftOut", "stays_in_the_way"]

STOP_TRIES, DELETE_TRIES = 3, 6
"""How often what is in use is tried before it is left out."""

VOLUME_TRIES = 9
"""The same for a volume, which makes some three minutes: as long as a large image takes on its way into one."""

STAYS = {PartKind.VOLUME: 600.0, PartKind.SNAPSHOT: 600.0, PartKind.LOAD_BALANCER: 300.0}
"""What hangs, and the seconds for which it may be on its way out: a disk that is wiped takes its time."""

_DELETES = frozenset({Verb.DELETE_MACHINE, Verb.DELETE_PORTS, Verb.DELETE_PART, Verb.DELETE_NETWORK})


class LeftOut:
    """What one run goes on without. A cluster that is brought up misses nothing but volumes that never were ready.

    Args:
        warn: takes a sentence for the person who watches.
    """

    def __init__(self, power: Power, warn: Callable[[str], None]) -> None:
        self._power, self._warn = power, warn
        self._refused: dict[str, CloudError] = {}
        self._singly = False
        self._asked: dict[str, float] = {}

    def takes(self, action: Action, error: BaseException | None, count: int = 100) -> bool:
        """Whether the run goes on without this.

        Args:
            count: how often it was refused.
        """
        worker = action.verb is Verb.STOP and action.names[0] != Role.HEAD
        if self._power is Power.STOPPED and worker:
            again = isinstance(error, ConflictError) and count < STOP_TRIES
            return isinstance(error, (PermanentError, ConflictError)) and not again
        if self._spares(action):
            permanent = isinstance(error, PermanentError) and self._power is not Power.RUNNING
            return permanent or (isinstance(error, ConflictError) and count >= VOLUME_TRIES)
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
        did = "cannot be deleted, all else goes" if self._power is Power.ABSENT else "cannot be deleted and stays"
        did = "is not stopped" if action.verb is Verb.STOP else did
        self._warn(f"{action.kind} {action.subject} {did}: {error.message}")

    def accepted(self, action: Action, now: float) -> None:
        """Go on without what the cloud has said long ago will go: a volume, say.

        Args:
            action: one that the cloud took; it is the same again while what it is for stays.
            now: by the loop's clock, in seconds.
        """
        if not self._spares(action) or action.old is None:
            return
        longest = STAYS[action.old.kind]
        if now - self._asked.setdefault(action.uuids[0], now) > longest:
            self.add(action, ConflictError(f"it was told to go {longest:.0f} s ago, and stays"))

    def _spares(self, action: Action) -> bool:
        """Whether it hangs now and then, and this run can go on without it. A volume that was used may hold files:
        whoever brings a cluster up must not take it for a new one later.
        """
        part = action.old
        if action.verb is not Verb.DELETE_PART or part is None or part.kind not in STAYS:
            return False
        return self._power is not Power.RUNNING or not (part.ready or action.destroys_data)

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

    def check(self, observed: Observed, name: str, unseen: str) -> None:
        """At the end of a run of `down`.

        Args:
            unseen: why nobody knows what else may be left; empty where all was seen.

        Raises:
            PermanentError: something stayed, of which it names all by uuid; or may have.
        """
        kinds = {machine.uuid: f"machine {machine.name}" for machine in observed.machines}
        kinds |= {port.uuid: f"port {port.name}" for port in observed.ports}
        kinds |= {part.uuid: f"{str(part.kind).replace('-', ' ')} {part.name}" for part in observed.parts}
        kinds |= {network.uuid: "network" for network in observed.networks if not network.foreign}
        there = {uuid: error for uuid, error in self._refused.items() if uuid in kinds}
        if self._power is not Power.ABSENT or not (there or unseen):
            return
        if not there:
            raise PermanentError(
                f"{name} is gone, but whether its own software left something on the cloud could not be seen: {unseen}",
                remedy=f"when the cloud can tell, `vcluster down {name}` deletes what there is",
            )
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


def stays_in_the_way(action: Action, error: CloudError) -> PermanentError:
    """Why a place gets no machine whose volume failed and cannot be deleted: another one might be a second that hangs.

    Args:
        action: that was to delete the volume.
        error: why it cannot be.
    """
    (uuid,) = action.uuids
    return PermanentError(
        f"its volume: {action.why}, and cannot be deleted: {error.message}",
        remedy=f"the cloud's operator can free volume {uuid}; then run the same command again",
    )
