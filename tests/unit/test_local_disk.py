"""The local cloud on a disk that is full or not ours, and with records that another version wrote."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from local_kit import local, make_network, make_ports, record_for, request_for

from vcluster.clouds.local import LocalCloud, switch, vm
from vcluster.clouds.local.records import ClusterFolder
from vcluster.errors import PermanentError, QuotaError, TemporaryError, VclusterError
from vcluster.model import ClusterRef, Port


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


PORT = Port("p", "t", "head", "10.77.0.10", "02:76:0a:4d:00:0a", "")
ANY = "00000000-0000-0000-0000-000000000000"
CALLS: dict[str, Callable[[LocalCloud, ClusterRef], object]] = {
    "observe": lambda cloud, ref: cloud.observe(ref),
    "console": lambda cloud, ref: cloud.console(ref, ANY, 5),
    "forward": lambda cloud, ref: cloud.forward(ref, ANY),
    "create_network": make_network,
    "create_ports": lambda cloud, ref: make_ports(cloud, ref, "head"),
    "delete_ports": lambda cloud, ref: cloud.delete_ports(ref, [ANY]),
    "delete_network": lambda cloud, ref: cloud.delete_network(ref, ANY),
    "annotate": lambda cloud, ref: cloud.annotate(ref, {"spec": "abc"}),
    "create_machine": lambda cloud, ref: cloud.create_machine(ref, request_for(ref, PORT)),
    "delete_machine": lambda cloud, ref: cloud.delete_machine(ref, ANY),
    "start_machine": lambda cloud, ref: cloud.start_machine(ref, ANY),
    "stop_machine": lambda cloud, ref: cloud.stop_machine(ref, ANY),
    "reboot_machine": lambda cloud, ref: cloud.reboot_machine(ref, ANY),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, QuotaError), (errno.EACCES, PermanentError)])
def test_no_call_lets_a_raw_error_out(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch, call: str, number: int, kind: type[VclusterError]
) -> None:
    ref = cloud.ref("demo")

    def fail(*_: object) -> ClusterFolder:
        raise OSError(number, os.strerror(number), "/some/where")

    monkeypatch.setattr(LocalCloud, "_folder", fail)
    monkeypatch.setattr("vcluster.clouds.local.cloud.check_owned", lambda *_: None)
    with pytest.raises(kind, match="/some/where"):
        CALLS[call](cloud, ref)


def test_a_host_too_busy_is_weather(cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_network(cloud, cloud.ref("demo"))

    def hang(argv: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(argv, 60)

    monkeypatch.setattr(subprocess, "run", hang)
    (tmp_path / "base").touch()
    with pytest.raises(TemporaryError, match="qemu-img"):
        vm.create_disk(tmp_path, tmp_path / "base", 8)
    with pytest.raises(TemporaryError, match="vde_switch"):
        switch.ensure(ClusterFolder(cloud._clouds, cloud.ref("demo")).sockets)


def test_a_home_that_is_a_file_is_named(base: Path) -> None:
    (base / "home").write_text("not a folder")
    cloud = local(base)
    with pytest.raises(PermanentError, match=r"cannot make the cluster's folder.*home"):
        make_network(cloud, cloud.ref("demo"))


def test_notes_on_a_full_disk_are_a_matter_of_room(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = cloud.ref("demo")
    make_network(cloud, ref)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vcluster.clouds.local.records.write_json", full)
    with pytest.raises(QuotaError, match="notes: No space left") as caught:
        cloud.annotate(ref, {"spec": "abc"})
    assert "make room" in caught.value.remedy


@pytest.mark.parametrize("name", ["network.json", "machines/*/machine.json", "ports/head.json"])
def test_a_newer_versions_record_is_named(cloud: LocalCloud, folder: ClusterFolder, name: str) -> None:
    ref = cloud.ref("demo")
    make_network(cloud, ref)
    (port,) = make_ports(cloud, ref, "head")
    with folder.building(record_for(ref, port)):
        pass
    (path,) = folder.path.glob(name)
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "blue"}))
    with pytest.raises(PermanentError, match="another version of vcluster") as caught:
        cloud.observe(ref)
    assert "use that version" in caught.value.remedy


def test_a_newer_versions_cluster_is_named_and_troubles_no_other(cloud: LocalCloud, folder: ClusterFolder) -> None:
    make_network(cloud, cloud.ref("demo"))
    (folder.path / "cluster.json").write_text('{"title": "demo"}')
    with pytest.raises(PermanentError, match="another version of vcluster"):
        cloud.clusters()
    other = cloud.ref("other")
    cloud.delete_network(other, make_network(cloud, other).uuid)
    assert cloud.observe(other).empty
    assert folder.path.exists()
