"""A head that is one of several; what the scheduler is told of machines that go; who joins what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from engine import SHELVED, STOPPED, Run, running, steps

from vcluster.actions import Goal
from vcluster.clouds.memory import MemoryCloud
from vcluster.clouds.memory_control import MemoryControl
from vcluster.errors import DeadlineError, PermanentError
from vcluster.model import MachineState, Network, Port, Slot

PEERS = frozenset({"cpu-1", "cpu-2"})


def anew(old: dict[str, str], new: dict[str, str]) -> set[str]:
    """The names of machines that were made anew, of uuids by name."""
    return {name for name in old if old[name] != new[name]}


def test_a_head_whose_peers_are_on_is_made_anew_alone_and_joins_them() -> None:
    cloud = MemoryCloud()
    old = {m.name: m.uuid for m in Run(cloud).to(running(3, peers=PEERS)).observed.machines}
    cloud.lose("head")
    loop = Run(cloud).loop(running(3, peers=PEERS))
    assert not any(action.destroys_data for action in loop.plan(loop.look()).actions)
    new = {m.name: m.uuid for m in loop.run(7200).observed.machines}
    assert anew(old, new) == {"head"}


def test_a_head_that_lost_most_of_its_peers_too_is_rebuilt() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(3, peers=PEERS))
    cloud.lose("head")
    cloud.lose("cpu-2")
    loop = Run(cloud).loop(running(3, peers=PEERS))
    assert any(action.destroys_data for action in loop.plan(loop.look()).actions)


def test_a_head_whose_peers_are_off_only_has_them_woken() -> None:
    cloud = MemoryCloud()
    old = {m.name: m.uuid for m in Run(cloud).to(running(2, peers=PEERS)).observed.machines}
    Run(cloud).to(STOPPED)
    cloud.lose("head")
    loop = Run(cloud).loop(running(2, peers=PEERS))
    assert not any(action.destroys_data for action in loop.plan(loop.look()).actions)
    new = {m.name: m.uuid for m in loop.run(7200).observed.machines}
    assert anew(old, new) == {"head"}


def test_a_head_is_not_replaced_beside_a_peer_that_is_on_and_never_joined() -> None:
    cloud = MemoryCloud()
    ref = cloud.ref("demo")
    old = {m.name: m.uuid for m in Run(cloud).to(running(2, peers=PEERS)).observed.machines}
    (peer,) = (entry for entry in cloud.entries(ref) if entry.machine.name == "cpu-2")
    peer.ready_after = float("inf")
    run = Run(cloud)
    with pytest.raises(DeadlineError, match="most of the other servers to be ready, before head is"):
        run.to(running(2, peers=PEERS, replace=frozenset({old["head"]})), timeout=60.0)
    assert {m.uuid for m in cloud.observe(ref).machines} == set(old.values())
    peer.ready_after = 0.0
    new = {m.name: m.uuid for m in run.to(running(2, peers=PEERS, replace=frozenset({old["head"]}))).observed.machines}
    assert anew(old, new) == {"head"}


def test_nor_is_a_peer_beside_another_that_never_joined_but_one_that_did_not_itself_is() -> None:
    cloud = MemoryCloud()
    ref = cloud.ref("demo")
    old = {m.name: m.uuid for m in Run(cloud).to(running(2, peers=PEERS)).observed.machines}
    (broken,) = (entry for entry in cloud.entries(ref) if entry.machine.name == "cpu-2")
    broken.ready_after = float("inf")
    with pytest.raises(DeadlineError, match="most of the other servers to be ready, before cpu-1 is"):
        Run(cloud).to(running(2, peers=PEERS, replace=frozenset({old["cpu-1"]})), timeout=60.0)
    assert {m.uuid for m in cloud.observe(ref).machines} == set(old.values())
    new = {
        m.name: m.uuid
        for m in Run(cloud).to(running(2, peers=PEERS, replace=frozenset({old["cpu-2"]}))).observed.machines
    }
    assert anew(old, new) == {"cpu-2"}


def test_a_head_that_says_nothing_is_replaced_beside_peers_that_are_on() -> None:
    cloud = MemoryCloud()
    old = {m.name: m.uuid for m in Run(cloud).to(running(2, peers=PEERS)).observed.machines}
    cloud.entries(cloud.ref("demo"))[0].ready_after = float("inf")
    goal = running(2, peers=PEERS, replace=frozenset({old["head"]}))
    new = {m.name: m.uuid for m in Run(cloud).to(goal).observed.machines}
    assert anew(old, new) == {"head"}


def servers(cloud: MemoryCloud) -> Goal:
    """A head, two of its kind, and an agent."""
    goal = running(3, peers=PEERS)
    places = tuple(replace(slot, group="head") if slot.name in PEERS else slot for slot in goal.slots)
    return replace(goal, slots=places, minimum={"head": 1, "cpu": 1})


@pytest.mark.parametrize("stopped", [False, True])
def test_all_servers_go_on_the_shelf_and_only_agents_go(*, stopped: bool) -> None:
    cloud = MemoryCloud()
    old = {m.name: m.uuid for m in Run(cloud).to(servers(cloud)).observed.machines}
    if stopped:
        Run(cloud).to(STOPPED)
    on_shelf = Run(cloud).to(SHELVED).observed.machines
    assert {m.name: m.state for m in on_shelf} == dict.fromkeys(["head", *PEERS], MachineState.SHELVED)
    assert not Run(cloud).to(SHELVED).changed
    new = {m.name: m.uuid for m in Run(cloud).to(servers(cloud)).observed.machines}
    assert anew(old, new) == {"cpu-3"}


def test_a_server_in_error_goes_when_the_others_are_most_and_else_nothing_is_shelved() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(servers(cloud))
    cloud.kill("cpu-1")
    left = Run(cloud).to(SHELVED).observed.machines
    assert {m.name: m.state for m in left} == dict.fromkeys(["head", "cpu-2"], MachineState.SHELVED)
    other = MemoryCloud()
    Run(other).to(servers(other))
    for name in PEERS:
        other.kill(name)
    with pytest.raises(PermanentError, match=r"cpu-\d is in ERROR and cannot be shelved"):
        Run(other).to(SHELVED)
    assert {m.name for m in other.observe(other.ref("demo")).machines} > PEERS


def test_a_head_with_peers_can_be_replaced() -> None:
    cloud = MemoryCloud()
    old = {m.name: m.uuid for m in Run(cloud).to(running(2, peers=PEERS)).observed.machines}
    run = Run(cloud)
    new = {m.name: m.uuid for m in run.to(running(2, peers=PEERS, replace=frozenset({old["head"]}))).observed.machines}
    assert anew(old, new) == {"head"}
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
