"""Plans toward a running cluster: mend what is there, make what is missing, let go what nobody needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from vcluster.actions import NOTE_ATTEMPTS, NOTE_READY, NOTE_SPEC, Action, Goal, Plan, Verb, Wave
from vcluster.attempts import Attempts
from vcluster.chosen import chosen_network, chosen_ports
from vcluster.model import Health, Machine, MachineState, Network, Observed, PartKind, Role, Slot
from vcluster.plan_absent import free_networks, free_ports
from vcluster.plan_claim import Claim, Standing, judge
from vcluster.plan_faults import is_about_quota, is_without_host, placed
from vcluster.plan_limits import UNREACHED, expired, port_lost, stays, stuck, unlisted
from vcluster.plan_parts import StandingParts, Volumes, healed_notes, plan_parts, plan_volumes
from vcluster.plan_peers import is_needed, remain, spared

__all__ = ["Running"]

_OFF = (MachineState.SHUTOFF, MachineState.SHELVED)


class Running:
    """Plans toward a running cluster. One instance per call.

    Args:
        now: when the look began that ``seen`` comes from, by the cloud's clock.
    """

    def __init__(self, goal: Goal, seen: Observed, now: float) -> None:
        self.goal, self.seen, self.now = goal, seen, now
        self.head_name = goal.slots[0].name
        self.slots = {slot.name: slot for slot in goal.slots}
        self.ports = chosen_ports(seen)
        self.attempts = Attempts(seen.notes, goal.max_attempts, now, goal.boot_timeout)
        self.actions: list[Action] = []
        self.waiting: list[str] = []
        self.lost: dict[str, str] = dict(goal.given_up)
        self.leaving: set[str] = set()
        self.unseen = False
        self.twins: set[str] = set()
        self.machines = self._settle_twins()
        self.head = self.machines.get(self.head_name)
        self.claim = judge(goal, seen, self.ports.get(self.head_name), self.head, now)

    @property
    def was_ready(self) -> bool:
        return bool(self.seen.notes.get(NOTE_READY))

    def health(self, name: str) -> Health:
        return self.seen.health.get(name, Health.UNKNOWN)

    def add(
        self,
        verb: Verb,
        machine: Machine,
        why: str = "",
        *,
        wave: Wave = Wave.REPAIR,
        failed: bool = False,
        destroys_data: bool = False,
        notes: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        names, uuids = (machine.name,), (machine.uuid,)
        self.actions.append(
            Action(verb, wave, names, uuids, why, failed=failed, destroys_data=destroys_data, notes=notes)
        )

    def plan(self) -> Plan:
        missed, hopeless = unlisted(self.goal, self.seen, self.ports.get(self.head_name), self.now)
        if missed:
            self.actions.clear()  # a twin, perhaps: but of what?
            self._wait_unseen(missed)
            return self._result((), hopeless)
        if over := expired(self.seen, self.head, self.now):
            return Plan(hopeless=over)
        if self.claim.standing is Standing.FOREIGN:
            return self._stand_back()
        lost_head = self.head is None or self.head.state is MachineState.DELETING
        if lost_head and self.was_ready and not remain(self.machines, self.goal.peers):
            self._rebuild()
        if self.claim.standing is Standing.ABANDONED and not self._take_over():
            return self._result(())
        for machine in self.machines.values():
            self._mend(machine)
        missing = self._missing()
        parts = plan_parts(self.goal, self.seen, self.attempts)
        volumes = plan_volumes(self.goal, self.seen, self.attempts, missing)
        self.lost.update({name: why for name, why in volumes.lost.items() if name not in self.lost})
        self.actions += [*parts.actions, *volumes.actions]
        self._make_network()
        self._make_machines(missing, volumes)
        self._tidy()
        degraded, hopeless = self._verdict()
        hopeless = hopeless or parts.hopeless
        if not self.actions and not self.waiting and not hopeless:
            self._finish(parts)
        return self._result(degraded, hopeless)

    def _result(self, degraded: tuple[str, ...], hopeless: str = "", claimed: str = "") -> Plan:
        self.actions.sort(key=lambda action: action.wave)
        lost = MappingProxyType(self.lost)
        return Plan(tuple(self.actions), tuple(self.waiting), lost, degraded, hopeless, claimed, self.unseen)

    # Whose it is ---------------------------------------------------------------------------------------------

    def _settle_twins(self) -> dict[str, Machine]:
        """One machine a name: the one that its name's port points to, else the oldest that works."""
        chosen: dict[str, Machine] = {}
        devices = {port.device for port in self.ports.values()}

        def rank(m: Machine) -> tuple[bool, bool, float, str]:
            return (m.uuid not in devices, m.state is MachineState.ERROR, m.started, m.uuid)

        astray = self._astray()
        for machine in sorted(self.seen.machines, key=rank):
            twin = machine.port in astray or self._beside_the_claim(machine)
            twin = twin or chosen.setdefault(machine.name, machine) is not machine
            if not twin:
                continue
            self.twins.add(machine.uuid)
            if machine.state is MachineState.DELETING:
                if not stuck(self.goal, machine, self.now):
                    self._wait_gone(machine, f"a twin of {machine.name}")
            else:
                self.add(Verb.DELETE_MACHINE, machine, "a twin")
        return chosen

    def _astray(self) -> set[str]:
        """Ports that do not count: a race can leave a machine on a network that nobody else is on."""
        return {port.uuid for port in self.seen.ports} - {port.uuid for port in self.ports.values()}

    def _beside_the_claim(self, machine: Machine) -> bool:
        """Whether it is a head whose port was taken from it by a run that claimed the cluster anew."""
        port = self.ports.get(self.head_name)
        claimed = bool(self.goal.claim) and port is not None and not self.was_ready
        return claimed and machine.role is Role.HEAD and port is not None and machine.port != port.uuid

    def _stand_back(self) -> Plan:
        """Somebody else's claim holds: make nothing, take own twins back, wake the head that has the secret."""
        port, head = self.claim.port, self.head
        claimed = port.claim if port else ""
        busy = {machine.port for machine in self.seen.machines}
        mine = [p for p in self.seen.ports if p.claim == self.goal.claim and p.uuid not in busy]
        self.actions += free_ports(mine, "somebody else's claim is older")
        if head is None:
            self.waiting.append("the head that another run is about to make")
            self.unseen = True
        elif head.state in _OFF:
            self._wake(head)
        elif head.state is MachineState.ERROR and self.was_ready:
            self._failed(head, head.fault or "the cloud says ERROR")
        elif head.state is not MachineState.ACTIVE:
            self.waiting.append(f"{head.name}, which another run makes ({head.state})")
        hopeless = f"the head failed: {self.lost[self.head_name]}" if self.head_name in self.lost else ""
        return self._result((), hopeless, claimed)

    def _take_over(self) -> bool:
        """Remove a claim that must go, and what was made under it; whether the rest may be planned already."""
        if self.was_ready:
            return False  # the rebuild comes first, which asks
        for machine in self.machines.values():
            self.leaving.add(machine.name)
            if machine.state is MachineState.DELETING:
                self._wait_gone(machine, machine.name)
            else:
                self.add(Verb.DELETE_MACHINE, machine, self.claim.why)
        if self.machines or self.twins or self.claim.port is None:
            return False
        self.actions += free_ports([self.claim.port], self.claim.why, Wave.REPAIR)
        del self.ports[self.head_name]
        self.claim = Claim(Standing.FREE)
        return True

    # What is there -------------------------------------------------------------------------------------------

    def _rebuild(self) -> None:
        """A head that was Ready is gone, and /home with it: workers hold stale mounts, so all is made anew."""
        for machine in self.machines.values():
            self.leaving.add(machine.name)
            if machine.state is MachineState.DELETING:
                self._wait_gone(machine, machine.name)
            else:
                self.add(Verb.DELETE_MACHINE, machine, "its head is gone", destroys_data=True)
        # Only when all are going: a crash before must find the cluster still marked as one that lost its head. A volume
        # that its head left behind must be gone: who finds it later would take it for a new one.
        disks = [p for p in self.seen.parts if p.kind is PartKind.VOLUME and p.name == self.head_name and not p.kept]
        going = not disks and all(machine.state is MachineState.DELETING for machine in self.machines.values())
        why = "the head and its disk are gone: the cluster is rebuilt, and what lay there (/home, a database) is lost"
        wave, notes = Wave.REPAIR if going else Wave.FINISH, {NOTE_READY: ""}
        self.actions.append(Action(Verb.NOTE, wave, ("rebuild",), why=why, destroys_data=True, notes=notes))

    def _mend(self, machine: Machine) -> None:
        if machine.name in self.leaving:
            return
        unwanted = machine.name not in self.goal.wanted or machine.uuid in self.goal.replace
        late = stuck(self.goal, machine, self.now) if machine.role is not Role.HEAD else ""
        if machine.state is MachineState.DELETING:
            self.leaving.add(machine.name)
            if not late:
                self._wait_gone(machine, machine.name)
            elif machine.name in self.goal.wanted:
                self.lost.setdefault(machine.name, late)
        elif unwanted and spared(machine, self.machines, self.goal.peers, self.seen.health):
            self._let_go(machine)
        elif unwanted and self.goal.peers and machine.state is MachineState.ACTIVE:
            self.waiting.append(f"most of the other servers to be ready, before {machine.name} is made anew")
        elif late:
            self._failed(machine, late)
        elif machine.state is MachineState.BUILD:
            self.waiting.append(f"{machine.name} to be built")
        elif machine.state in _OFF:
            self._wake(machine)
        else:
            self._judge(machine)

    def _wake(self, machine: Machine) -> None:
        if machine.uuid in self.goal.asleep:
            why = f"the cloud was asked again and again to switch it on and it is still {machine.state}"
            self.lost[machine.name] = f"{why}: there may be no room for flavor {machine.flavor} now"
        else:
            self.add(Verb.START if machine.state is MachineState.SHUTOFF else Verb.UNSHELVE, machine)

    def _judge(self, machine: Machine) -> None:
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
            if self.attempts.made(machine.name):
                self.actions += healed_notes([machine.name])
        elif health in (Health.BUSY, Health.DRAINED):
            self.add(Verb.RESUME, machine, "it is wanted")
        elif self._overdue(machine) and machine.role is Role.HEAD and self.was_ready and not self.goal.heard:
            # It may work very well, with people's jobs: a reset is for one that is known to hang.
            self.lost[machine.name] = UNREACHED
        elif self._overdue(machine):
            self._failed(machine, f"no job ran on it within {self.goal.boot_timeout:.0f} s of its start")
        else:
            self.waiting.append(f"{machine.name} to run its first job")

    def _overdue(self, machine: Machine) -> bool:
        # A machine that worked for days and is silent once is not overdue: its time runs from the first doubt.
        started = max(machine.started, self.goal.doubted.get(machine.uuid, self.now))
        if machine.role is not Role.HEAD:
            # Nothing can be said of a worker before the head can: its time runs from the later of the two starts.
            if self.head is None or self.health(self.head.name) is not Health.READY:
                return False
            started = max(started, self.head.started)
        return self.now - started > self.goal.boot_timeout

    def _failed(self, machine: Machine, reason: str) -> None:
        name = machine.name
        notes = self.attempts.another(name, machine, crowded=is_without_host(machine))
        needed = is_needed(machine, self.machines, self.goal.peers, self.seen.health)
        if self.was_ready and (machine.role is Role.HEAD or needed):
            if self.attempts.left(name, machine):
                self.add(Verb.REBOOT, machine, reason, failed=True, notes=notes)
            elif needed:
                why = f"{reason}; no reboot helped, and the others may need its database"
                self.add(Verb.DELETE_MACHINE, machine, why, destroys_data=True, notes={NOTE_ATTEMPTS + name: ""})
            else:
                self.lost[name] = reason
        elif self.attempts.left(name, machine) and name not in self.goal.given_up and not is_about_quota(machine):
            self.add(Verb.DELETE_MACHINE, machine, reason, failed=True, notes=notes)
        else:
            self.lost.setdefault(name, reason)
            if not self.goal.keep_failed:
                # Want of quota says nothing of the machine: who has the quota shall try as if for the first time.
                written = {} if is_about_quota(machine) else notes
                self.add(Verb.DELETE_MACHINE, machine, reason, failed=True, notes=written)

    def _let_go(self, machine: Machine) -> None:
        """A worker that is not wanted any more: no new job onto it, wait for the running ones, delete."""
        head = self.head
        self.leaving.add(machine.name)
        why = "to be made anew" if machine.uuid in self.goal.replace else "not wanted any more"
        health = self.health(machine.name)
        if machine.state is MachineState.ACTIVE and head is not None and head.state is MachineState.ACTIVE:
            if machine is not head and self.health(head.name) is not Health.READY:
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

    def _missing(self) -> list[Slot]:
        """The places that shall have a machine and have none, in order."""
        missing = []
        for name, slot in self.slots.items():
            if name not in self.goal.wanted or name in self.machines or name in self.lost:
                continue
            if self.attempts.spent(name):
                self.lost[name] = f"it failed {self.attempts.made(name)} times"
            elif name != self.head_name and (why := port_lost(self.seen, self.head, self.ports.get(name))):
                self.lost[name] = why
            else:
                missing.append(slot)
        return missing

    def _make_network(self) -> None:
        if self.goal.network is None and all(network.foreign for network in self.seen.networks):
            self.actions.append(Action(Verb.CREATE_NETWORK, Wave.NETWORK, ("network",)))
        portless = [name for name in self.slots if name not in self.ports]
        if self.head_name in portless:
            self.actions.append(Action(Verb.CREATE_PORTS, Wave.CLAIM, (self.head_name,)))
        if rest := tuple(name for name in portless if name != self.head_name):
            self.actions.append(Action(Verb.CREATE_PORTS, Wave.PORTS, rest))
        notes = {key: word for key, word in self.goal.notes.items() if key not in self.seen.notes}
        if notes and self.claim.standing is not Standing.YOUNG:
            self.actions.append(Action(Verb.NOTE, Wave.PORTS, tuple(notes), notes=notes))

    def _make_machines(self, missing: Sequence[Slot], volumes: Volumes) -> None:
        ready = not missing or self._may_make_machines()
        for slot in missing:
            volume = volumes.usable.get(slot.name)
            if slot.name in self.lost:
                continue
            names, place = (slot.name,), placed(slot, self.goal.zones, self.attempts)
            why = f"in zone {place.zone}, as there was no host for it" if place is not slot else ""
            if slot.root_disk and volume is None:
                self.actions.append(Action(Verb.CREATE_VOLUME, Wave.NETWORK, names, why=why, slot=place))
            if volume is not None and not volume.ready:
                self._wait_unseen(f"the volume of {slot.name} to be ready")
            elif ready:
                uuid = volume.uuid if volume else ""
                self.actions.append(Action(Verb.CREATE_MACHINE, Wave.MACHINES, names, (), why, place, volume=uuid))

    def _may_make_machines(self) -> bool:
        """Whether all that machines are configured with is certain, or will be before their wave comes."""
        if self.claim.standing is Standing.YOUNG:
            self._wait_unseen("the claim on the cluster to stand")
            return False
        network = self.goal.network or chosen_network(self.seen)
        coming = any(action.part and action.part.kind is PartKind.SUBNET for action in self.actions)
        if network is not None and not network.cidr and not coming:
            self._wait_unseen("the network's addresses to be listed")
            return False
        return True

    def _wait_gone(self, machine: Machine, what: str) -> None:
        self.waiting.append(f"{what} to be gone")
        if why := stays(self.goal, machine, self.now):
            # Last of all: it must not keep anything else from being done.
            self.add(Verb.DELETE_MACHINE, machine, why, wave=Wave.FINISH)

    def _wait_unseen(self, what: str) -> None:
        self.waiting.append(what)
        self.unseen = True

    def _tidy(self) -> None:
        kept = {port.uuid for name, port in self.ports.items() if name in self.slots}
        held = {machine.port for machine in self.seen.machines}
        gone = {uuid for action in self.actions if action.verb is Verb.DELETE_PORTS for uuid in action.uuids}
        needed = kept | held | gone
        extra = [port for port in self.seen.ports if port.uuid not in needed]
        self.actions.extend(free_ports(extra, "not needed"))
        self.actions.extend(free_networks(self._twin_networks(kept | held), "a twin"))

    def _twin_networks(self, ports: set[str]) -> list[Network]:
        used = {port.network for port in self.seen.ports if port.uuid in ports}
        chosen = self.goal.network or chosen_network(self.seen)
        keep = used | ({chosen.uuid} if chosen else set())
        return [network for network in self.seen.networks if not network.foreign and network.uuid not in keep]

    # The verdict ---------------------------------------------------------------------------------------------

    def _verdict(self) -> tuple[tuple[str, ...], str]:
        if self.head_name in self.lost:
            return (), f"the head failed: {self.lost[self.head_name]}"
        degraded = []
        for group, minimum in self.goal.minimum.items():
            wanted = [n for n in self.goal.wanted if self.slots[n].group == group and n != self.head_name]
            gone = sorted(name for name in wanted if name in self.lost)
            degraded.extend(gone)
            if len(wanted) - len(gone) < minimum:
                reasons = "; ".join(f"{name}: {self.lost[name]}" for name in gone[:3])
                more = f" (and {len(gone) - 3} more)" if len(gone) > 3 else ""
                text = f"group {group} needs {minimum} workers and {len(gone)} of {len(wanted)} failed: {reasons}{more}"
                return tuple(degraded), text
        return tuple(degraded), ""

    def _finish(self, parts: StandingParts) -> None:
        self.actions += healed_notes(parts.healed)
        if self.seen.notes.get(NOTE_SPEC) != self.goal.digest:
            self.actions.append(Action(Verb.NOTE, Wave.FINISH, ("spec",), notes={NOTE_SPEC: self.goal.digest}))
