"""A machine for which the cloud had no host is made anew in another zone, if there is one and the spec names none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from engine import Run, clean, fresh, running, whole
from lifecycle_kit import cluster, home, spec

from vcluster.attempts import Attempts
from vcluster.clouds.memory import Fault, FaultScript, MemoryCloud, Trouble
from vcluster.errors import CloudError, PermanentError, TemporaryError
from vcluster.model import ClusterRef, Health, Machine, MachineRequest, Part, VolumeRequest

__all__ = ["home"]


def asked_in(cloud: MemoryCloud) -> list[tuple[str, str]]:
    """From now on, what is made in which zone, in order."""
    asked: list[tuple[str, str]] = []
    machine, volume = cloud.create_machine, cloud.create_volume

    def create_machine(ref: ClusterRef, request: MachineRequest) -> Machine:
        asked.append((request.name, request.zone))
        return machine(ref, request)

    def create_volume(ref: ClusterRef, request: VolumeRequest) -> Part:
        asked.append((f"volume {request.name}", request.zone))
        return volume(ref, request)

    cloud.create_machine, cloud.create_volume = create_machine, create_volume  # type: ignore[method-assign]
    return asked


def test_a_machine_without_a_host_is_made_anew_in_another_zone() -> None:
    cloud = MemoryCloud(zone_names=("a", "b"), faults=FaultScript(once={"cpu-1": (Trouble.NO_HOST, 1.0)}))
    asked = asked_in(cloud)
    observed = Run(cloud).to(running(2)).observed
    assert set(observed.health.values()) == {Health.READY}
    assert sorted(asked) == [("cpu-1", ""), ("cpu-1", "b"), ("cpu-2", ""), ("head", "")]
    assert cloud.calls["zones"] == 1
    assert not [note for note in observed.notes if note.startswith("attempts")]


def test_its_volume_is_made_there_too() -> None:
    cloud = fresh(zone_names=("a", "b"), faults=FaultScript(once={"cpu-1": (Trouble.NO_HOST, 1.0)}))
    asked = asked_in(cloud)
    Run(cloud).to(whole(cloud, 1))
    assert [each for each in asked if "cpu-1" in each[0]] == [
        ("volume cpu-1", ""),
        ("cpu-1", ""),
        ("volume cpu-1", "b"),
        ("cpu-1", "b"),
    ]
    clean(cloud)


def test_each_try_is_in_another_zone_and_the_head_too_may_move() -> None:
    cloud = MemoryCloud(zone_names=("a", "b", "c"), faults=FaultScript(full={"", "b"}))
    asked = asked_in(cloud)
    observed = Run(cloud).to(running(1)).observed
    assert set(observed.health.values()) == {Health.READY}
    for name in ("head", "cpu-1"):
        assert [zone for who, zone in asked if who == name] == ["", "b", "c"]


def test_a_later_run_goes_on_where_the_killed_one_was() -> None:
    cloud = MemoryCloud(zone_names=("a", "b", "c"), faults=FaultScript(once={"cpu-1": (Trouble.NO_HOST, 1.0)}))
    real, asked = cloud.delete_machine, asked_in(cloud)

    def delete(ref: ClusterRef, uuid: str) -> None:
        real(ref, uuid)
        raise KeyboardInterrupt

    cloud.delete_machine = delete  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        Run(cloud).to(running(1))
    cloud.delete_machine = real  # type: ignore[method-assign]
    Run(cloud).to(running(1))
    assert [zone for who, zone in asked if who == "cpu-1"] == ["", "b"]


@pytest.mark.parametrize("trouble", [Trouble.ERROR, Trouble.DIES, Trouble.NEVER_READY])
def test_what_failed_otherwise_stays_where_it_was_and_nobody_is_asked(trouble: Trouble) -> None:
    cloud = MemoryCloud(zone_names=("a", "b"), faults=FaultScript(once={"cpu-1": (trouble, 1.0)}))
    asked = asked_in(cloud)
    Run(cloud).to(running(1))
    assert {zone for _, zone in asked} == {""}
    assert "zones" not in cloud.calls


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"zone_names": ("nova",)},
        {"zone_names": ("a", "b"), "faults": {("zones", ""): Fault(error=PermanentError("not for you"))}},
        {"zone_names": ("a", "b"), "faults": {("zones", ""): Fault(error=TemporaryError("weather"))}},
    ],
    ids=["none", "one", "forbidden", "weather"],
)
def test_where_there_is_no_other_zone_it_is_asked_for_again_within_the_budget(more: dict[str, object]) -> None:
    script = FaultScript(full={""}, subjects=more.pop("faults", {}))  # type: ignore[arg-type]
    cloud = MemoryCloud(faults=script, **more)  # type: ignore[arg-type]
    asked = asked_in(cloud)
    with pytest.raises(CloudError, match="No valid host"):
        Run(cloud).to(running(0))
    assert asked == [("head", "")] * 3


def test_a_zone_that_the_spec_names_stays_the_one() -> None:
    cloud = MemoryCloud(zone_names=("a", "b"), faults=FaultScript(full={"a"}))
    asked, goal = asked_in(cloud), running(1)
    goal = replace(goal, slots=tuple(replace(slot, zone="a" if slot.name == "cpu-1" else "") for slot in goal.slots))
    with pytest.raises(PermanentError, match="No valid host"):
        Run(cloud).to(goal)
    assert [zone for who, zone in asked if who == "cpu-1"] == ["a"] * 3
    assert "zones" not in cloud.calls


def test_a_machine_that_moved_is_as_the_spec_says(home: Path) -> None:
    cloud = MemoryCloud(parts=True, zone_names=("a", "b"), faults=FaultScript(once={"cpu-1": (Trouble.NO_HOST, 1.0)}))
    demo = cluster(home, cloud, spec())
    assert demo.up().status.state == "ready"
    assert demo.plan().empty
    assert not demo.up().changed
    assert cloud.calls["zones"] == 1


def test_the_note_says_so_from_then_on_and_gets_no_longer() -> None:
    machine = Run(MemoryCloud()).to(running(1)).observed.machines[1]
    plain = Attempts({}, 2).another("cpu-1", machine)
    noted = Attempts({}, 2).another("cpu-1", machine, crowded=True)
    assert [len(word) for word in noted.values()] == [len(word) for word in plain.values()]
    again = replace(machine, started=machine.started + 60)
    later = Attempts(Attempts(noted, 2).another("cpu-1", again), 2)
    assert later.made("cpu-1") == 2
    assert later.crowded("cpu-1")
    assert later.counted("cpu-1", again)
    assert not Attempts(plain, 2).crowded("cpu-1")
