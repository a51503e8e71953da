"""What must not be lost on an OpenStack: volumes that are kept, living servers that a listing leaves out."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from openstack_kit import OTHER, REF, FakeCloud, cloud, fake, server

from vcluster.actions import Goal, Power, Verb
from vcluster.clouds.openstack import OpenStackCloud, marks, stale
from vcluster.errors import ConflictError, PermanentError, TemporaryError
from vcluster.model import Flavor, MachineState, Observed, Part, PartKind, Role, Wishes
from vcluster.plan_absent import plan_absent

__all__ = ["cloud", "fake"]

TIES = "/servers/s1/os-volume_attachments"


def home(**more: Any) -> dict[str, Any]:
    metadata = marks.volume_mark(REF, REF.tag(PartKind.VOLUME), "head")
    return {"id": "v1", "status": "reserved", "attachments": [], "metadata": metadata} | more


def shelved(fake: FakeCloud, *volumes: str) -> None:
    """A shelved head: Cinder lists its volume as nobody's, Nova may tell of it."""
    held = {"os-extended-volumes:volumes_attached": [{"id": v} for v in volumes]}
    fake.nova("GET", "/servers/detail", json={"servers": [server(status="SHELVED_OFFLOADED", **held)]})
    fake.cinder("GET", "/volumes/detail", json={"volumes": [home()]})
    fake.cinder("POST", "/volumes/v1/metadata", json={"metadata": {}})


def kept_by(seen: Any) -> tuple[Part, ...]:
    """The volumes that `down --keep-volumes` keeps first."""
    planned = plan_absent(Goal(Power.ABSENT, keep_volumes=True), seen, 0.0).actions
    (action,) = (a for a in planned if a.verb is Verb.KEEP_VOLUMES)
    return action.kept


@pytest.mark.parametrize("volumes", [(), ("v1",)])
def test_a_shelved_heads_volume_is_untied_before_it_is_marked(
    fake: FakeCloud, cloud: OpenStackCloud, volumes: tuple[str, ...]
) -> None:
    shelved(fake, *volumes)
    fake.nova("PUT", f"{TIES}/v1", status_code=202)
    seen = cloud.observe(REF)
    assert [m.state for m in seen.machines] == [MachineState.SHELVED]
    cloud.keep_volumes(REF, kept_by(seen))
    (put,) = fake.asked("PUT", TIES)
    assert put.json()["volumeAttachment"] == {"volumeId": "v1", "delete_on_termination": False}
    order = [r.path for r in fake.mocker.request_history if r.method in ("PUT", "POST") and "v1" in r.path.split("/")]
    assert [path.rpartition("/")[2] for path in order] == ["v1", "metadata"]


def test_nova_is_asked_who_has_a_volume_that_is_nobodys(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    shelved(fake, "v1")
    fake.nova("PUT", f"{TIES}/v1", status_code=202)
    fake.cinder("GET", "/volumes/v1", json={"volume": home()})
    cloud.keep_volumes(REF, [Part("v1", REF.tag(PartKind.VOLUME), PartKind.VOLUME, "head")])
    assert len(fake.asked("PUT", TIES)) == 1


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ({"status_code": 404}, True),
        ({"json": {"volumeAttachments": [{"volumeId": "v2"}]}}, True),
        ({"json": {"volumeAttachments": [{"volumeId": "v1"}]}}, False),
    ],
)
def test_a_volume_counts_as_kept_only_when_no_server_takes_it_along(
    fake: FakeCloud, cloud: OpenStackCloud, answer: dict[str, Any], kept: bool
) -> None:
    shelved(fake)
    fake.nova("PUT", f"{TIES}/v1", status_code=404, json={"itemNotFound": {"message": "no", "code": 404}})
    fake.nova("GET", TIES, **answer)
    parts = kept_by(cloud.observe(REF))
    if kept:
        cloud.keep_volumes(REF, parts)
    else:
        with pytest.raises(ConflictError):
            cloud.keep_volumes(REF, parts)
    assert len(fake.asked("POST", "/metadata")) == kept


# Not listed is not gone -----------------------------------------------------------------------------------------


def held_port(device: str, number: int = 1, **more: Any) -> dict[str, Any]:
    port = {"id": f"p{number}", "name": "demo-head.abc", "network_id": "n1", "device_id": device}
    return port | {"description": REF.tag(Role.HEAD)} | more


@pytest.fixture
def unlisted(fake: FakeCloud) -> FakeCloud:
    """Nova lists no server, and Neutron a port that one of them holds."""
    fake.neutron("GET", "/networks/n1", status_code=404)
    fake.neutron("GET", "/ports", json={"ports": [held_port("s1")]})
    return fake


def test_a_server_whose_cell_does_not_answer_is_not_gone(unlisted: FakeCloud, cloud: OpenStackCloud) -> None:
    said = {"computeFault": {"code": 500, "message": "Cell 1 is not responding, hence instance info is not available."}}
    unlisted.nova("GET", "/servers/s1", status_code=500, json=said)
    with pytest.raises(TemporaryError, match="not responding"):
        cloud.observe(REF)


def test_a_server_that_holds_a_port_is_seen_although_it_is_not_listed(
    unlisted: FakeCloud, cloud: OpenStackCloud
) -> None:
    unlisted.nova("GET", "/servers/s1", json={"server": server()})
    seen = cloud.observe(REF)
    assert [(m.uuid, m.port, m.state) for m in seen.machines] == [("s1", "p1", MachineState.ACTIVE)]
    assert seen.head is not None


@pytest.mark.parametrize("answer", [{"status_code": 404}, {"json": {"server": server(OTHER)}}])
def test_a_port_may_remember_a_server_that_is_gone_or_be_held_by_a_strangers(
    unlisted: FakeCloud, cloud: OpenStackCloud, answer: dict[str, Any]
) -> None:
    unlisted.nova("GET", "/servers/s1", **answer)
    assert cloud.observe(REF).machines == ()


def test_servers_that_are_listed_are_not_asked_for(unlisted: FakeCloud, cloud: OpenStackCloud) -> None:
    unlisted.nova("GET", "/servers/detail", json={"servers": [server()]})
    assert len(cloud.observe(REF).machines) == 1
    assert unlisted.asked("GET", "/servers/s1") == []


def test_a_dead_cell_is_asked_about_once_however_many_servers_it_has(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.neutron("GET", "/networks/n1", status_code=404)
    fake.neutron("GET", "/ports", json={"ports": [held_port(f"s{n}", n) for n in range(1, 9)]})
    fake.nova("GET", "/servers/s1", status_code=500)
    with pytest.raises(TemporaryError):
        cloud.observe(REF)
    assert {r.path.rpartition("/")[2] for r in fake.asked("GET", "/servers/s")} == {"s1"}


# A port that names a server that is gone ------------------------------------------------------------------------


@pytest.fixture
def gone(unlisted: FakeCloud, monkeypatch: pytest.MonkeyPatch) -> FakeCloud:
    """Nova says that there is no such server, and each look is forty seconds after the one before."""
    times = count(0.0, 40.0)
    monkeypatch.setattr(stale, "time", SimpleNamespace(monotonic=lambda: next(times)))
    unlisted.nova("GET", "/servers/s1", status_code=404)
    unlisted.neutron("GET", "/ports/p1", json={"port": held_port("s1", revision_number=7)})
    unlisted.neutron("PUT", "/ports/p1", json={"port": held_port("")})
    return unlisted


def devices(cloud: OpenStackCloud, looks: int) -> list[str]:
    return [cloud.observe(REF).ports[0].device for _ in range(looks)]


def test_a_port_that_names_a_server_that_is_gone_is_freed_after_a_while(gone: FakeCloud, cloud: OpenStackCloud) -> None:
    assert devices(cloud, 3) == ["s1", "s1", ""]
    (put,) = gone.asked("PUT", "/ports/p1")
    assert put.json() == {"port": {"device_id": "", "device_owner": ""}}
    assert put.headers["If-Match"] == "revision_number=7"


@pytest.mark.parametrize("answer", [{"json": {"server": server()}}, {"json": {"server": server(OTHER)}}])
def test_a_port_whose_server_comes_back_is_watched_anew(
    gone: FakeCloud, cloud: OpenStackCloud, answer: dict[str, Any]
) -> None:
    no = {"status_code": 404}
    gone.nova("GET", "/servers/s1", no, no, answer, no, no)
    assert devices(cloud, 5) == ["s1"] * 5
    assert gone.asked("PUT") == []


@pytest.mark.parametrize(
    "told",
    [{"device_id": "s2"}, {"device_id": ""}, {"description": OTHER.tag(Role.HEAD)}, {"description": "Alice's printer"}],
)
def test_a_port_that_is_no_more_as_it_was_is_left_alone(
    gone: FakeCloud, cloud: OpenStackCloud, told: dict[str, Any]
) -> None:
    gone.neutron("GET", "/ports/p1", json={"port": held_port("s1") | told})
    assert devices(cloud, 3) == ["s1"] * 3
    assert gone.asked("PUT") == []


@pytest.mark.parametrize("status", [403, 412])
def test_who_may_not_free_a_port_sees_it_all_the_same(gone: FakeCloud, cloud: OpenStackCloud, status: int) -> None:
    gone.neutron("PUT", "/ports/p1", status_code=status)
    assert devices(cloud, 4) == ["s1"] * 4
    assert len(gone.asked("PUT")) == 2


# Clouds that have less ------------------------------------------------------------------------------------------


def test_what_a_cloud_does_not_offer_there_is_none_of(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    """Machines on the cloud's own networks: no routers, no floating IPs, and a policy against all else."""
    for path in ("/routers", "/floatingips"):
        fake.neutron("GET", path, status_code=404, text="404 Not Found")
    no = {"forbidden": {"code": 403, "message": "Policy doesn't allow it to be performed."}}
    for path in ("/os-server-groups", "/limits"):
        fake.nova("GET", path, status_code=403, json=no)
    for path in ("/volumes/detail", "/limits"):
        fake.cinder("GET", path, status_code=403, json=no)
    fake.nova("GET", "/servers/detail", json={"servers": [server()]})
    assert [m.uuid for m in cloud.observe(REF).machines] == ["s1"]
    assert [c.ref.name for c in cloud.clusters()] == ["demo"]
    assert cloud.allowances() == {}
    cloud.check_room(REF, [Flavor("m3.tiny", 1, 3072, 20)])
    site = {"id": "n1", "name": "site", "shared": True, "project_id": "admin"}
    subnet = {"id": "t1", "network_id": "n1", "cidr": "10.0.0.0/24", "ip_version": 4}
    pools = [{"start": "10.0.0.10", "end": "10.0.0.99"}]
    fake.neutron("GET", "/networks", json={"networks": [site]})
    fake.neutron("GET", "/subnets", json={"subnets": [subnet | {"allocation_pools": pools}]})
    layout = cloud.layout(REF, Wishes(network="site", public_ip=False, slots=4), Observed())
    assert layout.network is not None
    assert (layout.network.uuid, {p.kind for p in layout.parts}) == ("n1", {PartKind.SECURITY_GROUP})


def test_a_cinder_in_trouble_is_not_one_without_volumes(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.cinder("GET", "/volumes/detail", status_code=503)
    with pytest.raises(TemporaryError):
        cloud.observe(REF)


def test_a_forbidden_listing_of_servers_is_not_an_empty_one(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.nova("GET", "/servers/detail", status_code=403)
    with pytest.raises(PermanentError, match="may not do this"):
        cloud.observe(REF)
