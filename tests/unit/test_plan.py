"""Properties of the planner, from any partial state that a crash, a colleague or bad luck can leave."""

from __future__ import annotations

from dataclasses import replace

from engine import ABSENT, STOPPED, running, slots
from hypothesis import given, settings
from hypothesis import strategies as st

from vcluster.actions import Goal, Plan, Verb
from vcluster.model import (
    ClusterRef,
    Health,
    Machine,
    MachineState,
    Network,
    Observed,
    Port,
    Role,
)
from vcluster.plan import chosen_network, chosen_ports, own, plan

ME = ClusterRef("demo", "project", "me")
OTHER = ClusterRef("demo", "project", "neighbour")
NOW = 10_000.0
NAMES = [slot.name for slot in slots(6)]


class PerfectWorld:
    """Carries out a plan's first wave at once and without fault; others finish what they do between two plans."""

    def __init__(self, observed: Observed, goal: Goal) -> None:
        self.goal, self.serial, self.now = goal, 0, NOW
        self.networks = {n.uuid: n for n in observed.networks}
        self.ports = {p.uuid: p for p in observed.ports}
        self.machines = {m.uuid: m for m in observed.machines}
        self.notes = dict(observed.notes)
        self.health = dict(observed.health)

    def look(self) -> Observed:
        machines = tuple(self.machines.values())
        head_up = any(m.role is Role.HEAD and m.state is MachineState.ACTIVE for m in machines)
        told = self.health if head_up else {}
        return Observed(tuple(self.networks.values()), tuple(self.ports.values()), machines, dict(self.notes), told)

    def uuid(self) -> str:
        self.serial += 1
        return f"new-{self.serial}"

    def settle(self) -> None:
        for uuid, machine in list(self.machines.items()):
            if machine.state is MachineState.BUILD:
                self.machines[uuid] = replace(machine, state=MachineState.ACTIVE)
            elif machine.state is MachineState.DELETING:
                del self.machines[uuid]
                held = {port.uuid: replace(port, device="") for port in self.ports.values() if port.device == uuid}
                self.ports.update(held)
            elif machine.state is MachineState.ACTIVE:
                health = self.health.get(machine.name, Health.UNKNOWN)
                done = Health.DRAINED if health is Health.BUSY else Health.READY
                if health not in (Health.DRAINED, Health.FAILED):
                    self.health[machine.name] = done

    def apply(self, current: Plan) -> None:
        for action in current.first_wave():
            self.notes.update(action.notes)
            for uuid in action.uuids or ("",):
                self.one(action.verb, action.names, uuid)

    def one(self, verb: Verb, names: tuple[str, ...], uuid: str) -> None:
        match verb:
            case Verb.CREATE_NETWORK:
                network = Network(self.uuid(), ME.tag(Role.NETWORK), "10.77.0.0/24")
                self.networks[network.uuid] = network
            case Verb.CREATE_PORTS:
                for name in names:
                    new = self.uuid()
                    network = chosen_network(own(self.look(), ME))
                    assert network is not None
                    role = Role.HEAD if name == "head" else Role.WORKER
                    self.ports[new] = Port(new, ME.tag(role), name, "10.77.0.9", "mac", "", self.now, network.uuid)
            case Verb.CREATE_MACHINE:
                new, name = self.uuid(), names[0]
                port = chosen_ports(own(self.look(), ME))[name]
                assert port.device not in self.machines
                self.ports[port.uuid] = replace(port, device=new)
                self.machines[new] = machine(new, name, MachineState.BUILD, port.uuid)
                self.health.pop(name, None)
            case Verb.START | Verb.REBOOT | Verb.UNSHELVE:
                self.machines[uuid] = replace(self.machines[uuid], state=MachineState.BUILD, started=self.now)
                self.health.pop(self.machines[uuid].name, None)
            case Verb.STOP:
                self.machines[uuid] = replace(self.machines[uuid], state=MachineState.SHUTOFF)
            case Verb.DELETE_MACHINE:
                self.machines[uuid] = replace(self.machines[uuid], state=MachineState.DELETING)
            case Verb.DELETE_PORTS:
                del self.ports[uuid]
            case Verb.DELETE_NETWORK:
                assert not [p for p in self.ports.values() if p.network == uuid]
                del self.networks[uuid]
            case Verb.DRAIN:
                self.health[names[0]] = Health.BUSY
            case Verb.RESUME:
                self.health[names[0]] = Health.READY
            case Verb.NOTE:
                pass

    def run(self, most: int = 60) -> Plan:
        for _ in range(most):
            current = plan(self.goal, self.look(), ME, self.now)
            if current.empty or current.hopeless:
                return current
            self.apply(current)
            self.settle()
            self.now += 5
        raise AssertionError(f"not converged: {current}")


def machine(uuid: str, name: str, state: MachineState, port: str, ref: ClusterRef = ME) -> Machine:
    role = Role.HEAD if name == "head" else Role.WORKER
    group = "head" if name == "head" else "cpu"
    return Machine(uuid, ref.tag(role), name, role, group, state, "small", port, "10.77.0.9", NOW)


@st.composite
def worlds(draw: st.DrawFn) -> Observed:
    """Any partial state: twins, neighbours, orphans, machines in every state and health."""
    networks = [Network(f"n{i}", ME.tag(Role.NETWORK), "10.77.0.0/24") for i in range(draw(st.integers(0, 2)))]
    if draw(st.booleans()):
        networks.append(Network("theirs", OTHER.tag(Role.NETWORK), "10.77.0.0/24"))
    ports: list[Port] = []
    machines: list[Machine] = []
    health: dict[str, Health] = {}
    count = draw(st.integers(0, 10)) if networks else 0
    for index in range(count):
        name = draw(st.sampled_from([*NAMES, "cpu-99"]))
        ref = draw(st.sampled_from([ME, ME, ME, OTHER]) if networks[0].uuid != "theirs" else st.just(OTHER))
        with_machine = draw(st.booleans())
        uuid = f"m{index}" if with_machine else ""
        network = draw(st.sampled_from([n.uuid for n in networks if ref.owns(n.tag)] or ["elsewhere"]))
        role = Role.HEAD if name == "head" else Role.WORKER
        ports.append(Port(f"p{index}", ref.tag(role), name, "10.77.0.9", "mac", uuid, float(index), network))
        if with_machine:
            state = draw(st.sampled_from([s for s in MachineState if s is not MachineState.UNKNOWN]))
            machines.append(machine(uuid, name, state, f"p{index}", ref))
            health[name] = draw(st.sampled_from([h for h in Health if h is not Health.FAILED]))
    notes = {}
    if draw(st.booleans()):
        notes["ready-at"] = "1"
    if draw(st.booleans()):
        notes["attempts/cpu-1"] = draw(st.sampled_from(["1 @7ps", "2 @7ps", "3 gone@1"]))
    return Observed(tuple(networks), tuple(ports), tuple(machines), notes, health)


GOALS = st.one_of(
    st.builds(lambda n, m: running(min(n, m), most=m), st.integers(0, 6), st.integers(1, 6)),
    st.just(ABSENT),
    st.just(STOPPED),
)


@settings(max_examples=400, deadline=None)
@given(observed=worlds(), goal=GOALS)
def test_applying_plans_to_a_perfect_cloud_ends_with_an_empty_plan(observed: Observed, goal: Goal) -> None:
    world = PerfectWorld(observed, goal)
    last = world.run()
    assert last.empty or last.hopeless
    again = plan(goal, world.look(), ME, world.now)
    assert again.actions == () or again.hopeless
    mine = [m for m in world.machines.values() if ME.owns(m.tag)]
    if goal is ABSENT:
        assert not mine
        assert not [p for p in world.ports.values() if ME.owns(p.tag)]
        assert not [n for n in world.networks.values() if ME.owns(n.tag)]
    elif goal is not STOPPED and not last.hopeless:
        assert sorted(m.name for m in mine) == sorted(goal.wanted - set(last.degraded))
        assert sorted(p.name for p in world.ports.values() if ME.owns(p.tag)) == sorted(s.name for s in goal.slots)


@settings(max_examples=400, deadline=None)
@given(observed=worlds(), goal=GOALS)
def test_nothing_without_this_clusters_tag_ever_appears_in_a_plan(observed: Observed, goal: Goal) -> None:
    things = [*observed.networks, *observed.ports, *observed.machines]
    theirs = {thing.uuid for thing in things if not ME.owns(thing.tag)}
    for action in plan(goal, observed, ME, NOW).actions:
        assert not theirs & set(action.uuids)


@settings(max_examples=200, deadline=None)
@given(observed=worlds(), goal=GOALS)
def test_a_plan_is_a_function_of_its_arguments_and_its_waves_are_in_order(observed: Observed, goal: Goal) -> None:
    one, two = plan(goal, observed, ME, NOW), plan(goal, observed, ME, NOW)
    assert one == two
    waves = [action.wave for action in one.actions]
    assert waves == sorted(waves)


@settings(max_examples=200, deadline=None)
@given(observed=worlds())
def test_a_head_that_was_ever_ready_is_never_deleted(observed: Observed) -> None:
    ready = replace(observed, notes={**observed.notes, "ready-at": "1"})
    heads = [m for m in ready.machines if m.role is Role.HEAD and ME.owns(m.tag)]
    goal = running(3)
    deleted = [a for a in plan(goal, ready, ME, NOW).actions if a.verb is Verb.DELETE_MACHINE and "head" in a.names]
    assert len(deleted) <= max(0, len(heads) - 1)


def test_an_order_for_many_workers_names_them_as_people_count_not_as_the_cloud_lists_them() -> None:
    names = ("cpu-10", "head", "cpu-2", "cpu-1")
    machines = tuple(machine(f"m-{name}", name, MachineState.ACTIVE, "p") for name in names)
    seen = Observed((Network("n", ME.tag(Role.NETWORK), "10.77.0.0/24"),), (), machines, {"ready-at": "1"})
    first = plan(STOPPED, seen.with_health(dict.fromkeys(names, Health.READY)), ME, NOW).actions[0]
    assert (first.subject, first.uuids) == ("cpu-1 … cpu-10 (3)", ("m-cpu-1", "m-cpu-2", "m-cpu-10"))


def test_the_first_plan_shows_the_whole_way() -> None:
    verbs = [str(action) for action in plan(running(2), Observed(), ME, NOW).actions]
    assert verbs == [
        "create network network",
        "create ports head",
        "create ports cpu-1 … cpu-2 (2)",
        "create machine head",
        "create machine cpu-1",
        "create machine cpu-2",
    ]
