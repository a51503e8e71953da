"""Properties of plans with routers, groups, addresses and volumes, on own networks and on others', under any claim."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
from engine import running, standing_parts
from hypothesis import given, settings
from hypothesis import strategies as st
from test_plan import ME, NAMES, NOW, OTHER, PerfectWorld, machine

from vcluster.actions import Action, Goal, Plan, Power, Verb, Wave
from vcluster.chosen import chosen_network, chosen_part, own
from vcluster.clouds.memory import MemoryCloud
from vcluster.model import (
    Health,
    Machine,
    MachineState,
    Network,
    Observed,
    Part,
    PartKind,
    PartRequest,
    Port,
    Role,
    Wishes,
)
from vcluster.plan import plan

FOREIGN = Network("foreign", "", "10.1.0.0/24", foreign=True)
OWN_PARTS = standing_parts(ME)
FOREIGN_PARTS = MemoryCloud(parts=True, there=FOREIGN).layout(ME, Wishes(), Observed()).parts
EXAMPLES = 400 if int(os.environ.get("VCLUSTER_CHAOS_SEEDS", "10")) >= 100 else 100


class FullWorld(PerfectWorld):
    """A perfect cloud that refuses what a real one would: nothing that is in use can go."""

    def __init__(self, observed: Observed, goal: Goal) -> None:
        super().__init__(observed, goal)
        self.parts = {p.uuid: p for p in observed.parts}
        held = {p.network: p.uuid for p in observed.parts if p.kind is PartKind.SUBNET and p.used_by in self.ports}
        oldest = {p.network: p.uuid for p in sorted(self.subnets(), key=lambda p: -p.created)}
        self.on = {p.uuid: (oldest | held).get(p.network, "") for p in [*observed.ports, *self.legs()]}
        self.asked: Action | None = None

    def look(self) -> Observed:
        seen = super().look()
        head = next((p.uuid for p in seen.ports if p.name == "head"), "")
        groups = {p.uuid: head for p in self.parts.values() if p.kind is PartKind.SECURITY_GROUP}
        ports = sorted(seen.ports, key=lambda p: p.name == "head")
        groups |= {p.uuid: p.network for p in self.subnets()} | {self.on[p.uuid]: p.uuid for p in ports}
        shown = tuple(replace(p, used_by=groups.get(p.uuid, p.used_by)) for p in self.parts.values())
        return replace(seen, parts=shown)

    def subnets(self) -> list[Part]:
        return [p for p in self.parts.values() if p.kind is PartKind.SUBNET]

    def legs(self) -> list[Part]:
        return [p for p in self.parts.values() if p.kind is PartKind.GATEWAY]

    def subnet(self) -> str:
        chosen = chosen_part(own(self.look(), ME), PartKind.SUBNET, "subnet")
        return chosen.uuid if chosen is not None and chosen.network == self.network() else ""

    def settle(self) -> None:
        for uuid, part in self.parts.items():
            if part.kind is PartKind.VOLUME and not part.fault:
                self.parts[uuid] = replace(part, ready=True)
        gone = {m.uuid for m in self.machines.values() if m.state is MachineState.DELETING}
        for uuid, part in list(self.parts.items()):
            if part.kind is PartKind.VOLUME and part.used_by in gone:
                if part.kept:
                    self.parts[uuid] = replace(part, used_by="")
                else:
                    del self.parts[uuid]
        super().settle()

    def apply(self, current: Plan) -> None:
        for action in current.first_wave():
            self.asked = action
            self.notes.update(action.notes)
            if action.verb in (Verb.CREATE_PART, Verb.CREATE_VOLUME):
                self.make(action)
            elif action.verb is Verb.DELETE_PART:
                self.free(action.old)
            elif action.verb is Verb.KEEP_VOLUMES:
                for part in action.kept:
                    self.parts[part.uuid] = replace(self.parts[part.uuid], kept=True)
            elif action.verb in (Verb.DRAIN, Verb.RESUME):
                for name in action.names:
                    self.one(action.verb, (name,), "")
            elif action.verb is Verb.SHELVE:
                (uuid,) = action.uuids
                self.machines[uuid] = replace(self.machines[uuid], state=MachineState.SHELVED)
            else:
                for uuid in action.uuids or ("",):
                    self.one(action.verb, action.names, uuid)
            if action.verb is Verb.CREATE_MACHINE and action.volume:
                new = f"new-{self.serial}"
                assert self.parts[action.volume].ready
                assert not self.parts[action.volume].used_by
                self.parts[action.volume] = replace(self.parts[action.volume], used_by=new)
            if action.verb is Verb.CREATE_PORTS and self.goal.claim and action.wave is Wave.CLAIM:
                new = f"new-{self.serial}"
                self.ports[new] = replace(self.ports[new], claim=self.goal.claim)

    def network(self) -> str:
        chosen = self.goal.network or chosen_network(own(self.look(), ME))
        assert chosen is not None
        return chosen.uuid

    def one(self, verb: Verb, names: tuple[str, ...], uuid: str) -> None:
        if verb is Verb.CREATE_PORTS:
            for name in names:
                new, role = self.uuid(), Role.HEAD if name == "head" else Role.WORKER
                self.on[new] = self.subnet()
                self.ports[new] = Port(new, ME.tag(role), name, "10.7.0.9", "m", "", self.now, self.network())
            return
        if verb is Verb.DELETE_NETWORK:
            assert not any(p.network == uuid for p in self.parts.values())
        if verb is Verb.DELETE_PORTS:
            assert not any(m.port == uuid for m in self.machines.values())
        super().one(verb, names, uuid)

    def make(self, action: Action) -> None:
        if action.part is None:
            assert action.slot is not None
            new = self.uuid()
            self.parts[new] = Part(
                new, ME.tag(PartKind.VOLUME), PartKind.VOLUME, action.slot.name, ready=False, created=self.now
            )
            return
        kind, used_by, network = action.part.kind, "", ""
        if kind in (PartKind.SUBNET, PartKind.GATEWAY):
            network = self.network()
        if kind is PartKind.SUBNET:
            used_by = network
        if kind is PartKind.GATEWAY:
            router = chosen_part(own(self.look(), ME), PartKind.ROUTER, "router")
            assert router is not None
            used_by = router.uuid
        if kind is PartKind.FLOATING_IP:
            assert any(p.network == self.network() or self.goal.network for p in self.parts.values())
            used_by = next(p.uuid for p in self.ports.values() if p.name == "head" and ME.owns(p.tag))
        if action.old is not None:
            self.parts[action.old.uuid] = replace(self.parts[action.old.uuid], ready=True, used_by=used_by)
            return
        new = self.uuid()
        if kind is PartKind.GATEWAY:
            self.on[new] = self.subnet()
        self.parts[new] = Part(
            new, ME.tag(kind), kind, action.part.name, used_by=used_by, created=self.now, network=network
        )

    def free(self, part: Part | None) -> None:
        assert part is not None
        users: list[Any] = []
        ports = [p for p in self.ports.values() if ME.owns(p.tag)]
        match part.kind:
            case PartKind.ROUTER:
                users = [p for p in self.parts.values() if p.kind is PartKind.GATEWAY and p.used_by == part.uuid]
            case PartKind.SUBNET:
                users = [p for p in [*self.ports.values(), *self.legs()] if self.on[p.uuid] == part.uuid]
            case PartKind.VOLUME:
                users = [m for m in self.machines.values() if m.uuid == part.used_by]
            case PartKind.SECURITY_GROUP if self.goal.power is Power.ABSENT:
                users = ports
        assert not users, f"{part} is in use by {users}"
        del self.parts[part.uuid]


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Observed, Network | None]:
    """Any partial state around machines: twins, faults, neighbours, what a person keeps, other runs' claims."""
    given_network = draw(st.sampled_from([None, FOREIGN]))
    networks = (
        []
        if given_network
        else [Network(f"n{i}", ME.tag("network"), "10.7.0.0/24") for i in range(draw(st.integers(0, 2)))]
    )  # type: ignore[arg-type]
    if given_network and draw(st.booleans()):
        networks.append(FOREIGN)
    mine = [FOREIGN.uuid] if given_network else [n.uuid for n in networks]
    ports: list[Port] = []
    machines: list[Machine] = []
    health: dict[str, Health] = {}
    parts: list[Part] = []
    for index in range(draw(st.integers(0, 7)) if mine else 0):
        name, used = draw(st.sampled_from(NAMES)), draw(st.booleans())
        ref = draw(st.sampled_from([ME, ME, ME, OTHER]))
        network = draw(st.sampled_from(mine)) if ref is ME else "theirs"
        role, uuid = (Role.HEAD if name == "head" else Role.WORKER), f"m{index}" if used else ""
        claim = draw(st.sampled_from(["", "mine", "theirs"])) if name == "head" else ""
        made = NOW - draw(st.sampled_from([1.0, 60.0, 5000.0]))
        ports.append(Port(f"p{index}", ref.tag(role), name, "10.7.0.9", "m", uuid, made, network, claim))
        if used:
            states = [s for s in MachineState if s is not MachineState.UNKNOWN]
            machines.append(machine(uuid, name, draw(st.sampled_from(states)), f"p{index}", ref))
            health[name] = draw(st.sampled_from([h for h in Health if h is not Health.FAILED]))
        if draw(st.booleans()):
            parts.append(draw(volume(index, name, uuid, ref)))
    own_networks = [n for n in mine if n != FOREIGN.uuid]
    drawn = [draw(standing(r, twin, own_networks)) for r in OWN_PARTS for twin in range(draw(st.integers(0, 2)))]
    routers = {p.uuid for p in drawn if p.kind is PartKind.ROUTER}
    subnets = {p.network for p in drawn if p.kind is PartKind.SUBNET and ME.owns(p.tag)}
    for part in drawn:
        on = {p.network for p in parts if p.kind is part.kind}
        if part.kind is PartKind.GATEWAY and part.network in on:
            continue  # no cloud lets a network have two routers at the same address
        if part.kind is PartKind.GATEWAY and (part.used_by not in routers or part.network not in subnets):
            continue
        parts.append(part)
    for on in own_networks:
        there = sorted((p.name != "head", p.uuid) for p in ports if p.network == on)
        if there and (twins := [p for p in parts if p.kind is PartKind.SUBNET and p.network == on]):
            held = draw(st.sampled_from(twins))
            parts[parts.index(held)] = replace(held, used_by=there[0][1])
    notes = {"ready-at": "1"} if draw(st.booleans()) else {}
    return Observed(tuple(networks), tuple(ports), tuple(machines), notes, health, tuple(parts)), given_network


@st.composite
def volume(draw: st.DrawFn, index: int, name: str, user: str, ref: Any) -> Part:
    fault = draw(st.sampled_from(["", "", "broken"]))
    kept = draw(st.booleans()) and not user
    used_by = user if draw(st.booleans()) else ""
    tag, made = ref.tag(PartKind.VOLUME), NOW - draw(st.sampled_from([1.0, 5000.0]))
    return Part(f"v{index}", tag, PartKind.VOLUME, name, draw(st.booleans()), fault, used_by, made, kept)


@st.composite
def standing(draw: st.DrawFn, request: PartRequest, twin: int, networks: list[str]) -> Part:
    kind = request.kind
    ref = draw(st.sampled_from([ME, ME, OTHER]))
    on = draw(st.sampled_from(networks or ["gone"])) if ref is ME else "theirs"
    network = on if kind in (PartKind.SUBNET, PartKind.GATEWAY) else ""
    used_by = {PartKind.SUBNET: network, PartKind.GATEWAY: f"router-router-{twin}"}.get(kind, "")
    fault = draw(st.sampled_from(["", "", "", "broken"])) if kind is PartKind.FLOATING_IP else ""
    kept = kind is PartKind.FLOATING_IP and draw(st.booleans())
    uuid, ready = f"{kind}-{request.name}-{twin}", draw(st.booleans())
    return Part(uuid, ref.tag(kind), kind, request.name, ready, fault, used_by, float(twin), kept, network)


def goal_for(given_network: Network | None, power: Power, root_disk: int, claim: str = "mine") -> Goal:
    if power is not Power.RUNNING:
        return Goal(power, keep_volumes=root_disk > 0)
    parts = FOREIGN_PARTS if given_network else OWN_PARTS
    return running(3, most=6, minimum=0, network=given_network, parts=parts, root_disk=root_disk, claim=claim)


POWERS = st.sampled_from(list(Power))
DISKS = st.sampled_from([0, 20])


@settings(max_examples=EXAMPLES, deadline=None)
@given(drawn=worlds(), power=POWERS, root_disk=DISKS)
def test_nothing_of_others_and_nothing_that_is_kept_is_ever_touched(
    drawn: tuple[Observed, Network | None], power: Power, root_disk: int
) -> None:
    observed, network = drawn
    things = [*observed.networks, *observed.ports, *observed.machines, *observed.parts]
    theirs = {thing.uuid for thing in things if not ME.owns(thing.tag)}
    kept = {part.uuid for part in observed.parts if part.kept}
    for action in plan(goal_for(network, power, root_disk), observed, ME, NOW).actions:
        assert not theirs & set(action.uuids)
        assert not kept & set(action.uuids) or action.verb is Verb.CREATE_PART
        assert FOREIGN.uuid not in action.uuids


@settings(max_examples=EXAMPLES, deadline=None)
@given(drawn=worlds(), root_disk=DISKS, watched=st.booleans())
def test_nothing_is_made_while_somebody_elses_claim_holds(
    drawn: tuple[Observed, Network | None], root_disk: int, *, watched: bool
) -> None:
    observed, network = drawn
    goal = goal_for(network, Power.RUNNING, root_disk)
    if watched:
        goal = replace(goal, doubted={port.uuid: NOW - 1000 for port in observed.ports})
    made = plan(goal, observed, ME, NOW)
    if not made.claimed:
        return
    allowed = {Verb.DELETE_PORTS, Verb.DELETE_MACHINE, Verb.START, Verb.UNSHELVE, Verb.REBOOT}
    assert {action.verb for action in made.actions} <= allowed
    theirs = {port.uuid for port in observed.ports if port.claim == "theirs"}
    assert not theirs & {uuid for action in made.actions for uuid in action.uuids}
    assert all(action.why == "a twin" for action in made.actions if action.verb is Verb.DELETE_MACHINE)


@settings(max_examples=EXAMPLES, deadline=None)
@given(drawn=worlds(), root_disk=DISKS)
def test_machines_are_made_on_a_claim_of_ones_own_that_stands(
    drawn: tuple[Observed, Network | None], root_disk: int
) -> None:
    observed, network = drawn
    made = plan(goal_for(network, Power.RUNNING, root_disk), observed, ME, NOW)
    now = made.first_wave()
    if any(action.verb is Verb.CREATE_MACHINE for action in now):
        head = min(
            (p for p in observed.ports if p.name == "head" and ME.owns(p.tag)),
            key=lambda p: (p.device not in {m.uuid for m in observed.machines}, p.created, p.uuid),
        )
        assert head.claim in ("", "mine")
        assert head.device or not head.claim or NOW - head.created >= 2.0


@settings(max_examples=EXAMPLES, deadline=None)
@given(drawn=worlds(), power=POWERS, root_disk=DISKS)
def test_plans_lead_a_perfect_cloud_to_the_goal_and_use_nothing_up_that_is_in_use(
    drawn: tuple[Observed, Network | None], power: Power, root_disk: int
) -> None:
    observed, network = drawn
    observed = replace(observed, ports=tuple(replace(p, claim="") for p in observed.ports))
    world = FullWorld(observed, replace(goal_for(network, power, root_disk), doubted={}))
    kept = {part.uuid for part in observed.parts if part.kept}
    last = world.run(80)
    mine = [p for p in world.parts.values() if ME.owns(p.tag)]
    assert kept <= set(world.parts)
    if power is Power.ABSENT:
        assert not [p for p in mine if not p.kept]
        assert not [n for n in world.networks.values() if ME.owns(n.tag)]
    if power is Power.SHELVED and not last.hopeless:
        ours = [m for m in world.machines.values() if ME.owns(m.tag)]
        assert {m.state for m in ours} <= {MachineState.SHELVED}
        assert {m.role for m in ours} <= {Role.HEAD}
    if power is Power.RUNNING and not last.hopeless:
        for request in world.goal.parts:
            part = chosen_part(own(world.look(), ME), request.kind, request.name)
            assert part is not None
            assert part.ready
        volumes = [p for p in mine if p.kind is PartKind.VOLUME and not p.kept]
        # Of a machine that was there before nobody can say whether it boots from a volume that shows no user.
        before = {m.name for m in observed.machines}
        assert all(p.used_by in world.machines or p.name in before for p in volumes)
    assert FOREIGN.uuid in world.networks or FOREIGN not in observed.networks


@pytest.mark.parametrize("network", [None, FOREIGN])
def test_waves_free_in_the_order_that_clouds_ask_for(network: Network | None) -> None:
    world = FullWorld(Observed(), goal_for(network, Power.RUNNING, 20))
    assert world.run().empty
    actions = plan(Goal(Power.ABSENT), world.look(), ME, NOW).actions
    order = [action.title for action in actions]
    assert order == sorted(order, key=order.index)
    own_network = ["delete gateway", "delete router", "delete network"] if network is None else []
    wanted = ["delete floating ip", "delete machine", "delete ports", *own_network, "delete security group"]
    assert [order.index(word) for word in wanted] == sorted(order.index(word) for word in wanted)
    assert [action.wave for action in actions] == sorted(action.wave for action in actions)


@pytest.mark.parametrize("attached", [True, False])
def test_a_twins_leg_on_the_router_goes_before_the_one_that_counts_is_tried_again(*, attached: bool) -> None:
    """The router takes no second leg into the same addresses, whether it shows the first one or not."""
    goal = goal_for(None, Power.RUNNING, 20)
    world = FullWorld(Observed(), goal)
    assert world.run().empty
    seen = world.look()
    legs = [part for part in seen.parts if part.kind is PartKind.GATEWAY]
    waiting = replace(legs[0], ready=False, used_by="")
    router = legs[0].used_by if attached else ""
    twin = replace(waiting, uuid="twin", network="other" if attached else legs[0].network, used_by=router)
    twin = replace(twin, created=waiting.created + 1)
    others = tuple(part for part in seen.parts if part.kind is not PartKind.GATEWAY)
    current = plan(goal, replace(seen, parts=(*others, waiting, twin)), ME, NOW)
    assert [str(action) for action in current.first_wave()] == ["delete gateway gateway: a twin"]
    assert [action.uuids for action in current.first_wave()] == [("twin",)]
    assert [action.uuids for action in current.actions if action.verb is Verb.CREATE_PART] == [(waiting.uuid,)]


def test_the_first_plan_shows_the_whole_way_around() -> None:
    goal = goal_for(None, Power.RUNNING, 20)
    verbs = [str(action) for action in plan(goal, Observed(), ME, NOW).actions]
    assert verbs == [
        "create security group head",
        "create security group members",
        "create server group workers",
        "create router router",
        "create network network",
        "create volume head",
        "create volume cpu-1",
        "create volume cpu-2",
        "create volume cpu-3",
        "create subnet subnet",
        "create ports head",
        "create gateway gateway",
        "create ports cpu-1 … cpu-6 (6)",
        "create floating ip head",
        "create machine head",
        "create machine cpu-1",
        "create machine cpu-2",
        "create machine cpu-3",
    ]
