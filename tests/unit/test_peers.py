"""A head that is one of several; what the scheduler is told of machines that go; who joins what is there."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from engine import Run, running, steps

from vcluster.clouds.memory import MemoryCloud
from vcluster.clouds.memory_control import MemoryControl
from vcluster.errors import DeadlineError
from vcluster.model import Network, Port, Slot

PEERS = frozenset({"cpu-1", "cpu-2"})


def test_a_head_whose_peers_are_on_is_made_anew_alone_and_joins_them() -> None:
    cloud = MemoryCloud()
    old = {m.name: m.uuid for m in Run(cloud).to(running(3, peers=PEERS)).observed.machines}
    cloud.lose("head")
    loop = Run(cloud).loop(running(3, peers=PEERS))
    assert not any(action.destroys_data for action in loop.plan(loop.look()).actions)
    new = {m.name: m.uuid for m in loop.run(7200).observed.machines}
    assert {name for name in old if old[name] != new[name]} == {"head"}


def test_a_head_that_lost_most_of_its_peers_too_is_rebuilt() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(3, peers=PEERS))
    cloud.lose("head")
    cloud.lose("cpu-2")
    loop = Run(cloud).loop(running(3, peers=PEERS))
    assert any(action.destroys_data for action in loop.plan(loop.look()).actions)


def test_a_head_with_peers_can_be_replaced() -> None:
    cloud = MemoryCloud()
    old = {m.name: m.uuid for m in Run(cloud).to(running(2, peers=PEERS)).observed.machines}
    run = Run(cloud)
    new = {m.name: m.uuid for m in run.to(running(2, peers=PEERS, replace=frozenset({old["head"]}))).observed.machines}
    assert {name for name in old if old[name] != new[name]} == {"head"}
    assert steps(run.events)[:2] == ["drain worker head", "delete machine head"]


def test_the_scheduler_forgets_a_machine_before_it_goes_and_before_another_takes_its_place() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(2))
    cloud.released.clear()
    Run(cloud).to(running(1, most=2))
    assert cloud.released == ["cpu-2"]
    cloud.lose("cpu-1")
    Run(cloud).to(running(1, most=2))
    assert cloud.released == ["cpu-2", "cpu-1"]


def test_a_scheduler_that_is_too_slow_to_forget_keeps_nothing_from_being_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def release(self: MemoryControl, names: Sequence[str]) -> None:
        raise DeadlineError("the head did not answer within 120 s")

    cloud = MemoryCloud()
    Run(cloud).to(running(2))
    monkeypatch.setattr(MemoryControl, "release", release)
    assert Run(cloud).to(running(1, most=2)).changed
    assert [m.name for m in cloud.observe(cloud.ref("demo")).workers()] == ["cpu-1"]


def test_machines_that_join_a_cluster_are_rendered_as_such() -> None:
    cloud = MemoryCloud()
    told: list[tuple[str, bool]] = []

    def render(slot: Slot, network: Network, ports: dict[str, Port], founded: bool) -> str:
        told.append((slot.name, founded))
        return "#cloud-config\n"

    for workers in (1, 2):
        loop = Run(cloud).loop(running(workers, most=2))
        loop._acts._render = render
        loop.run(7200)
    assert told == [("head", False), ("cpu-1", False), ("cpu-2", True)]
