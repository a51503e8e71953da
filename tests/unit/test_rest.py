"""Clusters at rest: drained, stopped, shelved, and back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from engine import SHELVED, STOPPED, Run, clean, entry, fresh, running, steps, volumes, whole

from vcluster.actions import Goal, Power
from vcluster.clouds.memory import Fault, FaultScript, MemoryCloud
from vcluster.errors import CloudError, ConflictError, PermanentError, TemporaryError
from vcluster.events import Log
from vcluster.model import ClusterRef, Health, MachineState


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
    entry(cloud, "head").ready_after = 10_000.0
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
    assert volumes(cloud) == ({"head": ""} if parts else {})  # as Cinder: nobody is told as the user of a shelved one
    assert not Run(cloud).to(SHELVED).changed
    back = Run(cloud).to(goal).observed
    assert set(back.health.values()) == {Health.READY}
    assert len(back.health) == 3
    assert head is not None
    assert back.head is not None
    assert back.head.uuid == head.uuid
    clean(cloud)


@pytest.mark.parametrize("parts", [False, True])
def test_a_head_in_error_is_not_shelved_but_its_workers_go(*, parts: bool) -> None:
    cloud = fresh() if parts else MemoryCloud()
    Run(cloud).to(whole(cloud, 2) if parts else running(2))
    cloud.kill("head")
    with pytest.raises(PermanentError, match="the head is in ERROR and cannot be shelved") as caught:
        Run(cloud).to(SHELVED)
    assert "vcluster status demo" in caught.value.remedy
    assert [m.name for m in cloud.observe(cloud.ref("demo")).machines] == ["head"]


@pytest.mark.parametrize("error", [ConflictError("it is paused"), PermanentError("it never ran")])
def test_a_worker_that_cannot_be_stopped_does_not_keep_the_head_on(error: CloudError) -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(2))
    (odd,) = [m for m in cloud.observe(cloud.ref("demo")).machines if m.name == "cpu-1"]
    real = cloud.stop_machine

    def stop(ref: ClusterRef, uuid: str) -> None:
        if uuid == odd.uuid:
            raise error
        real(ref, uuid)

    cloud.stop_machine = stop  # type: ignore[method-assign]
    run = Run(cloud)
    states = {m.name: m.state for m in run.to(STOPPED).observed.machines}
    assert states == {"head": MachineState.SHUTOFF, "cpu-1": MachineState.ACTIVE, "cpu-2": MachineState.SHUTOFF}
    assert [e.message for e in run.events if isinstance(e, Log)] == [f"machine cpu-1 is not stopped: {error.message}"]


def test_an_expired_cluster_is_not_switched_on_while_it_is_shelved() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(1))
    cloud.annotate(cloud.ref("demo"), {"expires": f"{cloud.now() + 60:.0f}"})
    Run(cloud).to(SHELVED)
    cloud.clock.sleep(100)
    run = Run(cloud)
    with pytest.raises(PermanentError, match="expired and would be shelved again at once: `vcluster extend`"):
        run.to(running(1))
    assert steps(run.events) == []
    cloud.annotate(cloud.ref("demo"), {"expires": f"{cloud.now() + 60:.0f}"})
    assert Run(cloud).to(running(1)).changed


@pytest.mark.parametrize(("rest", "call"), [(SHELVED, "unshelve_machine"), (STOPPED, "start_machine")])
def test_a_cloud_that_says_yes_and_does_nothing_is_not_asked_for_ever(
    rest: Goal, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(1))
    Run(cloud).to(rest)
    asked: list[float] = []
    head = cloud.observe(cloud.ref("demo")).head
    assert head is not None
    real = getattr(cloud, call)

    def accept(ref: ClusterRef, uuid: str) -> None:
        if uuid == head.uuid:
            asked.append(cloud.now())
        else:
            real(ref, uuid)

    with monkeypatch.context() as patch:
        patch.setattr(cloud, call, accept)
        with pytest.raises(PermanentError, match="there may be no room for flavor small now") as caught:
            Run(cloud).to(running(1))
    assert "vcluster start demo" in caught.value.remedy
    pauses = [later - sooner for sooner, later in pairwise(asked)]
    assert len(asked) == 5
    assert pauses == sorted(pauses)
    assert Run(cloud).to(running(1)).observed.health["head"] is Health.READY


def test_a_worker_that_cannot_be_switched_on_is_gone_without() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(2))
    Run(cloud).to(STOPPED)
    (asleep,) = [m.uuid for m in cloud.observe(cloud.ref("demo")).machines if m.name == "cpu-2"]
    real = cloud.start_machine
    cloud.start_machine = lambda ref, uuid: None if uuid == asleep else real(ref, uuid)  # type: ignore[method-assign]
    assert Run(cloud).to(running(2, minimum=1)).degraded == ("cpu-2",)
