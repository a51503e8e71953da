"""Plans toward nothing: everything of the cluster goes, in the order in which a cloud lets it go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from vcluster.actions import Action, Goal, Plan, Verb, Wave
from vcluster.model import Machine, MachineState, Network, Observed, Part, PartKind, Port, Role
from vcluster.plan_limits import stays
from vcluster.plan_parts import delete_part

__all__ = ["free_networks", "free_ports", "plan_absent"]


def plan_absent(goal: Goal, seen: Observed, now: float) -> Plan:
    """Keep what shall be kept, then delete machines, and when they are gone all that stood around them.

    Load balancers that the cluster's own software made go before its machines, and the volumes that it made after them.

    A machine that is being deleted for long is told to go again, in this run and in each later one: a cloud whose parts
    were restarted at the wrong moment says for ever that it is being deleted, and nobody does it.
    """
    to_keep = [part for part in seen.parts if goal.keep_volumes and _holds_files(part) and not part.kept]
    gone = {part.uuid for part in to_keep} | {part.uuid for part in seen.parts if part.kept}
    keeping = [_keep(to_keep, seen)] if to_keep else []
    deleting = [
        Action(Verb.DELETE_MACHINE, Wave.REPAIR, (m.name,), (m.uuid,), stays(goal, m, now), destroys_data=True)
        for m in seen.machines
        if m.state is not MachineState.DELETING or stays(goal, m, now)
    ]
    waiting = tuple(_to_be_gone(m, stays(goal, m, now)) for m in seen.machines if m.state is MachineState.DELETING)
    # A volume that a machine boots from goes with it; those that are left go after.
    users = {machine.uuid for machine in seen.machines}
    parts = [_delete(p) for p in seen.parts if p.uuid not in gone and (p.maker or p.used_by not in users)]
    at_once = sorted((action for action in parts if action.wave <= Wave.REPAIR), key=lambda action: action.wave)
    if waiting and not deleting:
        return Plan((*keeping, *at_once), waiting)
    later = [action for action in parts if action.wave > Wave.REPAIR]
    own = [network for network in seen.networks if not network.foreign]
    after = sorted([*free_ports(seen.ports), *later, *free_networks(own)], key=lambda action: action.wave)
    # A quick one first: behind many machines that go, a cloud takes seconds over an address.
    return Plan((*keeping, *at_once, *deleting, *after), waiting)


def _to_be_gone(machine: Machine, why: str) -> str:
    return f"{machine.name} to be gone" + (f" ({machine.uuid}: {why})" if why else "")


def _delete(part: Part) -> Action:
    if not part.maker:
        return delete_part(part)
    return delete_part(part, f"made by {part.maker} for this cluster", destroys_data=_holds_files(part))


def _holds_files(part: Part) -> bool:
    """Whether it is a volume that people have files on: the head's with everybody's home, or one of the cluster's own
    software's, which are for nothing else.
    """
    if part.maker:
        return part.kind in (PartKind.VOLUME, PartKind.SNAPSHOT)
    return part.kind is PartKind.VOLUME and part.name == Role.HEAD


def _keep(volumes: Sequence[Part], seen: Observed) -> Action:
    """Nobody uses a volume, says the cloud, while its machine is on the shelf; yet it would go with that machine."""
    names, uuids = tuple(v.name for v in volumes), tuple(v.uuid for v in volumes)
    machines = sorted(seen.machines, key=lambda m: m.state is not MachineState.DELETING)
    users = {machine.name: machine.uuid for machine in machines}
    kept = tuple(v if v.maker else replace(v, used_by=v.used_by or users.get(v.name, "")) for v in volumes)
    return Action(Verb.KEEP_VOLUMES, Wave.KEEP, names, uuids, "asked for", kept=kept)


def free_ports(ports: Sequence[Port], why: str = "", wave: Wave = Wave.FREE_PORTS) -> Iterator[Action]:
    """Delete ports in one call."""
    if ports:
        yield Action(Verb.DELETE_PORTS, wave, tuple(p.name for p in ports), tuple(p.uuid for p in ports), why)


def free_networks(networks: Iterable[Network], why: str = "") -> Iterator[Action]:
    """Delete networks of our own."""
    for network in networks:
        yield Action(Verb.DELETE_NETWORK, Wave.FREE_NETWORK, ("network",), (network.uuid,), why)
