"""When `down` believes that nothing is left."""

from __future__ import annotations

import pytest
from engine import ABSENT, Run, fresh, running, whole

from vcluster.actions import NOTE_READY
from vcluster.clouds.memory import MemoryCloud
from vcluster.model import MachineState, Observed, Part, PartKind, Port, VolumeRequest
from vcluster.reconcile_end import Quiet

LAG = 2.0
NOTHING = Observed()
ROUTER = Part("r1", "vcluster/x/demo/router", PartKind.ROUTER, "router")
VOLUME = Part("v1", "vcluster/x/demo/volume", PartKind.VOLUME, "head")
PORT = Port("p1", "vcluster/x/demo/head", "head", "10.0.0.9", "m")
READY = {NOTE_READY: "1"}


def test_nothing_is_believed_at_the_second_look_a_lag_later() -> None:
    quiet = Quiet(LAG)
    quiet.saw(NOTHING, 100.0)
    assert quiet.left(99.5) == 2.5
    quiet.saw(NOTHING, 101.5)
    assert quiet.left(101.4) == pytest.approx(0.6)
    assert quiet.left(102.0) == 0.0


@pytest.mark.parametrize(
    ("first", "then", "counts"),
    [
        (Observed(notes=READY, ports=(PORT,)), Observed(parts=(ROUTER,)), True),
        (Observed(notes=READY, ports=(PORT,)), Observed(ports=(PORT,)), False),
        (Observed(notes=READY, parts=(VOLUME,)), Observed(parts=(ROUTER,)), False),
        (Observed(ports=(PORT,)), Observed(parts=(ROUTER,)), False),
        (Observed(ports=(PORT,)), NOTHING, True),
    ],
    ids=["a router goes", "a port goes", "had a volume", "was being made", "nothing"],
)
def test_from_when_the_silence_counts(first: Observed, then: Observed, *, counts: bool) -> None:
    quiet = Quiet(LAG)
    quiet.saw(first, 99.0)
    quiet.saw(then, 100.0)
    quiet.saw(NOTHING, 102.1)
    assert (quiet.left(102.0) == 0.0) is counts


def test_a_machine_that_is_listed_late_begins_it_anew() -> None:
    quiet, cloud = Quiet(LAG), MemoryCloud()
    Run(cloud).to(running(1))
    up = cloud.observe(cloud.ref("demo"))
    assert [machine.state for machine in up.machines] == [MachineState.ACTIVE] * 2
    for moment, seen in ((100.0, NOTHING), (101.0, up), (103.0, NOTHING)):
        quiet.saw(seen, moment)
    assert quiet.left(103.0) == LAG


def test_where_listings_do_not_lag_the_first_look_counts() -> None:
    quiet = Quiet(0.0)
    quiet.saw(NOTHING, 100.0)
    assert quiet.left(99.0) == 0.0


def test_down_of_what_is_not_there_looks_for_as_long_as_a_listing_may_lag() -> None:
    cloud = MemoryCloud(lag=5.0)
    began = cloud.now()
    Run(cloud).to(ABSENT)
    assert cloud.now() - began >= 5.0


@pytest.mark.parametrize("call", ["delete_ports", "delete_part", "delete_network"])
def test_what_an_up_still_makes_while_its_cluster_goes_is_found(call: str) -> None:
    """A call that was under way when `down` began: a volume needs nothing of what goes meanwhile."""
    cloud = fresh(LAG)
    ref = cloud.ref("demo")
    goal = whole(cloud, 1, root_disk=0)
    Run(cloud).to(goal)
    del cloud.store.notes[ref.id][NOTE_READY]  # as while it is being made
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
