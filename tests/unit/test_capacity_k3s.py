"""How many notebooks fit on k3s: without what kubelet keeps, and as many volumes as a machine can have."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from z2jh_kit import CREDENTIAL, SIZES, hub_spec

from vcluster.capacity import Capacity, capacity, refuse_too_large
from vcluster.errors import SpecError
from vcluster.k3s_room import DAEMONS, KUBELET, MOST_PODS, room
from vcluster.model import Flavor
from vcluster.placeholders import placeholders
from vcluster.stacks.k3s_cloud import ATTACH_LIMIT

LARGE = {**SIZES, "huge": Flavor("huge", 64, 262144, 60), "tiny": Flavor("tiny", 1, 512, 10)}


def reckoned(hub: str, more: str = "", flavor: str = "worker", count: str = "count: 2") -> Capacity:
    text = f"workers: [{{name: user, {count}, flavor: {flavor}}}]\n{more}jupyterhub: {hub}"
    what = hub_spec(text)
    found = capacity(what, what.slots(LARGE.__getitem__))
    assert found is not None
    return found


def test_a_worker_keeps_what_kubelet_is_told() -> None:
    assert f"kube-reserved=cpu={DAEMONS.cpu}m,memory={DAEMONS.memory}Mi" in KUBELET
    assert room(SIZES["worker"]) == (5700, 16384 - 410 - 512 - 100 - 160)
    assert room(LARGE["tiny"]) == (700, 0)
    (group,) = reckoned("{}").groups
    assert group.kept == 16384 - room(SIZES["worker"]).memory


@pytest.mark.parametrize(
    ("hub", "flavor", "each", "limit"),
    [
        ("{}", "worker", 5, "processors are"),
        ("{cpu_oversubscribe: 2}", "worker", 11, "processors are"),
        ("{cpu_oversubscribe: 3}", "worker", 14, "memory is"),
        ("{cpu_oversubscribe: 4, profiles: [{memory: 512M}]}", "worker", 22, "processors are"),
        ("{profiles: [{cpus: 6}]}", "worker", 0, "processors are"),
        ("{cpu_oversubscribe: 16, profiles: [{memory: 512M}]}", "huge", MOST_PODS, "processors are"),
    ],
)
def test_a_worker_holds_what_is_left(hub: str, flavor: str, each: int, limit: str) -> None:
    found = reckoned(hub, flavor=flavor)
    (group,) = found.groups
    assert (group.each, found.total) == (each, 2 * each)
    assert f"{limit} the limit" in str(group)


def test_as_many_volumes_as_a_machine_can_have() -> None:
    hub = "{cpu_oversubscribe: 4, profiles: [{memory: 512M}], STORAGE}"
    assert reckoned(hub.replace("STORAGE", "storage: none"), CREDENTIAL, "huge").groups[0].each == MOST_PODS
    found = reckoned(hub.replace(", STORAGE", ""), CREDENTIAL, "huge")
    assert found.groups[0].each == ATTACH_LIMIT
    assert found.warnings == (
        "24 notebooks on a worker are as many volumes attached to it: on Jetstream2 about 5 went well; storage: none "
        "needs none, which does for an afternoon",
    )


@pytest.mark.parametrize(
    ("hub", "more", "told"),
    [
        ("{}", "", ["files go with the notebook"]),
        ("{}", CREDENTIAL, []),
        ("{storage: nfs}", "", ["nothing limits what people store"]),
        ("{}", "k3s: {components: [coredns, servicelb, traefik]}\n", ["files go", "the Hub's database is in memory"]),
    ],
)
def test_what_an_organiser_should_know(hub: str, more: str, told: list[str]) -> None:
    found = reckoned(hub, more).warnings
    assert [text for text, begin in zip(found, told, strict=True) if not text.startswith(begin)] == []


def test_a_class_that_cannot_fit_is_refused() -> None:
    what = hub_spec("workers: [{name: user, count: 2, flavor: worker}]\njupyterhub: {people: {count: 127}}")
    with pytest.raises(SpecError) as caught:
        refuse_too_large(what, capacity(what, what.slots(LARGE.__getitem__)))
    (problem,) = caught.value.problems
    assert "127 notebooks do not fit, only 10 do" in problem.message
    assert problem.remedy.startswith("workers[user].count: 26; or workers[user].count: ")
    small = hub_spec("workers: [{name: user, flavor: tiny}]\njupyterhub: {}")
    with pytest.raises(SpecError, match=r"1024 MiB is more than .* can give one notebook: 0 MiB \(it keeps 512 "):
        refuse_too_large(small, capacity(small, small.slots(LARGE.__getitem__)))


@pytest.mark.parametrize(
    ("count", "size", "expected", "why"),
    [
        ("count: 40", 127, 0, "every worker that may ever be is there"),
        ("count: 40, max_count: 44", 127, 127, "so that all come before it"),
        ("count: 2, max_count: 44", 127, 10, "; 10 fit"),
    ],
)
def test_placeholders(count: str, size: int, expected: int, why: str) -> None:
    found = reckoned(f"{{people: {{count: {size}}}}}", count=count).placeholders
    assert found is not None
    assert found.count == expected
    assert why in str(found)


def test_a_group_without_notebooks_that_may_grow_holds_no_placeholders() -> None:
    text = "workers: [{name: user, flavor: worker}, {name: other, max_count: 9, flavor: worker}]\njupyterhub: {}"
    assert placeholders(hub_spec(text), frozenset({"user"}), 10).count == 0


@given(
    count=st.integers(1, 300),
    memory=st.integers(384, 8000),
    cpus=st.integers(1, 4),
    shared=st.integers(1, 8),
    workers=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_what_is_proposed_fits(count: int, memory: int, cpus: int, shared: int, workers: int) -> None:
    def found(workers: int, shared: int) -> Capacity:
        profile = f"{{cpus: {cpus}, memory: {memory}M}}"
        hub = f"{{people: {{count: {count}}}, cpu_oversubscribe: {shared}, profiles: [{profile}]}}"
        return reckoned(hub, count=f"count: {workers}")

    first = found(workers, shared)
    assert first.fits == (not first.proposals) or not first.groups[0].each
    for proposal in first.proposals:
        wanted = dict(proposal.settings)
        assert found(wanted["workers[user].count"], wanted.get("cpu_oversubscribe", shared)).fits
