"""`down --keep-volumes` keeps the head's volume in fact, whatever the cloud says of who uses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vcluster import Cluster, ClusterSpec
from vcluster.clouds.memory import MemoryCloud
from vcluster.model import PartKind


@pytest.mark.parametrize("shelved", [False, True])
def test_the_homes_of_a_shelved_cluster_are_kept_as_well(tmp_path: Path, shelved: bool) -> None:
    cloud = MemoryCloud(parts=True)
    workers = [{"name": "cpu", "count": 1, "root_disk": "20G"}]
    spec = {"name": "demo", "cloud": "memory", "head": {"root_disk": "20G"}, "workers": workers}
    demo = Cluster(ClusterSpec.model_validate(spec), cloud=cloud, home=tmp_path)
    demo.up()
    (home,) = (p.uuid for p in cloud.observe(demo.ref).parts if (p.kind, p.name) == (PartKind.VOLUME, "head"))
    if shelved:
        demo.shelve()
        assert [p.used_by for p in cloud.observe(demo.ref).parts if p.uuid == home] == [""]  # as Cinder has it
    demo.down(keep_volumes=True)
    assert [(p.uuid, p.kept) for p in cloud.observe(demo.ref).parts] == [(home, True)]
