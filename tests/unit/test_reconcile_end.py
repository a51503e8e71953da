"""When `down` believes that nothing is left."""

from __future__ import annotations

import pytest
from engine import ABSENT, Run, running

from vcluster.clouds.memory import MemoryCloud
from vcluster.model import Observed, Part, PartKind
from vcluster.reconcile_end import Quiet

LAG = 2.0
NOTHING = Observed()
VOLUME = Part("v1", "vcluster/x/demo/volume", PartKind.VOLUME, "head")
ROUTER = Part("r1", "vcluster/x/demo/router", PartKind.ROUTER, "router")


def test_nothing_is_believed_at_the_second_look_a_lag_later() -> None:
    quiet = Quiet(LAG)
    quiet.saw(NOTHING, 100.0)
    assert quiet.left(100.0) == LAG
    quiet.saw(NOTHING, 101.5)
    assert quiet.left(101.5) == pytest.approx(0.5)
    assert quiet.left(102.0) == 0.0


@pytest.mark.parametrize(
    ("seen", "early"),
    [
        (Observed(parts=(ROUTER,)), False),
        (Observed(parts=(Part("v2", "", PartKind.VOLUME, "head", kept=True),)), False),
        (Observed(parts=(VOLUME,)), True),
    ],
    ids=["network resources", "a volume that stays", "a volume"],
)
def test_the_silence_is_that_of_machines_and_volumes(seen: Observed, *, early: bool) -> None:
    quiet = Quiet(LAG)
    quiet.saw(seen, 100.0)
    quiet.saw(NOTHING, 102.0)
    assert (quiet.left(102.0) > 0) is early


def test_a_machine_that_is_listed_late_begins_it_anew() -> None:
    quiet = Quiet(LAG)
    cloud = MemoryCloud()
    Run(cloud).to(running(1))
    up = cloud.observe(cloud.ref("demo"))
    assert up.machines
    for moment, seen in ((100.0, NOTHING), (101.0, up), (103.0, NOTHING)):
        quiet.saw(seen, moment)
    assert quiet.left(103.0) == LAG


def test_where_listings_do_not_lag_the_first_look_counts() -> None:
    quiet = Quiet(0.0)
    quiet.saw(NOTHING, 100.0)
    assert quiet.left(100.0) == 0.0


def test_down_of_what_is_not_there_looks_for_as_long_as_a_listing_may_lag() -> None:
    cloud = MemoryCloud(lag=5.0)
    began = cloud.now()
    Run(cloud).to(ABSENT)
    assert cloud.now() - began >= 5.0
