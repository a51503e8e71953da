"""What a cloud says that it does, and does for ever: servers that are deleted."""

from __future__ import annotations

import pytest
from engine import ABSENT, SHELVED, STOPPED, Run, fresh, running, whole

from vcluster.actions import Goal
from vcluster.clouds.memory import MemoryCloud
from vcluster.errors import DeadlineError
from vcluster.model import ClusterRef
from vcluster.plan_limits import ASK_AGAIN

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
    Run(cloud).to(running(2))
    (entry,) = [e for e in cloud.entries(cloud.ref("demo")) if e.machine.name == "cpu-1"]
    entry.gone_at = NEVER
    loop = Run(cloud).loop(running(3))
    loop.plan(loop.look())
    cloud.clock.sleep(ASK_AGAIN + 10)
    first = loop.plan(loop.look()).first_wave()
    assert [str(action) for action in first] == ["create ports cpu-3"]
