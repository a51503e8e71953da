"""A head that is one of several; what the scheduler is told of machines that go; who joins what is there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from engine import ABSENT, SHELVED, STOPPED, Run, entry, fresh, one_of_each, running, steps, volumes, whole

from vcluster.actions import NOTE_ATTEMPTS, Goal, Verb
from vcluster.clouds.memory import FaultScript, MemoryCloud, Trouble
from vcluster.clouds.memory_control import MemoryControl
from vcluster.clouds.memory_store import Entry
from vcluster.errors import ConflictError, DeadlineError, PermanentError
from vcluster.model import Health, MachineState, Network, PartKind, Port, Slot
from vcluster.plan_rest import plan_rest
from vcluster.plan_running import Running

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


def one_never_joined() -> tuple[MemoryCloud, Run, dict[str, str], Entry]:
    """Three servers that are on, of which cpu-2 is never ready: with a run, their uuids by name, and that one."""
    cloud = MemoryCloud()
    old = {m.name: m.uuid for m in Run(cloud).to(running(2, peers=PEERS)).observed.machines}
    peer = entry(cloud, "cpu-2")
    peer.ready_after = float("inf")
    return cloud, Run(cloud), old, peer


def waits(cloud: MemoryCloud, run: Run, old: dict[str, str], name: str) -> None:
    """See that a server is not made anew."""
    with pytest.raises(DeadlineError, match=f"most of the other servers to be ready, before {name} is"):
        run.to(running(2, peers=PEERS, replace=frozenset({old[name]})), timeout=60.0)
    assert {m.uuid for m in cloud.observe(cloud.ref("demo")).machines} == set(old.values())


def test_a_head_is_not_replaced_beside_a_peer_that_is_on_and_never_joined() -> None:
    cloud, run, old, peer = one_never_joined()
    waits(cloud, run, old, "head")
    peer.ready_after = 0.0
    new = {m.name: m.uuid for m in run.to(running(2, peers=PEERS, replace=frozenset({old["head"]}))).observed.machines}
    assert anew(old, new) == {"head"}


def test_nor_is_a_peer_beside_another_that_never_joined_but_one_that_did_not_itself_is() -> None:
    cloud, run, old, _ = one_never_joined()
    waits(cloud, run, old, "cpu-1")
    new = {m.name: m.uuid for m in run.to(running(2, peers=PEERS, replace=frozenset({old["cpu-2"]}))).observed.machines}
    assert anew(old, new) == {"cpu-2"}


def test_a_head_that_says_nothing_is_replaced_beside_peers_that_are_on() -> None:
    cloud = MemoryCloud()
    old = {m.name: m.uuid for m in Run(cloud).to(running(2, peers=PEERS)).observed.machines}
    entry(cloud, "head").ready_after = float("inf")
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
    left = other.observe(other.ref("demo")).machines
    assert {m.name: m.state for m in left} == {
        "head": MachineState.SHELVED,
        **dict.fromkeys(PEERS, MachineState.ERROR),
    }


def test_a_head_in_error_keeps_its_peers_from_no_shelf() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(servers(cloud))
    cloud.kill("head")
    with pytest.raises(PermanentError, match="the head is in ERROR and cannot be shelved"):
        Run(cloud).to(SHELVED)
    states = {m.name: m.state for m in cloud.observe(cloud.ref("demo")).machines}
    assert states == {"head": MachineState.ERROR, **dict.fromkeys(PEERS, MachineState.SHELVED)}


@pytest.mark.parametrize("state", [MachineState.DELETING, MachineState.BUILD])
def test_a_server_that_is_deleted_or_built_for_ever_keeps_nothing_from_the_shelf(state: MachineState) -> None:
    cloud = MemoryCloud()
    seen = Run(cloud).to(servers(cloud)).observed
    hangs = next(m for m in seen.machines if m.name == "cpu-1")
    machines = tuple(replace(m, state=state) if m is hangs else m for m in seen.machines)
    now = cloud.now() + 5000.0
    goal = replace(SHELVED, boot_timeout=300.0, doubted={hangs.uuid: now - 4000.0})
    plan = plan_rest(goal, replace(seen, machines=machines, health={}), now)
    assert plan.waiting == ()
    goes = {"delete machine cpu-1"} if state is MachineState.BUILD else set()  # the other was told so long ago
    wanted = {"delete machine cpu-3", "shelve machine head", "shelve machine cpu-2", *goes}
    assert {f"{action.title} {action.subject}" for action in plan.actions} == wanted


def test_servers_stay_on_until_the_jobs_have_ended() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(servers(cloud))
    cloud.occupy("cpu-3", 1000.0)
    began, run = cloud.now(), Run(cloud)
    run.to(replace(STOPPED, job_patience=3000.0))
    assert cloud.now() - began >= 1000.0
    stops = [step.split()[-1] for step in steps(run.events) if step.startswith("stop")]
    assert stops[0] == "cpu-3"
    assert sorted(stops[1:]) == ["cpu-1", "cpu-2", "head"]


# Their database ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["lost", "replaced"])
def test_a_head_with_peers_has_another_volume(how: str) -> None:
    cloud = fresh()
    old = {m.name: m.uuid for m in Run(cloud).to(whole(cloud, 2, peers=PEERS)).observed.machines}
    goal = whole(cloud, 2, peers=PEERS)
    if how == "lost":
        cloud.lose("head")
    else:
        goal = replace(goal, replace=frozenset({old["head"]}))
    run = Run(cloud)
    observed = run.to(goal).observed
    assert anew(old, {m.name: m.uuid for m in observed.machines}) == {"head"}
    assert steps(run.events).count("create volume head") == 1
    assert volumes(cloud) == {name: name for name in ("head", *PEERS)}
    one_of_each(observed)


def test_a_volume_that_an_earlier_head_left_behind_is_booted_by_no_other() -> None:
    cloud = fresh()
    Run(cloud).to(whole(cloud, 2, peers=PEERS))
    entry(cloud, "head").tied = False
    (used,) = (p.uuid for p in cloud.observe(cloud.ref("demo")).parts if (p.kind, p.name) == (PartKind.VOLUME, "head"))
    cloud.lose("head")
    observed = Run(cloud).loop(whole(cloud, 2, peers=PEERS)).run(7200).observed
    assert used not in {part.uuid for part in observed.parts}
    assert volumes(cloud) == {name: name for name in ("head", *PEERS)}


@pytest.mark.parametrize("lost", [PEERS, {"head", *PEERS}])
def test_servers_that_fail_together_are_started_again_and_keep_their_disks(lost: set[str]) -> None:
    cloud = MemoryCloud()
    old = {m.name: m.uuid for m in Run(cloud).to(servers(cloud)).observed.machines}
    for name in lost:
        cloud.kill(name)
    run = Run(cloud)
    new = {m.name: m.uuid for m in run.to(servers(cloud)).observed.machines}
    assert new == old
    assert {step for step in steps(run.events) if "machine" in step} == {f"reboot machine {name}" for name in lost}


def test_a_server_that_fails_alone_is_made_anew() -> None:
    cloud = MemoryCloud()
    old = {m.name: m.uuid for m in Run(cloud).to(servers(cloud)).observed.machines}
    cloud.kill("cpu-1")
    mended = Run(cloud).to(servers(cloud)).observed.machines
    assert anew(old, {m.name: m.uuid for m in mended}) == {"cpu-1"}


def test_of_servers_that_no_reboot_helps_a_person_is_asked_unless_they_never_ran() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(servers(cloud))
    seen = replace(
        cloud.observe(cloud.ref("demo")),
        health={"head": Health.READY, "cpu-1": Health.BOOTING, "cpu-2": Health.BOOTING, "cpu-3": Health.READY},
    )
    machines = tuple(
        replace(m, state=MachineState.ERROR, fault="a disk") if m.name in PEERS else m for m in seen.machines
    )
    for count, verb in ((0, Verb.REBOOT), (9, Verb.DELETE_MACHINE)):
        notes = {**seen.notes, **{f"{NOTE_ATTEMPTS}{name}": f"{count} 0000@1" for name in PEERS}}
        plan = Running(servers(cloud), replace(seen, machines=machines, notes=notes), cloud.now()).plan()
        assert {(action.verb, action.destroys_data) for action in plan.actions} == {(verb, bool(count))}
        assert {name for action in plan.actions for name in action.names} == PEERS
    fault = "No valid host was found."
    machines = tuple(replace(m, fault=fault) if m.name == "cpu-1" else m for m in machines)
    plan = Running(servers(cloud), replace(seen, machines=machines), cloud.now()).plan()
    told = {(action.verb, action.names) for action in plan.actions}
    assert told == {(Verb.DELETE_MACHINE, ("cpu-1",)), (Verb.REBOOT, ("cpu-2",))}


@pytest.mark.parametrize(("name", "stays"), [("cpu-1", True), ("head", True), ("cpu-3", False)])
def test_a_server_that_its_database_does_not_let_go_stays(
    monkeypatch: pytest.MonkeyPatch, name: str, *, stays: bool
) -> None:
    def release(self: MemoryControl, names: Sequence[str]) -> None:
        raise ConflictError(f"{names[0]} does not leave the database")

    cloud = MemoryCloud()
    old = {m.name: m.uuid for m in Run(cloud).to(servers(cloud)).observed.machines}
    monkeypatch.setattr(MemoryControl, "release", release)
    goal = replace(servers(cloud), replace=frozenset({old[name]}))
    if stays:
        with pytest.raises(ConflictError, match="does not leave the database") as caught:
            Run(cloud).to(goal)
        assert "`vcluster restore`" in caught.value.remedy
    else:
        Run(cloud).to(goal)
    new = {m.name: m.uuid for m in cloud.observe(cloud.ref("demo")).machines}
    assert anew(old, new) == (set() if stays else {name})


def test_on_the_shelf_too_a_server_goes_only_where_its_database_lets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def release(self: MemoryControl, names: Sequence[str]) -> None:
        if names[0] in PEERS:
            raise ConflictError(f"{names[0]} does not leave the database")

    cloud = MemoryCloud()
    old = {m.name: m.uuid for m in Run(cloud).to(servers(cloud)).observed.machines}
    cloud.kill("cpu-1")
    monkeypatch.setattr(MemoryControl, "release", release)
    with pytest.raises(ConflictError, match="cpu-1 does not leave the database"):
        Run(cloud).to(SHELVED)
    assert old["cpu-1"] in {m.uuid for m in cloud.observe(cloud.ref("demo")).machines}
    assert NOTE_ATTEMPTS + "cpu-1" not in cloud.observe(cloud.ref("demo")).notes
    Run(cloud).to(ABSENT)


def test_what_is_refused_is_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    def release(self: MemoryControl, names: Sequence[str]) -> None:
        raise ConflictError(f"{names[0]} does not leave the database")

    cloud = MemoryCloud()
    Run(cloud).to(servers(cloud))
    cloud.kill("cpu-1")
    monkeypatch.setattr(MemoryControl, "release", release)
    with pytest.raises(ConflictError, match="does not leave the database"):
        Run(cloud).to(servers(cloud))
    assert NOTE_ATTEMPTS + "cpu-1" not in cloud.observe(cloud.ref("demo")).notes


def test_before_it_was_ever_ready_a_cluster_has_no_database_that_could_need_a_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def release(self: MemoryControl, names: Sequence[str]) -> None:
        raise ConflictError(f"{names[0]} does not leave the database")

    monkeypatch.setattr(MemoryControl, "release", release)
    cloud = MemoryCloud(faults=FaultScript(once={"cpu-1": (Trouble.ERROR, 1.0)}))
    run = Run(cloud)
    run.to(servers(cloud))
    assert "delete machine cpu-1" in steps(run.events)


def test_a_head_that_is_left_alone_fails_with_the_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    why = "Kubernetes does not answer on the head yet; `vcluster restore` helps"
    cloud = MemoryCloud()
    Run(cloud).to(servers(cloud))
    for name in PEERS:
        cloud.lose(name)
    monkeypatch.setattr(MemoryControl, "silence", why)
    monkeypatch.setattr(
        MemoryControl, "health", lambda self, seen: {m.name: Health.BOOTING for m in seen.machines if m.address}
    )
    with pytest.raises(PermanentError, match=f"the head failed: no job ran on it .*{re.escape(why)}"):
        Run(cloud).to(servers(cloud))
    assert "head" in {m.name for m in cloud.observe(cloud.ref("demo")).machines}


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
    assert sorted(told) == [("cpu-1", False), ("cpu-2", True), ("head", False)]
