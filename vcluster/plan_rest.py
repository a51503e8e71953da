"""Plans toward a cluster at rest: drained, and then stopped, or with its head on the shelf and its workers gone.

A head that is one of several goes on the shelf with all of them.
"""

from __future__ import annotations

from vcluster.actions import Action, Goal, Plan, Power, Verb, Wave
from vcluster.model import Health, Machine, MachineState, Observed, PartKind, Role
from vcluster.plan_limits import stays, stuck
from vcluster.plan_parts import delete_part
from vcluster.plan_peers import rest_with_head

__all__ = ["plan_rest"]

_OFF = (MachineState.SHUTOFF, MachineState.SHELVED)
_ON = (MachineState.ACTIVE, MachineState.ERROR, MachineState.UNKNOWN)


def plan_rest(goal: Goal, seen: Observed, now: float) -> Plan:
    """Drain workers, wait for their jobs as long as the goal says, let them go or stop them, and the head last.

    A head that does not answer tells of no health: then nothing is drained, and nothing is waited for.
    """
    shelving = goal.power is Power.SHELVED
    actions: list[Action] = []
    waiting: list[str] = []
    resting: list[Machine] = []
    lasting = rest_with_head(seen.machines) if shelving else frozenset[str]()
    for machine in seen.workers():
        health = seen.health.get(machine.name, Health.UNKNOWN)
        if health is Health.READY:
            why = "the cluster is shelved" if shelving else "the cluster is stopped"
            actions.append(Action(Verb.DRAIN, Wave.REPAIR, (machine.name,), (machine.uuid,), why))
        elif health is Health.BUSY and now - (goal.began or now) < goal.job_patience:
            waiting.append(f"the jobs on {machine.name} to end")
        elif machine.state is MachineState.DELETING:
            if not stuck(goal, machine, now):
                waiting.append(f"{machine.name} to be gone")
        elif machine.state is MachineState.BUILD and not shelving and not stuck(goal, machine, now):
            waiting.append(f"{machine.name} to be built")
        elif machine.uuid not in lasting and (shelving or machine.state not in _OFF):
            resting.append(machine)
    verb = Verb.DELETE_MACHINE if shelving else Verb.STOP
    wave = Wave.NETWORK if actions else Wave.REPAIR
    actions += [
        Action(verb, wave, (m.name,), (m.uuid,), "shelved without its disk" if shelving else "") for m in resting
    ]
    again = [(m, why) for m in seen.workers() if (why := stays(goal, m, now)) and not stuck(goal, m, now)]
    actions += [Action(Verb.DELETE_MACHINE, Wave.REPAIR, (m.name,), (m.uuid,), why) for m, why in again]
    if shelving:
        actions += _volumes_left(seen)
    return _with_head(seen, actions, waiting, lasting, shelving=shelving)


def _volumes_left(seen: Observed) -> list[Action]:
    """Of workers that are gone; the head's holds everybody's home."""
    names = {machine.name for machine in seen.machines} | {str(Role.HEAD)}
    volumes = (p for p in seen.parts if p.kind is PartKind.VOLUME and not p.kept and not p.used_by)
    return [delete_part(part, "no machine uses it") for part in volumes if part.name not in names]


def _with_head(
    seen: Observed, actions: list[Action], waiting: list[str], lasting: frozenset[str], *, shelving: bool
) -> Plan:
    """The head serves /home: it goes last, when no worker is on any more."""
    hopeless, last = "", []
    for head in (m for m in seen.machines if m.role is Role.HEAD or m.uuid in lasting):
        if head.state in (MachineState.BUILD, MachineState.DELETING):
            waiting.append(f"{head.name} ({head.state})")
        elif shelving and head.state is MachineState.ERROR:
            if actions or waiting:
                continue  # its workers go all the same: they cost, and have nobody's files
            name = "the head" if head.role is Role.HEAD else head.name
            hopeless = f"{name} is in ERROR and cannot be shelved: {head.fault or 'the cloud does not say why'}"
        elif shelving and head.state is not MachineState.SHELVED:
            last.append(Action(Verb.SHELVE, Wave.FINISH, (head.name,), (head.uuid,)))
        elif head.state in _ON:
            last.append(Action(Verb.STOP, Wave.FINISH, (head.name,), (head.uuid,)))
    if actions or not waiting:
        actions = [*actions, *last]
    return Plan(tuple(actions), tuple(waiting), hopeless=hopeless)
