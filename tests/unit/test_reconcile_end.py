"""When `down` believes that nothing is left."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest
from engine import ABSENT, Run, fresh, whole

from vcluster.clouds.memory import MemoryCloud
from vcluster.errors import DeadlineError
from vcluster.model import ClusterRef, Observed, Part, PartKind, VolumeRequest


def test_down_of_what_is_not_there_looks_for_as_long_as_a_listing_may_lag() -> None:
    cloud = MemoryCloud(lag=5.0)
    began = cloud.now()
    Run(cloud).to(ABSENT)
    assert cloud.now() - began >= 5.0


def test_a_down_without_time_for_its_second_look_says_what_it_waited_for() -> None:
    with pytest.raises(DeadlineError, match="waiting for what may not be listed yet"):
        Run(MemoryCloud(lag=5.0)).to(ABSENT, timeout=1.0)


@dataclass
class Watched:
    """What looks at a cloud showed.

    Attributes:
        stall: seconds that the first one takes.
    """

    cloud: MemoryCloud
    stall: float = 0.0
    seen: list[Observed] = field(default_factory=list)

    def observe(self, ref: ClusterRef, since: Observed | None = None) -> Observed:
        if not self.seen and self.stall:
            self.cloud.clock.sleep(self.stall, threading.Event())
        self.seen.append(MemoryCloud.observe(self.cloud, ref, since))
        return self.seen[-1]

    @property
    def empty(self) -> int:
        return [picture.empty for picture in self.seen].count(True)


def watched(monkeypatch: pytest.MonkeyPatch, cloud: MemoryCloud, stall: float = 0.0) -> Watched:
    watch = Watched(cloud, stall)
    monkeypatch.setattr(cloud, "observe", watch.observe)
    return watch


@pytest.mark.parametrize(("delete_time", "looks"), [(8.0, 2), (12.0, 1)])
def test_the_first_look_at_nothing_is_believed_where_nothing_new_was_seen_for_long(
    monkeypatch: pytest.MonkeyPatch, delete_time: float, looks: int
) -> None:
    cloud = fresh(2.0, delete_time=delete_time)
    Run(cloud).to(whole(cloud, 1, root_disk=0))
    watch = watched(monkeypatch, cloud)
    Run(cloud).to(ABSENT)
    assert watch.empty == looks
    assert cloud.resources() == []


@pytest.mark.parametrize("left", [False, True])
def test_a_first_look_that_took_long_says_nothing_of_what_came_meanwhile(
    monkeypatch: pytest.MonkeyPatch, *, left: bool
) -> None:
    cloud = fresh(2.0)
    ref = cloud.ref("demo")
    if left:
        request = VolumeRequest("cpu-1", ref.tag(PartKind.VOLUME), 20, "memory-image")
        cloud.create_volume(ref, request)
        cloud.clock.sleep(60.0, threading.Event())
    watch = watched(monkeypatch, cloud, stall=12.0)
    Run(cloud).to(ABSENT)
    assert watch.empty >= 2
    assert cloud.resources() == []


def test_a_callers_look_that_seems_old_by_a_clock_set_since_counts_from_when_it_was_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cloud = fresh(2.0)
    glance, began = cloud.observe(cloud.ref("demo")), cloud.now()
    watch = watched(monkeypatch, cloud)
    Run(cloud).loop(ABSENT).run(600.0, (glance, began - 30.0))
    assert watch.empty == 2


def test_something_new_at_the_end_of_a_long_down_makes_it_look_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run makes a volume just before the machines are gone, and one that the first look at nothing misses."""
    cloud = fresh(2.0, delete_time=20.0, volume_time=0.0)
    Run(cloud).to(whole(cloud, 1, root_disk=0))
    began, made, real = cloud.now(), list[Part](), cloud.observe

    def observe(ref: ClusterRef, since: Observed | None = None) -> Observed:
        seen = real(ref, since)
        if (not made and cloud.now() - began >= 17.0) or (len(made) == 1 and seen.empty):
            request = VolumeRequest("cpu-1", ref.tag(PartKind.VOLUME), 20, "memory-image")
            made.append(cloud.create_volume(ref, request))
        return seen

    monkeypatch.setattr(cloud, "observe", observe)
    Run(cloud).to(ABSENT)
    assert len(made) == 2
    assert cloud.resources() == []


@pytest.mark.parametrize("call", ["delete_ports", "delete_part", "delete_network"])
def test_what_an_up_still_makes_while_its_cluster_goes_is_found(call: str) -> None:
    """A call that was under way when `down` began: a volume needs nothing of what goes meanwhile."""
    cloud = fresh(2.0)
    ref = cloud.ref("demo")
    Run(cloud).to(whole(cloud, 1, root_disk=0))
    late: list[Part] = []
    real = getattr(cloud, call)

    def with_a_late_volume(*given: object) -> None:
        real(*given)
        if not late:
            request = VolumeRequest("cpu-1", ref.tag(PartKind.VOLUME), 20, "memory-image")
            late.append(cloud.create_volume(ref, request))

    setattr(cloud, call, with_a_late_volume)
    Run(cloud).to(ABSENT)
    assert late
    assert cloud.resources() == []
