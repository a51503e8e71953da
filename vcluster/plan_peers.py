"""A head that is one of several: what its peers are, and when they can do without one of them.

Their database needs most of all servers. Who takes a machine away when less than that would be left takes it all away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from vcluster.actions import Goal
from vcluster.model import Health, Machine, MachineState, Role
from vcluster.plan_limits import stuck

__all__ = ["are_most", "is_peer", "remain", "rest_with_head", "spared"]

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
    others = {str(Role.HEAD), *peers} - {machine.name}
    on = [name for name in others if name in machines and machines[name].state is MachineState.ACTIVE]
    return are_most(sum(not health or health.get(name) in _JOINED for name in on), len(others))


def rest_with_head(goal: Goal, machines: Iterable[Machine], now: float) -> frozenset[str]:
    """The uuids of peers that are put on the shelf as the head is, because their disks are the database.

    One in ERROR cannot be, nor one that is deleted or built for ever. Such a one is left out, and goes as workers do,
    where the others are most without it.
    """
    peers = [machine for machine in machines if is_peer(machine)]
    well = [machine.uuid for machine in peers if machine.state not in _FAULTY and not stuck(goal, machine, now)]
    return frozenset(well if are_most(1 + len(well), len(peers)) else [machine.uuid for machine in peers])
