"""What a process of the local cloud leaves that was killed, and what becomes of it."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import pytest
from local_kit import local, make_network, make_ports, record_for

from vcluster.clouds.local import LocalCloud, vm
from vcluster.clouds.local.files import locked, write_atomic
from vcluster.clouds.local.records import ClusterFolder, Wish
from vcluster.errors import PermanentError
from vcluster.model import MachineState


@pytest.fixture
def base(vcluster_home: Path) -> Path:
    """A folder with a short path, of this test alone."""
    return vcluster_home.parent


@pytest.fixture
def cloud(base: Path) -> LocalCloud:
    return local(base)


@pytest.fixture
def folder(cloud: LocalCloud) -> ClusterFolder:
    return ClusterFolder(cloud._clouds, cloud.ref("demo"))


class KilledError(BaseException):
    """Stands for kill -9: no ``except Exception`` may catch it, and no ``finally`` of ours has run yet on disk."""


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "record"
    write_atomic(path, b"old")

    def die(_n: int) -> str:
        handle = os.open(tmp_path / ".tmp-half", os.O_CREAT | os.O_WRONLY)
        os.write(handle, b"new, but h")
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=die, args=(0,))
    child.start()
    child.join(30)
    assert path.read_bytes() == b"old"


def test_a_killed_builder_is_seen_and_can_be_deleted(cloud: LocalCloud, folder: ClusterFolder) -> None:
    ref = cloud.ref("demo")
    make_network(cloud, ref)
    (port,) = make_ports(cloud, ref, "head")
    record = record_for(ref, port)

    def build_and_die() -> None:
        with folder.building(record):
            os._exit(9)

    child = multiprocessing.get_context("fork").Process(target=build_and_die)
    child.start()
    child.join(30)
    assert child.exitcode == 9
    (machine,) = cloud.observe(ref).machines
    assert (machine.uuid, machine.state) == (record.uuid, MachineState.ERROR)
    assert "interrupted" in machine.fault
    with pytest.raises(PermanentError, match="no disk"):
        cloud.reboot_machine(ref, record.uuid)
    cloud.stop_machine(ref, record.uuid)
    assert cloud.observe(ref).machines[0].state is MachineState.ERROR
    cloud.delete_machine(ref, record.uuid)
    assert cloud.observe(ref).machines == ()
    assert list((folder.path / "machines").iterdir()) == []


def test_half_made_folders_are_nothing_and_are_swept(cloud: LocalCloud, folder: ClusterFolder) -> None:
    ref = cloud.ref("demo")
    half = cloud._clouds / f".new-{ref.id}"
    (half / "ports").mkdir(parents=True)
    assert cloud.observe(ref).empty
    assert list(cloud.clusters()) == []
    network = make_network(cloud, ref)
    assert not half.exists()
    (folder.path / "machines" / ".new-01234567").mkdir()
    (folder.path / "machines" / ".trash-01234567-aa").mkdir()
    assert cloud.observe(ref).machines == ()
    cloud.delete_network(ref, network.uuid)
    assert not cloud._home.exists()


def test_a_killed_first_step_leaves_nothing_to_find(cloud: LocalCloud) -> None:
    (cloud._clouds / f".new-{cloud.ref('demo').id}" / "ports").mkdir(parents=True)
    assert cloud.observe(cloud.ref("demo")).empty
    cloud.close()
    assert not cloud._home.exists()
    cloud.close()


def test_an_interrupted_deletion_can_be_taken_back(
    cloud: LocalCloud, folder: ClusterFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = cloud.ref("demo")
    make_network(cloud, ref)
    (port,) = make_ports(cloud, ref, "head")
    with folder.building(record_for(ref, port)):
        pass
    (record,) = folder.machines()
    folder.save(replace(record, wish=Wish.DELETED))
    booted: list[str] = []
    monkeypatch.setattr(vm, "launch", lambda _folder, record, _accel: booted.append(record.uuid))
    for act in (cloud.reboot_machine, cloud.start_machine):
        with pytest.raises(PermanentError, match="no disk"):
            act(ref, record.uuid)
    for name in ("disk.qcow2", "seed.iso"):
        (folder.machine_path(record.uuid) / name).touch()
    cloud.reboot_machine(ref, record.uuid)
    cloud.start_machine(ref, record.uuid)
    assert booted == [record.uuid] * 2
    cloud.stop_machine(ref, record.uuid)
    assert cloud.observe(ref).machines[0].state is MachineState.SHUTOFF


def test_an_interrupted_deletion_is_seen_and_finished(cloud: LocalCloud, folder: ClusterFolder) -> None:
    ref = cloud.ref("demo")
    make_network(cloud, ref)
    (port,) = make_ports(cloud, ref, "head")
    with folder.building(record_for(ref, port)):
        pass
    (record,) = folder.machines()
    folder.save(replace(record, wish="deleted"))
    with locked(folder.machine_path(record.uuid), what="test"):
        assert cloud.observe(ref).machines[0].state is MachineState.DELETING
    assert cloud.observe(ref).machines[0].state is MachineState.ERROR
    cloud.delete_machine(ref, record.uuid)
    assert cloud.observe(ref).machines == ()


def test_an_emptied_folder_is_no_cluster(cloud: LocalCloud, folder: ClusterFolder) -> None:
    ref = cloud.ref("demo")
    make_network(cloud, ref)
    cloud.annotate(ref, {"ready-at": "12"})
    (folder.path / "network.json").unlink()
    assert cloud.observe(ref).empty
    assert dict(cloud.observe(ref).notes) == {}
    assert list(cloud.clusters()) == []
    make_network(cloud, ref)
    assert dict(cloud.observe(ref).notes) == {}
    (folder.path / "network.json").unlink()
    with locked(folder.path, what="test"):
        cloud.close()
        assert folder.path.exists(), "somebody was at work on it"
    cloud.close()
    assert not cloud._home.exists()


def test_the_last_step_is_one_rename(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = cloud.ref("demo")
    network = make_network(cloud, ref)
    cloud.annotate(ref, {"ready-at": "12"})

    def killed(_path: Path) -> None:
        raise KilledError

    monkeypatch.setattr("vcluster.clouds.local.cloud.remove_tree", killed)
    with pytest.raises(KilledError):
        cloud.delete_network(ref, network.uuid)
    assert cloud.observe(ref).networks == (network,)
    assert dict(cloud.observe(ref).notes) == {"ready-at": "12"}
