"""From records, locks, processes and events to what is seen: a machine's state and, in ERROR, why."""

from __future__ import annotations

from vcluster.clouds.base import BOOT_MARK
from vcluster.clouds.local import processes, qmp, switch, vm
from vcluster.clouds.local.files import is_locked
from vcluster.clouds.local.processes import Process
from vcluster.clouds.local.records import ClusterFolder, MachineRecord, Wish
from vcluster.model import Endpoint, Machine, MachineState, Role

__all__ = ["live", "picture"]

_CONSOLE_LINES = 5
_WIDTH = 200


def live(folder: ClusterFolder, records: list[MachineRecord]) -> dict[str, Process]:
    """The QEMU of each machine that has one. All processes are searched only for machines whose pid file misleads."""
    found: dict[str, Process] = {}
    missing: set[str] = set()
    for record in records:
        process = vm.process_of(folder.machine_path(record.uuid), record)
        if process is not None:
            found[record.uuid] = process
        else:
            missing.add(record.uuid)
    if missing:
        found.update(processes.find_all(missing))
    return found


def picture(folder: ClusterFolder, records: list[MachineRecord]) -> tuple[Machine, ...]:
    """Every machine as it is at this moment."""
    alive = live(folder, records)
    run = switch.running(folder.sockets)
    return tuple(_machine(folder, record, alive.get(record.uuid), run.run if run else "") for record in records)


def _machine(folder: ClusterFolder, record: MachineRecord, process: Process | None, run: str) -> Machine:
    path = folder.machine_path(record.uuid)
    events = qmp.read_events(path / "events.out")
    busy = is_locked(path)
    if process is not None:
        state, fault = _running(record, events, run, busy=busy)
    else:
        state, fault = _not_running(record, events, vm.tail(path / "qemu.log", 3), busy=busy)
    if state is MachineState.ERROR:
        last = _last_words(vm.tail(path / "console.log", _CONSOLE_LINES))
        fault = f"{fault}; its console ends with:\n{last}" if last else fault
    return Machine(
        uuid=record.uuid,
        tag=record.tag,
        name=record.name,
        role=Role(record.role),
        group=record.group,
        state=state,
        flavor=record.flavor,
        port=record.port,
        address=record.address,
        started=max(record.started, events.reset),
        fault=fault,
        endpoint=Endpoint("127.0.0.1", record.ssh_port) if record.ssh_port else None,
        doors={port: Endpoint("127.0.0.1", host) for port, host in record.doors if host},
    )


def _last_words(console: str) -> str:
    """The end of what this boot said, in lines that fit a screen."""
    lines = console.splitlines()
    begins = max((n + 1 for n, line in enumerate(lines) if line.startswith(BOOT_MARK)), default=0)
    return "\n".join(line[:_WIDTH] for line in lines[begins:]).strip()


def _running(record: MachineRecord, events: qmp.Events, run: str, *, busy: bool) -> tuple[MachineState, str]:
    if record.wish == Wish.DELETED:
        return _deleting(busy=busy)
    if events.stuck:
        return MachineState.ERROR, f"paused: {events.stuck}"
    if record.switch != run and not busy:
        return MachineState.ERROR, "the switch of its private network died; a reboot of the machine mends it"
    return MachineState.ACTIVE, ""


def _not_running(record: MachineRecord, events: qmp.Events, said: str, *, busy: bool) -> tuple[MachineState, str]:
    match record.wish:
        case Wish.DELETED:
            return _deleting(busy=busy)
        case Wish.OFF | Wish.SHELVED:
            return (MachineState.SHUTOFF if record.wish == Wish.OFF else MachineState.SHELVED), ""
        case _ if busy:
            return MachineState.BUILD, ""
        case Wish.BUILDING:
            return MachineState.ERROR, "its creation was interrupted before it booted"
    if record.boot_id != processes.boot_id() or events.ended == "guest-shutdown":
        return MachineState.SHUTOFF, ""
    reason = f"its QEMU ended: {_REASONS.get(events.ended, events.ended)}"
    return MachineState.ERROR, f"{reason}; it said: {said.strip()}" if said.strip() else reason


def _deleting(*, busy: bool) -> tuple[MachineState, str]:
    if busy:
        return MachineState.DELETING, ""
    return MachineState.ERROR, "its deletion was interrupted"


_REASONS = {
    "": "killed, by a person or by the kernel for want of memory",
    "host-signal": "a signal told it to",
    "host-qmp-quit": "its control socket told it to",
    "guest-panic": "the guest's kernel panicked",
}
