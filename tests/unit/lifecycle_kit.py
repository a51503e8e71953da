"""Clusters on the memory cloud for the tests of their life: my own, a colleague's, one without its head."""

from __future__ import annotations

from pathlib import Path

import pytest

from vcluster import Cluster, ClusterSpec
from vcluster.clouds.memory import MemoryCloud

__all__ = ["DAY", "HOUR", "SPEC", "cloud", "cluster", "dora", "home", "left_over", "spec"]

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
