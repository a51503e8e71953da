"""The local cloud's record: what is written, what two at once may do, and what a crash leaves behind."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from local_kit import local, make_network, make_ports, record_for, request_for

from vcluster.clouds.local import LocalCloud
from vcluster.clouds.local.files import is_locked, locked, remove_tree, sweep
from vcluster.clouds.local.records import ClusterFolder
from vcluster.errors import ConflictError, PermanentError, TemporaryError, VclusterError
from vcluster.model import MachineState, PortRequest, Role


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


def test_a_cluster_comes_and_goes_without_a_trace(cloud: LocalCloud, base: Path) -> None:
    ref = cloud.ref("demo")
    network = make_network(cloud, ref)
    ports = make_ports(cloud, ref, "head", "cpu-1")
    assert [(port.name, port.address) for port in ports] == [("head", "10.77.0.10"), ("cpu-1", "10.77.0.11")]
    cloud.annotate(ref, {"spec": "abc", "ready-at": "12"})
    cloud.annotate(ref, {"spec": ""})
    seen = cloud.observe(ref)
    assert (seen.networks, seen.ports, dict(seen.notes)) == ((network,), tuple(ports), {"ready-at": "12"})
    assert [summary.ref for summary in cloud.clusters()] == [ref]
    cloud.delete_ports(ref, [port.uuid for port in ports])
    cloud.delete_network(ref, network.uuid)
    assert cloud.observe(ref).empty
    assert not (base / "home").exists()
    assert list(cloud.clusters()) == []


def test_only_the_owner_may_look(cloud: LocalCloud, base: Path) -> None:
    ref = cloud.ref("demo")
    make_network(cloud, ref)
    make_ports(cloud, ref, "head")
    cloud.annotate(ref, {"spec": "abc"})
    paths = [base / "home", *(base / "home").rglob("*")]
    assert len(paths) > 8
    assert [p for p in paths if stat.S_IMODE(p.lstat().st_mode) != (0o700 if p.is_dir() else 0o600)] == []


def test_a_second_network_is_a_conflict(cloud: LocalCloud) -> None:
    ref = cloud.ref("demo")
    first = make_network(cloud, ref)
    with pytest.raises(ConflictError):
        make_network(cloud, ref)
    assert cloud.observe(ref).networks == (first,)


def test_ports_are_made_all_or_none(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = cloud.ref("demo")
    make_network(cloud, ref)
    make_ports(cloud, ref, "head")
    with pytest.raises(ConflictError, match="head"):
        make_ports(cloud, ref, "cpu-1", "head")
    assert [port.name for port in cloud.observe(ref).ports] == ["head"]

    written: list[Path] = []

    def full_disk(path: Path, value: object, **_: bool) -> None:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(path)
        path.write_text(json.dumps(value))

    monkeypatch.setattr("vcluster.clouds.local.records.write_json", full_disk)
    with pytest.raises(VclusterError, match="No space left") as caught:
        make_ports(cloud, ref, "cpu-1", "cpu-2", "cpu-3")
    assert caught.value.exit_code == 3
    assert [port.name for port in cloud.observe(ref).ports] == ["head"]


def test_addresses_are_given_again_and_never_twice(cloud: LocalCloud) -> None:
    ref = cloud.ref("demo")
    make_network(cloud, ref)
    ports = make_ports(cloud, ref, *(f"cpu-{n}" for n in range(300)))
    assert len({port.address for port in ports}) == len({port.mac for port in ports}) == 300
    assert ports[-1].address == "10.77.1.53"
    cloud.delete_ports(ref, [ports[7].uuid])
    (again,) = make_ports(cloud, ref, "cpu-7")
    assert (again.address, again.uuid != ports[7].uuid) == (ports[7].address, True)


def test_a_network_has_an_end(cloud: LocalCloud) -> None:
    ref = cloud.ref("demo")
    make_network(cloud, ref)
    with pytest.raises(PermanentError, match="no address left"):
        make_ports(cloud, ref, *(f"cpu-{n}" for n in range(4086)))
    assert cloud.observe(ref).ports == ()


def test_what_is_in_use_stays(cloud: LocalCloud, folder: ClusterFolder) -> None:
    ref = cloud.ref("demo")
    network = make_network(cloud, ref)
    (port,) = make_ports(cloud, ref, "head")
    record = record_for(ref, port)
    with folder.building(record):
        assert cloud.observe(ref).machines[0].state is MachineState.BUILD
    with pytest.raises(ConflictError, match="in use"):
        cloud.delete_ports(ref, [port.uuid])
    with pytest.raises(ConflictError, match="in use"):
        cloud.delete_network(ref, network.uuid)
    (seen,) = cloud.observe(ref).ports
    assert seen.device == record.uuid


def test_one_port_takes_one_machine(cloud: LocalCloud, folder: ClusterFolder) -> None:
    ref = cloud.ref("demo")
    make_network(cloud, ref)
    (port,) = make_ports(cloud, ref, "head")
    twin = record_for(ref, port)
    with folder.building(record_for(ref, port)), pytest.raises(ConflictError, match="in use"), folder.building(twin):
        pytest.fail("a twin was made")
    with pytest.raises(ConflictError, match="in use"):
        cloud.create_machine(ref, request_for(ref, port))
    gone = replace(port, uuid="00000000-0000-0000-0000-000000000000")
    with pytest.raises(ConflictError, match="gone"):
        cloud.create_machine(ref, request_for(ref, gone))


def test_a_neighbours_tag_is_left_alone(cloud: LocalCloud, folder: ClusterFolder) -> None:
    ref, other = cloud.ref("demo"), cloud.ref("other")
    make_network(cloud, ref)
    (port,) = make_ports(cloud, ref, "head")
    with folder.building(record_for(ref, port)):
        pass
    (record,) = folder.machines()
    forged = replace(record, tag=other.tag(Role.HEAD))
    folder.save(forged)
    for act in (cloud.delete_machine, cloud.stop_machine, cloud.start_machine, cloud.reboot_machine):
        with pytest.raises(PermanentError, match="left alone"):
            act(ref, record.uuid)
    with pytest.raises(PermanentError, match="left alone"):
        cloud.create_ports(ref, [PortRequest("cpu-1", other.tag(Role.WORKER))])
    with pytest.raises(PermanentError, match="left alone"):
        cloud.create_network(ref, other.tag(Role.NETWORK))
    assert folder.machines() == [forged]


def test_unknown_machines_are_no_error_to_delete(cloud: LocalCloud) -> None:
    ref = cloud.ref("demo")
    cloud.delete_machine(ref, "00000000-0000-0000-0000-000000000000")
    cloud.delete_ports(ref, ["nothing"])
    cloud.delete_network(ref, "nothing")
    make_network(cloud, ref)
    cloud.delete_machine(ref, "00000000-0000-0000-0000-000000000000")
    cloud.delete_network(ref, "nothing")
    assert len(cloud.observe(ref).networks) == 1
    with pytest.raises(ConflictError, match="no machine"):
        cloud.start_machine(ref, "00000000-0000-0000-0000-000000000000")


def test_notes_need_a_cluster(cloud: LocalCloud) -> None:
    with pytest.raises(ConflictError):
        cloud.annotate(cloud.ref("demo"), {"spec": "abc"})
    assert list(cloud.clusters()) == []


def test_state_folders_do_not_meet(tmp_path: Path) -> None:
    one, two = local(tmp_path / "one").ref("demo"), local(tmp_path / "two").ref("demo")
    assert one.id != two.id
    assert one == local(tmp_path / "one").ref("demo")
    assert one.creator == str(os.getuid())


def test_long_paths_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    cloud = local(tmp_path / ("x" * 90))
    with pytest.raises(PermanentError, match="bytes too long") as caught:
        cloud.create_network(cloud.ref("demo"), cloud.ref("demo").tag(Role.NETWORK))
    assert "VCLUSTER_HOME" in caught.value.remedy
    with pytest.raises(PermanentError, match="bytes too long"):
        cloud.check_room(cloud.ref("demo"), [])
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_is_named(cloud: LocalCloud, folder: ClusterFolder) -> None:
    ref = cloud.ref("demo")
    make_network(cloud, ref)
    (folder.path / "network.json").write_text("{")
    with pytest.raises(PermanentError, match=r"network\.json is damaged"):
        cloud.observe(ref)


# -- two at once ---------------------------------------------------------------------------------------------


def _race(act: Callable[[int], str], count: int = 6) -> list[str]:
    """Run ``act`` in as many processes at the same moment; what each gave back."""
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(count), context.SimpleQueue()

    def child(number: int, gate: Barrier) -> None:
        gate.wait()
        try:
            answers.put(act(number))
        except VclusterError as error:
            answers.put(type(error).__name__)

    children = [context.Process(target=child, args=(number, barrier)) for number in range(count)]
    for process in children:
        process.start()
    results = [answers.get() for _ in children]
    for process in children:
        process.join(30)
        assert process.exitcode == 0
    return sorted(results)


def test_racing_networks_end_with_one(cloud: LocalCloud) -> None:
    ref = cloud.ref("demo")
    made = _race(lambda _n: make_network(cloud, ref).uuid)
    assert made.count("ConflictError") == 5
    assert cloud.observe(ref).networks[0].uuid in made


def test_racing_ports_end_with_one(cloud: LocalCloud) -> None:
    ref = cloud.ref("demo")
    make_network(cloud, ref)
    made = _race(lambda _n: make_ports(cloud, ref, "head", "cpu-1")[0].uuid)
    assert made.count("ConflictError") == 5
    assert cloud.observe(ref).ports[0].uuid in made
    assert len(cloud.observe(ref).ports) == 2


def test_racing_ports_of_different_names_get_different_addresses(cloud: LocalCloud) -> None:
    ref = cloud.ref("demo")
    make_network(cloud, ref)
    made = _race(lambda n: make_ports(cloud, ref, f"cpu-{n}")[0].address)
    assert len(set(made)) == 6


def test_racing_machines_end_with_one(cloud: LocalCloud, folder: ClusterFolder) -> None:
    ref = cloud.ref("demo")
    make_network(cloud, ref)
    (port,) = make_ports(cloud, ref, "head")

    def build(_number: int) -> str:
        record = record_for(ref, port)
        with folder.building(record):
            return record.uuid

    made = _race(build)
    assert made.count("ConflictError") == 5
    assert folder.machines()[0].uuid in made
    assert len(folder.machines()) == 1


def test_removing_and_making_race_without_harm(cloud: LocalCloud) -> None:
    ref = cloud.ref("demo")

    def churn(_number: int) -> str:
        for _ in range(15):
            try:
                cloud.delete_network(ref, make_network(cloud, ref).uuid)
            except ConflictError:
                continue
        return "done"

    assert _race(churn, 4) == ["done"] * 4
    for network in cloud.observe(ref).networks:
        cloud.delete_network(ref, network.uuid)
    assert list(cloud.clusters()) == []
    assert not cloud._home.exists()


# -- locks ---------------------------------------------------------------------------------------------------


def test_locks(tmp_path: Path) -> None:
    with locked(tmp_path, what="x", create=True) as held:
        assert held
        assert is_locked(tmp_path)
        with pytest.raises(TemporaryError, match="at work on y"), locked(tmp_path, what="y", timeout=0.1):
            pytest.fail("locked twice")
        (tmp_path / ".new-a").mkdir()
        (tmp_path / ".new-b").mkdir()
        with locked(tmp_path / ".new-b", what="b", create=True):
            sweep(tmp_path)
        assert not (tmp_path / ".new-a").exists()
        assert (tmp_path / ".new-b").exists()
    assert not is_locked(tmp_path)
    remove_tree(tmp_path / "absent")
    with locked(tmp_path / "absent", what="x") as held:
        assert not held
