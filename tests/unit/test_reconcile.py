"""The loop on the memory cloud: it converges, it repairs, it is interrupted anywhere, and it leaks nothing."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from engine import ABSENT, STOPPED, Run, running

from vcluster.clouds.memory import Fault, FaultScript, MemoryCloud, Trouble
from vcluster.errors import CancelledError, DeadlineError, PermanentError, QuotaError, TemporaryError
from vcluster.events import MachineChanged, PlanMade, StepStarted
from vcluster.model import Health, MachineState


class Killed(BaseException):
    """Stands for kill -9: nothing in the loop may catch it."""


def names(cloud: MemoryCloud, name: str = "demo") -> Counter[str]:
    return Counter(m.name for m in cloud.observe(cloud.ref(name)).machines)


def test_up_makes_everything_and_a_second_up_changes_nothing() -> None:
    cloud = MemoryCloud()
    first = Run(cloud).to(running(3))
    assert first.changed
    assert {m.name: m.state for m in first.observed.machines} == dict.fromkeys(
        ["head", "cpu-1", "cpu-2", "cpu-3"], MachineState.ACTIVE
    )
    assert set(first.observed.health.values()) == {Health.READY}
    second = Run(cloud)
    assert not second.to(running(3)).changed
    assert not [e for e in second.events if isinstance(e, StepStarted)]


def test_down_leaves_nothing_and_a_second_down_changes_nothing() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(3))
    assert Run(cloud).to(ABSENT).changed
    assert cloud.resources() == []
    assert not Run(cloud).to(ABSENT).changed


def test_down_is_by_tag_a_neighbour_of_the_same_name_stays() -> None:
    cloud = MemoryCloud()
    cloud.creator = "neighbour"
    Run(cloud).to(running(2))
    theirs = cloud.resources()
    cloud.creator = "me"
    Run(cloud).to(running(2))
    Run(cloud).to(ABSENT)
    assert cloud.resources() == theirs


def test_every_port_exists_before_any_machine() -> None:
    cloud = MemoryCloud()
    run = Run(cloud)
    run.to(running(2, most=5))
    steps = [e.action for e in run.events if isinstance(e, StepStarted)]
    assert steps.index("create machine") > max(i for i, s in enumerate(steps) if s == "create ports")
    assert len(cloud.observe(cloud.ref("demo")).ports) == 6


def test_a_dead_worker_is_seen_and_replaced_with_its_console_kept() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(2))
    cloud.kill("cpu-2")
    run = Run(cloud)
    outcome = run.to(running(2))
    assert outcome.changed
    assert "cpu-2" in run.consoles
    assert any(isinstance(e, MachineChanged) and e.machine == "cpu-2" and e.state == "ERROR" for e in run.events)
    assert outcome.observed.health["cpu-2"] is Health.READY
    assert "attempts/cpu-2" not in outcome.observed.notes


@pytest.mark.parametrize("trouble", [Trouble.ERROR, Trouble.NEVER_READY, Trouble.MISCONFIGURED, Trouble.DIES])
def test_a_worker_that_fails_every_time_ends_the_run_within_its_budget(trouble: Trouble) -> None:
    cloud = MemoryCloud(faults=FaultScript(machines={"cpu-2": (trouble, 1.0)}))
    run = Run(cloud)
    with pytest.raises(PermanentError, match="group cpu needs 2 workers and 1 of 2 failed: cpu-2"):
        run.to(running(2))
    made = [e for e in run.events if isinstance(e, StepStarted) and e.subject == "cpu-2" and "create" in e.action]
    assert len(made) == 3
    again = Run(cloud)
    with pytest.raises(PermanentError, match="cpu-2"):
        again.to(running(2))
    assert not [e for e in again.events if isinstance(e, StepStarted) and e.action == "create machine"]


def test_min_count_goes_on_degraded() -> None:
    cloud = MemoryCloud(faults=FaultScript(machines={"cpu-2": (Trouble.ERROR, 1.0)}))
    outcome = Run(cloud).to(running(3, minimum=2))
    assert outcome.degraded == ("cpu-2",)
    assert names(cloud) == {"head": 1, "cpu-1": 1, "cpu-3": 1}


def test_keep_on_failure_leaves_the_failed_machine() -> None:
    cloud = MemoryCloud(faults=FaultScript(machines={"cpu-1": (Trouble.ERROR, 1.0)}))
    with pytest.raises(PermanentError):
        Run(cloud).to(running(1, keep_failed=True))
    assert names(cloud)["cpu-1"] == 1


def test_quota_ends_at_once_and_says_so() -> None:
    cloud = MemoryCloud(quota=2)
    with pytest.raises(QuotaError, match="1 asked, 2 used, 2 allowed"):
        Run(cloud).to(running(3))


def test_quota_above_the_minimum_goes_on_degraded() -> None:
    cloud = MemoryCloud(quota=3)
    outcome = Run(cloud).to(running(3, minimum=1), pool=1)
    assert len(outcome.degraded) == 1


def test_a_head_that_was_ready_is_rebooted_and_never_deleted() -> None:
    cloud = MemoryCloud()
    before = Run(cloud).to(running(1)).observed.head
    cloud.kill("head")
    run = Run(cloud)
    after = run.to(running(1)).observed.head
    assert before is not None
    assert after is not None
    assert after.uuid == before.uuid
    assert "reboot machine" in {e.action for e in run.events if isinstance(e, StepStarted)}


def test_a_head_that_never_was_ready_is_made_anew() -> None:
    cloud = MemoryCloud(faults=FaultScript(once={"head": (Trouble.ERROR, 1.0)}))
    outcome = Run(cloud).to(running(1))
    assert outcome.observed.health["head"] is Health.READY
    assert names(cloud) == {"head": 1, "cpu-1": 1}


def test_a_lost_head_rebuilds_the_whole_cluster_and_the_plan_says_that_data_is_gone() -> None:
    cloud = MemoryCloud()
    old = {m.uuid for m in Run(cloud).to(running(2)).observed.machines}
    cloud.lose("head")
    loop = Run(cloud).loop(running(2))
    plan = loop.plan(loop.look())
    assert any(action.destroys_data for action in plan.actions)
    outcome = loop.run(7200)
    assert not old & {m.uuid for m in outcome.observed.machines}
    assert outcome.observed.health["cpu-2"] is Health.READY


def test_shrinking_drains_first_and_waits_for_the_jobs() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(3))
    cloud.occupy("cpu-3", 500.0)
    began = cloud.now()
    run = Run(cloud)
    run.to(running(2, most=3))
    assert cloud.now() - began >= 500.0
    steps = [(e.action, e.subject) for e in run.events if isinstance(e, StepStarted)]
    assert steps[0] == ("drain worker", "cpu-3")
    assert ("delete machine", "cpu-3") in steps
    assert any("the jobs on cpu-3 to end" in w for e in run.events if isinstance(e, PlanMade) for w in e.waiting)


def test_an_interrupted_shrink_is_taken_back_by_up() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(2))
    cloud.occupy("cpu-2", 5000.0)
    with pytest.raises(DeadlineError, match="the jobs on cpu-2 to end"):
        Run(cloud).to(running(1, most=2), timeout=100)
    outcome = Run(cloud).to(running(2))
    assert outcome.observed.health["cpu-2"] is Health.READY


def test_replace_drains_deletes_and_makes_anew() -> None:
    cloud = MemoryCloud()
    observed = Run(cloud).to(running(2)).observed
    old = next(m.uuid for m in observed.machines if m.name == "cpu-1")
    outcome = Run(cloud).to(running(2, replace=frozenset({old})))
    new = next(m.uuid for m in outcome.observed.machines if m.name == "cpu-1")
    assert new != old
    assert outcome.observed.health["cpu-1"] is Health.READY


def test_stop_stops_the_head_last_and_start_brings_all_back() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(2))
    run = Run(cloud)
    stopped = run.to(STOPPED).observed
    assert {m.state for m in stopped.machines} == {MachineState.SHUTOFF}
    assert [e.subject for e in run.events if isinstance(e, StepStarted)][-1] == "head"
    started = Run(cloud).to(running(2)).observed
    assert set(started.health.values()) == {Health.READY}


def test_the_deadline_names_what_was_waited_for() -> None:
    cloud = MemoryCloud(ready_time=10_000, boot_timeout=20_000)
    with pytest.raises(DeadlineError, match="head to run its first job"):
        Run(cloud).to(running(1, boot_timeout=20_000.0), timeout=60)


def test_cancel_from_another_thread_ends_the_run_and_the_next_goes_on() -> None:
    cloud = MemoryCloud()
    run = Run(cloud)
    cloud.after_effect = lambda number: run.cancel.set() if number == 4 else None
    with pytest.raises(CancelledError):
        run.to(running(5))
    cloud.after_effect = None
    assert len(Run(cloud).to(running(5)).observed.machines) == 6


def test_an_answer_that_got_lost_makes_no_twin() -> None:
    lost = Fault(lost=TemporaryError("connection reset"))
    calls = ("create_network", "create_ports", "create_machine")
    cloud = MemoryCloud(faults=FaultScript(nth={(call, n): lost for call in calls for n in (1, 2)}), lag=5.0)
    outcome = Run(cloud).to(running(2))
    assert names(cloud) == {"head": 1, "cpu-1": 1, "cpu-2": 1}
    assert Counter(p.name for p in outcome.observed.ports) == {"head": 1, "cpu-1": 1, "cpu-2": 1}
    assert len(outcome.observed.networks) == 1
    Run(cloud).to(ABSENT)
    assert cloud.resources() == []


def kill_after(cloud: MemoryCloud, effect: int) -> None:
    first = cloud._effects

    def strike(number: int) -> None:
        if number - first >= effect:
            raise Killed

    cloud.after_effect = strike


@pytest.mark.parametrize("lag", [0.0, 4.0])
def test_killed_after_every_single_side_effect_of_up_the_next_run_finishes(lag: float) -> None:
    effect = 0
    while True:
        effect += 1
        cloud = MemoryCloud(lag=lag, faults=FaultScript(once={"cpu-2": (Trouble.ERROR, 1.0)}))
        kill_after(cloud, effect)
        try:
            Run(cloud).to(running(2, most=3), pool=1)
        except Killed:
            pass
        else:
            break
        cloud.after_effect = None
        outcome = Run(cloud).to(running(2, most=3))
        assert names(cloud) == {"head": 1, "cpu-1": 1, "cpu-2": 1}, effect
        assert set(outcome.observed.health.values()) == {Health.READY}, effect
        Run(cloud).to(ABSENT)
        assert cloud.resources() == [], effect
    assert effect > 10


@pytest.mark.parametrize("lag", [0.0, 4.0])
def test_killed_after_every_single_side_effect_of_down_the_next_run_finishes(lag: float) -> None:
    effect = 0
    while True:
        effect += 1
        cloud = MemoryCloud(lag=lag)
        Run(cloud).to(running(2, most=3))
        kill_after(cloud, effect)
        try:
            Run(cloud).to(ABSENT, pool=1)
        except Killed:
            pass
        else:
            break
        cloud.after_effect = None
        Run(cloud).to(ABSENT)
        assert cloud.resources() == [], effect
    assert effect >= 5


@pytest.mark.parametrize("seed", range(20))
def test_killed_in_the_middle_then_down(seed: int) -> None:
    cloud = MemoryCloud(lag=3.0)
    kill_after(cloud, seed + 1)
    try:
        Run(cloud).to(running(3))
    except Killed:
        cloud.after_effect = None
    cloud.after_effect = None
    Run(cloud).to(ABSENT)
    assert cloud.resources() == []


def test_two_ups_at_once_end_with_one_cluster() -> None:
    cloud = MemoryCloud(lag=2.0)
    errors: list[BaseException] = []

    def up() -> None:
        try:
            Run(cloud).to(running(4))
        except BaseException as error:  # noqa: BLE001 - reported by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=up) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    outcome = Run(cloud).to(running(4))
    assert set(names(cloud).values()) == {1}
    assert len(names(cloud)) == 5
    assert len(outcome.observed.ports) == 5
    assert len(outcome.observed.networks) == 1
    Run(cloud).to(ABSENT)
    assert cloud.resources() == []
