"""What goes on for ever: machines that are built or deleted without end, that are not listed, or do not answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from engine import STOPPED, Run, running

from vcluster.clouds.memory import MemoryCloud
from vcluster.errors import PermanentError
from vcluster.events import StepStarted
from vcluster.model import ClusterRef, Health, MachineState, Observed


def stuck(cloud: MemoryCloud, name: str, *, building: bool = False) -> None:
    """Let a machine neither be built nor be gone, as on a compute host that died."""
    for entry in cloud.entries(cloud.ref("demo")):
        if entry.machine.name == name:
            entry.gone_at = float("inf") if building else 1e12
            if building:
                entry.machine, entry.active_at = replace(entry.machine, state=MachineState.BUILD), 1e12


def test_a_worker_that_is_built_for_ever_is_made_anew() -> None:
    cloud = MemoryCloud()
    old = {m.name: m.uuid for m in Run(cloud).to(running(2)).observed.machines}
    stuck(cloud, "cpu-1", building=True)
    new = {m.name: m.uuid for m in Run(cloud).to(running(2)).observed.machines}
    assert {name for name in old if old[name] != new[name]} == {"cpu-1"}


def test_a_worker_that_is_deleted_for_ever_is_gone_without() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(3))
    stuck(cloud, "cpu-1")
    outcome = Run(cloud).to(running(3, minimum=2))
    assert outcome.degraded == ("cpu-1",)
    with pytest.raises(PermanentError, match="cpu-1: it is still being deleted after"):
        Run(cloud).to(running(3))


@pytest.mark.parametrize("building", [False, True])
def test_a_stuck_worker_does_not_keep_a_cluster_on(*, building: bool) -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(2))
    stuck(cloud, "cpu-1", building=building)
    head = Run(cloud).to(STOPPED).observed.head
    assert head is not None
    assert head.state is MachineState.SHUTOFF


def hide(cloud: MemoryCloud, name: str, looks: int) -> None:
    """Let so many listings miss a machine, as a cell that is down does; its port stays in use."""
    real = cloud.observe

    def observe(ref: ClusterRef, since: Observed | None = None) -> Observed:
        nonlocal looks
        looks -= 1
        seen = real(ref, since)
        return seen if looks < 0 else replace(seen, machines=tuple(m for m in seen.machines if m.name != name))

    cloud.observe = observe  # type: ignore[method-assign]


def test_a_head_that_one_listing_misses_is_not_lost() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(2))
    hide(cloud, "head", 3)
    assert not Run(cloud).to(running(2)).changed


def test_a_head_that_is_not_listed_any_more_but_holds_its_port_ends_the_run() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(2))
    hide(cloud, "head", 10_000)
    run = Run(cloud)
    with pytest.raises(PermanentError, match="the cloud does not list the head, but its port is in use"):
        run.to(running(2))
    assert not [event for event in run.events if isinstance(event, StepStarted)]


@pytest.mark.parametrize("heard", [False, True])
def test_a_head_that_is_on_and_silent_is_reset_only_when_it_was_heard_before(*, heard: bool) -> None:
    """It may be this computer that cannot reach it, and people's jobs may run there."""
    cloud = MemoryCloud()
    Run(cloud).to(running(1))
    cloud.clock.sleep(86_400.0)
    if heard:
        cloud.kill("cpu-1")  # so that there is something to wait for
    run = Run(cloud)
    loop = run.loop(running(1))
    control = loop._view.control
    assert control is not None
    real, answers = control.health, 2 if heard else 0

    def health(observed: Observed) -> Mapping[str, Health]:
        nonlocal answers
        answers -= 1
        rebooted = cloud.calls.get("reboot_machine", 0)
        return real(observed) if answers >= 0 or rebooted else {}

    control.health = health  # type: ignore[method-assign]
    if heard:
        assert loop.run(7200).observed.health["head"] is Health.READY
        assert cloud.calls["reboot_machine"] == 1
        return
    with pytest.raises(PermanentError, match="cannot be reached from here") as caught:
        loop.run(7200)
    assert "vcluster stop demo" in caught.value.remedy
    assert "reboot_machine" not in cloud.calls
