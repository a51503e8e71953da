"""What the local cloud has not, what it says of itself, claims, and a machine on the shelf."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from local_kit import REF, SMALL, local, make_network, record_for

from vcluster.clouds.local import LocalCloud, vm
from vcluster.clouds.local.records import ClusterFolder, MachineRecord, Wish
from vcluster.errors import PermanentError
from vcluster.model import (
    Layout,
    MachineState,
    Observed,
    Part,
    PartKind,
    PartRequest,
    Port,
    PortRequest,
    Role,
    VolumeRequest,
    Wishes,
)

VOLUME = Part("v", REF.tag(PartKind.VOLUME), PartKind.VOLUME, "head")


@pytest.fixture
def cloud(vcluster_home: Path) -> LocalCloud:
    return local(vcluster_home.parent)


def test_machines_here_need_nothing_around_them(cloud: LocalCloud) -> None:
    assert cloud.layout(REF, Wishes(), Observed()) == Layout()
    assert cloud.allowances() == {}
    assert str(cloud._home) in cloud.place
    cloud.delete_part(REF, VOLUME)
    cloud.keep_volumes(REF, [])
    with pytest.raises(PermanentError, match="has no volumes"):
        cloud.keep_volumes(REF, [VOLUME])
    with pytest.raises(PermanentError, match="has no routers"):
        cloud.create_part(REF, PartRequest(PartKind.ROUTER, "router", REF.tag(PartKind.ROUTER)), Observed())
    with pytest.raises(PermanentError, match="has no volumes") as caught:
        cloud.create_volume(REF, VolumeRequest("head", REF.tag(PartKind.VOLUME), 20, "x"))
    assert "root_disk" in caught.value.remedy


def test_a_claim_stays_with_the_heads_port(cloud: LocalCloud) -> None:
    ref = cloud.ref("demo")
    make_network(cloud, ref)
    (port,) = cloud.create_ports(ref, [PortRequest("head", ref.tag(Role.HEAD), claim="0123456789ab")])
    assert port.claim == "0123456789ab"
    seen = cloud.observe(ref, since=Observed())
    assert [p.claim for p in seen.ports] == ["0123456789ab"]


def test_a_shelved_machine_stays_so_until_it_is_booted(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = cloud.ref("demo")
    make_network(cloud, ref)
    (port,) = cloud.create_ports(ref, [PortRequest("head", ref.tag(Role.HEAD))])
    folder, record = _built(cloud, port)
    cloud.shelve_machine(ref, record.uuid)
    cloud.shelve_machine(ref, record.uuid)
    assert [m.state for m in cloud.observe(ref).machines] == [MachineState.SHELVED]
    booted: list[str] = []
    monkeypatch.setattr(vm, "launch", lambda _folder, this, _accel: booted.append(this.uuid))
    cloud.unshelve_machine(ref, record.uuid)
    assert booted == [record.uuid]
    cloud.stop_machine(ref, record.uuid)
    assert [m.state for m in cloud.observe(ref).machines] == [MachineState.SHUTOFF]
    assert folder.machine(record.uuid) is not None


def _built(cloud: LocalCloud, port: Port) -> tuple[ClusterFolder, MachineRecord]:
    folder = ClusterFolder(cloud._clouds, cloud.ref("demo"))
    record = record_for(cloud.ref("demo"), port)
    assert record.size == SMALL
    with folder.building(record):
        for name in ("disk.qcow2", "seed.iso"):
            (folder.machine_path(record.uuid) / name).touch()
        folder.save(replace(record, wish=Wish.RUNNING))
    return folder, record
