"""A head that is one of several: what its peers are, and when they can do without one of them.

Their database needs most of all servers. Who takes a machine away when less than that would be left takes it all away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from vcluster.actions import Goal
from vcluster.model import Health, Machine, MachineState, Role
from vcluster.plan_faults import is_about_quota, is_without_host
from vcluster.plan_limits import stuck

__all__ = ["are_most", "is_needed", "is_peer", "remain", "rest_with_head", "spared"]

_THERE = (MachineState.ACTIVE, MachineState.BUILD, MachineState.SHUTOFF, MachineState.SHELVED)
_FAULTY = (MachineState.ERROR, MachineState.DELETING)
_JOINED = (Health.READY, Health.BUSY, Health.DRAINED)


class Placed(Protocol):
    """What has a place in a cluster: a machine, or what is told of one."""

    @property
    def role(self) -> str: ...

    @property
    def group(self) -> str: ...


def is_peer(machine: Placed) -> bool:
    """Whether a machine is a server beside the head."""
    return machine.role == Role.WORKER and machine.group == Role.HEAD


def are_most(count: int, others: int) -> bool:
    """Whether so many servers are most of one and these others."""
    return 2 * count > others + 1


def remain(machines: Mapping[str, Machine], peers: Collection[str]) -> bool:
    """Whether most servers are there without the head. One that is off counts: it is switched on, and goes on.

    So does one in BUILD, as which a cloud shows what was just switched on: to take it for lost would be to delete it.
    """
    return are_most(sum(name in machines and machines[name].state in _THERE for name in peers), len(peers))


def spared(
    machine: Machine, machines: Mapping[str, Machine], peers: Collection[str], health: Mapping[str, Health]
) -> bool:
    """Whether a machine that is to go is no server, or one that most servers work without.

    Args:
        peers: the names of the head's; without any, the head is never spared.
        health: the head's word: a machine may be on for long that never joined. Empty where the head does not answer;
            then those count that are on.
    """
    head = machine.role is Role.HEAD
    if not head and (machine.name not in peers or health.get(machine.name) not in _JOINED):
        return True
    others, on = _others(machine, machines, peers)
    return are_most(sum(not health or health.get(name) in _JOINED for name in on), others)


def is_needed(
    machine: Machine, machines: Mapping[str, Machine], peers: Collection[str], health: Mapping[str, Health]
) -> bool:
    """Whether the disk of a server that failed may hold what the others cannot do without.

    They can once most of all servers are Ready without it, by the head's word. And while the head answers, what the
    cloud never got onto a host has nothing on its disk.
    """
    if machine.name not in peers:
        return False
    never_ran = machine.state is MachineState.BUILD or is_about_quota(machine) or is_without_host(machine)
    if never_ran and health.get(str(Role.HEAD)) in _JOINED:
        return False
    others, on = _others(machine, machines, peers)
    return not are_most(sum(health.get(name) in _JOINED for name in on), others)


def _others(machine: Machine, machines: Mapping[str, Machine], peers: Collection[str]) -> tuple[int, list[str]]:
    """How many other servers there are to be, and the names of those that are on."""
    others = {str(Role.HEAD), *peers} - {machine.name}
    on = [name for name in others if name in machines and machines[name].state is MachineState.ACTIVE]
    return len(others), on


def rest_with_head(goal: Goal, machines: Iterable[Machine], now: float) -> frozenset[str]:
    """The uuids of peers that are put on the shelf as the head is, because their disks are the database.

    One in ERROR cannot be, nor one that is deleted or built for ever. Such a one is left out, and goes as workers do,
    where the others are most without it.
    """
    peers = [machine for machine in machines if is_peer(machine)]
    well = [machine.uuid for machine in peers if machine.state not in _FAULTY and not stuck(goal, machine, now)]
    return frozenset(well if are_most(1 + len(well), len(peers)) else [machine.uuid for machine in peers])
