"""What ends by itself, and what is left over: the reaper and the sweeper on the memory cloud."""

from __future__ import annotations

from pathlib import Path

import pytest
from lifecycle_kit import DAY, HOUR, cloud, cluster, dora, home, left_over, spec

from vcluster import Cluster, clusters, reap, sweep
from vcluster.clouds.memory import MemoryCloud
from vcluster.errors import CancelledError
from vcluster.events import Done, Event, Log, PlanMade, StepFinished
from vcluster.expiry import NOTE_REAPED
from vcluster.sweeper import Leftovers

__all__ = ["cloud", "home"]

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

    def late(mine: Cluster, *, leaving: bool) -> object:
        looks.append(mine.name)
        demo.extend(DAY)
        return glance(mine, leaving=leaving)

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


@pytest.mark.parametrize("broken", [(), ("head",), ("head-2", "head-3")])
def test_three_servers_have_one_grace_period(home: Path, cloud: MemoryCloud, broken: tuple[str, ...]) -> None:
    servers = spec(scheduler="k3s", head={"count": 3}, expires="8h", grace_period="2h")
    demo = cluster(home, cloud, servers)
    demo.up()
    for name in broken:
        cloud.kill(name)
    cloud.clock.sleep(9 * HOUR)
    (first,) = reap(cloud=cloud, home=home)
    assert ("cannot be shelved" in first.error) == bool(broken)
    left = {machine.name: str(machine.state) for machine in cloud.observe(demo.ref).machines}
    assert left == {name: "ERROR" if name in broken else "SHELVED" for name in ("head", "head-2", "head-3")}
    cloud.clock.sleep(HOUR)
    assert [each.act for each in reap(cloud=cloud, home=home)] == ["wait"]
    cloud.clock.sleep(3 * HOUR)
    assert [each.act for each in reap(cloud=cloud, home=home)] == ["delete"]
    assert cloud.resources() == []


def test_the_reaper_leaves_what_goes_down_to_the_one_who_takes_it_down(home: Path, cloud: MemoryCloud) -> None:
    cluster(home, cloud, spec(expires="8h")).up()
    cloud.clock.sleep(9 * HOUR)
    seen: list[Event] = []
    called: list[Event] = []
    reaped: list[object] = []

    def cron(event: Event) -> None:
        if isinstance(event, StepFinished) and not called:
            called.append(event)
            reaped.append(reap(cloud=cloud, home=home, on_event=seen.append))

    cluster(home, cloud, "demo", on_event=cron).down()
    assert reaped == [()]
    said = [event.message for event in seen if isinstance(event, Log)]
    assert said == ["demo has expired, and is left alone: it is being taken down"]
    assert cloud.resources() == []


def test_a_down_that_is_called_while_the_reaper_waits_stops_no_other_cluster_from_being_reaped(
    home: Path, cloud: MemoryCloud
) -> None:
    for name in ("demo", "other"):
        cluster(home, cloud, spec(name=name, expires="8h")).up()
    cloud.clock.sleep(9 * HOUR)
    cloud.occupy("cpu-1", 2 * HOUR)
    called: list[Event] = []

    def person(event: Event) -> None:
        if isinstance(event, PlanMade) and event.waiting and not called:
            called.append(event)
            cluster(home, cloud, event.cluster).down()

    done = reap(cloud=cloud, home=home, wait_jobs=4 * HOUR, on_event=person)
    (left,) = {"demo", "other"} - {event.cluster for event in called}
    assert [(each.ref.name, each.act, each.error) for each in done] == [(left, "shelve", "")]


def test_a_down_that_died_before_it_deleted_anything_does_not_keep_a_cluster_on(home: Path, cloud: MemoryCloud) -> None:
    """Nor is it deleted for it: `down` may have been asked to keep the homes, which nobody knows any more."""
    demo = cluster(home, cloud, spec(expires="8h", grace_period="2d"))
    demo.up()
    cloud.clock.sleep(9 * HOUR)
    cloud.annotate(demo.ref, {"leaving": f"down-1234@{cloud.now():.0f}"})
    assert reap(cloud=cloud, home=home) == ()
    assert demo.status().state == "ready"
    cloud.clock.sleep(2 * HOUR)
    assert [(each.act, each.done) for each in reap(cloud=cloud, home=home)] == [("shelve", True)]
    assert [each.act for each in reap(cloud=cloud, home=home)] == ["wait"]
    demo.down()
    assert cloud.resources() == []


def test_a_head_that_is_on_its_way_out_is_left_to_down(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud, spec(expires="8h"))
    demo.up()
    cloud.annotate(demo.ref, {"leaving": f"down-1234@{cloud.now():.0f}"})
    cloud.clock.sleep(9 * HOUR)
    (entry,) = [e for e in cloud.entries(demo.ref) if e.machine.name == "head"]
    entry.gone_at = 1e12
    assert reap(cloud=cloud, home=home) == ()
    assert len(cloud.entries(demo.ref)) == 3


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
