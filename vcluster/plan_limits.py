"""How long a plan waits, and for what not at all: a cloud may keep a machine in one state for ever, or not list it."""

from __future__ import annotations

from vcluster.actions import NOTE_READY, Goal
from vcluster.expiry import expiry_of
from vcluster.model import Machine, MachineState, Observed, Part, Port

__all__ = [
    "PORT_LOST",
    "UNREACHED",
    "expired",
    "hangs",
    "port_lost",
    "ready_since",
    "stays",
    "stuck",
    "unlisted",
    "watched",
]

UNREACHED = "the cloud says that it is on, but it cannot be reached from here (allow_from, VPN, jump host?)"

PORT_LOST = "its port was deleted, and the head knows it by the address that went with that"

DELETING_PATIENCE = 300.0
"""Seconds for which a run watches a machine being deleted before it goes on without waiting for that."""

ASK_AGAIN = DELETING_PATIENCE / 2
"""Seconds for which a run watches a machine being deleted before it tells the cloud once more: what was to do it may
have been restarted between the cloud's word that it will and the act, and then nobody does."""

STAYS = "it was told to go, and stays"

UNLISTED_PATIENCE = 120.0
"""Seconds for which a head may be missing in listings whose port says that it is there."""


def watched(goal: Goal, uuid: str, now: float) -> float:
    """Seconds for which this run has seen a machine, a volume or a port as it is now."""
    return now - goal.doubted.get(uuid, now)


def stuck(goal: Goal, machine: Machine, now: float) -> str:
    """Why a machine that is being built or deleted is not waited for any longer; empty while it is."""
    seen = watched(goal, machine.uuid, now)
    if machine.state is MachineState.BUILD and min(now - machine.started, seen) > goal.boot_timeout:
        return f"it is still in BUILD after {seen:.0f} s"
    if machine.state is MachineState.DELETING and seen > DELETING_PATIENCE:
        return f"it is still being deleted after {seen:.0f} s"
    return ""


def port_lost(seen: Observed, head: Machine | None, port: Port | None) -> str:
    """Why a worker that is missing is not made; empty when it may be.

    Every place has its port before the head is made, and the head has all their addresses from its first boot: in
    slurm.conf, in its list of hosts, in its firewall. A port that is made later, or is to be, has another one.

    Args:
        port: the worker's, if there is one.
    """
    ready = ready_since(seen)
    if head is None or head.state is MachineState.DELETING or not ready:
        return ""
    return PORT_LOST if port is None or port.created > ready else ""


def ready_since(seen: Observed) -> float:
    """When the head was ready for the first time, in seconds since the epoch; 0 where that is not written."""
    ready = seen.notes.get(NOTE_READY, "")
    return float(ready) if ready.isascii() and ready.isdigit() else 0.0


def hangs(goal: Goal, part: Part, now: float) -> str:
    """Why a volume that is being made is not waited for any longer; empty while it is, or when it is ready."""
    late = min(now - part.created, watched(goal, part.uuid, now)) > goal.boot_timeout
    if part.ready or part.fault or not late:
        return ""
    return f"{part.uuid} is still {part.status or 'not ready'} after {goal.boot_timeout:.0f} s"


def stays(goal: Goal, machine: Machine, now: float) -> str:
    """Why a machine that is being deleted is told to go once more; empty while that is not due."""
    late = machine.state is MachineState.DELETING and watched(goal, machine.uuid, now) > ASK_AGAIN
    return STAYS if late else ""


def unlisted(goal: Goal, seen: Observed, port: Port | None, now: float) -> tuple[str, str]:
    """What is waited for, and why no longer, where a listing lacks a head that was ready but its port is in use.

    A cloud takes a machine from its port before it forgets it. To rebuild would be to lose everybody's home.
    """
    if seen.head is not None or port is None or not port.device or not seen.notes.get(NOTE_READY):
        return "", ""
    text = f"the cloud does not list the head, but its port is in use (by {port.device})"
    return text, text if watched(goal, port.uuid, now) > UNLISTED_PATIENCE else ""


def expired(seen: Observed, head: Machine | None, now: float) -> str:
    """Why a shelved head is not switched on: whoever shelves what has expired would do so again."""
    expiry = expiry_of(seen.notes)
    if head is None or head.state is not MachineState.SHELVED or expiry is None or not expiry.past(now):
        return ""
    return "the cluster has expired and would be shelved again at once: `vcluster extend` lets it live on"
