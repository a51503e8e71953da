"""A cluster used from a second computer, which has nothing of it: every command works there, and none makes a twin."""

from __future__ import annotations

from pathlib import Path

import pytest

from vcluster import Cluster, ClusterSpec
from vcluster.clouds.memory import MemoryCloud
from vcluster.errors import UsageError
from vcluster.events import Event, Log
from vcluster.model import Health, MachineState
from vcluster.secrets import Keyring

SPEC = {"name": "demo", "cloud": "memory", "workers": [{"name": "cpu", "flavor": "small", "count": 2, "max_count": 4}]}


@pytest.fixture
def cloud() -> MemoryCloud:
    return MemoryCloud()


@pytest.fixture
def here(cloud: MemoryCloud, tmp_path: Path) -> Cluster:
    """The cluster on the computer that made it."""
    cluster = Cluster(spec(), cloud=cloud, home=tmp_path / "here")
    cluster.up()
    return cluster


@pytest.fixture
def there(cloud: MemoryCloud, here: Cluster, tmp_path: Path) -> Cluster:
    """The same cluster on another one, by its name."""
    return Cluster("demo", cloud=cloud, home=tmp_path / "there")


def spec(**changes: object) -> ClusterSpec:
    return ClusterSpec.model_validate(SPEC | {"head": {"flavor": "small"}} | changes)


def test_up_changes_nothing_and_brings_the_keys(here: Cluster, there: Cluster) -> None:
    assert not there.up().changed
    assert there.folder.claim == here.folder.claim
    assert there.folder.read_spec() == spec()


def test_a_dead_worker_is_replaced_from_there(cloud: MemoryCloud, here: Cluster, there: Cluster) -> None:
    before = {machine.name: machine.uuid for machine in cloud.observe(here.ref).machines}
    cloud.kill("cpu-1")
    assert there.up().changed
    after = {machine.name: machine.uuid for machine in cloud.observe(here.ref).machines}
    assert {name for name in after if after[name] != before[name]} == {"cpu-1"}
    assert {machine.health for machine in there.status().machines} == {Health.READY}


def test_status_needs_no_file(there: Cluster) -> None:
    status = there.status()
    assert {machine.state for machine in status.machines} == {MachineState.ACTIVE}
    assert not there.folder.path.exists()


def test_down_needs_no_file(cloud: MemoryCloud, there: Cluster) -> None:
    there.down()
    assert cloud.resources() == []


def test_what_the_one_scaled_the_other_does_not_scale_back(cloud: MemoryCloud, here: Cluster, there: Cluster) -> None:
    there.up()
    here.scale("cpu", 3)
    assert not there.up().changed
    assert there.folder.read_spec() == here.folder.read_spec()
    there.scale("cpu", 1)
    assert not Cluster("demo", cloud=cloud, home=here.folder.path.parents[1]).up().changed
    assert len(list(cloud.observe(here.ref).workers())) == 1


def test_what_changed_while_the_head_was_off_is_told_to_it_afterwards(
    cloud: MemoryCloud, here: Cluster, there: Cluster
) -> None:
    here.stop()
    here.scale("cpu", 3)
    assert not there.up().changed
    assert there.folder.read_spec() == here.folder.read_spec()
    assert len(list(cloud.observe(here.ref).workers())) == 3


def test_a_stopped_cluster_starts_from_there(here: Cluster, there: Cluster) -> None:
    here.stop()
    there.start()
    assert {machine.state for machine in there.status().machines} == {MachineState.ACTIVE}


def test_a_shelved_cluster_comes_back_from_there(here: Cluster, there: Cluster) -> None:
    here.shelve()
    there.unshelve()
    assert {machine.state for machine in there.status().machines} == {MachineState.ACTIVE}


def test_a_plan_from_there_switches_nothing_on(here: Cluster, there: Cluster) -> None:
    here.stop()
    with pytest.raises(UsageError, match="SHUTOFF"):
        there.plan()
    assert {machine.state for machine in there.status().machines} == {MachineState.SHUTOFF}


def test_an_older_clusters_secret_is_moved_aside(cloud: MemoryCloud, here: Cluster, tmp_path: Path) -> None:
    events: list[Event] = []
    there = Cluster(spec(), cloud=cloud, home=tmp_path / "there", on_event=events.append)
    there.folder.adopt(Keyring(bytes(32)), "")
    assert not there.up().changed
    assert there.folder.claim == here.folder.claim
    assert [event for event in events if isinstance(event, Log) and "secret.old-" in event.message]
