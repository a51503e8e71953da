"""Plans toward a cluster at rest: drained, and then stopped, or with its head on the shelf and its workers gone.

A head that is one of several rests together with all of them: without most of them nobody knows of any jobs.
"""

from __future__ import annotations

from vcluster.actions import Action, Goal, Plan, Power, Verb, Wave
from vcluster.model import Health, Machine, MachineState, Observed, PartKind, Role
from vcluster.plan_limits import stays, stuck
from vcluster.plan_parts import delete_part
from vcluster.plan_peers import is_peer, rest_with_head

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
    peers = frozenset(machine.uuid for machine in seen.machines if is_peer(machine))
    lasting = rest_with_head(goal, seen.machines, now) if shelving else peers
    for machine in seen.workers():
        health = seen.health.get(machine.name, Health.UNKNOWN)
        if health is Health.READY:
            why = "the cluster is shelved" if shelving else "the cluster is stopped"
            actions.append(Action(Verb.DRAIN, Wave.REPAIR, (machine.name,), (machine.uuid,), why))
        elif health is Health.BUSY and now - (goal.began or now) < goal.job_patience:
            waiting.append(f"the jobs on {machine.name} to end")
        elif machine.uuid in lasting:
            continue
        elif machine.state is MachineState.DELETING:
            if not stuck(goal, machine, now):
                waiting.append(f"{machine.name} to be gone")
        elif machine.state is MachineState.BUILD and not shelving and not stuck(goal, machine, now):
            waiting.append(f"{machine.name} to be built")
        elif shelving or machine.state not in _OFF:
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
    last, held, broken = _servers(goal, seen, now, lasting)
    waiting += held
    hopeless = broken if not (actions or waiting or last) else ""  # all else rests all the same: it costs
    if actions or not waiting:
        actions += last
    return Plan(tuple(actions), tuple(waiting), hopeless=hopeless)


def _volumes_left(seen: Observed) -> list[Action]:
    """Of workers that are gone; the head's holds everybody's home."""
    names = {machine.name for machine in seen.machines} | {str(Role.HEAD)}
    volumes = (p for p in seen.parts if p.kind is PartKind.VOLUME and not p.kept and not p.used_by)
    return [delete_part(part, "no machine uses it") for part in volumes if part.name not in names]


def _servers(goal: Goal, seen: Observed, now: float, lasting: frozenset[str]) -> tuple[list[Action], list[str], str]:
    """What is done with the head and what rests with it, what is waited for, and why not all of it can rest.

    The head serves /home: it goes last, when no worker is on any more.
    """
    last, held, broken = [], list[str](), ""
    for head in (m for m in seen.machines if m.role is Role.HEAD or m.uuid in lasting):
        if head.state in (MachineState.BUILD, MachineState.DELETING):
            if head.role is Role.HEAD or not stuck(goal, head, now):
                held.append(f"{head.name} ({head.state})")
        elif goal.power is Power.SHELVED and head.state is MachineState.ERROR:
            name = "the head" if head.role is Role.HEAD else head.name
            broken = f"{name} is in ERROR and cannot be shelved: {head.fault or 'the cloud does not say why'}"
        elif goal.power is Power.SHELVED and head.state is not MachineState.SHELVED:
            last.append(Action(Verb.SHELVE, Wave.FINISH, (head.name,), (head.uuid,)))
        elif head.state in _ON:
            last.append(Action(Verb.STOP, Wave.FINISH, (head.name,), (head.uuid,)))
    return last, held, broken
