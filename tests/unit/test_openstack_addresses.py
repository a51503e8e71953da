"""Floating IPs that are there: bound and deleted only while nobody else's port holds them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from openstack_kit import HEAD_PORT, OTHER, REF, FakeCloud, cloud, fake

from vcluster.clouds.openstack import OpenStackCloud, errors, pictures
from vcluster.errors import ConflictError, PermanentError, QuotaError
from vcluster.model import Network, Observed, Part, PartKind, PartRequest, Role

__all__ = ["cloud", "fake"]

TAG = REF.tag(PartKind.FLOATING_IP)
OWN = Part("f1", TAG, PartKind.FLOATING_IP, "head", ready=False)
SEEN = Observed(networks=(Network("n1", "", "10.0.0.0/24", foreign=True),), ports=(HEAD_PORT,))
NAMED = PartRequest(PartKind.FLOATING_IP, "head", TAG, {"address": "192.0.2.7", "uuid": "f1"})
MADE = PartRequest(PartKind.FLOATING_IP, "head", TAG)
LEG = Part("leg", REF.tag(PartKind.GATEWAY), PartKind.GATEWAY, str(PartKind.GATEWAY))


def address(**more: Any) -> dict[str, Any]:
    told = {"id": "f1", "floating_ip_address": "192.0.2.7", "description": TAG, "port_id": None, "revision_number": 5}
    return {"floatingip": told | more}


def bound(fake: FakeCloud, **more: Any) -> None:
    """The address as Neutron has it, and what it says to whoever binds or deletes it."""
    fake.neutron("GET", "/floatingips/f1", json=address(**more))
    fake.neutron("PUT", "/floatingips/f1", json=address(port_id="p1", revision_number=6))
    fake.neutron("DELETE", "/floatingips/f1", status_code=204)


def port(fake: FakeCloud, uuid: str, description: str) -> None:
    fake.neutron("GET", f"/ports/{uuid}", json={"port": {"id": uuid, "description": description, "device_id": "s9"}})


def bind(cloud: OpenStackCloud, request: PartRequest) -> Part:
    seen = SEEN if request is NAMED else Observed(networks=SEEN.networks, ports=SEEN.ports, parts=(OWN,))
    return cloud.create_part(REF, request, seen)


@pytest.mark.parametrize("request_", [NAMED, MADE])
def test_a_free_address_is_bound_unless_it_changes_meanwhile(
    fake: FakeCloud, cloud: OpenStackCloud, request_: PartRequest
) -> None:
    bound(fake)
    assert bind(cloud, request_).ready
    (put,) = fake.asked("PUT", "/floatingips/f1")
    assert put.json() == {"floatingip": {"port_id": "p1"}}
    assert put.headers["If-Match"] == "revision_number=5"
    changed = {"NeutronError": {"message": "Constrained to 5, but current revision is 6", "type": "x", "detail": ""}}
    fake.neutron("PUT", "/floatingips/f1", status_code=412, json=changed)
    with pytest.raises(ConflictError, match="current revision is 6"):
        bind(cloud, request_)


def test_an_old_neutron_counts_no_revisions(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    bound(fake, revision_number=None)
    bind(cloud, NAMED)
    assert "If-Match" not in fake.asked("PUT", "/floatingips/f1")[0].headers


@pytest.mark.parametrize(("request_", "word"), [(NAMED, "leave access.floating_ip out"), (MADE, "--description ''")])
def test_an_address_is_not_taken_from_a_neighbours_machine(
    fake: FakeCloud, cloud: OpenStackCloud, request_: PartRequest, word: str
) -> None:
    bound(fake, port_id="p9")
    port(fake, "p9", OTHER.tag(Role.HEAD))
    with pytest.raises(PermanentError, match=r"floating IP 192\.0\.2\.7 is in use by port p9 of s9") as caught:
        bind(cloud, request_)
    assert word in caught.value.remedy
    assert "`openstack floating ip unset --port 192.0.2.7` frees it" in caught.value.remedy
    assert fake.asked("PUT") == []


def test_an_address_moves_between_ports_of_the_cluster(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    """One that was made after the last look is not seen there, and is the cluster's all the same."""
    bound(fake, port_id="p2")
    port(fake, "p2", REF.tag(Role.HEAD))
    assert bind(cloud, MADE).used_by == "p1"


def test_an_address_that_is_bound_already_stays_as_it_is(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    bound(fake, port_id="p1")
    port(fake, "p1", REF.tag(Role.HEAD))
    assert bind(cloud, NAMED).ready
    assert fake.asked("PUT") == []


def test_an_address_whose_port_goes_is_looked_at_again(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    bound(fake, port_id="p9")
    fake.neutron("GET", "/ports/p9", status_code=404)
    with pytest.raises(ConflictError, match="p9, which is gone"):
        bind(cloud, NAMED)


def test_an_address_that_is_gone_is_said(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.neutron("GET", "/floatingips/f1", status_code=404)
    with pytest.raises(PermanentError, match="f1 went away"):
        bind(cloud, NAMED)
    with pytest.raises(ConflictError, match="f1 is gone"):  # the next look has it made anew
        bind(cloud, MADE)
    cloud.delete_part(REF, OWN)


def test_an_own_address_is_ready_in_the_clusters_hands_alone() -> None:
    told = address(port_id="p9")["floatingip"]
    for ports, ready in (({}, False), ({"p9": HEAD_PORT}, True)):
        part = pictures.floating_ip(REF, told, ports)
        assert part is not None
        assert (part.ready, part.used_by, part.kept) == (ready, "p9", False)


@pytest.mark.parametrize("holder", [None, "p1"])
def test_an_own_address_is_deleted_unless_it_changes_meanwhile(
    fake: FakeCloud, cloud: OpenStackCloud, holder: str | None
) -> None:
    bound(fake, port_id=holder)
    port(fake, "p1", REF.tag(Role.HEAD))
    cloud.delete_part(REF, OWN)
    (delete,) = fake.asked("DELETE")
    assert delete.headers["If-Match"] == "revision_number=5"


def test_an_own_address_that_somebody_uses_is_not_deleted(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    """That the cluster made it is no reason to cut a machine off: `down` leaves it, and names it at its end."""
    told = address(port_id="p9")["floatingip"]
    fake.neutron("GET", "/floatingips", json={"floatingips": [told]})
    bound(fake, port_id="p9")
    port(fake, "p9", "Alice's web server")
    (part,) = cloud.observe(REF).parts
    with pytest.raises(PermanentError, match=r"192\.0\.2\.7 was given to port p9 of s9, .*unset --port 192\.0\.2\.7"):
        cloud.delete_part(REF, part)
    assert fake.asked("DELETE") == []


def test_an_address_that_lost_its_mark_is_not_deleted(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    bound(fake, description="")
    with pytest.raises(PermanentError, match="does not carry the tag"):
        cloud.delete_part(REF, OWN)
    assert fake.asked("DELETE") == []


@pytest.mark.parametrize(
    ("kind", "said", "word"),
    [
        (
            "IpAddressGenerationFailure",
            "No more IP addresses available on network x1.",
            "'public' has no address left: ",
        ),
        ("OverQuota", "Quota exceeded for resources: ['floatingip'].", "Quota exceeded"),
    ],
)
def test_what_stays_is_said_where_there_is_no_address(
    fake: FakeCloud, cloud: OpenStackCloud, kind: str, said: str, word: str
) -> None:
    """By default only the operator may count a pool before."""
    body = {"NeutronError": {"type": kind, "message": said, "detail": ""}}
    fake.neutron("POST", "/floatingips", status_code=409, json=body)
    fake.neutron("GET", "/networks/x1", json={"network": {"id": "x1", "name": "public"}})
    request = PartRequest(PartKind.FLOATING_IP, "head", TAG, {"network": "x1"})
    with pytest.raises(QuotaError, match=word) as caught:
        cloud.create_part(REF, request, SEEN)
    assert said in caught.value.message
    assert "what was made so far stays: the same command goes on" in caught.value.remedy
    assert "`vcluster down demo` deletes it" in caught.value.remedy


@pytest.mark.parametrize(
    ("leg", "leads_to", "error"),
    [
        (None, "", PermanentError),
        (LEG, "", ConflictError),  # half attached
        (replace(LEG, used_by="r1"), "x", ConflictError),
        (replace(LEG, used_by="r1"), "y", PermanentError),
        (replace(LEG, used_by="r1"), "", PermanentError),
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_no_way_out_is_believed_unless_our_leg_is_on_a_router_to_there(
    fake: FakeCloud, cloud: OpenStackCloud, leg: Part | None, leads_to: str, error: type[Exception], *, named: bool
) -> None:
    """Neutron says so, too, while our leg is being attached, or a second run's goes: observing again tells."""
    message = "External network x is not reachable from subnet s1."
    told = {"NeutronError": {"type": "ExternalGatewayForFloatingIPNotFound", "message": message, "detail": ""}}
    fake.neutron("POST", "/floatingips", status_code=404, json=told)
    fake.neutron("GET", "/floatingips/f1", json=address(floating_network_id="x"))
    fake.neutron("PUT", "/floatingips/f1", status_code=404, json=told)
    way_out = {"network_id": leads_to} if leads_to else None
    fake.neutron("GET", "/routers/r1", json={"router": {"id": "r1", "external_gateway_info": way_out}})
    asked = NAMED if named else PartRequest(PartKind.FLOATING_IP, "head", TAG, {"network": "x"})
    seen = Observed(networks=SEEN.networks, ports=SEEN.ports, parts=(leg,) if leg else ())
    with pytest.raises(error, match="not reachable from subnet") as raised:
        cloud.create_part(REF, asked, seen)
    assert raised.value.remedy == errors.NO_WAY_OUT
