"""How many notebooks fit, and what is proposed when they do not: the proposals really make them fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcluster import Cluster, ClusterSpec
from vcluster.capacity import Capacity, capacity, refuse_too_large
from vcluster.clouds.local.room import FLAVORS
from vcluster.clouds.memory import MemoryCloud
from vcluster.commands.lifecycle import _plan_text
from vcluster.errors import SpecError
from vcluster.events import Event, Log
from vcluster.model import Flavor

ROOT = Path(__file__).parents[2]
SIZES = {**FLAVORS, "m3.medium": Flavor("m3.medium", 8, 30 * 1024, 60)}


def spec(hub: str, workers: str = "[{count: 2, flavor: medium}]", cloud: str = "local") -> ClusterSpec:
    return ClusterSpec.from_yaml(f"name: demo\ncloud: {cloud}\nworkers: {workers}\njupyterhub: {hub}\n")


def reckoned(what: ClusterSpec) -> Capacity:
    found = capacity(what, what.slots(SIZES.__getitem__))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("hub", "each", "limit"),
    [
        ("{}", 2, "processors are"),
        ("{cpu_oversubscribe: 2}", 3, "memory is"),  # 95 % of 4096 MiB
        ("{cpu_oversubscribe: 2, profiles: [{memory: 972M}]}", 4, "processors are"),  # 3891 MiB hold four to the byte
        ("{cpu_oversubscribe: 2, profiles: [{memory: 973M}]}", 3, "memory is"),
        ("{profiles: [{cpus: 2, memory: 384M}]}", 1, "processors are"),
        ("{cpu_oversubscribe: 16, profiles: [{cpus: 2, memory: 384M}]}", 10, "memory is"),
    ],
)
def test_a_worker_holds_what_processors_and_memory_allow(hub: str, each: int, limit: str) -> None:
    found = reckoned(spec(hub))
    (group,) = found.groups
    assert (group.each, group.total, found.total) == (each, 2 * each, 2 * each)
    assert f"2 workers × {each} of profile standard" in str(group)
    assert f"{limit} the limit; a worker keeps 205 MiB for itself" in str(group)


def test_groups_stand_beside_each_other_and_only_those_that_profiles_use() -> None:
    workers = "[{name: a, count: 2, max_count: 9, flavor: medium}, {name: b, count: 1, flavor: large}, {name: c}]"
    found = reckoned(spec("{profiles: [{}, {name: big, memory: 3G}, {name: other, partition: b}]}", workers))
    assert [(group.group, group.profile, group.total) for group in found.groups] == [
        ("a", "standard", 4),
        ("b", "other", 4),
    ]
    assert [(group.group, group.profile, group.total) for group in found.others] == [("a", "big", 2)]
    assert (found.total, found.class_size, found.fits, found.room) == (8, 0, True, 8)


def test_without_a_hub_there_is_nothing_to_reckon() -> None:
    plain = ClusterSpec(name="demo", cloud="local")
    assert capacity(plain, plain.slots(SIZES.__getitem__)) is None
    refuse_too_large(plain, None)


def test_a_class_of_127_on_two_workers_is_refused_with_what_would_do() -> None:
    what = spec("{people: {count: 127}, profiles: [{memory: 512M}]}")
    with pytest.raises(SpecError) as caught:
        refuse_too_large(what, reckoned(what))
    (problem,) = caught.value.problems
    assert (problem.where, problem.line) == ("jupyterhub.people", 4)
    assert "127 notebooks do not fit, only 4 do: cpu: 2 workers × 2" in problem.message
    assert problem.remedy == (
        "workers[cpu].count: 64; or workers[cpu].count: 19 with cpu_oversubscribe: 4; "
        "or class_size: 4 when not all come at once"
    )


def test_a_profile_that_fits_onto_no_worker_is_named() -> None:
    what = spec("{profiles: [{memory: 512M}, {name: big, memory: 4G}, {name: wide, cpus: 3}]}")
    with pytest.raises(SpecError) as caught:
        refuse_too_large(what, reckoned(what))
    assert [problem.where for problem in caught.value.problems] == [
        "jupyterhub.profiles[1].memory",
        "jupyterhub.profiles[2].cpus",
    ]
    # Slurm hands out 95 % of a machine's memory.
    assert re.search(r"^4096 MiB is more than .*: 3891 MiB \(it keeps 205 ", caught.value.problems[0].message)


@given(
    count=st.integers(1, 300),
    memory=st.integers(384, 4000),
    cpus=st.integers(1, 2),
    shared=st.integers(1, 8),
    workers=st.lists(st.integers(0, 3), min_size=1, max_size=2).filter(any),
)
@settings(max_examples=80, deadline=None)
def test_what_is_proposed_fits(count: int, memory: int, cpus: int, shared: int, workers: list[int]) -> None:
    groups = [{"name": f"g{n}", "count": each, "max_count": 3, "flavor": "medium"} for n, each in enumerate(workers)]
    profiles = [
        {"name": f"p{n}", "partition": f"g{n}", "memory": memory, "cpus": cpus, "time": "1:00:00"}
        for n in range(len(groups))
    ]
    hub = {"people": {"count": count}, "cpu_oversubscribe": shared, "profiles": profiles}
    data = {"name": "demo", "cloud": "local", "workers": groups, "jupyterhub": hub}
    found = reckoned(ClusterSpec.model_validate(data))
    assert found.fits == (not found.proposals) or not any(group.each for group in found.groups)
    for proposal in found.proposals:
        settings_ = dict(proposal.settings)
        better = {**hub, "cpu_oversubscribe": settings_.pop("cpu_oversubscribe", shared)}
        changed = [
            {**group, "count": n, "max_count": n}
            if (n := settings_.get(f"workers[{group['name']}].count")) is not None
            else group
            for group in groups
        ]
        assert reckoned(ClusterSpec.model_validate({**data, "workers": changed, "jupyterhub": better})).fits


def test_the_example_fits_and_so_does_what_its_comment_says_of_127(tmp_path: Path) -> None:
    file = ROOT / "examples/workshop-slurm.yaml"
    example = ClusterSpec.load(file)
    found = reckoned(example)
    assert (found.total, found.class_size) == (4, 4)
    text = "".join(
        line.removeprefix("#   ") for line in file.read_text().splitlines(keepends=True) if line.startswith("#   ")
    )
    large = ClusterSpec.from_yaml("name: workshop\n" + text[text.index("cloud:") :])
    assert large.jupyterhub is not None
    assert (reckoned(large).total, reckoned(large).class_size) == (140, 127)
    assert (found.homes, reckoned(large).homes) == ("", "")
    assert "5 such workers hold 140 notebooks" in file.read_text()


@pytest.mark.parametrize(
    ("hub", "told"),
    [
        ("{people: {count: 3}}", "people.quota is not set"),
        ("{people: {count: 3, quota: 8G}}", "at most 1365M would fit"),
        ("{people: {count: 3, quota: 1365M}}", ""),
        ("{instructors: [teacher]}", ""),
    ],
)
def test_a_disk_that_peoples_files_can_fill_is_told(hub: str, told: str) -> None:
    found = reckoned(spec(hub)).homes
    assert told in found
    assert bool(told) == bool(found)


def test_plan_says_how_many_fit_and_up_refuses_before_anything_is_made(tmp_path: Path) -> None:
    cloud = MemoryCloud()
    with Cluster(
        spec("{people: {count: 3}, profiles: [{}, {name: big, memory: 3G}]}"), cloud=cloud, home=tmp_path
    ) as demo:
        view = demo.plan()
        text = _plan_text("demo", view, priced=False)
    assert (
        "  notebooks: 4 fit at once, 3 are wanted\n    cpu: 2 workers × 2 of profile standard, 1 cpu and 1024" in text
    )
    assert "\n    or cpu: 2 workers × 1 of profile big, 1 cpu and 3072 MiB each" in text
    assert view.to_dict()["notebooks"]["total"] == 4
    with Cluster(spec("{people: {count: 5}}"), cloud=cloud, home=tmp_path) as demo:
        with pytest.raises(SpecError, match="5 notebooks do not fit"):
            demo.plan()
        with pytest.raises(SpecError, match="5 notebooks do not fit"):
            demo.up()
    assert cloud.resources() == []


def test_whoever_makes_workers_fewer_is_only_warned(tmp_path: Path) -> None:
    cloud, events = MemoryCloud(), list[Event]()
    with Cluster(spec("{people: {count: 4}}"), cloud=cloud, home=tmp_path, on_event=events.append) as demo:
        demo.up()
        demo.scale("cpu", 1)
    assert "the class does not fit any more: 2 fit at once, 4 are wanted" in [
        event.message for event in events if isinstance(event, Log)
    ]
