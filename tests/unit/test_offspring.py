"""What a cluster's own software made on the cloud (a Kubernetes' load balancers, volumes) goes with it, and only it."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine import ABSENT, SHELVED, STOPPED, Run, clean, fresh, running, steps, whole

from vcluster import Cluster, ClusterSpec, clusters, sweep
from vcluster.actions import Goal, Power
from vcluster.clouds.memory import Fault, FaultScript, MemoryCloud
from vcluster.errors import ConflictError, PermanentError, TemporaryError
from vcluster.events import Event, Log
from vcluster.model import ClusterRef, Part, PartKind, Role
from vcluster.offspring import LOOKS
from vcluster.plan import plan
from vcluster.reconcile_left import STAYS
from vcluster.views import PlanView

BALANCER = "delete load balancer default/web"


def born(cloud: MemoryCloud, name: str = "demo") -> dict[str, Part]:
    """What a Kubernetes on this cluster made: a service of its users', and two claims, one of them in use."""
    ref = cloud.ref(name)
    machines = {m.name: m.uuid for m in cloud.observe(ref).machines}
    made = [
        cloud.bear(ref, PartKind.LOAD_BALANCER, "default/web"),
        cloud.bear(ref, PartKind.FLOATING_IP, "default/web"),
        cloud.bear(ref, PartKind.SECURITY_GROUP, "default/web"),
        cloud.bear(ref, PartKind.VOLUME, "default/data", used_by=machines.get("cpu-1", "")),
        cloud.bear(ref, PartKind.VOLUME, "default/old"),
    ]
    made.append(cloud.bear(ref, PartKind.SNAPSHOT, "default/old-1", used_by=made[-1].uuid))
    return {f"{part.kind} {part.name}": part for part in made}


def uuids(cloud: MemoryCloud, name: str = "demo") -> set[str]:
    return {part.uuid for part in cloud.offspring(cloud.ref(name))}


@pytest.mark.parametrize("parts", [True, False])
def test_down_takes_it_along_in_the_order_that_clouds_allow(*, parts: bool) -> None:
    cloud = fresh() if parts else MemoryCloud()
    Run(cloud).to(whole(cloud, 2) if parts else running(2))
    born(cloud)
    run = Run(cloud)
    run.to(ABSENT, pool=1)  # what goes in one wave begins in any order
    assert cloud.resources() == []
    assert cloud.store.notes == {}
    done = steps(run.events)
    order = [BALANCER, "delete floating ip default/web", "delete machine head", "delete volume default/data"]
    assert [step for step in done if step in order] == order
    assert done.index("delete snapshot default/old-1") < done.index("delete volume default/old")
    assert done.index("delete machine cpu-2") < done.index("delete volume default/old")
    assert done.index("delete volume default/data") < done.index("delete security group default/web")


def test_no_machine_goes_before_the_load_balancer_is_gone() -> None:
    cloud = fresh(balancer_time=60.0)
    Run(cloud).to(whole(cloud, 1))
    (balancer,) = (part for key, part in born(cloud).items() if key.startswith("load"))
    there, real = list[bool](), cloud.delete_machine

    def delete(ref: ClusterRef, uuid: str) -> None:
        there.append(balancer.uuid in uuids(cloud))
        real(ref, uuid)

    cloud.delete_machine = delete  # type: ignore[method-assign]
    clean(cloud)
    assert there
    assert not any(there)


@pytest.mark.parametrize("goal", [None, STOPPED, SHELVED], ids=["up", "stop", "shelve"])
def test_nobody_else_looks_at_it_or_touches_it(goal: Goal | None) -> None:
    cloud = fresh()
    there = whole(cloud, 2)
    Run(cloud).to(there)
    born(cloud)
    before = uuids(cloud)
    asked = cloud.calls["offspring"]
    run = Run(cloud)
    run.to(goal or there)
    assert cloud.calls["offspring"] == asked
    assert uuids(cloud) == before
    ref = cloud.ref("demo")
    told = cloud.observe(ref)
    assert not any(part.maker for part in told.parts)
    # Nor would a plan, where a cloud showed it all the same.
    shown = Run(cloud).loop(there).look()
    shown = type(shown)(shown.networks, shown.ports, shown.machines, parts=(*shown.parts, *cloud.offspring(ref)))
    doomed = {uuid for action in plan(goal or there, shown, ref, cloud.now()).actions for uuid in action.uuids}
    assert not doomed & before


def test_a_neighbours_stays() -> None:
    cloud = fresh()
    for name in ("demo", "demo2"):
        Run(cloud, name).to(whole(cloud, 1, name=name))
        born(cloud, name)
    theirs, tags = uuids(cloud, "demo2"), set(cloud.resources())
    Run(cloud).to(ABSENT)
    assert uuids(cloud, "demo2") == theirs
    assert set(cloud.resources()) == {tag for tag in tags if cloud.ref("demo2").owns(tag)}
    for part in cloud.offspring(cloud.ref("demo2")):
        with pytest.raises(PermanentError, match="is not of cluster demo"):
            cloud.delete_part(cloud.ref("demo"), part)


# What a person sees -------------------------------------------------------------------------------------------------

SPEC = {
    "name": "demo",
    "cloud": "memory",
    "scheduler": "k3s",
    "head": {"root_disk": "20G"},
    "workers": [{"name": "cpu", "count": 1}],
}


@pytest.fixture
def cloud() -> MemoryCloud:
    return MemoryCloud(parts=True)


@pytest.fixture
def demo(cloud: MemoryCloud, tmp_path: Path) -> Cluster:
    made = Cluster(ClusterSpec.model_validate(SPEC), cloud=cloud, home=tmp_path)
    made.up()
    return made


def test_all_of_it_is_shown_by_uuid_before_anything_goes(cloud: MemoryCloud, demo: Cluster) -> None:
    made = born(cloud)
    shown: list[PlanView] = []

    def no(view: PlanView) -> bool:
        shown.append(view)
        return False

    with pytest.raises(Exception, match="nothing was changed"):
        demo.down(confirm=no)
    lines = {action.uuid: action for action in shown[0].actions}
    assert {part.uuid for part in made.values()} <= set(lines)
    for key, part in made.items():
        assert f"{lines[part.uuid].kind} {lines[part.uuid].name}".replace(" ", "-") == key.replace(" ", "-")
        assert lines[part.uuid].detail == "made by Kubernetes for this cluster"
        assert lines[part.uuid].destroys_data == (part.kind in (PartKind.VOLUME, PartKind.SNAPSHOT))
    assert uuids(cloud) == {part.uuid for part in made.values()}


def test_volumes_and_snapshots_stay_with_keep_volumes(cloud: MemoryCloud, tmp_path: Path, demo: Cluster) -> None:
    made = born(cloud)
    demo.down(keep_volumes=True)
    left = {key: made[key].uuid for key in ("volume default/data", "volume default/old", "snapshot default/old-1")}
    assert uuids(cloud) == set(left.values())
    assert all(part.kept for part in cloud.offspring(demo.ref))
    assert demo.status().state == "absent"
    said: list[Event] = []
    Cluster("demo", cloud=cloud, home=tmp_path, on_event=said.append).down()
    assert uuids(cloud) == set(left.values())


def test_a_head_without_a_volume_keeps_those_of_the_software_alone(cloud: MemoryCloud, tmp_path: Path) -> None:
    demo = Cluster(ClusterSpec.model_validate({**SPEC, "head": {}}), cloud=cloud, home=tmp_path)
    demo.up()
    made, said = born(cloud), list[Event]()
    Cluster("demo", cloud=cloud, home=tmp_path, on_event=said.append).down(keep_volumes=True)
    assert len(uuids(cloud)) == 3
    kept = [event.message for event in said if isinstance(event, Log) and event.message.startswith("kept")]
    assert f"kept: volume default/data {made['volume default/data'].uuid}" in kept


@pytest.mark.parametrize("parts", [True, False])
def test_a_cluster_of_which_nothing_else_is_left(tmp_path: Path, *, parts: bool) -> None:
    cloud = MemoryCloud(parts=parts)
    ref = cloud.ref("demo")
    cloud.bear(ref, PartKind.LOAD_BALANCER, "default/web")
    assert [info.name for info in clusters(cloud=cloud, home=tmp_path)] == ["demo"]
    assert Cluster("demo", cloud=cloud, home=tmp_path).down().changed
    assert cloud.resources() == []
    assert cloud.store.notes == {}
    assert not Cluster("demo", cloud=cloud, home=tmp_path).down().changed
    cloud.bear(ref, PartKind.VOLUME, "default/data")
    cloud.clock.sleep(7200.0)
    (found,) = sweep(cloud=cloud, home=tmp_path)
    assert [(thing.kind, thing.name) for thing in found.things] == [("volume", "default/data")]
    assert cloud.resources() == []


@pytest.mark.parametrize(("scheduler", "looks"), [("slurm", False), ("k3s", True)])
def test_what_makes_nothing_on_the_cloud_is_not_asked_for_it(
    cloud: MemoryCloud, tmp_path: Path, scheduler: str, *, looks: bool
) -> None:
    demo = Cluster(ClusterSpec.model_validate({**SPEC, "scheduler": scheduler}), cloud=cloud, home=tmp_path)
    demo.up()
    assert Cluster("demo", cloud=cloud, home=tmp_path).down().changed
    assert ("offspring" in cloud.calls) is looks
    assert cloud.resources() == []


def test_who_finds_no_head_does_not_know_and_looks() -> None:
    cloud = fresh()
    Run(cloud).to(whole(cloud, 1, self_contained=True))
    (head,) = (m for m in cloud.observe(cloud.ref("demo")).machines if m.role is Role.HEAD)
    cloud.delete_machine(cloud.ref("demo"), head.uuid)
    cloud.clock.sleep(60.0)
    born(cloud)
    clean(cloud)


# What goes wrong ----------------------------------------------------------------------------------------------------


def test_a_down_that_died_anywhere_is_completed() -> None:
    """After each of its effects in turn; the next one, which remembers nothing, does the rest."""

    class Died(BaseException):
        pass

    for number in range(1, 40):
        cloud = fresh()
        Run(cloud).to(whole(cloud, 1))
        born(cloud)
        began = cloud._effects

        def die(effect: int, last: int = began + number) -> None:
            if effect == last:
                raise Died

        cloud.after_effect = die
        try:
            Run(cloud).to(ABSENT, pool=1)
        except Died:
            cloud.after_effect = None
            clean(cloud)
            continue
        assert number > 15
        return
    pytest.fail("it never came to its end")


def test_a_load_balancer_in_the_middle_of_a_change_is_waited_for() -> None:
    cloud = fresh()
    Run(cloud).to(whole(cloud, 1))
    born(cloud)
    real, refused = cloud.delete_part, list[float]()

    def delete(ref: ClusterRef, part: Part) -> None:
        if part.kind is PartKind.LOAD_BALANCER and len(refused) < 5:
            refused.append(cloud.now())
            raise ConflictError("delete load balancer: it is PENDING_UPDATE")
        real(ref, part)

    cloud.delete_part = delete  # type: ignore[method-assign]
    run = Run(cloud)
    run.to(ABSENT)
    assert cloud.resources() == []
    assert steps(run.events).index("delete machine head") > steps(run.events).index(BALANCER) + 4


def test_one_that_never_lets_go_does_not_keep_machines_running() -> None:
    cloud = fresh()
    Run(cloud).to(whole(cloud, 1))
    made = born(cloud)
    cloud.faults.subjects["delete_part", "load-balancer default/web"] = Fault(ConflictError("it is PENDING_UPDATE"))
    with pytest.raises(PermanentError, match="demo is gone but for") as caught:
        Run(cloud).to(ABSENT, timeout=900.0)
    assert f"load balancer default/web {made['load-balancer default/web'].uuid}: it is PENDING" in caught.value.message
    assert not cloud.store.machines
    cloud.faults.subjects.clear()
    clean(cloud)


@pytest.mark.parametrize("kind", [PartKind.LOAD_BALANCER, PartKind.SNAPSHOT])
def test_one_that_is_deleted_for_ever_is_named_at_the_end(kind: PartKind) -> None:
    cloud = fresh()
    Run(cloud).to(whole(cloud, 1))
    (part,) = (part for part in born(cloud).values() if part.kind is kind)
    real = cloud.delete_part

    uuid = part.uuid

    def delete(ref: ClusterRef, part: Part) -> None:
        if part.uuid != uuid:
            real(ref, part)

    cloud.delete_part = delete  # type: ignore[method-assign]
    said = f"{part.name} {part.uuid}: it was told to go {STAYS[kind]:.0f} s ago, and stays"
    with pytest.raises(PermanentError, match=said):
        Run(cloud).to(ABSENT, timeout=900.0)
    assert not cloud.store.machines
    cloud.delete_part = real  # type: ignore[method-assign]
    clean(cloud)


def test_a_refusal_keeps_nothing_else_and_is_told() -> None:
    cloud = fresh()
    Run(cloud).to(whole(cloud, 1))
    born(cloud)
    refusal = PermanentError("delete volume: it has a snapshot that somebody else made (HTTP 400)")
    cloud.faults.subjects["delete_part", "volume default/old"] = Fault(refusal)
    with pytest.raises(PermanentError, match=r"volume default/old .*: delete volume: it has a snapshot"):
        Run(cloud).to(ABSENT, timeout=900.0)
    assert [part.name for part in cloud.offspring(cloud.ref("demo"))] == ["default/old"]
    assert len(cloud.resources()) == 1


def test_a_service_that_does_not_answer_keeps_no_machine_running(tmp_path: Path) -> None:
    cloud = MemoryCloud(parts=True)
    said: list[Event] = []
    demo = Cluster(ClusterSpec.model_validate(SPEC), cloud=cloud, home=tmp_path, on_event=said.append)
    demo.up()
    cloud.bear(demo.ref, PartKind.VOLUME, "default/data")
    cloud.faults.subjects["offspring", ""] = Fault(TemporaryError("list load balancers: HTTP 503"))
    with pytest.raises(PermanentError, match="could not be seen: list load balancers: HTTP 503") as caught:
        demo.down()
    assert "`vcluster down demo` deletes what there is" in caught.value.remedy
    assert [tag.rpartition("/")[2] for tag in cloud.resources()] == ["volume"]
    assert any("own software made" in event.message for event in said if isinstance(event, Log))
    cloud.faults.subjects.clear()
    demo.down()
    assert cloud.resources() == []


def test_one_answer_is_enough() -> None:
    cloud = fresh()
    Run(cloud).to(whole(cloud, 1))
    born(cloud)
    fault = Fault(TemporaryError("HTTP 503"))
    cloud.faults = FaultScript(nth={("offspring", n): fault for n in range(1, LOOKS + 2)})
    Run(cloud).to(Goal(Power.ABSENT))
    assert cloud.resources() == []
