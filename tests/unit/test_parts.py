"""The loop on a cloud that wants security groups, a router, a floating IP and volumes around its machines."""

from __future__ import annotations

from collections import Counter

import pytest
from engine import ABSENT, SHELVED, STOPPED, Run, running, volumes, whole

from vcluster.actions import Goal, Power
from vcluster.clouds.memory import Fault, FaultScript, MemoryCloud, Trouble
from vcluster.errors import PermanentError, QuotaError, TemporaryError
from vcluster.events import Event, StepStarted
from vcluster.model import Health, MachineState, Network, Observed, PartKind, Wishes

THERE = Network("there", "", "10.0.0.0/24", foreign=True)


class Killed(BaseException):
    """Stands for kill -9: nothing in the loop may catch it."""


def steps(events: list[Event]) -> list[str]:
    return [f"{e.action} {e.subject}" for e in events if isinstance(e, StepStarted)]


def one_of_each(observed: Observed) -> None:
    assert set(Counter((p.kind, p.name) for p in observed.parts).values()) <= {1}
    assert set(Counter(p.name for p in observed.ports).values()) <= {1}
    assert set(Counter(m.name for m in observed.machines).values()) <= {1}


def fresh(lag: float = 0.0, *, foreign: bool = False, **more: object) -> MemoryCloud:
    return MemoryCloud(parts=True, lag=lag, there=THERE if foreign else None, **more)  # type: ignore[arg-type]


def clean(cloud: MemoryCloud) -> None:
    Run(cloud).to(ABSENT)
    assert cloud.resources() == []


def test_up_makes_all_that_there_shall_be_in_order() -> None:
    cloud = fresh()
    run = Run(cloud)
    observed = run.to(whole(cloud, 2, notes={"expires": "99"}), pool=1).observed
    one_of_each(observed)
    assert set(observed.health.values()) == {Health.READY}
    assert {p.kind for p in observed.parts} == set(PartKind)
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
    cloud.entries(cloud.ref("demo"))[1].volume = ""  # its cloud forgot to let it go with its machine
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
        for entry in cloud.entries(cloud.ref("demo")):
            if entry.machine.state is MachineState.ERROR and entry.volume:
                lost.append(entry.volume)
                entry.volume = ""

    cloud.after_effect = forget
    observed = Run(cloud).to(whole(cloud, 2)).observed
    assert lost
    assert not set(lost) & {p.uuid for p in observed.parts}
    one_of_each(observed)


def test_the_homes_on_a_lost_heads_volume_go_only_when_a_person_agreed() -> None:
    cloud = fresh()
    Run(cloud).to(whole(cloud, 1))
    for entry in cloud.entries(cloud.ref("demo")):
        entry.volume = ""
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


# Stop, shelve and back ----------------------------------------------------------------------------------------------


def test_stop_drains_first_and_the_workers_come_back() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(2))
    run = Run(cloud)
    run.to(STOPPED)
    assert steps(run.events)[0] == "drain worker cpu-1 … cpu-2 (2)"
    assert steps(run.events)[-1] == "stop machine head"
    back = Run(cloud)
    assert set(back.to(running(2)).observed.health.values()) == {Health.READY}
    assert steps(back.events)[-1] == "resume worker cpu-1 … cpu-2 (2)"


@pytest.mark.parametrize(("patience", "waits"), [(0.0, False), (50.0, False), (900.0, True)])
def test_stop_waits_for_jobs_as_long_as_it_may(patience: float, *, waits: bool) -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(2))
    cloud.occupy("cpu-1", 300.0)
    began = cloud.now()
    Run(cloud).to(Goal(Power.STOPPED, job_patience=patience))
    spent = cloud.now() - began
    assert spent >= min(patience, 300.0)
    assert (spent >= 300.0) is waits


def test_a_head_that_does_not_answer_does_not_keep_a_cluster_from_being_stopped() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(2))
    cloud.entries(cloud.ref("demo"))[0].ready_after = 10_000.0
    run = Run(cloud)
    run.to(STOPPED)
    assert "drain" not in " ".join(steps(run.events))


def test_a_scheduler_that_refuses_to_drain_does_not_keep_a_cluster_from_being_stopped() -> None:
    cloud = MemoryCloud(faults=FaultScript(subjects={("drain", ""): Fault(error=TemporaryError("no route"))}))
    Run(cloud).to(running(2))
    observed = Run(cloud).to(STOPPED).observed
    assert {m.state for m in observed.machines} == {MachineState.SHUTOFF}


@pytest.mark.parametrize("parts", [False, True])
def test_shelve_keeps_the_head_alone_and_unshelve_brings_all_back(*, parts: bool) -> None:
    cloud = fresh() if parts else MemoryCloud()
    goal = whole(cloud, 2) if parts else running(2)
    head = Run(cloud).to(goal).observed.head
    run = Run(cloud)
    shelved = run.to(SHELVED).observed
    assert [(m.name, m.state) for m in shelved.machines] == [("head", MachineState.SHELVED)]
    assert steps(run.events)[0] == "drain worker cpu-1 … cpu-2 (2)"
    assert steps(run.events)[-1] == "shelve machine head"
    assert volumes(cloud) == ({"head": "head"} if parts else {})
    assert not Run(cloud).to(SHELVED).changed
    back = Run(cloud).to(goal).observed
    assert set(back.health.values()) == {Health.READY}
    assert len(back.health) == 3
    assert head is not None
    assert back.head is not None
    assert back.head.uuid == head.uuid
    clean(cloud)


def test_a_head_in_error_is_not_shelved_and_no_worker_goes() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(2))
    cloud.kill("head")
    with pytest.raises(PermanentError, match="the head is in ERROR and cannot be shelved") as caught:
        Run(cloud).to(SHELVED)
    assert "vcluster status demo" in caught.value.remedy
    assert len(cloud.observe(cloud.ref("demo")).machines) == 3


# Killed anywhere ----------------------------------------------------------------------------------------------------


def kill_after(cloud: MemoryCloud, effect: int) -> None:
    first = cloud._effects

    def strike(number: int) -> None:
        if number - first >= effect:
            raise Killed

    cloud.after_effect = strike


def killed(cloud: MemoryCloud, goal: Goal, effect: int) -> bool:
    """Whether the run was killed after so many side effects."""
    kill_after(cloud, effect)
    try:
        Run(cloud).to(goal, pool=1)
    except Killed:
        return True
    finally:
        cloud.after_effect = None
    return False


KINDS = [(0.0, False), (4.0, False), (4.0, True)]


@pytest.mark.parametrize(("lag", "foreign"), KINDS)
def test_killed_after_every_single_side_effect_of_up_the_next_run_finishes(lag: float, *, foreign: bool) -> None:
    effect = 1
    while True:
        script = FaultScript(once={"cpu-2": (Trouble.ERROR, 1.0)}, volumes={"cpu-1": 1})
        cloud = fresh(lag, foreign=foreign, faults=script)
        if not killed(cloud, whole(cloud, 2, most=3), effect):
            break
        if effect % 2:  # the next run comes late, when the claim is old
            cloud.clock.sleep(1000)
        observed = Run(cloud).to(whole(cloud, 2, most=3)).observed
        one_of_each(observed)
        assert set(observed.health.values()) == {Health.READY}, effect
        assert volumes(cloud) == {name: name for name in ("head", "cpu-1", "cpu-2")}, effect
        Run(cloud).to(ABSENT)
        assert cloud.resources() == [], effect
        effect += 1
    assert effect > 20


@pytest.mark.parametrize(("lag", "foreign"), KINDS)
@pytest.mark.parametrize("power", [Power.ABSENT, Power.SHELVED])
def test_killed_after_every_single_side_effect_of_down_the_next_run_finishes(
    lag: float, power: Power, *, foreign: bool
) -> None:
    effect = 1
    while True:
        cloud = fresh(lag, foreign=foreign)
        Run(cloud).to(whole(cloud, 2, most=3))
        if not killed(cloud, Goal(power), effect):
            break
        Run(cloud).to(Goal(power))
        if power is Power.SHELVED:
            observed = Run(cloud).to(whole(cloud, 2, most=3)).observed
            assert set(observed.health.values()) == {Health.READY}, effect
            one_of_each(observed)
            Run(cloud).to(ABSENT)
        assert cloud.resources() == [], effect
        effect += 1
    assert effect > 3
