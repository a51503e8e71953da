"""Leftovers are deleted only when it is sure that they are old."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vcluster import Cluster, ClusterSpec, sweep
from vcluster.clouds.memory import MemoryCloud
from vcluster.model import ClusterRef, Observed

HOUR = 3600.0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def cloud(home: Path) -> MemoryCloud:
    """With a cluster whose head somebody deleted two hours ago."""
    cloud = MemoryCloud(parts=True)
    spec = {"name": "demo", "cloud": "memory", "workers": [{"name": "cpu", "count": 1}]}
    Cluster(ClusterSpec.model_validate(spec), cloud=cloud, home=home).up()
    cloud.lose("head")
    cloud.clock.sleep(2 * HOUR)
    return cloud


def test_what_does_not_tell_its_age_is_no_older_than_the_rest(home: Path, cloud: MemoryCloud) -> None:
    ref, observe = cloud.ref("demo"), cloud.observe
    undated = tuple(replace(n, created=0.0) for n in observe(ref).networks)
    alone = [Observed(networks=undated)]

    def look(asked: ClusterRef, since: Observed | None = None) -> Observed:
        return alone[0] if alone else replace(observe(asked), networks=undated)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cloud, "observe", look)
        assert sweep(cloud=cloud, home=home, dry_run=True) == ()
        alone.clear()
        (found,) = sweep(cloud=cloud, home=home, dry_run=True)
    assert [t.created for t in found.things if t.kind == "network"] == [0.0]


def test_a_cloud_whose_clock_is_far_ahead_makes_nothing_old(home: Path, cloud: MemoryCloud) -> None:
    real = cloud.now()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vcluster.sweeper.time.time", lambda: real - 2 * HOUR)
        assert sweep(cloud=cloud, home=home, dry_run=True) == ()
    assert len(sweep(cloud=cloud, home=home, dry_run=True)) == 1
