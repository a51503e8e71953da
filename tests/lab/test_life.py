"""The life of a cluster against real services: quota, cost, a shelf, an end, leftovers, a colleague in the project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.cloud_bed import Bed, until
from tests.lab.lab import LabClient
from tests.lab.sweep.ready_cloud import ReadyCloud
from vcluster import Cluster, ClusterSpec, clusters, reap, sweep
from vcluster.errors import QuotaError, SpecError, UsageError
from vcluster.events import Event, Log

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

SPEC = """
name: demo
cloud: alice
image: debian-12
head: {flavor: m3.tiny}
workers: [{name: cpu, count: 3, min_count: 1, flavor: m3.tiny}]
expires: 8h
"""


@pytest.fixture
def bed(lab: LabClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    made = Bed(lab, tmp_path)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(made.clouds_yaml))
    yield made
    left = made.everything()
    made.close()
    assert left == {}


class People:
    """Alice, who makes clusters, and Bob, who has the same project and another computer."""

    def __init__(self, bed: Bed, folder: Path) -> None:
        self.bed = bed
        self.homes = {name: folder / name for name in ("alice", "bob")}
        self.clouds = {name: ReadyCloud(bed.cloud(name), admin=bed.admin, speed=4.0) for name in self.homes}
        self.events: list[Event] = []

    def cluster(self, what: ClusterSpec | str, name: str = "alice", owner: str = "") -> Cluster:
        cloud, home = self.clouds[name], self.homes[name]
        return Cluster(what, cloud=cloud, home=home, owner=owner, on_event=self.events.append)  # type: ignore[arg-type]

    def around(self, name: str = "alice") -> dict[str, object]:
        return {"cloud": self.clouds[name], "home": self.homes[name]}

    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Log) and event.level == "warning"]


@pytest.fixture
def people(bed: Bed, tmp_path: Path) -> People:
    return People(bed, tmp_path)


def test_from_the_plan_to_the_reaper(bed: Bed, people: People) -> None:
    demo = people.cluster(ClusterSpec.from_yaml(SPEC))
    view = demo.plan()
    assert bed.project.name in view.place
    needed = {need.resource: need.asked for need in view.quota}
    assert {"instances": 4, "cores": 4, "ports": 5, "networks": 1, "floating_ips": 1}.items() <= needed.items()
    assert view.cost is not None
    assert (view.cost.per_hour, view.cost.total) == (4.0, 32.0)
    assert bed.everything() == {}

    made = demo.up().status
    assert (made.state, len(made.machines)) == ("ready", 4)
    head = made.machines[0].uuid
    seen = demo.status()
    assert seen.expires is not None
    assert demo.extend(3600.0) == seen.expires + 3600.0
    assert demo.plan().empty

    # Bob has no file of it and no key, and a cluster of that name would be another one.
    (listed,) = clusters(**people.around("bob"))  # type: ignore[arg-type]
    alice = bed.users["alice"].name
    assert (listed.name, listed.owner, listed.mine, listed.cost) == ("demo", alice, False, 4.0)
    with pytest.raises(UsageError, match=f"you have no cluster 'demo', but {alice} has"):
        people.cluster("demo", "bob").stop()
    theirs = people.cluster("demo", "bob", owner=alice)
    assert theirs.ref.id == demo.ref.id
    assert [m.uuid for m in theirs.status().machines] == [m.uuid for m in demo.status().machines]

    shelved = demo.shelve().status
    assert [(m.name, m.uuid, m.state) for m in shelved.machines] == [("head", head, "SHELVED")]
    assert (demo.status().state, demo.status().cost) == ("shelved", 0.0)
    assert demo.unshelve().status.state == "ready"
    assert demo.status().machines[0].uuid == head

    assert reap(**people.around()) == ()  # type: ignore[arg-type]
    people.clouds["alice"].annotate(demo.ref, {"expires": "1000000000"})
    assert reap(**people.around("bob")) == ()  # type: ignore[arg-type]
    assert [(each.act, each.done) for each in reap(**people.around())] == [("shelve", True)]  # type: ignore[arg-type]
    assert demo.status().state == "shelved"
    with pytest.raises(UsageError, match="has expired"):
        demo.unshelve()
    people.clouds["alice"].annotate(demo.ref, {"lifetime": "60+0"})
    assert [(each.act, each.done) for each in reap(**people.around())] == [("delete", True)]  # type: ignore[arg-type]
    assert bed.everything() == {}


def test_leftovers_of_a_cluster_whose_head_is_gone(bed: Bed, people: People) -> None:
    demo = people.cluster(ClusterSpec.from_yaml(SPEC))
    head = demo.up().status.machines[0].uuid
    assert sweep(older_than=1.0, **people.around()) == ()  # type: ignore[arg-type]
    bed.connection().compute.delete_server(head)
    until(lambda: all(m.name != "head" for m in demo.status().machines), "end of the head")

    assert [info.headless for info in clusters(**people.around())] == [True]  # type: ignore[arg-type]
    assert sweep(**people.around()) == ()  # type: ignore[arg-type]
    assert sweep(older_than=1.0, **people.around("bob")) == ()  # type: ignore[arg-type]
    before = bed.everything()
    (found,) = sweep(older_than=1.0, dry_run=True, **people.around())  # type: ignore[arg-type]
    assert not found.deleted
    assert bed.everything() == before
    shown = {thing.uuid for thing in found.things if thing.kind not in ("gateway", "port")}
    assert shown <= {uuid for uuids in before.values() for uuid in uuids}
    assert [each.deleted for each in sweep(older_than=1.0, **people.around())] == [True]  # type: ignore[arg-type]
    assert bed.everything() == {}


def test_a_quota_that_is_too_small(bed: Bed, people: People) -> None:
    spec = ClusterSpec.from_yaml(SPEC)
    demo = people.cluster(spec)
    bed.admin.network.update_quota(bed.project.id, floating_ips=0)
    with pytest.raises(QuotaError, match="floating ips: 1 asked, 0 used, 0 allowed"):
        demo.up()
    assert bed.everything() == {}
    bed.admin.network.update_quota(bed.project.id, floating_ips=-1)
    bed.admin.compute.update_quota_set(bed.project.id, instances=1)
    demo = people.cluster(spec)
    with pytest.raises(QuotaError, match="instances: 2 asked, 0 used, 1 allowed"):
        demo.up()
    assert bed.everything() == {}
    bed.admin.compute.update_quota_set(bed.project.id, instances=3)
    result = demo.up()
    assert sorted(m.name for m in result.status.machines) == ["cpu-1", "cpu-2", "head"]
    assert result.degraded == ("cpu-3",)
    assert any("instances: 4 asked, 0 used, 3 allowed" in warning for warning in people.warnings())
    demo.down()


def test_a_worker_without_a_host_is_made_anew_in_another_zone(bed: Bed, lab: LabClient, people: People) -> None:
    demo = people.cluster(ClusterSpec.from_yaml(SPEC))
    lab.fail_servers("demo-cpu-1", "no-valid-host", "There are not enough hosts available.", times=1)
    try:
        made = demo.up().status
    finally:
        lab.fail_no_servers()
    assert (made.state, len(made.machines)) == ("ready", 4)
    zones = {server.name: server.availability_zone for server in bed.connection().compute.servers()}
    assert zones == {"demo-head": "nova", "demo-cpu-1": "zone-b", "demo-cpu-2": "nova", "demo-cpu-3": "nova"}
    assert demo.plan().empty
    demo.down()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("image: debian-12", "image: debian-21", "demo.yaml:4:8: image.source: "),
        ("flavor: m3.tiny}\nw", "flavor: m3.tinny}\nw", "demo.yaml:5:16: head.flavor: "),
        ("expires: 8h", "network: nowhere", "demo.yaml:7:10: network: "),
        ("expires: 8h", "external_network: nowhere", "demo.yaml:7:19: external_network: "),
        ("expires: 8h", "access: {floating_ip: 192.0.2.99}", "demo.yaml:7:23: access.floating_ip: "),
        ("head: {flavor: m3.tiny}", "head: {flavor: m3.tiny, image: lost}", "demo.yaml:5:32: head.image: "),
    ],
)
def test_what_the_cloud_has_not_is_said_with_its_line(bed: Bed, people: People, old: str, new: str, says: str) -> None:
    assert old in SPEC
    spec = ClusterSpec.from_yaml(SPEC.replace(old, new), file="demo.yaml")
    demo = people.cluster(spec)
    for call in (demo.plan, demo.up):
        with pytest.raises(SpecError) as caught:
            call()
        assert str(caught.value).startswith(says)
        assert caught.value.problems[0].remedy or "there is" in caught.value.problems[0].message
    assert bed.everything() == {}
