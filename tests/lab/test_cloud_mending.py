"""What people and kills leave behind, on real services: addresses that moved, stale ports, half-made groups."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.lab.cloud_bed import Bed, Small
from vcluster.clouds.openstack import OpenStackCloud, addresses, stale
from vcluster.clouds.openstack.rest import Json
from vcluster.errors import ConflictError, PermanentError
from vcluster.model import MachineState, Observed, Part, PartKind, PartRequest, Wishes

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


@pytest.fixture
def cloud(bed: Bed) -> OpenStackCloud:
    return bed.cloud()


@pytest.fixture
def small(cloud: OpenStackCloud) -> Iterator[Small]:
    made = Small(cloud, cloud.ref("demo"), workers=1)
    yield made
    made.down()


def address_of(seen: Observed) -> Part:
    return next(part for part in seen.parts if part.kind is PartKind.FLOATING_IP)


def request_for(small: Small, seen: Observed, kind: PartKind, name: str = "head") -> PartRequest:
    parts = small.cloud.layout(small.ref, small.wishes, seen).parts
    return next(part for part in parts if (part.kind, part.name) == (kind, name))


def test_an_address_that_was_given_to_another_machine_stays_there(bed: Bed, small: Small) -> None:
    """Neutron binds an address anew without a word, and would delete it under a machine that has it."""
    cloud, ref, network = small.cloud, small.ref, bed.connection("bob").network
    seen = small.surroundings()
    own = address_of(seen)
    other = network.create_port(network_id=seen.networks[0].uuid, name="bobs")
    network.update_ip(own.uuid, port_id=other.id)
    moved = cloud.observe(ref)
    assert (address_of(moved).ready, address_of(moved).used_by) == (False, other.id)
    with pytest.raises(PermanentError, match=f"in use by port {other.id}"):
        cloud.create_part(ref, request_for(small, moved, PartKind.FLOATING_IP), moved)
    with pytest.raises(PermanentError, match=f"was given to port {other.id}"):
        cloud.delete_part(ref, address_of(moved))
    assert network.get_ip(own.uuid).port_id == other.id
    network.delete_port(other)
    free = cloud.observe(ref)
    assert cloud.create_part(ref, request_for(small, free, PartKind.FLOATING_IP), free).ready


def test_an_address_that_changes_at_the_last_moment_is_looked_at_again(
    bed: Bed, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the call somebody else is served: Neutron keeps to the revision that was seen."""
    cloud, ref, network = small.cloud, small.ref, bed.connection("bob").network
    seen = small.surroundings()
    own = address_of(seen)
    network.update_ip(own.uuid, port_id=None)
    loose = cloud.observe(ref)
    other = network.create_port(network_id=seen.networks[0].uuid, name="bobs")
    look = addresses.Addresses._look

    def late(self: addresses.Addresses, uuid: str) -> Json | None:
        told = look(self, uuid)
        network.update_ip(uuid, port_id=other.id)
        return told

    with monkeypatch.context() as patch:
        patch.setattr(addresses.Addresses, "_look", late)
        for act in (
            lambda: cloud.create_part(ref, request_for(small, loose, PartKind.FLOATING_IP), loose),
            lambda: cloud.delete_part(ref, own),
        ):
            network.update_ip(own.uuid, port_id=None)
            with pytest.raises(ConflictError, match="current revision is"):
                act()
            assert network.get_ip(own.uuid).port_id == other.id
    network.delete_port(other)


def test_a_port_that_names_a_server_that_is_gone_is_freed(
    bed: Bed, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = small.surroundings()
    worker = next(port for port in seen.ports if port.name == "cpu-1")
    gone = str(uuid.uuid4())
    bed.connection().network.update_port(worker.uuid, device_id=gone, device_owner="compute:nova")
    assert gone in {port.device for port in small.cloud.observe(small.ref).ports}
    monkeypatch.setattr(stale, "PATIENCE", 0.0)
    assert {port.device for port in small.cloud.observe(small.ref).ports} == {""}
    told = bed.connection().network.get_port(worker.uuid)
    assert (told.device_id, told.device_owner) == ("", "")


@pytest.mark.parametrize("word", ["suspend", "pause"])
def test_a_machine_that_somebody_put_to_sleep_is_woken(bed: Bed, small: Small, word: str) -> None:
    compute = bed.connection("bob").compute
    small.workers = 0
    small.machines(small.surroundings())
    (head,) = small.settled().machines
    getattr(compute, f"{word}_server")(head.uuid)
    (asleep,) = small.settled(MachineState.SHUTOFF).machines
    assert asleep.fault == f"somebody {word.removesuffix('e')}ed it"
    small.cloud.stop_machine(small.ref, head.uuid)
    small.cloud.start_machine(small.ref, head.uuid)
    (awake,) = small.settled().machines
    assert (awake.fault, awake.started) == ("", head.started)


def test_a_group_with_somebody_elses_rules_gets_what_it_lacks(bed: Bed, small: Small) -> None:
    """As on a cloud whose operator gives every new group rules, after a kill between the group and ours."""
    cloud, ref, network = small.cloud, small.ref, bed.connection().network
    seen = small.surroundings()
    groups = {p.name: p.uuid for p in seen.parts if p.kind is PartKind.SECURITY_GROUP}
    for uuid_ in groups.values():
        for rule in network.get_security_group(uuid_).security_group_rules:
            network.delete_security_group_rule(rule["id"])
    ingress = {"direction": "ingress", "ethertype": "IPv4"}
    ssh = {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}
    network.create_security_group_rule(security_group_id=groups["head"], **ingress, **ssh)
    network.create_security_group_rule(
        security_group_id=groups["members"], remote_group_id=groups["members"], **ingress
    )
    broken = cloud.observe(ref)
    assert {p.name for p in broken.parts if not p.ready} == {"head", "members"}
    for name in groups:
        cloud.create_part(ref, request_for(small, broken, PartKind.SECURITY_GROUP, name), broken)
    assert all(part.ready for part in cloud.observe(ref).parts)
    counts = {name: len(network.get_security_group(u).security_group_rules) for name, u in groups.items()}
    assert counts == {"head": 1, "members": 2}


def test_a_cluster_is_on_one_of_several_subnets(bed: Bed, cloud: OpenStackCloud) -> None:
    network = bed.connection("bob").network
    public = network.find_network("public", ignore_missing=False).id
    site = network.create_network(name="site")
    first = network.create_subnet(network_id=site.id, ip_version=4, cidr="10.9.0.0/24")
    second = network.create_subnet(network_id=site.id, ip_version=4, cidr="10.10.0.0/24")
    gate = network.create_router(name="site", external_gateway_info={"network_id": public})
    network.add_interface_to_router(gate, subnet=second.id)
    small = Small(cloud, cloud.ref("demo"), workers=3, wishes=Wishes(network="site", slots=4))
    seen = small.surroundings()
    assert [n.cidr for n in seen.networks] == ["10.10.0.0/24"]
    assert len(seen.ports) == 4
    assert all(port.address.startswith("10.10.0.") for port in seen.ports)
    assert address_of(seen).ready
    small.cloud = bed.again()
    assert small.cloud.observe(small.ref) == seen
    small.down()
    network.remove_interface_from_router(gate, subnet=second.id)
    network.delete_router(gate)
    network.delete_subnet(first)
    network.delete_network(site)
