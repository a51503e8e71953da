"""What a cloud says that it does, and does for ever: servers that are deleted, volumes that are made or deleted."""

from __future__ import annotations

from collections import Counter

import pytest
from engine import ABSENT, SHELVED, STOPPED, Run, clean, fresh, one_of_each, running, steps, whole

from vcluster.actions import Goal
from vcluster.clouds.memory import FaultScript, MemoryCloud
from vcluster.errors import DeadlineError, PermanentError
from vcluster.events import Log, StepStarted
from vcluster.model import ClusterRef, Health, MachineState, Part, PartKind
from vcluster.plan_limits import ASK_AGAIN
from vcluster.retry import delay

NEVER = 1e12

# Machines that are told to go ---------------------------------------------------------------------------------------


def lost_order(cloud: MemoryCloud, name: str) -> list[float]:
    """Let a machine be shown as being deleted, and nobody do it before somebody asks again; gives when that was."""
    (entry,) = [e for e in cloud.entries(cloud.ref("demo")) if e.machine.name == name]
    entry.gone_at, asked, real = NEVER, list[float](), cloud.delete_machine

    def delete(ref: ClusterRef, uuid: str) -> None:
        if uuid == entry.machine.uuid:
            asked.append(cloud.now())
            entry.gone_at = cloud.now() + 2.0
        real(ref, uuid)

    cloud.delete_machine = delete  # type: ignore[method-assign]
    return asked


@pytest.mark.parametrize("parts", [False, True])
def test_down_tells_a_machine_to_go_again_when_it_stays(*, parts: bool) -> None:
    cloud = fresh() if parts else MemoryCloud()
    Run(cloud).to(whole(cloud, 2) if parts else running(2))
    asked, began = lost_order(cloud, "cpu-1"), cloud.now()
    Run(cloud).to(ABSENT, timeout=900.0)
    assert cloud.resources() == []
    assert [when - began > ASK_AGAIN for when in asked] == [True]


def test_each_run_tells_it_again_and_the_end_names_it() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(1))
    (entry,) = [e for e in cloud.entries(cloud.ref("demo")) if e.machine.name == "cpu-1"]
    entry.gone_at = NEVER
    for _ in range(2):
        before = cloud.calls.get("delete_machine", 0)
        with pytest.raises(DeadlineError, match=f"cpu-1 to be gone \\({entry.machine.uuid}: it was told to go"):
            Run(cloud).to(ABSENT, timeout=400.0)
        # Not at every look, but as often as any order is repeated that nothing came of.
        assert 10 <= cloud.calls["delete_machine"] - before <= 30


@pytest.mark.parametrize("goal", [running(2), STOPPED, SHELVED], ids=["up", "stop", "shelve"])
def test_up_stop_and_shelve_tell_it_again_before_they_go_on_without_it(goal: Goal) -> None:
    cloud = MemoryCloud()
    old = {m.name: m.uuid for m in Run(cloud).to(running(2)).observed.machines}
    asked = lost_order(cloud, "cpu-1")
    seen = {m.name: m for m in Run(cloud).to(goal).observed.machines}
    assert len(asked) == 1
    assert "cpu-1" not in seen or seen["cpu-1"].uuid != old["cpu-1"]
    if goal.slots:
        assert set(seen) == {"head", "cpu-1", "cpu-2"}


def test_what_is_told_to_go_again_keeps_nothing_else_from_being_done() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(2, most=3))
    (entry,) = [e for e in cloud.entries(cloud.ref("demo")) if e.machine.name == "cpu-1"]
    entry.gone_at = NEVER
    loop = Run(cloud).loop(running(3))
    loop.plan(loop.look())
    cloud.clock.sleep(ASK_AGAIN + 10)
    first = loop.plan(loop.look()).first_wave()
    assert [str(action) for action in first] == ["create machine cpu-3"]


# Volumes ------------------------------------------------------------------------------------------------------------


def volumes_of(cloud: MemoryCloud) -> list[Part]:
    return [p for p in cloud.observe(cloud.ref("demo")).parts if p.kind is PartKind.VOLUME]


def hung(cloud: MemoryCloud, name: str) -> Part:
    (found,) = [p for p in volumes_of(cloud) if p.name == name and p.status == "creating"]
    return found


def after_a_killed_up(name: str = "cpu-1") -> MemoryCloud:
    """A cloud with an `up` that came as far as its volumes, of which one hangs."""
    cloud = fresh(faults=FaultScript(hanging={name: 99}))
    with pytest.raises(DeadlineError):
        Run(cloud).to(whole(cloud, 2), timeout=60.0)
    return cloud


def test_a_volume_that_hangs_keeps_nothing_else_and_down_names_it() -> None:
    cloud = after_a_killed_up()
    volume = hung(cloud, "cpu-1")
    began = cloud.now()
    with pytest.raises(PermanentError, match="demo is gone but for") as caught:
        Run(cloud).to(ABSENT, timeout=900.0)
    assert f"volume cpu-1 {volume.uuid}: delete volume {volume.uuid}: it is creating" in caught.value.message
    assert cloud.now() - began < 300.0
    assert [tag.rpartition("/")[2] for tag in cloud.resources()] == ["volume"]
    cloud.store.parts[volume.uuid].ready_at = 0.0  # somebody mended Cinder
    clean(cloud)


def test_a_volume_that_only_takes_its_time_is_waited_for() -> None:
    cloud = fresh(volume_time=sum(delay(n) for n in range(1, 8)))  # two minutes
    with pytest.raises(DeadlineError):
        Run(cloud).to(whole(cloud, 1), timeout=2.0)
    clean(cloud)


def test_a_volume_that_is_deleted_for_ever_keeps_nothing_else() -> None:
    cloud = after_a_killed_up()
    volume = hung(cloud, "cpu-1")
    real, told = cloud.delete_part, Counter[str]()

    def delete(ref: ClusterRef, part: Part) -> None:
        if part.uuid == volume.uuid:
            told[part.uuid] += 1  # as Cinder: yes, and nothing
        else:
            real(ref, part)

    cloud.delete_part = delete  # type: ignore[method-assign]
    with pytest.raises(PermanentError, match=f"volume cpu-1 {volume.uuid}: it was told to go 600 s ago, and stays"):
        Run(cloud).to(ABSENT, timeout=900.0)
    assert volumes_of(cloud) == [volume]
    assert len(cloud.resources()) == 1


def test_a_volume_that_hangs_does_not_keep_a_head_from_the_shelf() -> None:
    cloud = fresh()
    Run(cloud).to(whole(cloud, 1, most=2))
    cloud.faults.hanging["cpu-2"] = 99
    with pytest.raises(DeadlineError):
        Run(cloud).to(whole(cloud, 2), timeout=60.0)
    volume, run = hung(cloud, "cpu-2"), Run(cloud)
    head = run.to(SHELVED, timeout=900.0).observed.head
    assert head is not None
    assert head.state is MachineState.SHELVED
    (said,) = [e.message for e in run.events if isinstance(e, Log)]
    assert said == f"volume cpu-2 cannot be deleted and stays: delete volume {volume.uuid}: it is creating"


def test_a_volume_that_hangs_is_made_anew_where_it_can_be_deleted() -> None:
    cloud = fresh(faults=FaultScript(hanging={"cpu-1": 1}))
    real = cloud.delete_part

    def delete(ref: ClusterRef, part: Part) -> None:
        listed = cloud.store.parts[part.uuid]
        if part.kind is PartKind.VOLUME and listed.ready_at > cloud.now():
            listed.ready_at = 0.0  # a Cinder that deletes it all the same
        real(ref, part)

    cloud.delete_part = delete  # type: ignore[method-assign]
    run = Run(cloud)
    goal = whole(cloud, 2)
    observed = run.to(goal, timeout=4 * goal.boot_timeout).observed
    one_of_each(observed)
    assert set(observed.health.values()) == {Health.READY}
    deleted = [step for step in steps(run.events) if step.startswith("delete volume")]
    assert deleted == ["delete volume cpu-1"]
    assert "attempts/cpu-1" not in observed.notes


def test_a_volume_that_hangs_and_cannot_be_deleted_is_a_worker_lost_and_no_more() -> None:
    cloud = fresh(faults=FaultScript(hanging={"cpu-1": 99}))
    goal = whole(cloud, 3, minimum=2)
    outcome = Run(cloud).to(goal, timeout=4 * goal.boot_timeout)
    assert outcome.degraded == ("cpu-1",)
    assert set(outcome.observed.health.values()) == {Health.READY}
    assert len([p for p in volumes_of(cloud) if p.name == "cpu-1"]) == 1  # a second might hang, too


def test_where_all_are_needed_the_volume_that_hangs_is_named() -> None:
    cloud = fresh(faults=FaultScript(hanging={"cpu-1": 99}))
    goal = whole(cloud, 2)
    with pytest.raises(PermanentError, match="group cpu needs 2 workers and 1 of 2 failed: cpu-1") as caught:
        Run(cloud).to(goal, timeout=4 * goal.boot_timeout)
    uuid = hung(cloud, "cpu-1").uuid
    assert f"its volume: {uuid} is still creating after 300 s, and cannot be deleted" in caught.value.message
    assert uuid in caught.value.remedy


def test_a_heads_volume_that_hangs_is_named() -> None:
    cloud = fresh(faults=FaultScript(hanging={"head": 99}))
    goal = whole(cloud, 1)
    with pytest.raises(PermanentError, match=r"the head failed: its volume: \S+ is still creating"):
        Run(cloud).to(goal, timeout=4 * goal.boot_timeout)


def test_a_later_run_makes_another_volume_and_waits_for_the_first_no_more() -> None:
    cloud = fresh(faults=FaultScript(hanging={"cpu-1": 1}))
    with pytest.raises(PermanentError):
        Run(cloud).to(whole(cloud, 2))
    old, began, run = hung(cloud, "cpu-1"), cloud.now(), Run(cloud)
    observed = run.to(whole(cloud, 2)).observed
    assert set(observed.health.values()) == {Health.READY}
    assert len(observed.health) == 3
    assert cloud.now() - began < 300.0
    assert old.uuid in {p.uuid for p in observed.parts}
    assert any(old.uuid in event.message for event in run.events if isinstance(event, Log))


def test_what_is_left_of_it_keeps_no_later_run_from_its_work() -> None:
    cloud = fresh(faults=FaultScript(hanging={"cpu-1": 1}))
    with pytest.raises(PermanentError):
        Run(cloud).to(whole(cloud, 2, most=3))
    Run(cloud).to(whole(cloud, 2, most=3))
    began, run = cloud.now(), Run(cloud)
    run.to(whole(cloud, 3))
    (made,) = [
        e.time for e in run.events if isinstance(e, StepStarted) and e.subject == "cpu-3" and "machine" in e.action
    ]
    assert made - began < 60.0


def test_hanging_volumes_are_no_more_than_the_budget() -> None:
    cloud = fresh(faults=FaultScript(hanging={"cpu-1": 99}))
    for _ in range(6):
        with pytest.raises(PermanentError, match="cpu-1: "):
            Run(cloud).to(whole(cloud, 2))
    assert len([p for p in volumes_of(cloud) if p.name == "cpu-1"]) == 3
