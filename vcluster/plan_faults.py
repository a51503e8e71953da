"""What a machine in ERROR says of the cloud: that it has no quota, or no host for it, which another zone may have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from vcluster.actions import Goal, Power
from vcluster.attempts import Attempts
from vcluster.model import Machine, MachineState, Observed, Slot

__all__ = ["is_about_quota", "is_without_host", "needs_zones", "placed"]

_QUOTA = re.compile(r"quota|limit ?exceeded", re.IGNORECASE)
_NO_HOST = re.compile(r"no valid host", re.IGNORECASE)


def is_about_quota(machine: Machine) -> bool:
    """Whether a machine is in ERROR for want of quota: making it anew would end in the same way."""
    return machine.state is MachineState.ERROR and bool(_QUOTA.search(machine.fault))


def is_without_host(machine: Machine) -> bool:
    """Whether a machine is in ERROR as the cloud found no host for it, in the zone in which it looked."""
    return machine.state is MachineState.ERROR and bool(_NO_HOST.search(machine.fault))


def needs_zones(goal: Goal, seen: Observed) -> bool:
    """Whether the cloud's zones are worth a question: a place that names none is to be filled, and had no host."""
    attempts = Attempts(seen.notes, goal.max_attempts)
    missing = goal.wanted - {machine.name for machine in seen.machines}
    return goal.power is Power.RUNNING and any(
        _is_crowded(slot, attempts) and not attempts.spent(slot.name) for slot in goal.slots if slot.name in missing
    )


def placed(slot: Slot, zones: Sequence[str], attempts: Attempts) -> Slot:
    """The same place; in another zone where the cloud had no host for it and the spec names none.

    Which one depends on the notes alone, so that each try is in another one whatever run makes it.

    Args:
        zones: the cloud's, in an order that stays.
    """
    if len(zones) < 2 or not _is_crowded(slot, attempts):
        return slot
    return replace(slot, zone=zones[attempts.made(slot.name) % len(zones)])


def _is_crowded(slot: Slot, attempts: Attempts) -> bool:
    return not slot.zone and attempts.crowded(slot.name)
