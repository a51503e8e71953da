"""The OpenStack cloud in front of canned answers: what real services cannot be brought to say in a lab."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from openstack_kit import (
    HEAD_PORT,
    OTHER,
    PROJECT,
    REF,
    USER,
    FakeCloud,
    cloud,
    fake,
    flavors,
    group,
    machine_request,
    server,
)

from vcluster.clouds.openstack import OpenStackCloud, marks
from vcluster.errors import CancelledError, ConflictError, PermanentError, QuotaError
from vcluster.model import (
    ImageRequest,
    MachineState,
    Network,
    Observed,
    Part,
    PartKind,
    PartRequest,
    PortRequest,
    Role,
    VolumeRequest,
)

__all__ = ["cloud", "fake", "flavors"]


def request(fake: FakeCloud, method: str, part: str) -> dict[str, Any]:
    (asked,) = fake.asked(method, part)
    body: dict[str, Any] = asked.json()
    return body


# Looking --------------------------------------------------------------------------------------------------------


def test_a_look_is_one_request_a_kind(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    assert cloud.observe(cloud.ref("demo")) == Observed()
    paths = sorted(r.path for r in fake.asked("GET") if "keystone" not in r.netloc)
    assert len(paths) == len(set(paths)) == 9


def test_a_cheap_look_is_one_request(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    before = Observed(ports=(HEAD_PORT,), notes={"spec": "1"})
    cloud.observe(REF, before)
    fake.mocker.reset_mock()
    fake.nova("GET", "/servers/detail", json={"servers": [server()]})
    seen = cloud.observe(REF, before)
    assert len(fake.mocker.request_history) == 1
    assert (seen.ports, seen.notes) == (before.ports, before.notes)
    assert [m.state for m in seen.machines] == [MachineState.ACTIVE]


def test_filters_that_are_dropped_do_no_harm(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    """Nova and others answer with everything when they do not know, or do not allow, a filter."""
    fake.nova(
        "GET", "/servers/detail", json={"servers": [server(), server(OTHER, "s2"), server(metadata={}) | {"id": "s3"}]}
    )
    networks = [
        {"id": "n1", "description": REF.tag(Role.NETWORK)},
        {"id": "n2", "description": OTHER.tag(Role.NETWORK)},
    ]
    fake.neutron("GET", "/networks", json={"networks": [*networks, {"id": "n3", "name": "demo"}]})
    port = {"id": "p1", "name": "demo-head", "network_id": "n1"}
    ports = [port | {"description": REF.tag(Role.HEAD)}, port | {"id": "p2", "description": OTHER.tag(Role.HEAD)}]
    fake.neutron("GET", "/ports", json={"ports": [*ports, port | {"id": "p3", "description": "vcluster"}]})
    groups = [group(REF, "head", "g1"), group(OTHER, "head", "g2"), group(REF, "members", "g3", description="")]
    fake.neutron("GET", "/security-groups", json={"security_groups": groups})
    volume = {"id": "v2", "metadata": marks.volume_mark(OTHER, OTHER.tag(PartKind.VOLUME), "head")}
    fake.cinder("GET", "/volumes/detail", json={"volumes": [volume]})
    names = [{"id": "sg1", "name": marks.server_group_name(OTHER)}, {"id": "sg2", "name": "workers"}]
    fake.nova("GET", "/os-server-groups", json={"server_groups": names})
    seen = cloud.observe(REF)
    assert [m.uuid for m in seen.machines] == ["s1"]
    assert [n.uuid for n in seen.networks] == ["n1"]
    assert [p.uuid for p in seen.ports] == ["p1"]
    assert [p.uuid for p in seen.parts] == ["g1"]


def test_every_page_is_read(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    more = {"servers_links": [{"rel": "next", "href": "http://elsewhere.test/"}]}

    def answer(asked: Any, context: Any) -> dict[str, Any]:
        marker = asked.qs.get("marker", [""])[0]
        if not marker:
            return {"servers": [server(uuid="s1")]} | more
        return {"servers": [server(uuid="s2")]}

    fake.nova("GET", "/servers/detail", json=answer)
    assert [m.uuid for m in cloud.observe(REF, Observed()).machines] == ["s1", "s2"]
    assert len(fake.asked("GET", "/servers/detail")) == 2


def test_a_cloud_that_ignores_the_marker_ends_the_listing(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    links = [{"rel": "next", "href": "http://elsewhere.test/"}]
    fake.nova("GET", "/servers/detail", json={"servers": [server()], "servers_links": links})
    assert len(cloud.observe(REF, Observed()).machines) == 1
    assert len(fake.asked("GET", "/servers/detail")) == 2


def test_a_cloud_without_volumes(fake: FakeCloud) -> None:
    from openstack_kit import connected, token

    fake.login(token(("compute", "network", "image")))
    bare = connected(fake)
    assert bare.observe(REF) == Observed()
    assert "volumes" not in bare.allowances()
    with pytest.raises(PermanentError, match="no such service"):
        bare.create_volume(REF, VolumeRequest("head", REF.tag(PartKind.VOLUME), 20, "i"))
    bare.close()


def test_a_foreign_network_is_asked_for_once(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    told = {"id": "p1", "name": "demo-head.abc", "network_id": "n9", "description": REF.tag(Role.HEAD)}
    fake.neutron("GET", "/ports", json={"ports": [told]})
    fake.neutron("GET", "/networks/n9", json={"network": {"id": "n9", "mtu": 1442}})
    subnet = {"id": "t1", "network_id": "n9", "cidr": "10.1.0.0/24", "ip_version": 4}
    fake.neutron("GET", "/subnets", json={"subnets": [subnet]})
    for _ in range(2):
        assert cloud.observe(REF).networks == (Network("n9", "", "10.1.0.0/24", 1442, foreign=True),)
    assert len(fake.asked("GET", "/networks/n9")) == 1


def test_notes_of_a_network_that_is_not_ours_go_with_the_group(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.neutron("GET", "/security-groups", json={"security_groups": [group(REF, "members", "g1", tags=["spec=1"])]})
    fake.neutron("PUT", "/security-groups/g1/tags/spec%3D2", status_code=201, text="null")
    fake.neutron("DELETE", "/security-groups/g1/tags/spec%3D1", status_code=204)
    cloud.annotate(REF, {"spec": "2"})
    assert [r.method for r in fake.mocker.request_history if "/tags/" in r.url] == ["PUT", "DELETE"]


def test_notes_go_with_the_group_that_counts(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    """Of two twins the one that the head's port is in stays, be it the younger one."""
    fake.neutron("GET", "/networks/n1", status_code=404)
    told = {"id": "p1", "name": "demo-head", "network_id": "n1", "description": REF.tag(Role.HEAD)}
    fake.neutron("GET", "/ports", json={"ports": [told | {"security_groups": ["g2"]}]})
    old = group(REF, "members", "g1", created_at="2026-11-22T12:00:00Z", tags=["spec=1"])
    new = group(REF, "members", "g2", created_at="2026-11-22T12:00:01Z", tags=["spec=2"])
    fake.neutron("GET", "/security-groups", json={"security_groups": [old, new]})
    assert cloud.observe(REF).notes == {"spec": "2"}
    fake.neutron("PUT", "/security-groups/g2/tags/expires%3D9", status_code=201, text="null")
    cloud.annotate(REF, {"expires": "9"})
    assert len(fake.asked("PUT")) == 1


def test_notes_without_a_group_go_with_the_head_port(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    told = {"id": "p1", "name": "demo-head", "network_id": "n1", "description": REF.tag(Role.HEAD), "tags": []}
    fake.neutron("GET", "/ports", json={"ports": [told]})
    fake.neutron("PUT", "/ports/p1/tags/leaving%3Ddown-1", status_code=201, text="null")
    cloud.annotate(REF, {"leaving": "down-1"})
    assert len(fake.asked("PUT")) == 1


def test_notes_on_nothing(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    cloud.annotate(REF, {"leaving": "down-1"})
    assert fake.asked("PUT") == []


# Making ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("flavors")
def test_a_machine_is_one_request_that_says_all(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.nova("POST", "/servers", status_code=202, json={"server": {"id": "s1"}})
    machine = cloud.create_machine(REF, machine_request(zone="nova", host_key="ssh-ed25519 AAAA", self_contained=True))
    assert machine.self_contained
    assert (machine.uuid, machine.state, machine.address) == ("s1", MachineState.BUILD, "10.0.0.5")
    body = request(fake, "POST", "/servers")["server"]
    assert body["name"] == "demo-cpu-1"
    assert body["metadata"] == {
        "vcluster": REF.tag(Role.WORKER),
        "vcluster-name": "demo",
        "vcluster-owner": "alice",
        "vcluster-user": USER,
        "vcluster-slot": "cpu-1",
        "vcluster-group": "cpu",
        "vcluster-port": "p1",
        "vcluster-host-key": "ssh-ed25519 AAAA",
        "vcluster-self-contained": "yes",
    }
    assert body["tags"] == ["vcluster", f"vcluster-{REF.id}"]
    assert (body["networks"], body["config_drive"]) == ([{"port": "p1"}], True)
    assert (body["flavorRef"], body["imageRef"], body["availability_zone"]) == ("f1", "i1", "nova")
    assert fake.asked("POST", "/servers")[0].headers["OpenStack-API-Version"] == "compute 2.52"


@pytest.mark.usefixtures("flavors")
def test_a_machine_on_a_volume(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.nova("POST", "/servers", status_code=202, json={"server": {"id": "s1"}})
    cloud.create_machine(REF, machine_request(volume="v1"))
    body = request(fake, "POST", "/servers")["server"]
    assert "imageRef" not in body
    (device,) = body["block_device_mapping_v2"]
    assert (device["uuid"], device["delete_on_termination"], device["boot_index"]) == ("v1", True, 0)


@pytest.mark.usefixtures("flavors")
def test_a_full_server_group_is_done_without(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.nova("GET", "/os-server-groups", json={"server_groups": [{"id": "sg", "name": marks.server_group_name(REF)}]})
    cloud.observe(REF)
    full = {"forbidden": {"code": 403, "message": "Quota exceeded, too many servers in group"}}
    made = {"status_code": 202, "json": {"server": {"id": "s1"}}}
    fake.nova("POST", "/servers", {"status_code": 403, "json": full}, made, made)
    cloud.create_machine(REF, machine_request())
    first, second = (r.json() for r in fake.asked("POST", "/servers"))
    assert first["os:scheduler_hints"] == {"group": "sg"}
    assert "os:scheduler_hints" not in second
    cloud.create_machine(REF, machine_request(role=Role.HEAD, tag=REF.tag(Role.HEAD)))
    assert "os:scheduler_hints" not in fake.asked("POST", "/servers")[-1].json()


@pytest.mark.usefixtures("flavors")
def test_other_quota_is_not_asked_for_twice(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.nova("GET", "/os-server-groups", json={"server_groups": [{"id": "sg", "name": marks.server_group_name(REF)}]})
    cloud.observe(REF)
    full = {
        "forbidden": {"code": 403, "message": "Quota exceeded for cores: Requested 8, but already used 4 of 4 cores"}
    }
    fake.nova("POST", "/servers", status_code=403, json=full)
    with pytest.raises(QuotaError, match="already used 4 of 4"):
        cloud.create_machine(REF, machine_request())
    assert len(fake.asked("POST", "/servers")) == 1


def test_all_ports_are_one_request(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.neutron(
        "GET", "/security-groups", json={"security_groups": [group(REF, "head", "g1"), group(REF, "members", "g2")]}
    )
    cloud.observe(REF)

    def answer(asked: Any, context: Any) -> dict[str, Any]:
        return {"ports": [port | {"id": f"p-{port['name']}"} for port in asked.json()["ports"]]}

    fake.neutron("POST", "/ports", status_code=201, json=answer)
    made = cloud.create_ports(
        REF,
        [PortRequest("head", REF.tag(Role.HEAD), "n1", "abc"), PortRequest("cpu-1", REF.tag(Role.WORKER), "n1")],
    )
    assert [(p.name, p.claim) for p in made] == [("head", "abc"), ("cpu-1", "")]
    bodies = request(fake, "POST", "/ports")["ports"]
    assert [b["name"] for b in bodies] == ["demo-head.abc", "demo-cpu-1"]
    assert [b["security_groups"] for b in bodies] == [["g1", "g2"], ["g2"]]
    assert cloud.create_ports(REF, []) == []


def test_groups_open_the_least_that_works(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.neutron("POST", "/security-groups", status_code=201, json=lambda asked, _: {
        "security_group": asked.json()["security_group"] | {"id": "g1"}
    })  # fmt: skip
    fake.neutron("POST", "/security-group-rules", status_code=201, json={"security_group_rules": []})
    tag = REF.tag(PartKind.SECURITY_GROUP)
    allow = {"22": "192.0.2.7/24,2001:db8::/32"}
    part = cloud.create_part(REF, PartRequest(PartKind.SECURITY_GROUP, "head", tag, allow), Observed())
    assert (part.uuid, part.ready, part.name) == ("g1", True, "head")
    rules = request(fake, "POST", "/security-group-rules")["security_group_rules"]
    assert [(r["ethertype"], r["remote_ip_prefix"], r["port_range_min"], r["port_range_max"]) for r in rules] == [
        ("IPv4", "192.0.2.0/24", 22, 22),
        ("IPv6", "2001:db8::/32", 22, 22),
    ]
    cloud.create_part(REF, PartRequest(PartKind.SECURITY_GROUP, "members", tag), Observed())
    rules = fake.asked("POST", "/security-group-rules")[-1].json()["security_group_rules"]
    assert {(r["direction"], r["remote_group_id"]) for r in rules} == {("ingress", "g1")}
    assert not any("remote_ip_prefix" in r for r in rules)


def test_what_a_part_hangs_on_is_missing(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    for kind, word in (
        (PartKind.SUBNET, "network"),
        (PartKind.GATEWAY, "subnet"),
        (PartKind.FLOATING_IP, "head's port"),
    ):
        with pytest.raises(ConflictError, match=word):
            cloud.create_part(REF, PartRequest(kind, str(kind), REF.tag(kind), {"cidr": "10.0.0.0/24"}), Observed())
    assert fake.asked("POST", "neutron") == []


def test_a_volume_is_put_in_a_zone_that_cinder_knows(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.cinder("GET", "/os-availability-zone", json={"availabilityZoneInfo": [{"zoneName": "nova"}]})
    fake.cinder("POST", "/volumes", status_code=202, json={"volume": {"id": "v1", "status": "creating"}})
    for zone in ("nova", "zone-b", ""):
        part = cloud.create_volume(REF, VolumeRequest("head", REF.tag(PartKind.VOLUME), 20, "i1", zone))
        assert (part.uuid, part.ready, part.name) == ("v1", False, "head")
    bodies = [r.json()["volume"] for r in fake.asked("POST", "/volumes")]
    assert [b.get("availability_zone") for b in bodies] == ["nova", None, None]
    assert bodies[0]["metadata"]["vcluster"] == REF.tag(PartKind.VOLUME)


# Letting go -----------------------------------------------------------------------------------------------------


def test_what_was_not_seen_as_ours_is_looked_at_before_it_goes(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.nova("GET", "/servers/s1", json={"server": server(OTHER)})
    fake.neutron("GET", "/ports/p1", json={"port": {"description": "Alice's printer"}})
    fake.neutron("GET", "/networks/n1", json={"network": {"description": ""}})
    volume = {"status": "available", "metadata": {}}
    fake.cinder("GET", "/volumes/v1", json={"volume": volume})
    fake.nova("GET", "/os-server-groups", json={"server_groups": [{"id": "sg", "name": "vcluster/0123456789/workers"}]})
    tag = REF.tag(PartKind.VOLUME)
    for call in (
        lambda: cloud.delete_machine(REF, "s1"),
        lambda: cloud.delete_ports(REF, ["p1"]),
        lambda: cloud.delete_network(REF, "n1"),
        lambda: cloud.delete_part(REF, Part("v1", tag, PartKind.VOLUME, "head")),
        lambda: cloud.delete_part(REF, Part("sg", tag, PartKind.SERVER_GROUP, "workers")),
        lambda: cloud.keep_volumes(REF, [Part("v1", tag, PartKind.VOLUME, "head")]),
        lambda: cloud.stop_machine(REF, "s1"),
    ):
        with pytest.raises(PermanentError, match="does not carry the tag"):
            call()
    assert fake.asked("DELETE") == fake.asked("PUT") == []
    assert [r.path for r in fake.asked("POST")] == ["/v3/auth/tokens"]


def test_a_delete_that_fails_for_one_port_is_tried_for_all(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    for uuid, status in (("p1", 409), ("p2", 204), ("p3", 404)):
        fake.neutron("GET", f"/ports/{uuid}", json={"port": {"description": REF.tag(Role.WORKER)}})
        fake.neutron("DELETE", f"/ports/{uuid}", status_code=status)
    with pytest.raises(ConflictError):
        cloud.delete_ports(REF, ["p1", "p2", "p3"])
    assert sorted(r.path for r in fake.asked("DELETE")) == ["/v2.0/ports/p1", "/v2.0/ports/p2", "/v2.0/ports/p3"]


@pytest.mark.parametrize(("status", "ok"), [("deleting", True), ("downloading", False), ("in-use", False)])
def test_a_volume_that_cannot_go_now(fake: FakeCloud, cloud: OpenStackCloud, status: str, ok: bool) -> None:
    told = {"status": status, "metadata": marks.volume_mark(REF, REF.tag(PartKind.VOLUME), "head")}
    fake.cinder("GET", "/volumes/v1", json={"volume": told})
    part = Part("v1", REF.tag(PartKind.VOLUME), PartKind.VOLUME, "head")
    if ok:
        cloud.delete_part(REF, part)
    else:
        with pytest.raises(ConflictError, match=status):
            cloud.delete_part(REF, part)
    assert fake.asked("DELETE") == []


def test_an_old_nova_cannot_keep_a_volume(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    told = {"metadata": marks.volume_mark(REF, REF.tag(PartKind.VOLUME), "head")}
    fake.cinder("GET", "/volumes/v1", json={"volume": told})
    body = {"computeFault": {"code": 406, "message": "Version 2.85 is not supported by the API."}}
    fake.nova("PUT", "/servers/s1/os-volume_attachments/v1", status_code=406, json=body)
    part = Part("v1", REF.tag(PartKind.VOLUME), PartKind.VOLUME, "head", used_by="s1")
    with pytest.raises(PermanentError, match=r"2\.85"):
        cloud.keep_volumes(REF, [part])
    assert fake.asked("POST", "/metadata") == []


def test_what_is_done_already_is_no_error(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    conflict = {
        "conflictingRequest": {"code": 409, "message": "Cannot 'stop' instance while it is in vm_state stopped"}
    }
    fake.nova("GET", "/servers/s1", json={"server": server(status="SHUTOFF")})
    fake.nova("POST", "/servers/s1/action", status_code=409, json=conflict)
    cloud.stop_machine(REF, "s1")
    with pytest.raises(ConflictError):
        cloud.shelve_machine(REF, "s1")
    fake.nova("POST", "/servers/s1/action", status_code=403, json={"forbidden": {"message": "Policy", "code": 403}})
    with pytest.raises(PermanentError, match="may not do this"):
        cloud.start_machine(REF, "s1")


@pytest.mark.parametrize(("status", "word"), [("SUSPENDED", "resume"), ("PAUSED", "unpause")])
def test_a_machine_that_somebody_put_to_sleep_is_woken(
    fake: FakeCloud, cloud: OpenStackCloud, status: str, word: str
) -> None:
    """By a dashboard's buttons. It counts as off: `stop` is content, `start` and `up` wake it, and nothing boots."""
    said = {"conflictingRequest": {"code": 409, "message": f"Cannot 'start' instance: it is {status.lower()}"}}
    refused = {"status_code": 409, "json": said}
    fake.nova("GET", "/servers/s1", json={"server": server(status=status)})
    fake.nova("POST", "/servers/s1/action", refused, refused, {"status_code": 202})
    cloud.stop_machine(REF, "s1")
    cloud.start_machine(REF, "s1")
    assert [list(r.json()) for r in fake.asked("POST", "/action")] == [["os-stop"], ["os-start"], [word]]
    assert cloud._known.told("s1") == 0
    fake.nova("GET", "/servers/s1", json={"server": server(status="RESCUE")})
    fake.nova("POST", "/servers/s1/action", **refused)
    with pytest.raises(ConflictError, match="Cannot 'start'"):
        cloud.start_machine(REF, "s1")


def test_small_words(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    assert cloud.name == "js2"
    assert cloud.place == f"project BIO210042 ({PROJECT}), region RegionOne, as alice, by cloud `js2`"
    assert cloud.ref("demo") == REF
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError):
        cloud.image(ImageRequest(), print, cancel)
    assert cloud.forward(REF, "s1") is None
