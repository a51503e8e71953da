"""The life of a cluster on the memory cloud: shelved and back, given an end and more time, taken down, found again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vcluster import Cluster, ClusterSpec, clusters, reap, sweep
from vcluster.actions import NOTE_READY
from vcluster.clouds.memory import MemoryCloud
from vcluster.errors import CancelledError, QuotaError, SpecError, UsageError
from vcluster.events import Done, Event, Log, PlanMade, StepStarted
from vcluster.expiry import NOTE_REAPED
from vcluster.sweeper import Leftovers

HOUR, DAY = 3600.0, 86400.0
SPEC = {"name": "demo", "cloud": "memory", "workers": [{"name": "cpu", "count": 2, "max_count": 3}]}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def cloud() -> MemoryCloud:
    return MemoryCloud(parts=True)


def spec(**more: object) -> ClusterSpec:
    return ClusterSpec.model_validate({**SPEC, **more})


def cluster(home: Path, cloud: MemoryCloud, what: ClusterSpec | str | None = None, **more: object) -> Cluster:
    return Cluster(what or spec(), cloud=cloud, home=home, **more)  # type: ignore[arg-type]


def dora(cloud: MemoryCloud, home: Path, what: ClusterSpec | None = None) -> Cluster:
    """A colleague's cluster in the same project, up."""
    cloud.creator = "dora"
    theirs = cluster(home / "dora", cloud, what)
    theirs.up()
    cloud.creator = "me"
    return theirs


def left_over(home: Path, cloud: MemoryCloud, **more: object) -> Cluster:
    """A cluster whose head somebody deleted two hours ago."""
    mine = cluster(home, cloud, spec(**more))
    mine.up()
    cloud.lose("head")
    cloud.clock.sleep(2 * HOUR)
    return mine


# On the shelf ----------------------------------------------------------------------------------------------------


def test_shelved_and_back(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud)
    before = {m.name: m.uuid for m in demo.up().status.machines}
    shelved = demo.shelve().status
    assert shelved.state == demo.status().state == "shelved"
    assert [(m.name, m.uuid) for m in shelved.machines] == [("head", before["head"])]
    back = demo.unshelve().status
    assert back.state == "ready"
    after = {m.name: m.uuid for m in back.machines}
    assert after["head"] == before["head"]
    assert set(after) == set(before)
    assert demo.plan().empty


def test_what_is_shelved_is_not_shelved_again(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud)
    demo.up()
    assert demo.shelve().changed
    assert not demo.shelve().changed


def test_up_takes_a_cluster_from_the_shelf(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud)
    demo.up()
    demo.shelve()
    assert demo.up().status.state == "ready"


def test_what_is_not_shelved_is_not_unshelved(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud)
    demo.up()
    with pytest.raises(UsageError, match="demo is not shelved: its head is ACTIVE"):
        demo.unshelve()
    demo.stop()
    with pytest.raises(UsageError, match="its head is SHUTOFF"):
        demo.unshelve()


def test_without_a_head_there_is_nothing_to_shelve(home: Path, cloud: MemoryCloud) -> None:
    demo = left_over(home, cloud)
    with pytest.raises(UsageError, match="has no head that could be kept"):
        demo.shelve()
    with pytest.raises(UsageError, match="demo has no head"):
        demo.unshelve()


@pytest.mark.parametrize("call", ["shelve", "unshelve", "stop", "start"])
def test_of_nothing_nothing_is_made(home: Path, cloud: MemoryCloud, call: str) -> None:
    with pytest.raises(UsageError, match="there is no cluster 'demo'"):
        getattr(cluster(home, cloud, "demo"), call)()
    assert cloud.resources() == []


def test_jobs_may_end_before_the_shelf(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud)
    demo.up()
    cloud.occupy("cpu-1", 600.0)
    began = cloud.now()
    demo.shelve(wait_jobs=1200.0)
    assert 600.0 <= cloud.now() - began < 1200.0
    demo.unshelve()
    cloud.occupy("cpu-1", 600.0)
    began = cloud.now()
    demo.shelve()
    assert cloud.now() - began < 600.0


@pytest.mark.parametrize(("rest", "back"), [("stop", "start"), ("shelve", "unshelve")])
@pytest.mark.parametrize("late", [False, True])
def test_a_head_that_is_lost_meanwhile_is_not_made_anew(
    home: Path, cloud: MemoryCloud, monkeypatch: pytest.MonkeyPatch, rest: str, back: str, *, late: bool
) -> None:
    def somebody(event: Event) -> None:
        if late and isinstance(event, StepStarted) and event.action in ("start machine", "unshelve machine"):
            cloud.lose("head")

    demo = cluster(home, cloud, on_event=somebody)
    demo.up()
    getattr(demo, rest)()
    find = Cluster._spec

    def then_lost(mine: Cluster, *given: object, **more: object) -> ClusterSpec:
        found = find(mine, *given, **more)  # type: ignore[arg-type]  # passed on as it came
        if not late:
            cloud.lose("head")
        return found

    monkeypatch.setattr(Cluster, "_spec", then_lost)
    with pytest.raises(CancelledError, match="not agreed to"):
        getattr(demo, back)()
    assert cloud.observe(demo.ref).notes[NOTE_READY]  # still marked as one that lost its head: `up` will ask


# An end, and more time -------------------------------------------------------------------------------------------


def test_an_end_is_written_on_the_cluster_and_seen_from_anywhere(
    home: Path, cloud: MemoryCloud, tmp_path: Path
) -> None:
    demo = cluster(home, cloud, spec(expires="8h"))
    demo.up()
    expires = demo.status().expires
    assert expires is not None
    assert 8 * HOUR - 600 < expires - cloud.now() <= 8 * HOUR
    assert cluster(tmp_path / "elsewhere", cloud, "demo").status().expires == expires
    (info,) = clusters(cloud=cloud)
    assert (info.name, info.mine, info.expires) == ("demo", True, expires)
    cloud.clock.sleep(HOUR)
    assert demo.plan().empty
    demo.up()
    assert demo.status().expires == expires


def test_more_time(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud, spec(expires="8h"))
    demo.up()
    before = demo.status().expires
    assert before is not None
    assert demo.extend(4 * HOUR) == before + 4 * HOUR == demo.status().expires
    cloud.clock.sleep(2 * DAY)
    assert demo.extend(4 * HOUR) == pytest.approx(cloud.now() + 4 * HOUR, abs=1.0)


def test_another_end_in_the_spec_is_a_change_in_place(home: Path, cloud: MemoryCloud) -> None:
    cluster(home, cloud, spec(expires="8h")).up()
    machines = {m.uuid for m in cluster(home, cloud).status().machines}
    cloud.clock.sleep(HOUR)
    longer = cluster(home, cloud, spec(expires="2d"))
    assert not longer.plan().empty
    longer.up()
    assert longer.status().expires == pytest.approx(cloud.now() + 2 * DAY, abs=60.0)
    assert {m.uuid for m in longer.status().machines} == machines
    cluster(home, cloud, spec()).up()
    assert cluster(home, cloud).status().expires is None


def test_what_never_expires_gets_no_more_time(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud)
    demo.up()
    with pytest.raises(UsageError, match="demo never expires"):
        demo.extend(HOUR)


def test_an_expired_cluster_stays_on_the_shelf_until_it_gets_more_time(
    home: Path, cloud: MemoryCloud, tmp_path: Path
) -> None:
    demo = cluster(home, cloud, spec(expires="8h"))
    demo.up()
    demo.shelve()
    cloud.clock.sleep(DAY)
    elsewhere = cluster(tmp_path / "elsewhere", cloud, "demo")
    for each in (demo, elsewhere):
        for call in (each.unshelve, each.up, each.start):
            with pytest.raises(UsageError, match="has expired") as caught:
                call()
            assert "vcluster extend demo 4h" in caught.value.remedy
            assert demo.status().state == "shelved"
    demo.extend(HOUR)
    assert demo.unshelve().status.state == "ready"


# The reaper ------------------------------------------------------------------------------------------------------


def test_the_reaper_shelves_and_later_deletes(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud, spec(expires="8h", grace_period="2d"))
    demo.up()
    cluster(home, cloud, spec(name="eternal")).up()
    kept = len(cloud.resources())
    assert reap(cloud=cloud, home=home) == ()
    cloud.clock.sleep(9 * HOUR)

    (planned,) = reap(cloud=cloud, home=home, dry_run=True)
    assert (planned.ref.name, planned.act, planned.done) == ("demo", "shelve", False)
    assert demo.status().state == "ready"
    (done,) = reap(cloud=cloud, home=home)
    assert (done.act, done.done, done.error) == ("shelve", True, "")
    assert demo.status().state == "shelved"
    assert done.deletion == pytest.approx(cloud.now() + 2 * DAY, abs=60.0)

    cloud.clock.sleep(DAY)
    (waits,) = reap(cloud=cloud, home=home)
    assert (waits.act, waits.done, waits.deletion) == ("wait", False, done.deletion)
    cloud.clock.sleep(DAY + HOUR)
    (gone,) = reap(cloud=cloud, home=home, dry_run=True)
    assert (gone.act, gone.done) == ("delete", False)
    (gone,) = reap(cloud=cloud, home=home)
    assert (gone.act, gone.done) == ("delete", True)
    assert [info.name for info in clusters(cloud=cloud)] == ["eternal"]
    assert len(cloud.resources()) < kept
    assert not demo.folder.path.exists()


def test_a_reaper_that_comes_a_week_late_deletes_nothing_at_once(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud, spec(expires="8h"))
    demo.up()
    cloud.clock.sleep(7 * DAY)
    assert [each.act for each in reap(cloud=cloud, home=home)] == ["shelve"]
    assert [each.act for each in reap(cloud=cloud, home=home)] == ["wait"]
    assert demo.status().state == "shelved"


def test_somebody_shelved_it_before_its_time_was_up(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud, spec(expires="8h"))
    demo.up()
    demo.shelve()
    cloud.clock.sleep(9 * HOUR)
    (first,) = reap(cloud=cloud, home=home)
    assert (first.act, first.deletion) == ("wait", pytest.approx(cloud.now() + DAY, abs=60.0))
    cloud.clock.sleep(DAY + 60)
    assert [each.act for each in reap(cloud=cloud, home=home)] == ["delete"]
    assert cloud.resources() == []


def test_more_time_saves_a_cluster_from_the_reaper(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud, spec(expires="8h"))
    demo.up()
    cloud.clock.sleep(9 * HOUR)
    reap(cloud=cloud, home=home)
    demo.extend(DAY)
    assert reap(cloud=cloud, home=home) == ()
    cloud.clock.sleep(2 * DAY)
    assert [each.act for each in reap(cloud=cloud, home=home)] == ["wait"]


def test_more_time_that_comes_while_jobs_are_waited_for(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud, spec(expires="8h"))
    demo.up()
    cloud.clock.sleep(9 * HOUR)
    for name in ("cpu-1", "cpu-2"):
        cloud.occupy(name, 2 * HOUR)
    given: list[float] = []

    def person(event: Event) -> None:
        if isinstance(event, PlanMade) and event.waiting and not given:
            given.append(demo.extend(DAY))

    assert reap(cloud=cloud, home=home, wait_jobs=4 * HOUR, on_event=person) == ()
    assert given
    cloud.clock.sleep(2 * HOUR)
    assert demo.status().state == "ready"
    assert {m.health for m in demo.status().machines} == {"ready"}  # they were drained, and get jobs again
    assert NOTE_REAPED not in cloud.observe(demo.ref).notes


def test_more_time_that_comes_just_after_the_shelf(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud, spec(expires="8h", grace_period="1h"))
    demo.up()
    cloud.clock.sleep(9 * HOUR)

    def person(event: Event) -> None:
        if isinstance(event, Done):
            demo.extend(DAY)

    (done,) = reap(cloud=cloud, home=home, on_event=person)
    assert (done.act, done.deletion, done.error) == ("shelve", 0.0, "")
    assert NOTE_REAPED not in cloud.observe(demo.ref).notes
    cloud.clock.sleep(DAY + 60)
    assert [each.act for each in reap(cloud=cloud, home=home)] == ["wait"]


def test_more_time_that_comes_just_before_the_deletion(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud, spec(expires="8h"))
    demo.up()
    cloud.clock.sleep(9 * HOUR)
    reap(cloud=cloud, home=home)
    cloud.clock.sleep(2 * DAY)
    there = cloud.resources()
    looks, glance = list[str](), Cluster._glance

    def late(mine: Cluster) -> object:
        looks.append(mine.name)
        demo.extend(DAY)
        return glance(mine)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cluster, "_glance", late)
        assert reap(cloud=cloud, home=home) == ()
    assert looks == ["demo"]
    assert cloud.resources() == there


def test_a_head_in_error_does_not_live_for_ever(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud, spec(expires="8h"))
    demo.up()
    cloud.kill("head")
    cloud.clock.sleep(9 * HOUR)
    assert cloud.observe(demo.ref).head.state == "ERROR"  # type: ignore[union-attr]  # it is there
    (first,) = reap(cloud=cloud, home=home)
    assert "the head is in ERROR and cannot be shelved" in first.error
    assert [machine.name for machine in cloud.observe(demo.ref).machines] == ["head"]
    assert [each.act for each in reap(cloud=cloud, home=home)] == ["wait"]
    cloud.clock.sleep(DAY + 60)
    assert [each.act for each in reap(cloud=cloud, home=home)] == ["delete"]
    assert cloud.resources() == []


def test_the_reaper_leaves_colleagues_alone(home: Path, cloud: MemoryCloud) -> None:
    theirs = dora(cloud, home, spec(expires="8h"))
    cloud.clock.sleep(9 * HOUR)
    assert reap(cloud=cloud, home=home) == ()
    assert [each.act for each in reap(cloud=cloud, home=home, owner="dora")] == ["shelve"]
    assert theirs.status().state == "shelved"


def test_the_reaper_leaves_leftovers_to_the_sweeper(home: Path, cloud: MemoryCloud) -> None:
    left_over(home, cloud, expires="1h")
    before = cloud.resources()
    assert [(each.act, each.done) for each in reap(cloud=cloud, home=home)] == [("sweep", False)]
    assert cloud.resources() == before


# Leftovers -------------------------------------------------------------------------------------------------------


def test_leftovers_are_shown_by_uuid_and_deleted(home: Path, cloud: MemoryCloud) -> None:
    left_over(home, cloud)
    before = set(cloud.resources())
    cluster(home, cloud, spec(name="alive")).up()
    alive = set(cloud.resources()) - before
    shown: list[Leftovers] = []

    def agree(found: object) -> bool:
        shown.extend(found)  # type: ignore[call-overload]
        return True

    (swept,) = sweep(cloud=cloud, home=home, confirm=agree)
    assert swept.deleted
    assert [each.ref.name for each in shown] == ["demo"]
    assert {thing.kind for thing in shown[0].things} >= {"machine", "port", "network", "security group", "router"}
    assert all(thing.uuid for thing in shown[0].things)
    assert set(cloud.resources()) == alive


def test_a_no_changes_nothing(home: Path, cloud: MemoryCloud) -> None:
    left_over(home, cloud)
    before = cloud.resources()
    with pytest.raises(CancelledError, match="nothing was changed"):
        sweep(cloud=cloud, home=home, confirm=lambda found: False)
    (found,) = sweep(cloud=cloud, home=home, dry_run=True)
    assert not found.deleted
    assert cloud.resources() == before


def test_what_is_young_is_left_alone(home: Path, cloud: MemoryCloud) -> None:
    cluster(home, cloud).up()
    cloud.lose("head")
    cloud.clock.sleep(HOUR / 2)
    assert sweep(cloud=cloud, home=home) == ()
    assert [each.deleted for each in sweep(cloud=cloud, home=home, older_than=60.0)] == [True]


def test_what_has_a_head_in_any_state_is_no_leftover(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud)
    demo.up()
    cloud.clock.sleep(2 * HOUR)
    for act in (demo.stop, demo.start, demo.shelve):
        act()
        assert sweep(cloud=cloud, home=home, older_than=1.0) == ()


def test_a_head_that_appears_between_two_looks_saves_all(home: Path, cloud: MemoryCloud) -> None:
    demo = left_over(home, cloud)
    before = sorted(cloud.resources())
    real, looked = cloud.clock.sleep, []

    def sleep(seconds: float, cancel: object = None) -> None:
        real(seconds)
        if not looked:
            looked.append(seconds)
            demo.up(confirm=lambda plan: True)

    cloud.clock.sleep = sleep  # type: ignore[method-assign]
    assert sweep(cloud=cloud, home=home) == ()
    assert looked == [5.0]
    assert demo.status().state == "ready"
    assert len(cloud.resources()) == len(before) + 1


def test_a_head_that_appears_while_somebody_thinks_saves_all(home: Path, cloud: MemoryCloud) -> None:
    demo = left_over(home, cloud)

    def agree(found: object) -> bool:
        demo.up(confirm=lambda plan: True)
        return True

    assert [each.deleted for each in sweep(cloud=cloud, home=home, confirm=agree)] == [False]
    assert demo.status().state == "ready"


def test_a_colleagues_leftovers_need_their_name(home: Path, cloud: MemoryCloud) -> None:
    dora(cloud, home)
    cloud.lose("head")
    cloud.clock.sleep(2 * HOUR)
    assert sweep(cloud=cloud, home=home) == ()
    assert [each.deleted for each in sweep(cloud=cloud, home=home, owner="dora")] == [True]
    assert cloud.resources() == []


# Colleagues ------------------------------------------------------------------------------------------------------


def test_a_colleagues_cluster_of_the_same_name_is_another_cluster(home: Path, cloud: MemoryCloud) -> None:
    theirs = dora(cloud, home)
    kept = sorted(cloud.resources())
    mine = cluster(home, cloud)
    with pytest.raises(UsageError, match="you have no cluster 'demo', but dora has") as caught:
        cluster(home, cloud, "demo").stop()
    assert "--owner dora" in caught.value.remedy
    mine.up()
    assert mine.ref.id != theirs.ref.id
    assert [(info.name, info.owner, info.mine) for info in clusters(cloud=cloud)] == [
        ("demo", "dora", False),
        ("demo", "me", True),
    ]
    mine.down()
    assert sorted(cloud.resources()) == kept


def test_a_colleagues_cluster_by_their_name(home: Path, cloud: MemoryCloud) -> None:
    theirs = dora(cloud, home)
    same = cluster(home, cloud, "demo", owner="dora")
    assert same.ref.id == theirs.ref.id
    assert same.status().state == "ready"
    assert same.stop().status.state == "stopped"
    with pytest.raises(UsageError, match="'carl' has no cluster 'demo'") as caught:
        cluster(home, cloud, "demo", owner="carl")
    assert "dora" in caught.value.remedy


# What a plan says ------------------------------------------------------------------------------------------------


def test_a_plan_says_where_how_much_and_for_what_price(home: Path) -> None:
    cloud = MemoryCloud(parts=True, limits={"instances": 10, "floating_ips": 1, "ports": -1})
    prices = [{"flavor": "small", "per_vcpu_hour": 2}]
    demo = cluster(home, cloud, spec(expires="8h", prices=prices))
    view = demo.plan()
    assert "memory-project" in view.place
    assert {need.resource: (need.asked, need.limit) for need in view.quota} == {
        "instances": (3, 10),
        "floating_ips": (1, 1),
        "ports": (5, -1),
    }
    assert view.cost is not None
    assert (view.cost.per_hour, view.cost.now, view.cost.total) == (6.0, 0.0, 48.0)
    kinds = {(action.verb, action.kind, action.name) for action in view.actions}
    assert {
        ("create", "security group", "head"),
        ("create", "floating ip", "head"),
        ("create", "gateway", "gateway"),
    } <= kinds
    assert view.to_dict()["quota"][0]["fits"] is True
    demo.up()
    cloud.clock.sleep(4 * HOUR)
    view = demo.plan()
    assert (view.empty, view.quota) == (True, ())
    assert view.cost is not None
    assert view.cost.total == pytest.approx(24.0, abs=1.0)
    assert demo.status().cost == 6.0


def test_a_price_that_is_not_known_is_not_made_up(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud)
    assert demo.plan().cost is None
    assert demo.status().cost == 0


def test_quota_that_cannot_fit_is_refused_before_anything_is_made(home: Path) -> None:
    cloud = MemoryCloud(parts=True, limits={"instances": 2, "floating_ips": 0})
    demo = cluster(home, cloud)
    assert [need.fits for need in demo.plan().quota] == [False, False]
    with pytest.raises(QuotaError, match="instances: 3 asked, 0 used, 2 allowed") as caught:
        demo.up()
    assert "floating ips: 1 asked, 0 used, 0 allowed" in caught.value.message
    assert cloud.resources() == []
    assert not demo.folder.path.exists()


def test_quota_for_the_minimum_is_enough_to_go_on(home: Path) -> None:
    cloud = MemoryCloud(parts=True, quota=2)
    said: list[Event] = []
    workers = [{"name": "cpu", "count": 3, "min_count": 1}]
    demo = cluster(home, cloud, spec(workers=workers), on_event=said.append)
    result = demo.up()
    assert result.status.state == "degraded"
    assert len(result.status.machines) == 2
    warnings = [event.message for event in said if isinstance(event, Log) and event.level == "warning"]
    assert any("instances: 4 asked, 0 used, 2 allowed" in warning for warning in warnings)


def test_a_network_that_is_not_there_is_said_with_its_line(home: Path, cloud: MemoryCloud) -> None:
    text = "name: demo\ncloud: memory\nnetwork: lost\n"
    demo = cluster(home, cloud, ClusterSpec.from_yaml(text, file="demo.yaml"))
    for call in (demo.plan, demo.up):
        with pytest.raises(SpecError, match=r"demo.yaml:3:10: network: there is no network 'lost'"):
            call()
    assert cloud.resources() == []


def test_a_flavor_that_is_not_there_is_said_with_its_line(home: Path, cloud: MemoryCloud) -> None:
    text = "name: demo\ncloud: memory\nworkers:\n  - name: a\n    flavor: huge\n"
    demo = cluster(home, cloud, ClusterSpec.from_yaml(text, file="demo.yaml"))
    with pytest.raises(SpecError, match=r"demo.yaml:5:13: workers\[0\].flavor: there is no flavor 'huge'"):
        demo.up()
    assert cloud.resources() == []


# Volumes ---------------------------------------------------------------------------------------------------------


def test_a_volume_is_kept_when_somebody_asks_for_it(home: Path, cloud: MemoryCloud) -> None:
    said: list[Event] = []
    demo = cluster(home, cloud, spec(head={"root_disk": "20G"}), on_event=said.append)
    assert [a.detail for a in demo.plan().actions if a.kind == "volume"] == ["20 GiB"]
    demo.up()
    (volume,) = (part.uuid for part in cloud.observe(demo.ref).parts if part.kind == "volume")
    demo.down(keep_volumes=True)
    assert f"kept: the head's volume {volume}" in [event.message for event in said if isinstance(event, Log)]
    assert [tag.rpartition("/")[2] for tag in cloud.resources()] == ["volume"]
    assert demo.status().state == "absent"


def test_without_a_volume_there_is_none_to_keep(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud)
    demo.up()
    before = cloud.resources()
    with pytest.raises(UsageError, match="has no volume to keep"):
        demo.down(keep_volumes=True)
    assert cloud.resources() == before


@pytest.mark.parametrize("rest", ["", "shelve", "stop"])
def test_another_volume_does_not_stand_for_the_heads(home: Path, cloud: MemoryCloud, rest: str) -> None:
    demo = cluster(home, cloud, spec(head={"root_disk": "20G"}))
    demo.up()
    demo.down(keep_volumes=True)
    workers = [{"name": "cpu", "count": 2, "root_disk": "20G"}]
    again = cluster(home, cloud, spec(workers=workers))
    again.up()
    if rest:
        getattr(again, rest)()
    before = cloud.resources()
    with pytest.raises(UsageError, match="has no volume to keep"):
        again.down(keep_volumes=True)
    assert cloud.resources() == before


@pytest.mark.parametrize("rest", ["", "shelve"])
def test_the_heads_own_volume_is_kept_beside_an_older_one(home: Path, cloud: MemoryCloud, rest: str) -> None:
    kept = set[str]()
    for _ in range(2):
        said: list[Event] = []
        demo = cluster(home, cloud, spec(head={"root_disk": "20G"}), on_event=said.append)
        demo.up()
        if rest:
            getattr(demo, rest)()
        demo.down(keep_volumes=True)
        kept |= {e.message for e in said if isinstance(e, Log) and e.message.startswith("kept: the head's volume")}
        demo.down(keep_volumes=True)
    assert len(kept) == 2
    assert [tag.rpartition("/")[2] for tag in cloud.resources()] == ["volume", "volume"]


# At the same time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lag", [0.0, 3.0])
def test_two_at_once_from_two_computers_make_one_cluster(tmp_path: Path, lag: float) -> None:
    for attempt in range(5):
        cloud = MemoryCloud(parts=True, lag=lag)
        both = [cluster(tmp_path / f"{attempt}-{n}", cloud) for n in range(2)]
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda each: each.up(), both))
        assert [result.status.state for result in results] == ["ready", "ready"]
        assert len({each.folder.keyring().claim for each in both}) == 1
        once = MemoryCloud(parts=True)
        cluster(tmp_path / f"{attempt}-alone", once).up()
        assert sorted(cloud.resources()) == sorted(once.resources())


def test_two_at_once_with_different_specs_make_one_of_them(tmp_path: Path) -> None:
    cloud = MemoryCloud(parts=True)
    both = [cluster(tmp_path / "one", cloud), cluster(tmp_path / "two", cloud, spec(packages=["gfortran"]))]

    def attempt(each: Cluster) -> str:
        try:
            return each.up().status.state
        except UsageError as error:
            return error.message.splitlines()[-1]

    with ThreadPoolExecutor(2) as pool:
        said = sorted(pool.map(attempt, both))
    assert said[1] == "ready"
    assert said[0].strip().startswith("packages: ")
    assert len([tag for tag in cloud.resources() if tag.endswith("/head")]) == 2
    assert cluster(tmp_path / "one", cloud, "demo").status().state == "ready"
