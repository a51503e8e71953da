"""What to do next: a pure function from a goal and what was observed to ordered actions.

Actions come in waves. Those of one wave do not depend on each other and may run at the same time; a later wave
needs what an earlier one makes or removes. The loop applies the first wave, looks again, and plans anew, so the later
waves are a forecast for people (``vcluster plan``) and never executed blindly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from vcluster.actions import NOTE_ATTEMPTS, NOTE_READY, NOTE_SPEC, Action, Goal, Plan, Power, Verb, Wave
from vcluster.chosen import chosen_network, chosen_ports, own
from vcluster.model import ClusterRef, Health, Machine, MachineState, Network, Observed, Port, Role

__all__ = ["chosen_network", "chosen_ports", "own", "plan"]


def plan(goal: Goal, observed: Observed, ref: ClusterRef, now: float) -> Plan:
    """Decide what leads from ``observed`` to ``goal``.

    Args:
        goal: what is wanted.
        observed: what was seen, with health where the head could be asked.
        ref: whose resources count; others are ignored, whatever their names.
        now: the cloud's clock, in seconds since the epoch.
    """
    mine = own(observed, ref)
    if goal.power is Power.ABSENT:
        return _plan_absent(mine)
    if goal.power is Power.STOPPED:
        return _plan_stopped(mine)
    return _Running(goal, mine, now).plan()


def _plan_absent(observed: Observed) -> Plan:
    actions = [
        Action(Verb.DELETE_MACHINE, Wave.REPAIR, (m.name,), (m.uuid,), destroys_data=True)
        for m in observed.machines
        if m.state is not MachineState.DELETING
    ]
    if observed.machines and not actions:
        return Plan((), tuple(f"{m.name} to be gone" for m in observed.machines))
    waiting = tuple(f"{m.name} to be gone" for m in observed.machines if m.state is MachineState.DELETING)
    return Plan((*actions, *_free_ports(observed.ports), *_free_networks(observed.networks)), waiting)


def _free_ports(ports: Sequence[Port], why: str = "") -> Iterable[Action]:
    if ports:
        yield Action(
            Verb.DELETE_PORTS, Wave.FREE_PORTS, tuple(p.name for p in ports), tuple(p.uuid for p in ports), why
        )


def _free_networks(networks: Iterable[Network], why: str = "") -> Iterable[Action]:
    for network in networks:
        yield Action(Verb.DELETE_NETWORK, Wave.FREE_NETWORK, ("network",), (network.uuid,), why)


def _plan_stopped(observed: Observed) -> Plan:
    actions: list[Action] = []
    waiting: list[str] = []
    for machine in observed.machines:
        # The head serves /home: it goes last.
        wave = Wave.FINISH if machine.role is Role.HEAD else Wave.REPAIR
        if machine.state in (MachineState.ACTIVE, MachineState.ERROR, MachineState.UNKNOWN):
            actions.append(Action(Verb.STOP, wave, (machine.name,), (machine.uuid,)))
        elif machine.state in (MachineState.BUILD, MachineState.DELETING):
            waiting.append(f"{machine.name} ({machine.state})")
    actions.sort(key=lambda action: action.wave)
    if waiting and all(action.wave is Wave.FINISH for action in actions):
        return Plan((), tuple(waiting))
    return Plan(tuple(actions), tuple(waiting))


class _Running:
    """Plans toward a running cluster. One instance per call."""

    def __init__(self, goal: Goal, observed: Observed, now: float) -> None:
        self.goal = goal
        self.seen = observed
        self.now = now
        self.slots = {slot.name: slot for slot in goal.slots}
        self.ports = chosen_ports(observed)
        self.actions: list[Action] = []
        self.waiting: list[str] = []
        self.lost: dict[str, str] = dict(goal.given_up)
        self.leaving: set[str] = set()
        self.machines = self._settle_twins()

    @property
    def was_ready(self) -> bool:
        return bool(self.seen.notes.get(NOTE_READY))

    def attempts(self, name: str) -> int:
        return int((self.seen.notes.get(NOTE_ATTEMPTS + name) or "0").split()[0])

    def attempts_before(self, machine: Machine) -> int:
        """Without this machine's own failure, which may have been written already by a try that went wrong then."""
        note = self.seen.notes.get(NOTE_ATTEMPTS + machine.name, "")
        return self.attempts(machine.name) - note.endswith(f" {_life(machine)}")

    def health(self, name: str) -> Health:
        return self.seen.health.get(name, Health.UNKNOWN)

    def add(
        self,
        verb: Verb,
        machine: Machine,
        why: str = "",
        *,
        failed: bool = False,
        destroys_data: bool = False,
        notes: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        names, uuids = (machine.name,), (machine.uuid,)
        self.actions.append(
            Action(verb, Wave.REPAIR, names, uuids, why, failed=failed, destroys_data=destroys_data, notes=notes)
        )

    def _settle_twins(self) -> dict[str, Machine]:
        """One machine a name: the one that its name's port points to, else the oldest that works."""
        chosen: dict[str, Machine] = {}
        devices = {port.device for port in self.ports.values()}
        counting = {port.uuid for port in self.ports.values()}
        # A race can leave a machine on a port of a network that turned out to be a twin: it would never be reached.
        astray = {port.uuid for port in self.seen.ports} - counting

        def rank(m: Machine) -> tuple[bool, bool, float, str]:
            return (m.uuid not in devices, m.state is MachineState.ERROR, m.started, m.uuid)

        for machine in sorted(self.seen.machines, key=rank):
            twin = machine.port in astray or chosen.setdefault(machine.name, machine) is not machine
            if twin and machine.state is MachineState.DELETING:
                self.waiting.append(f"a twin of {machine.name} to be gone")
            elif twin:
                self.add(Verb.DELETE_MACHINE, machine, "a twin")
        return chosen

    def plan(self) -> Plan:
        head = self.machines.get(self.goal.slots[0].name)
        if (head is None or head.state is MachineState.DELETING) and self.was_ready:
            self._rebuild()
        for machine in self.machines.values():
            self._mend(machine, head)
        self._make_missing()
        self._tidy()
        degraded, hopeless = self._verdict()
        if not self.actions and not self.waiting and not hopeless:
            self._finish()
        self.actions.sort(key=lambda action: action.wave)
        return Plan(tuple(self.actions), tuple(self.waiting), MappingProxyType(self.lost), degraded, hopeless)

    # What is there -------------------------------------------------------------------------------------------

    def _rebuild(self) -> None:
        """A head that was Ready is gone, and /home with it: workers hold stale mounts, so all is made anew."""
        for machine in self.machines.values():
            self.leaving.add(machine.name)
            if machine.state is MachineState.DELETING:
                self.waiting.append(f"{machine.name} to be gone")
            else:
                self.add(Verb.DELETE_MACHINE, machine, "its head is gone", destroys_data=True)
        # Only when all are going: a crash before must find the cluster still marked as one that lost its head.
        going = all(machine.state is MachineState.DELETING for machine in self.machines.values())
        why = "the head and its disk are gone: the cluster is rebuilt, with an empty /home"
        wave, notes = Wave.REPAIR if going else Wave.FINISH, {NOTE_READY: ""}
        self.actions.append(Action(Verb.NOTE, wave, ("rebuild",), why=why, destroys_data=True, notes=notes))

    def _mend(self, machine: Machine, head: Machine | None) -> None:
        if machine.name in self.leaving:
            return
        if machine.state is MachineState.DELETING:
            self.waiting.append(f"{machine.name} to be gone")
            self.leaving.add(machine.name)
        elif machine.role is not Role.HEAD and (
            machine.name not in self.goal.wanted or machine.uuid in self.goal.replace
        ):
            self._let_go(machine, head)
        elif machine.state is MachineState.BUILD:
            self.waiting.append(f"{machine.name} to be built")
        elif machine.state is MachineState.SHUTOFF:
            self.add(Verb.START, machine)
        elif machine.state is MachineState.SHELVED:
            self.add(Verb.UNSHELVE, machine)
        else:
            self._judge(machine, head)

    def _judge(self, machine: Machine, head: Machine | None) -> None:
        health = self.health(machine.name)
        if machine.state is MachineState.ERROR:
            self._failed(machine, machine.fault or "the cloud says ERROR")
        elif health is Health.FAILED:
            self._failed(machine, "its configuration failed")
        elif health is Health.READY:
            if machine.role is Role.HEAD and not self.was_ready:
                # At once, whatever becomes of the workers: from now on people's files may lie on this disk.
                notes = {NOTE_READY: f"{self.now:.0f}"}
                self.actions.append(Action(Verb.NOTE, Wave.REPAIR, ("ready",), notes=notes))
            if self.attempts(machine.name):
                self._note({NOTE_ATTEMPTS + machine.name: ""}, machine.name)
        elif health in (Health.BUSY, Health.DRAINED):
            self.add(Verb.RESUME, machine, "it is wanted")
        elif self._overdue(machine, head):
            self._failed(machine, f"no job ran on it within {self.goal.boot_timeout:.0f} s of its start")
        else:
            self.waiting.append(f"{machine.name} to run its first job")

    def _overdue(self, machine: Machine, head: Machine | None) -> bool:
        # A machine that worked for days and is silent once is not overdue: its time runs from the first doubt.
        started = max(machine.started, self.goal.doubted.get(machine.uuid, self.now))
        if machine.role is not Role.HEAD:
            # Nothing can be said of a worker before the head can: its time runs from the later of the two starts.
            if head is None or self.health(head.name) is not Health.READY:
                return False
            started = max(started, head.started)
        return self.now - started > self.goal.boot_timeout

    def _failed(self, machine: Machine, reason: str) -> None:
        attempts = self.attempts_before(machine)
        notes = {NOTE_ATTEMPTS + machine.name: f"{attempts + 1} {_life(machine)}"}
        if machine.role is Role.HEAD and self.was_ready:
            if attempts < self.goal.max_attempts:
                self.add(Verb.REBOOT, machine, reason, failed=True, notes=notes)
            else:
                self.lost[machine.name] = reason
        elif attempts < self.goal.max_attempts and machine.name not in self.goal.given_up:
            self.add(Verb.DELETE_MACHINE, machine, reason, failed=True, notes=notes)
        else:
            self.lost.setdefault(machine.name, reason)
            if not self.goal.keep_failed:
                self.add(Verb.DELETE_MACHINE, machine, reason, failed=True, notes=notes)

    def _let_go(self, machine: Machine, head: Machine | None) -> None:
        """A worker that is not wanted any more: no new job onto it, wait for the running ones, delete."""
        self.leaving.add(machine.name)
        why = "to be made anew" if machine.uuid in self.goal.replace else "not wanted any more"
        health = self.health(machine.name)
        head_answers = head is not None and self.health(head.name) is Health.READY
        if machine.state is MachineState.ACTIVE and head is not None and head.state is MachineState.ACTIVE:
            if not head_answers:
                self.waiting.append(f"the head's word on {machine.name}")
                return
            if health is Health.READY:
                self.add(Verb.DRAIN, machine, why)
                return
            if health is Health.BUSY:
                self.waiting.append(f"the jobs on {machine.name} to end")
                return
        self.add(Verb.DELETE_MACHINE, machine, why)

    # What is missing -----------------------------------------------------------------------------------------

    def _make_missing(self) -> None:
        if not self.seen.networks:
            self.actions.append(Action(Verb.CREATE_NETWORK, Wave.NETWORK, ("network",)))
        head_name = self.goal.slots[0].name
        missing = [name for name in self.slots if name not in self.ports]
        if head_name in missing:
            self.actions.append(Action(Verb.CREATE_PORTS, Wave.CLAIM, (head_name,)))
        if rest := tuple(name for name in missing if name != head_name):
            self.actions.append(Action(Verb.CREATE_PORTS, Wave.PORTS, rest))
        for name, slot in self.slots.items():
            if name not in self.goal.wanted or name in self.machines or name in self.lost:
                continue
            if self.attempts(name) > self.goal.max_attempts:
                self.lost[name] = f"it failed {self.attempts(name)} times"
                continue
            self.actions.append(Action(Verb.CREATE_MACHINE, Wave.MACHINES, (name,), slot=slot))

    def _tidy(self) -> None:
        kept = {port.uuid for name, port in self.ports.items() if name in self.slots}
        held = {machine.port for machine in self.seen.machines}
        extra = [port for port in self.seen.ports if port.uuid not in kept and port.uuid not in held]
        self.actions.extend(_free_ports(extra, "not needed"))
        used = {port.network for port in self.seen.ports if port.uuid in kept or port.uuid in held}
        chosen = chosen_network(self.seen)
        twins = [network for network in self.seen.networks if network is not chosen and network.uuid not in used]
        self.actions.extend(_free_networks(twins, "a twin"))

    # The verdict ---------------------------------------------------------------------------------------------

    def _verdict(self) -> tuple[tuple[str, ...], str]:
        head_name = self.goal.slots[0].name
        if head_name in self.lost:
            return (), f"the head failed: {self.lost[head_name]}"
        degraded = []
        for group, minimum in self.goal.minimum.items():
            wanted = [n for n in self.goal.wanted if self.slots[n].group == group and n != head_name]
            gone = sorted(name for name in wanted if name in self.lost)
            degraded.extend(gone)
            if len(wanted) - len(gone) < minimum:
                reasons = "; ".join(f"{name}: {self.lost[name]}" for name in gone[:3])
                more = f" (and {len(gone) - 3} more)" if len(gone) > 3 else ""
                text = f"group {group} needs {minimum} workers and {len(gone)} of {len(wanted)} failed: {reasons}{more}"
                return tuple(degraded), text
        return tuple(degraded), ""

    def _note(self, notes: Mapping[str, str], subject: str) -> None:
        self.actions.append(Action(Verb.NOTE, Wave.FINISH, (subject,), notes=dict(notes)))

    def _finish(self) -> None:
        if self.seen.notes.get(NOTE_SPEC) != self.goal.digest:
            self._note({NOTE_SPEC: self.goal.digest}, "spec")


def _life(machine: Machine) -> str:
    """One boot of one machine, as the attempts' note names it."""
    return f"{machine.uuid}@{machine.started:.0f}"
