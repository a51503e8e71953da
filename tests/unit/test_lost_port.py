"""A worker's port that somebody deleted: its address went with it, and the head has that from its first boot."""

from __future__ import annotations

import pytest
from engine import ABSENT, Run, clean, fresh, running, steps, whole

from vcluster.clouds.memory import MemoryCloud
from vcluster.errors import PermanentError
from vcluster.events import Log
from vcluster.model import Health, Observed
from vcluster.plan_limits import PORT_LOST


def without_port(cloud: MemoryCloud, *names: str) -> None:
    """Let somebody have deleted these workers, ports and all."""
    ref = cloud.ref("demo")
    cloud.clock.sleep(3600.0)
    for name in names:
        cloud.lose(name)
    cloud.delete_ports(ref, [port.uuid for port in cloud.observe(ref).ports if port.name in names])


@pytest.mark.parametrize("parts", [False, True])
def test_a_worker_whose_port_was_deleted_is_said_and_not_booted_in_vain(*, parts: bool) -> None:
    cloud = fresh() if parts else MemoryCloud()

    def up(minimum: int = 2) -> Run:
        run = Run(cloud)
        goal = whole(cloud, 2, minimum=minimum) if parts else running(2, minimum=minimum)
        assert run.to(goal).degraded == (("cpu-1",) if minimum < 2 else ())
        return run

    up()
    without_port(cloud, "cpu-1")
    for _ in range(2):
        with pytest.raises(PermanentError, match=f"1 of 2 failed: cpu-1: {PORT_LOST}") as caught:
            up()
        assert "vcluster down demo" in caught.value.remedy
    # Where fewer are enough its port is made, as all machines are told of all, and later runs know it for what it is.
    for _ in range(2):
        run = up(minimum=1)
        assert not any("machine cpu-1" in step for step in steps(run.events))
        said = [event.message for event in run.events if isinstance(event, Log)]
        assert said == [f"it goes on without cpu-1: {PORT_LOST}"]
    with pytest.raises(PermanentError, match=PORT_LOST):
        up()
    clean(cloud)
    assert set(cloud.observe(cloud.ref("demo")).ports) == set()
    Run(cloud).to(whole(cloud, 2) if parts else running(2))


def test_a_cluster_whose_head_is_made_anew_has_new_addresses_for_all() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(2))
    without_port(cloud, "cpu-1")
    cloud.lose("head")
    observed = Run(cloud).to(running(2)).observed
    assert set(observed.health.values()) == {Health.READY}
    assert len(observed.health) == 3


def test_a_port_of_a_place_that_nobody_wants_keeps_nobody() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(2, most=3))
    without_port(cloud, "cpu-3")
    assert Run(cloud).to(running(2, most=3)).degraded == ()
    with pytest.raises(PermanentError, match=f"cpu-3: {PORT_LOST}"):
        Run(cloud).to(running(3))
    Run(cloud).to(ABSENT)


def test_a_port_that_was_there_before_the_head_was_ready_is_a_good_one() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(2))
    cloud.lose("cpu-1")
    seen: Observed = Run(cloud).to(running(2)).observed
    assert set(seen.health.values()) == {Health.READY}
