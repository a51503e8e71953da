"""The life of a cluster on the memory cloud: shelved and back, given an end and more time, taken down, found again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lifecycle_kit import DAY, HOUR, cloud, cluster, dora, home, left_over, spec

from vcluster import Cluster, ClusterSpec, clusters
from vcluster.actions import NOTE_READY
from vcluster.clouds.memory import MemoryCloud
from vcluster.errors import CancelledError, UsageError
from vcluster.events import Event, Log, StepFinished, StepStarted

__all__ = ["cloud", "home"]

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


@pytest.mark.parametrize("call", ["shelve", "stop"])
def test_what_goes_down_is_not_put_to_rest_and_goes_on_going_down(home: Path, cloud: MemoryCloud, call: str) -> None:
    cluster(home, cloud).up()
    called: list[Event] = []

    def somebody(event: Event) -> None:
        if isinstance(event, StepFinished) and not called:
            called.append(event)
            with pytest.raises(CancelledError, match="demo is left alone: it is being taken down"):
                getattr(cluster(home, cloud, "demo"), call)()

    cluster(home, cloud, on_event=somebody).down()
    assert called
    assert cloud.resources() == []


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

PATIENT = 1e7
"""Seconds of the cloud's clock, which runs on while the other thread waits for a processor."""


@pytest.mark.parametrize("lag", [0.0, 3.0])
def test_two_at_once_from_two_computers_make_one_cluster(tmp_path: Path, lag: float) -> None:
    for attempt in range(5):
        cloud = MemoryCloud(parts=True, lag=lag)
        both = [cluster(tmp_path / f"{attempt}-{n}", cloud) for n in range(2)]
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda each: each.up(timeout=PATIENT), both))
        assert [result.status.state for result in results] == ["ready", "ready"]
        assert len({each.folder.keyring().claim for each in both}) == 1
        once = MemoryCloud(parts=True)
        cluster(tmp_path / f"{attempt}-alone", once).up()
        assert sorted(cloud.resources()) == sorted(once.resources())


def test_what_a_run_made_beside_a_finished_cluster_goes_though_no_listing_shows_it_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = MemoryCloud(parts=True, lag=3.0)
    slow, quick = cluster(tmp_path / "slow", cloud), cluster(tmp_path / "quick", cloud)
    create = cloud.create_network
    waited: list[str] = []

    def after_the_other(*given: Any) -> Any:
        if not waited:
            waited.append("the other run comes to its end meanwhile")
            assert quick.up().status.state == "ready"
        return create(*given)

    monkeypatch.setattr(cloud, "create_network", after_the_other)
    assert slow.up().status.state == "ready"
    assert waited
    once = MemoryCloud(parts=True)
    cluster(tmp_path / "alone", once).up()
    assert sorted(cloud.resources()) == sorted(once.resources())


def test_two_at_once_with_different_specs_make_one_of_them(tmp_path: Path) -> None:
    cloud = MemoryCloud(parts=True)
    both = [cluster(tmp_path / "one", cloud), cluster(tmp_path / "two", cloud, spec(packages=["gfortran"]))]

    def attempt(each: Cluster) -> str:
        try:
            return each.up(timeout=PATIENT).status.state
        except UsageError as error:
            return error.message.splitlines()[-1]

    with ThreadPoolExecutor(2) as pool:
        said = sorted(pool.map(attempt, both))
    assert said[1] == "ready"
    assert said[0].strip().startswith("packages: ")
    assert len([tag for tag in cloud.resources() if tag.endswith("/head")]) == 2
    assert cluster(tmp_path / "one", cloud, "demo").status().state == "ready"
