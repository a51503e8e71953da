"""Which surroundings a cluster gets, what a project has room for, and which clusters there are, from canned answers."""

from __future__ import annotations

import ipaddress

import pytest
from openstack_kit import OTHER, PROJECT, PUBLIC, REF, FakeCloud, cloud, fake, group, server

from vcluster.clouds.openstack import OpenStackCloud, marks
from vcluster.errors import PermanentError, QuotaError, SpecError
from vcluster.model import ClusterRef, Flavor, MachineState, Observed, Part, PartKind, Role, Wishes
from vcluster.spec import ClusterSpec
from vcluster.wiring import goal_of

__all__ = ["cloud", "fake"]

# Layout ---------------------------------------------------------------------------------------------------------


def test_no_external_network(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    with pytest.raises(PermanentError, match="no external network") as caught:
        cloud.layout(REF, Wishes(slots=2), Observed())
    assert "public_ip: false" in caught.value.remedy
    inside = cloud.layout(REF, Wishes(slots=2, public_ip=False), Observed())
    assert {p.kind for p in inside.parts} == {PartKind.SECURITY_GROUP, PartKind.SUBNET}


def test_several_external_networks(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    other = PUBLIC | {"id": "x2", "name": "public2"}
    fake.neutron("GET", "/network-ip-availabilities/x1", status_code=404)
    fake.neutron("GET", "/network-ip-availabilities/x2", status_code=403)
    fake.neutron("GET", "/networks", json={"networks": [PUBLIC, other]})
    for wish, uuid in (("", "x1"), ("public2", "x2"), ("x2", "x2")):
        parts = cloud.layout(REF, Wishes(slots=2, external_network=wish), Observed()).parts
        assert next(p for p in parts if p.kind is PartKind.FLOATING_IP).detail == {"network": uuid}
    fake.neutron("GET", "/networks", json={"networks": [PUBLIC | {"name": "ext-a"}, other]})
    with pytest.raises(PermanentError, match="several external networks") as caught:
        cloud.layout(REF, Wishes(slots=2), Observed())
    assert "ext-a (x1)" in caught.value.remedy


def test_an_empty_pool(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.neutron("GET", "/networks", json={"networks": [PUBLIC]})
    counts = {"network_ip_availability": {"total_ips": 253, "used_ips": 253}}
    fake.neutron("GET", "/network-ip-availabilities/x1", json=counts)
    with pytest.raises(QuotaError, match="1 asked, 253 used, 253 there"):
        cloud.layout(REF, Wishes(slots=2), Observed())


@pytest.mark.parametrize(
    ("limits", "slots", "wanted"),
    [
        ({"maxServerGroups": 10, "totalServerGroupsUsed": 0, "maxServerGroupMembers": 10}, 11, True),
        ({"maxServerGroups": 10, "totalServerGroupsUsed": 0, "maxServerGroupMembers": 10}, 12, False),
        ({"maxServerGroups": 10, "totalServerGroupsUsed": 10, "maxServerGroupMembers": 10}, 5, False),
        ({"maxServerGroups": -1, "totalServerGroupsUsed": 99, "maxServerGroupMembers": -1}, 400, True),
        ({"maxServerGroups": -1, "totalServerGroupsUsed": 0, "maxServerGroupMembers": -1}, 2, False),
        ({}, 5, False),
    ],
)
def test_a_server_group_where_there_is_room(
    fake: FakeCloud, cloud: OpenStackCloud, limits: dict[str, int], slots: int, wanted: bool
) -> None:
    fake.nova("GET", "/limits", json={"limits": {"absolute": limits}})
    parts = cloud.layout(REF, Wishes(slots=slots, public_ip=False), Observed()).parts
    assert (PartKind.SERVER_GROUP in {p.kind for p in parts}) == wanted
    kept = Observed(parts=(Part("sg", REF.tag(PartKind.SERVER_GROUP), PartKind.SERVER_GROUP, "workers"),))
    parts = cloud.layout(REF, Wishes(slots=slots, public_ip=False), kept).parts
    assert PartKind.SERVER_GROUP in {p.kind for p in parts}


def test_its_own_subnet_keeps_clear_of_what_is_inside_its_machines(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    def subnet(*apart: str) -> ipaddress.IPv4Network:
        parts = cloud.layout(REF, Wishes(public_ip=False, apart=apart), Observed()).parts
        (cidr,) = (part.detail["cidr"] for part in parts if part.kind is PartKind.SUBNET)
        return ipaddress.IPv4Network(cidr)

    chosen = subnet()
    pods = chosen.supernet(new_prefix=16)
    elsewhere = subnet(str(pods), "10.43.0.0/16")
    assert not elsewhere.overlaps(pods)
    with pytest.raises(QuotaError, match=r"no network in 10\.64\.0\.0/10 is left"):
        subnet("10.0.0.0/8")


K3S = "name: demo\ncloud: js2\nscheduler: k3s\naccess: {public_ip: false}\nhead: {flavor: m3.small}\n"
K3S += "workers: [{name: cpu, flavor: m3.small, count: 1}]\n"


def test_a_spec_that_is_for_kubernetes_keeps_its_machines_off_its_pods(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    flavor = {"id": "f1", "name": "m3.small", "vcpus": 2, "ram": 6144, "disk": 20}
    fake.nova("GET", "/flavors/detail", json={"flavors": [flavor]})

    def machines(text: str) -> ipaddress.IPv4Network:
        goal = goal_of(ClusterSpec.from_yaml(text, file="demo.yaml"), cloud, REF, Observed())
        (cidr,) = (part.detail["cidr"] for part in goal.parts if part.kind is PartKind.SUBNET)
        return ipaddress.IPv4Network(cidr)

    pods = machines(K3S).supernet(new_prefix=16)
    assert not machines(f"{K3S}k3s: {{pod_network: {pods}}}\n").overlaps(pods)


def test_the_projects_network_is_not_chosen_where_pods_have_its_addresses(
    fake: FakeCloud, cloud: OpenStackCloud
) -> None:
    net = {"id": "n1", "name": "auto_allocated_network", "project_id": PROJECT}
    subnet = {"id": "t1", "network_id": "n1", "cidr": "10.42.7.0/24", "ip_version": 4, "gateway_ip": "10.42.7.1"}
    router = {"id": "r1", "project_id": PROJECT, "external_gateway_info": {"network_id": "x1"}}
    pools = [{"start": "10.42.7.2", "end": "10.42.7.254"}]
    fake.neutron("GET", "/networks", json={"networks": [PUBLIC, net]})
    fake.neutron("GET", "/subnets", json={"subnets": [subnet | {"allocation_pools": pools}]})
    fake.neutron("GET", "/routers", json={"routers": [router]})
    fake.neutron("GET", "/ports", json={"ports": [{"id": "l1", "device_id": "r1", "network_id": "n1"}]})
    there = cloud.layout(REF, Wishes(public_ip=False, apart=("10.43.0.0/16",)), Observed())
    assert there.network is not None
    assert there.network.uuid == "n1"
    own = cloud.layout(REF, Wishes(public_ip=False, apart=("10.42.0.0/16",)), Observed())
    assert own.network is None
    assert PartKind.SUBNET in {part.kind for part in own.parts}


def test_another_clusters_router_and_network_are_not_used(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    """They go when that cluster goes."""
    mark = OTHER.tag(Role.NETWORK)
    net = {"id": "n1", "name": "demo", "project_id": PROJECT, "description": mark}
    subnet = {"id": "t1", "network_id": "n1", "cidr": "10.64.0.0/24", "ip_version": 4, "gateway_ip": "10.64.0.1"}
    router = {
        "id": "r1",
        "project_id": PROJECT,
        "description": OTHER.tag(PartKind.ROUTER),
        "external_gateway_info": {"network_id": "x1"},
    }
    leg = {"id": "l1", "device_id": "r1", "network_id": "n1"}
    fake.neutron("GET", "/networks", json={"networks": [PUBLIC, net]})
    fake.neutron("GET", "/subnets", json={"subnets": [subnet]})
    fake.neutron("GET", "/routers", json={"routers": [router]})
    fake.neutron("GET", "/ports", json={"ports": [leg]})
    fake.neutron("GET", "/network-ip-availabilities/x1", status_code=404)
    own = cloud.layout(REF, Wishes(slots=2), Observed())
    assert own.network is None
    assert PartKind.ROUTER in {p.kind for p in own.parts}
    assert next(p for p in own.parts if p.kind is PartKind.SUBNET).detail["cidr"] != "10.64.0.0/24"


@pytest.mark.parametrize(("limit", "refused"), [(1, True), (2, False), (-1, False)])
def test_the_projects_only_router_is_another_clusters(
    fake: FakeCloud, cloud: OpenStackCloud, limit: int, refused: bool
) -> None:
    gateway = {"external_gateway_info": {"network_id": "x1"}}
    router = {"id": "r1", "name": "demo", "project_id": PROJECT, "description": OTHER.tag(PartKind.ROUTER)} | gateway
    fake.neutron("GET", "/networks", json={"networks": [PUBLIC]})
    fake.neutron("GET", "/routers", json={"routers": [router]})
    fake.neutron("GET", "/security-groups", json={"security_groups": [group(OTHER, "members", "g1")]})
    fake.neutron("GET", "/network-ip-availabilities/x1", status_code=404)
    quota = {"router": {"limit": limit, "used": 1, "reserved": 0}}
    fake.neutron("GET", f"/quotas/{PROJECT}/details", json={"quota": quota})
    if refused:
        with pytest.raises(QuotaError, match="routers: 1 asked, 1 used, 1 allowed") as caught:
            cloud.layout(REF, Wishes(slots=2), Observed())
        assert "router r1 goes with the cluster 'demo' of bob" in caught.value.remedy
    else:
        assert PartKind.ROUTER in {p.kind for p in cloud.layout(REF, Wishes(slots=2), Observed()).parts}


def test_a_network_without_port_security_is_refused(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    net = {"id": "n1", "name": "open", "project_id": PROJECT, "port_security_enabled": False}
    subnet = {"id": "t1", "network_id": "n1", "cidr": "10.0.0.0/24", "ip_version": 4}
    fake.neutron("GET", "/networks", json={"networks": [net]})
    fake.neutron("GET", "/subnets", json={"subnets": [subnet]})
    with pytest.raises(PermanentError, match="'open' has no port security"):
        cloud.layout(REF, Wishes(network="open", public_ip=False), Observed())


def test_the_projects_only_router_is_used_again(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    router = {"id": "r1", "name": "ours", "project_id": PROJECT, "external_gateway_info": {"network_id": "x1"}}
    fake.neutron("GET", "/networks", json={"networks": [PUBLIC]})
    fake.neutron("GET", "/routers", json={"routers": [router, router | {"id": "r2", "external_gateway_info": None}]})
    fake.neutron("GET", "/network-ip-availabilities/x1", status_code=404)
    own = cloud.layout(REF, Wishes(slots=2), Observed())
    assert PartKind.ROUTER not in {p.kind for p in own.parts}
    assert next(p for p in own.parts if p.kind is PartKind.GATEWAY).detail == {"router": "r1"}


# Zones ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def zones(fake: FakeCloud) -> None:
    told = [{"zoneName": name, "zoneState": {"available": True}} for name in ("nova", "zone-b")]
    fake.nova("GET", "/os-availability-zone", json={"availabilityZoneInfo": told})


@pytest.mark.usefixtures("zones")
def test_a_zone_that_is_not_there_is_said_with_its_line(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    flavor = {"id": "f1", "name": "m3.tiny", "vcpus": 1, "ram": 3072, "disk": 20}
    fake.nova("GET", "/flavors/detail", json={"flavors": [flavor]})
    text = "name: demo\ncloud: js2\navailability_zone: nova\naccess: {public_ip: false}\nhead: {flavor: m3.tiny}\n"
    text += "workers: [{name: cpu, flavor: m3.tiny, count: 1, availability_zone: moon}]\n"
    spec = ClusterSpec.from_yaml(text, file="demo.yaml")
    with pytest.raises(SpecError, match=r"demo.yaml:6:\d+: workers\[0\].availability_zone: .* zone 'moon'") as caught:
        goal_of(spec, cloud, REF, Observed())
    assert "there is nova, zone-b" in str(caught.value)
    assert len(fake.asked("GET", "/os-availability-zone")) == 1


@pytest.mark.usefixtures("zones")
def test_zones_are_asked_for_once_and_only_where_one_is_named(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    cloud.layout(REF, Wishes(public_ip=False), Observed())
    assert fake.asked("GET", "/os-availability-zone") == []
    for _ in range(2):
        cloud.layout(REF, Wishes(public_ip=False, zones=("nova:host-1", "zone-b")), Observed())
    assert len(fake.asked("GET", "/os-availability-zone")) == 1


def test_a_cloud_that_does_not_tell_its_zones_is_believed(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.nova("GET", "/os-availability-zone", status_code=403)
    cloud.layout(REF, Wishes(public_ip=False, zones=("moon",)), Observed())
    assert len(fake.asked("GET", "/os-availability-zone")) == 1


# Quota and listing ----------------------------------------------------------------------------------------------


def test_allowances(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    nova = {"maxTotalInstances": 10, "totalInstancesUsed": 3, "maxTotalCores": -1, "totalCoresUsed": 9}
    fake.nova("GET", "/limits", json={"limits": {"absolute": nova}})
    quota = {"port": {"limit": 500, "used": 7, "reserved": 0}}
    fake.neutron("GET", f"/quotas/{PROJECT}/details", json={"quota": quota})
    cinder = {"maxTotalVolumes": 10, "totalVolumesUsed": 1, "maxTotalVolumeGigabytes": 1000, "totalGigabytesUsed": 20}
    fake.cinder("GET", "/limits", json={"limits": {"absolute": cinder}})
    told = {name: (a.used, a.limit) for name, a in cloud.allowances().items()}
    assert told == {
        "instances": (3, 10),
        "cores": (9, -1),
        "ports": (7, 500),
        "volumes": (1, 10),
        "gigabytes": (20, 1000),
    }
    flavor = Flavor("m3.tiny", 1, 3072, 20)
    cloud.check_room(REF, [flavor] * 7)
    with pytest.raises(QuotaError, match="8 asked, 3 used, 10 allowed"):
        cloud.check_room(REF, [flavor] * 8)
    cloud.check_room(REF, [])


def test_a_neutron_that_does_not_tell_its_quota(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.neutron("GET", f"/quotas/{PROJECT}/details", status_code=404)
    fake.cinder("GET", "/limits", json={"limits": {"absolute": {}}})
    assert cloud.allowances() == {}


def test_leftovers_are_clusters_as_well(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    lone = ClusterRef("lone", PROJECT, "d" * 32)
    kept = {"id": "v", "metadata": marks.volume_mark(lone, lone.tag(PartKind.VOLUME), "head") | {marks.KEPT: "yes"}}
    fake.cinder("GET", "/volumes/detail", json={"volumes": [kept]})
    when = {"created_at": "2026-11-22T12:00:00Z"}
    fake.neutron("GET", "/networks", json={"networks": [{"name": "demo", "description": REF.tag(Role.NETWORK)} | when]})
    port = {"name": "old-head.abc", "description": "vcluster/0123456789/head"} | when
    fake.neutron("GET", "/ports", json={"ports": [port, {"name": "demo-head", "description": "mine"}]})
    fake.neutron("GET", "/security-groups", json={"security_groups": [group(OTHER, "members", "g", tags=["spec=1"])]})
    shelved = server(OTHER, role=Role.HEAD, status="SHELVED_OFFLOADED", flavor={"original_name": "m3.tiny"})
    fake.nova("GET", "/servers/detail", json={"servers": [shelved]})
    found = {s.ref.id: s for s in cloud.clusters()}
    assert set(found) == {REF.id, OTHER.id, "0123456789"}
    mine, other, old = found[REF.id], found[OTHER.id], found["0123456789"]
    assert (mine.ref, mine.headless, mine.created) == (REF, True, 1795348800.0)
    assert (other.ref, other.headless, other.notes) == (OTHER, False, {"spec": "1"})
    assert other.flavors == (("m3.tiny", MachineState.SHELVED),)
    assert (old.ref.name, old.ref.creator, old.headless, old.claimed) == ("old", "", True, 1795348800.0)
    assert old.ref.owns("vcluster/0123456789/network")


def test_zones_that_are_available_are_told_and_asked_for_once(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    told = [{"zoneName": n, "zoneState": {"available": n != "dark"}} for n in ("nova", "dark", "b")] + [
        {"zoneName": "c"}
    ]
    fake.nova("GET", "/os-availability-zone", json={"availabilityZoneInfo": told})
    assert [cloud.zones(), cloud.zones()] == [["b", "c", "nova"]] * 2
    assert len(fake.asked("GET", "/os-availability-zone")) == 1


def test_a_cloud_that_tells_no_zones_has_none(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.nova("GET", "/os-availability-zone", status_code=403)
    assert cloud.zones() == []
