"""Plans for what stands around the machines: what is missing, faulty or twice there, and volumes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from vcluster.actions import NOTE_ATTEMPTS, NOTE_READY, Action, Goal, Verb, Wave
from vcluster.attempts import Attempts
from vcluster.chosen import PartKey, chosen_parts
from vcluster.model import MachineState, Observed, Part, PartKind, Role, Slot
from vcluster.plan_limits import hangs, ready_since
from vcluster.plan_peers import remain

__all__ = ["FREE_WAVE", "StandingParts", "Volumes", "delete_part", "healed_notes", "plan_parts", "plan_volumes"]

_MAKE_WAVE: Mapping[PartKind, Wave] = {
    PartKind.ROUTER: Wave.NETWORK,
    PartKind.SECURITY_GROUP: Wave.NETWORK,
    PartKind.SERVER_GROUP: Wave.NETWORK,
    PartKind.SUBNET: Wave.SUBNET,
    PartKind.GATEWAY: Wave.PORTS,
    PartKind.FLOATING_IP: Wave.ADDRESSES,
}

FREE_WAVE: Mapping[PartKind, Wave] = {
    PartKind.LOAD_BALANCER: Wave.FREE_BALANCERS,
    PartKind.FLOATING_IP: Wave.REPAIR,
    PartKind.SNAPSHOT: Wave.REPAIR,
    PartKind.VOLUME: Wave.FREE_PORTS,
    PartKind.GATEWAY: Wave.FREE_GATEWAY,
    PartKind.SERVER_GROUP: Wave.FREE_GATEWAY,
    PartKind.ROUTER: Wave.FREE_ROUTER,
    PartKind.SUBNET: Wave.FREE_ROUTER,
    PartKind.SECURITY_GROUP: Wave.FREE_GROUPS,
}
"""When a part can go: after all that needs it."""


def delete_part(
    part: Part,
    why: str = "",
    *,
    wave: Wave | None = None,
    notes: Mapping[str, str] | None = None,
    failed: bool = False,
    destroys_data: bool = False,
) -> Action:
    """The action that deletes a part, in the wave of its kind if no other is named."""
    wave = FREE_WAVE[part.kind] if wave is None else wave
    names, uuids = (part.name,), (part.uuid,)
    return Action(
        Verb.DELETE_PART,
        wave,
        names,
        uuids,
        why,
        old=part,
        failed=failed,
        destroys_data=destroys_data,
        notes=dict(notes or {}),
    )


# Parts that stand as long as the cluster does -----------------------------------------------------------------------


@dataclass
class StandingParts:
    """What is to be done about standing parts.

    Attributes:
        healed: names of attempts' notes that are not needed any more.
        hopeless: why a part cannot be had; empty while it can.
    """

    actions: list[Action] = field(default_factory=list)
    healed: list[str] = field(default_factory=list)
    hopeless: str = ""


def plan_parts(goal: Goal, seen: Observed, attempts: Attempts) -> StandingParts:
    """Make the parts that are missing, complete those that are not ready, let go faulty ones, twins and the rest."""
    result = StandingParts()
    chosen = chosen_parts(seen)
    wanted = {(request.kind, request.name) for request in goal.parts}
    for request in goal.parts:
        part, name = chosen.get((request.kind, request.name)), _note_name(request.kind, request.name)
        wave, names = _MAKE_WAVE[request.kind], (request.name,)
        if part is None:
            result.actions.append(Action(Verb.CREATE_PART, wave, names, part=request))
        elif part.fault and attempts.left(name, part) and not part.kept:
            notes = attempts.another(name, part)
            result.actions.append(delete_part(part, part.fault, wave=Wave.REPAIR, notes=notes))
        elif part.fault:
            result.hopeless = f"the {str(part.kind).replace('-', ' ')} {part.name} cannot be used: {part.fault}"
        elif not part.ready:
            why = "it is not complete"
            result.actions.append(Action(Verb.CREATE_PART, wave, names, (part.uuid,), why, part=request, old=part))
        elif attempts.made(name):
            result.healed.append(name)
    if wanted:  # a cloud with parts wants some for every cluster; who asks for none has not asked the cloud
        result.actions.extend(_extra(seen, chosen, wanted))
    return result


def _extra(seen: Observed, chosen: Mapping[PartKey, Part], wanted: set[PartKey]) -> Iterator[Action]:
    """Twins that nothing uses (what does is let go first, and then they are), and parts that are not asked for."""
    users = {port.uuid for port in seen.ports} | {machine.uuid for machine in seen.machines}
    for part in seen.parts:
        key = (part.kind, part.name)
        counts = chosen.get(key)
        if part.kind is PartKind.VOLUME or part.kept:
            continue
        if key not in wanted:
            yield delete_part(part, "not needed")
        elif counts is not part and part.used_by not in users:
            # A router takes no second leg into one range of addresses: the one that counts waits for this one's end.
            early = Wave.REPAIR if part.kind is PartKind.GATEWAY else None
            yield delete_part(part, "a twin", wave=early)


def _note_name(kind: PartKind, name: str) -> str:
    return f"{kind}.{name}"


# Volumes ------------------------------------------------------------------------------------------------------------


@dataclass
class Volumes:
    """Which volume each place boots from, and what is to be done about the others.

    Attributes:
        usable: slot name to a volume that no machine has used, ready or not.
        lost: slot name to the reason why no volume can be had.
    """

    usable: dict[str, Part] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)


def plan_volumes(goal: Goal, seen: Observed, attempts: Attempts, missing: Iterable[Slot]) -> Volumes:
    """Find a volume for each place of ``missing`` that boots from one; what machines left behind goes."""
    result = Volumes()
    of_name: dict[str, list[Part]] = {}
    for part in seen.parts:
        if part.kind is PartKind.VOLUME and not part.kept and not part.used_by:
            of_name.setdefault(part.name, []).append(_judged(part, goal, attempts))
    for slot in missing:
        if not slot.root_disk:
            continue
        fresh = [part for part in of_name.get(slot.name, []) if _is_fresh(part, goal, seen, attempts)]
        good = sorted((p for p in fresh if not p.fault), key=lambda p: (not p.ready, p.created, p.uuid))
        if good:
            result.usable[slot.name] = good[0]
        for part in fresh:
            if part.fault:
                _failed(result, part, goal, attempts)
    handled = {part.uuid for part in result.usable.values()} | {u for action in result.actions for u in action.uuids}
    for name, parts in of_name.items():
        left = [part for part in parts if part.uuid not in handled]
        if goal.keep_failed and name in result.lost:
            left = []
        result.actions.extend(_left_behind(goal, seen, name, left))
    return result


def _is_fresh(part: Part, goal: Goal, seen: Observed, attempts: Attempts) -> bool:
    """Whether no machine can have written to it: one that failed may have left its volume behind."""
    if part.uuid in goal.spent or _holds_homes(goal, seen, part.name):
        return False
    since = max(attempts.last_failure(part.name), ready_since(seen) if part.name == Role.HEAD else 0.0)
    return bool(part.fault) or part.created >= since


def _holds_homes(goal: Goal, seen: Observed, name: str) -> bool:
    """Whether a volume of this name may hold what is nowhere else: the head's, once that was ready and has no peers."""
    once = name == Role.HEAD and bool(seen.notes.get(NOTE_READY))
    return once and not remain({machine.name: machine for machine in seen.machines}, goal.peers)


def _judged(part: Part, goal: Goal, attempts: Attempts) -> Part:
    """The same, with a fault when it hangs. An earlier run may have waited for it long enough, and have said so."""
    fault = hangs(goal, part, attempts.now)
    if not (part.ready or part.fault or fault) and attempts.counted(part.name, part):
        fault = f"{part.uuid} is still {part.status or 'not ready'}"
    return replace(part, fault=fault) if fault else part


def _failed(result: Volumes, part: Part, goal: Goal, attempts: Attempts) -> None:
    # Of one that hung in this run: if it cannot be deleted either, this run makes no further one that might hang, too.
    hung = bool(hangs(goal, replace(part, fault=""), attempts.now))
    if attempts.left(part.name, part):
        notes = {} if attempts.counted(part.name, part) else attempts.another(part.name, part)
        result.actions.append(delete_part(part, part.fault, wave=Wave.REPAIR, notes=notes, failed=hung))
        return
    result.lost[part.name] = f"its volume: {part.fault}"
    if not goal.keep_failed:
        result.actions.append(delete_part(part, part.fault, notes=attempts.another(part.name, part), failed=hung))


def _left_behind(goal: Goal, seen: Observed, name: str, parts: Iterable[Part]) -> Iterator[Action]:
    """What no machine uses, before a new one of the name is made: then nobody could tell any more.

    While a machine is there, a cloud may not say yet that it uses its volume, or no more when it is shelved.
    """
    users = {machine.uuid for machine in seen.machines if machine.name == name}
    told = any(part.kind is PartKind.VOLUME and part.used_by in users for part in seen.parts)
    building = any(m.name == name and m.state is MachineState.BUILD for m in seen.machines)
    if users and (building or not told):
        return
    data = _holds_homes(goal, seen, name)
    wave = None if users and not data else Wave.REPAIR  # nobody waits for the end of one whose place is taken
    for part in parts:
        yield delete_part(part, "no machine uses it", wave=wave, destroys_data=data)


def healed_notes(names: Iterable[str]) -> Iterator[Action]:
    """Forget the attempts of what is well."""
    for name in names:
        yield Action(Verb.NOTE, Wave.FINISH, (name,), notes={NOTE_ATTEMPTS + name: ""})
