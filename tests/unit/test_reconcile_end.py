"""When `down` believes that nothing is left."""

from __future__ import annotations

import pytest
from engine import ABSENT, Run, fresh, whole

from vcluster.clouds.memory import MemoryCloud
from vcluster.model import Part, PartKind, VolumeRequest


def test_down_of_what_is_not_there_looks_for_as_long_as_a_listing_may_lag() -> None:
    cloud = MemoryCloud(lag=5.0)
    began = cloud.now()
    Run(cloud).to(ABSENT)
    assert cloud.now() - began >= 5.0


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
