"""The loop on a cloud that wants security groups, a router, a floating IP and volumes around its machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from engine import ABSENT, THERE, Run, clean, entry, fresh, one_of_each, steps, volumes, whole

from vcluster.actions import Goal, Power
from vcluster.clouds.memory import Fault, FaultScript, Trouble
from vcluster.errors import PermanentError, QuotaError, TemporaryError
from vcluster.model import (
    ClusterRef,
    Health,
    Machine,
    MachineRequest,
    MachineState,
    Observed,
    Part,
    PartKind,
    VolumeRequest,
    Wishes,
)


def test_up_makes_all_that_there_shall_be_in_order() -> None:
    cloud = fresh()
    run = Run(cloud)
    observed = run.to(whole(cloud, 2, notes={"expires": "99"}), pool=1).observed
    one_of_each(observed)
    assert set(observed.health.values()) == {Health.READY}
    assert {p.kind for p in observed.parts} == set(PartKind) - {PartKind.LOAD_BALANCER, PartKind.SNAPSHOT}
    assert observed.notes["expires"] == "99"
    order = steps(run.events)
    wanted = [
        "create network network",
        "create subnet subnet",
        "create ports head",
        "create ports cpu-1 … cpu-2 (2)",
        "create floating ip head",
        "create machine head",
    ]
    assert [order.index(step) for step in wanted] == sorted(order.index(step) for step in wanted)
    assert order.index("create gateway gateway") < order.index("create floating ip head")
    assert volumes(cloud) == {"head": "head", "cpu-1": "cpu-1", "cpu-2": "cpu-2"}
    clean(cloud)


@pytest.mark.parametrize("foreign", [False, True])
def test_a_converged_up_is_one_look_and_no_act(*, foreign: bool) -> None:
    cloud = fresh(foreign=foreign)
    Run(cloud).to(whole(cloud, 2))
    goal = whole(cloud, 2)
    cloud.calls.clear()
    second = Run(cloud)
    assert not second.to(goal).changed
    assert cloud.calls == {"observe": 1}
    assert steps(second.events) == []


def test_a_callers_own_look_is_the_first() -> None:
    cloud = fresh()
    Run(cloud).to(whole(cloud, 2))
    goal = whole(cloud, 2)
    seen = cloud.observe(cloud.ref("demo")), cloud.now()
    cloud.calls.clear()
    assert not Run(cloud).loop(goal).run(60, seen).changed
    assert cloud.calls == {}
    cloud.clock.sleep(60)
    assert not Run(cloud).loop(goal).run(60, seen).changed
    assert cloud.calls == {"observe": 1}


def test_looks_are_as_many_for_many_machines_as_for_few() -> None:
    looks = []
    for workers in (2, 60):
        cloud = fresh()
        Run(cloud).to(whole(cloud, workers, root_disk=0))
        Run(cloud).to(ABSENT)
        looks.append({name: cloud.calls[name] for name in ("observe", "observe machines")})
    assert looks[0] == looks[1]


def test_while_machines_boot_only_they_are_looked_at() -> None:
    cloud = fresh(ready_time=120.0)
    Run(cloud).to(whole(cloud, 5, root_disk=0))
    assert cloud.calls["observe machines"] > 40
    # whole()'s own, the first, after the claim, before machines, every 15 s while they boot, and before the end.
    assert cloud.calls["observe"] <= 16


def test_a_network_that_was_there_stays() -> None:
    cloud = fresh(foreign=True)
    goal = whole(cloud, 2)
    assert goal.network == THERE
    observed = Run(cloud).to(goal).observed
    assert observed.networks == (THERE,)
    assert {port.network for port in observed.ports} == {"there"}
    assert not {p.kind for p in observed.parts} & {PartKind.SUBNET, PartKind.ROUTER, PartKind.GATEWAY}
    run = Run(cloud)
    run.to(ABSENT)
    assert cloud.resources() == []
    assert not any("network" in step for step in steps(run.events))


def test_down_goes_backwards() -> None:
    cloud = fresh()
    Run(cloud).to(whole(cloud, 2))
    run = Run(cloud)
    run.to(ABSENT, pool=1)
    order = [step.rpartition(" ")[0].removeprefix("delete ") for step in steps(run.events)]
    places = {kind: max(i for i, step in enumerate(order) if step.startswith(kind)) for kind in set(order)}
    last = ["gateway", "router", "network", "security group"]
    assert [places[kind] for kind in last] == sorted(places[kind] for kind in last)
    assert places["floating ip"] < places["gateway"]
    assert not any("volume" in kind for kind in places)  # they go with their machines


@pytest.mark.parametrize("foreign", [False, True])
def test_what_may_not_be_deleted_keeps_nothing_else_and_is_told_at_the_end(*, foreign: bool) -> None:
    cloud = fresh(foreign=foreign)
    Run(cloud).to(whole(cloud, 2))
    (address,) = [p for p in cloud.observe(cloud.ref("demo")).parts if p.kind is PartKind.FLOATING_IP]
    refusal = FaultScript(subjects={("delete_part", "floating-ip head"): FaultScript.permanent("policy forbids it")})
    cloud.faults = refusal
    run = Run(cloud)
    with pytest.raises(PermanentError, match="demo is gone but for") as caught:
        run.to(ABSENT)
    assert f"floating ip head {address.uuid}: policy forbids it" in caught.value.message
    left = cloud.observe(cloud.ref("demo"))
    assert not left.machines
    assert not left.ports
    assert {p.kind for p in left.parts} <= {PartKind.FLOATING_IP, *(() if foreign else _AROUND)}
    assert all(part.uuid in caught.value.message for part in left.parts)
    cloud.faults = FaultScript()
    clean(cloud)


_AROUND = (PartKind.GATEWAY, PartKind.ROUTER, PartKind.SUBNET, PartKind.SECURITY_GROUP)


def test_a_machine_that_may_not_be_deleted_keeps_its_port_and_no_other_machine() -> None:
    cloud = fresh()
    Run(cloud).to(whole(cloud, 2))
    ref = cloud.ref("demo")
    (locked,) = [m for m in cloud.observe(ref).machines if m.name == "cpu-1"]
    real = cloud.delete_machine

    def delete(asked: ClusterRef, uuid: str) -> None:
        if uuid == locked.uuid:
            raise PermanentError("the instance is locked")
        real(asked, uuid)

    cloud.delete_machine = delete  # type: ignore[method-assign]
    with pytest.raises(PermanentError, match=f"machine cpu-1 {locked.uuid}: the instance is locked"):
        Run(cloud).to(ABSENT)
    left = cloud.observe(ref)
    assert [m.name for m in left.machines] == ["cpu-1"]
    assert [p.name for p in left.ports] == ["cpu-1"]
    cloud.delete_machine = real  # type: ignore[method-assign]
    clean(cloud)


def test_of_many_ports_only_the_one_that_is_refused_stays() -> None:
    cloud = fresh()
    Run(cloud).to(whole(cloud, 3))
    ref = cloud.ref("demo")
    (locked,) = [p for p in cloud.observe(ref).ports if p.name == "cpu-2"]
    real = cloud.delete_ports

    def delete(asked: ClusterRef, uuids: Sequence[str]) -> None:
        if locked.uuid in uuids:
            raise PermanentError("policy forbids it")
        real(asked, uuids)

    cloud.delete_ports = delete  # type: ignore[method-assign]
    with pytest.raises(PermanentError, match=f"port cpu-2 {locked.uuid}"):
        Run(cloud).to(ABSENT)
    assert [p.name for p in cloud.observe(ref).ports] == ["cpu-2"]
    cloud.delete_ports = real  # type: ignore[method-assign]
    clean(cloud)


def test_down_looks_no_more_often_than_it_must() -> None:
    cloud = fresh()
    Run(cloud).to(whole(cloud, 2))
    cloud.calls.clear()
    Run(cloud).to(ABSENT)
    # At first, when the machines are gone, and before the end.
    assert cloud.calls["observe"] == 3


def test_a_volume_that_is_kept_outlives_the_cluster() -> None:
    cloud = fresh()
    Run(cloud).to(whole(cloud, 1))
    run = Run(cloud)
    run.to(Goal(Power.ABSENT, keep_volumes=True))
    assert steps(run.events)[0] == "keep volumes head"
    (left,) = cloud.observe(cloud.ref("demo")).parts
    assert (left.kind, left.name, left.kept, left.used_by) == (PartKind.VOLUME, "head", True, "")
    Run(cloud).to(whole(cloud, 1))
    Run(cloud).to(ABSENT)
    assert [p.uuid for p in cloud.observe(cloud.ref("demo")).parts] == [left.uuid]


def test_a_part_that_somebody_took_away_comes_back() -> None:
    cloud = fresh()
    observed = Run(cloud).to(whole(cloud, 1)).observed
    address = next(p for p in observed.parts if p.kind is PartKind.FLOATING_IP)
    cloud.delete_part(cloud.ref("demo"), address)
    run = Run(cloud)
    one_of_each(run.to(whole(cloud, 1)).observed)
    assert steps(run.events) == ["create floating ip head"]


def test_a_part_that_is_not_asked_for_any_more_goes() -> None:
    cloud = fresh()
    Run(cloud).to(whole(cloud, 1))
    ref = cloud.ref("demo")
    less = cloud.layout(ref, Wishes(public_ip=False), cloud.observe(ref)).parts
    observed = Run(cloud).to(whole(cloud, 1, parts=less)).observed
    assert PartKind.FLOATING_IP not in {p.kind for p in observed.parts}


def test_a_volume_that_fails_is_made_anew_within_the_machines_budget() -> None:
    cloud = fresh(faults=FaultScript(volumes={"cpu-1": 2}))
    observed = Run(cloud).to(whole(cloud, 2)).observed
    one_of_each(observed)
    assert "attempts/cpu-1" not in observed.notes
    Run(cloud).to(ABSENT)
    hopeless = fresh(faults=FaultScript(volumes={"cpu-1": 99}))
    with pytest.raises(PermanentError, match="cpu-1: its volume: scripted"):
        Run(hopeless).to(whole(hopeless, 2))
    clean(hopeless)


def test_a_volume_that_a_machine_left_is_never_booted_again() -> None:
    cloud = fresh()
    observed = Run(cloud).to(whole(cloud, 2)).observed
    old = next(p for p in observed.parts if p.name == "cpu-1")
    entry(cloud, "cpu-1").volume = ""  # its cloud forgot to let it go with its machine
    cloud.lose("cpu-1")
    cloud.kill("cpu-2")
    observed = Run(cloud).to(whole(cloud, 2)).observed
    one_of_each(observed)
    assert set(observed.health.values()) == {Health.READY}
    used = {p.uuid for p in observed.parts if p.kind is PartKind.VOLUME and p.used_by}
    # Nobody saw a machine use it in this run, and none failed: it may be new for all that the cloud tells.
    assert len(used) == 3
    assert old.uuid in used


def test_the_volume_of_a_machine_that_failed_goes() -> None:
    cloud = fresh(faults=FaultScript(once={"cpu-1": (Trouble.ERROR, 1.0)}))
    lost: list[str] = []

    def forget(_number: int) -> None:
        for each in cloud.entries(cloud.ref("demo")):
            if each.machine.state is MachineState.ERROR and each.volume:
                lost.append(each.volume)
                each.volume = ""

    cloud.after_effect = forget
    observed = Run(cloud).to(whole(cloud, 2)).observed
    assert lost
    assert not set(lost) & {p.uuid for p in observed.parts}
    one_of_each(observed)


def test_the_homes_on_a_lost_heads_volume_go_only_when_a_person_agreed() -> None:
    cloud = fresh()
    Run(cloud).to(whole(cloud, 1))
    for each in cloud.entries(cloud.ref("demo")):
        each.volume = ""
    cloud.lose("head")
    loop = Run(cloud).loop(whole(cloud, 1))
    doomed = [str(a) for a in loop.plan(loop.look()).actions if a.destroys_data]
    assert "delete volume head: no machine uses it" in doomed
    observed = Run(cloud).to(whole(cloud, 1)).observed
    one_of_each(observed)
    assert observed.health["head"] is Health.READY


@pytest.mark.parametrize("resource", ["routers", "ports", "floating_ips", "networks", "security_groups"])
def test_want_of_quota_for_what_all_need_ends_at_once(resource: str) -> None:
    cloud = fresh(limits={resource: 0})
    run = Run(cloud)
    with pytest.raises(QuotaError, match=f"quota for {resource}: . asked, 0 used, 0 allowed"):
        run.to(whole(cloud, 2), pool=1)
    assert sum(step.startswith("create machine") for step in steps(run.events)) == 0
    clean(cloud)


def test_want_of_quota_for_volumes_is_enough_above_the_minimum() -> None:
    cloud = fresh(limits={"volumes": 3})
    outcome = Run(cloud).to(whole(cloud, 4, minimum=2), pool=1)
    assert len(outcome.degraded) == 2
    clean(cloud)
    cloud = fresh(limits={"volumes": 2})
    with pytest.raises(QuotaError, match="volumes"):
        Run(cloud).to(whole(cloud, 4, minimum=2), pool=1)
    clean(cloud)


def test_a_machine_in_error_for_want_of_quota_is_not_tried_again() -> None:
    cloud = fresh(faults=FaultScript(machines={"cpu-3": (Trouble.NO_QUOTA, 1.0)}))
    run = Run(cloud)
    outcome = run.to(whole(cloud, 3, minimum=2))
    assert outcome.degraded == ("cpu-3",)
    assert steps(run.events).count("create machine cpu-3") == 1
    assert not any("attempts" in key for key in outcome.observed.notes)
    with pytest.raises(QuotaError, match="already used 10 of 10 cores"):
        Run(cloud).to(whole(cloud, 3))
    cloud.faults.machines.clear()
    assert set(Run(cloud).to(whole(cloud, 3)).observed.health.values()) == {Health.READY}
    clean(cloud)


def test_answers_that_got_lost_make_no_twins() -> None:
    lost = Fault(lost=TemporaryError("connection reset"))
    calls = ("create_part", "complete_part", "create_volume", "create_ports", "create_machine", "create_network")
    script = FaultScript(nth={(call, n): lost for call in calls for n in range(1, 5)})
    cloud = fresh(5.0, faults=script)
    run = Run(cloud)
    one_of_each(run.to(whole(cloud, 3)).observed)
    made = Counter(tag for tag in cloud.resources() if "volume" in tag or "worker" in tag)
    assert made == {cloud.ref("demo").tag(PartKind.VOLUME): 4, cloud.ref("demo").tag("worker"): 6}  # type: ignore[arg-type]
    clean(cloud)


@pytest.mark.parametrize("astray", [False, True])
def test_of_two_subnets_on_one_network_that_of_the_heads_port_counts(*, astray: bool) -> None:
    """Neutron takes two that come at the same moment. The other one goes, and so does a leg on it."""
    cloud = fresh(5.0)
    ref = cloud.ref("demo")
    requests = {request.kind: request for request in cloud.layout(ref, Wishes(), Observed()).parts}
    network = cloud.create_network(ref, ref.tag("network"))
    alone = Observed(networks=(network,))
    old, _young = (cloud.create_part(ref, requests[PartKind.SUBNET], alone) for _ in range(2))
    if astray:
        router = cloud.create_part(ref, requests[PartKind.ROUTER], alone)
        cloud.create_part(ref, requests[PartKind.GATEWAY], replace(alone, parts=(old, router)))
    cloud.clock.sleep(6)
    observed = Run(cloud).to(whole(cloud, 1)).observed
    one_of_each(observed)
    (subnet,) = (part for part in observed.parts if part.kind is PartKind.SUBNET)
    assert subnet.used_by == next(port.uuid for port in observed.ports if port.name == "head")
    assert all(part.ready and not part.fault for part in observed.parts)
    clean(cloud)


def test_what_a_slot_says_of_itself_is_in_its_create_calls() -> None:
    cloud = fresh()
    goal = whole(cloud, 1)
    slots = tuple(
        replace(slot, zone=f"zone-{slot.name}", image="other" if slot.name != "head" else "") for slot in goal.slots
    )
    asked: dict[str, tuple[str, str, int, str]] = {}
    real_volume, real_machine = cloud.create_volume, cloud.create_machine

    def volume(ref: ClusterRef, request: VolumeRequest) -> Part:
        asked[f"volume {request.name}"] = (request.image, request.zone, request.size, "")
        return real_volume(ref, request)

    def machine(ref: ClusterRef, request: MachineRequest) -> Machine:
        asked[request.name] = (request.image, request.zone, bool(request.volume), request.host_key)
        return real_machine(ref, request)

    cloud.create_volume, cloud.create_machine = volume, machine  # type: ignore[method-assign]
    loop = Run(cloud).loop(replace(goal, slots=slots))
    loop._acts._host_key = "ssh-ed25519 AAAA"
    loop.run(7200)
    assert asked == {
        "volume head": ("memory-image", "zone-head", 20, ""),
        "volume cpu-1": ("other", "zone-cpu-1", 20, ""),
        "head": ("memory-image", "zone-head", True, "ssh-ed25519 AAAA"),
        "cpu-1": ("other", "zone-cpu-1", True, ""),
    }
