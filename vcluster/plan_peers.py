"""A head that is one of several: what its peers are, and when they can do without one of them.

Their database needs most of all servers. Who takes a machine away when less than that would be left takes it all away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from vcluster.model import Health, Machine, MachineState, Role

__all__ = ["carry", "is_peer", "remain", "rest_with_head"]

_THERE = (MachineState.ACTIVE, MachineState.BUILD, MachineState.SHUTOFF, MachineState.SHELVED)
_JOINED = (Health.READY, Health.BUSY, Health.DRAINED)


def is_peer(machine: Machine) -> bool:
    """Whether a machine is a server beside the head."""
    return machine.role is Role.WORKER and machine.group == Role.HEAD


def remain(machines: Mapping[str, Machine], peers: Collection[str]) -> bool:
    """Whether most servers are there without the head. One that is off counts: it is switched on, and goes on."""
    return _are_most(sum(name in machines and machines[name].state in _THERE for name in peers), len(peers))


def carry(machines: Mapping[str, Machine], peers: Collection[str], health: Mapping[str, Health]) -> bool:
    """Whether most servers work without the head.

    Args:
        health: the head's word on them: a machine may be on for long that never joined. Empty where the head does not
            answer; then those count that are on.
    """
    on = [name for name in peers if name in machines and machines[name].state is MachineState.ACTIVE]
    return _are_most(sum(not health or health.get(name) in _JOINED for name in on), len(peers))


def rest_with_head(machines: Iterable[Machine]) -> frozenset[str]:
    """The uuids of peers that are put on the shelf as the head is, because their disks are the database.

    One in ERROR cannot be. It is left out, and goes as workers do, where the others are most without it.
    """
    peers = [machine for machine in machines if is_peer(machine)]
    well = [machine.uuid for machine in peers if machine.state is not MachineState.ERROR]
    return frozenset(well if _are_most(1 + len(well), len(peers)) else [machine.uuid for machine in peers])


def _are_most(count: int, peers: int) -> bool:
    """Of a head and its peers."""
    return 2 * count > peers + 1
