"""A network with several IPv4 subnets: a cluster is on one of them, and knows that one's addresses."""

from __future__ import annotations

from typing import Any

import pytest
from openstack_kit import PROJECT, PUBLIC, REF, FakeCloud, cloud, fake, group, server

from vcluster.chosen import chosen_part, chosen_ports
from vcluster.clouds.openstack import OpenStackCloud
from vcluster.clouds.openstack.networks import Surroundings
from vcluster.errors import QuotaError
from vcluster.model import Network, Observed, PartKind, PartRequest, PortRequest, Role, Wishes

__all__ = ["cloud", "fake"]

SITE = {"id": "n1", "name": "site", "project_id": PROJECT, "mtu": 1450}
ROUTER = {"id": "r1", "external_gateway_info": {"network_id": "x1"}}


def subnet(uuid: str, cidr: str, last: int = 254, **more: Any) -> dict[str, Any]:
    begin = cidr.rpartition(".")[0]
    pools = [{"start": f"{begin}.2", "end": f"{begin}.{last}"}]
    told = {"id": uuid, "network_id": "n1", "cidr": cidr, "ip_version": 4, "gateway_ip": f"{begin}.1"}
    return told | {"allocation_pools": pools} | more


def leg(on: str, router: str = "r1") -> dict[str, Any]:
    return {"id": f"l-{on}", "device_id": router, "network_id": "n1", "fixed_ips": [{"subnet_id": on}]}


A, B = subnet("a", "10.1.0.0/24"), subnet("b", "10.2.0.0/24")


@pytest.mark.parametrize(
    ("subnets", "legs", "chosen"),
    [
        ([A, B], [], "a"),
        ([B, A], [], "a"),
        ([A, B], [leg("b")], "b"),
        ([A, B], [leg("a", "r2"), leg("b")], "b"),  # r2 leads to another external network
        ([A, B], [leg("a", "r2")], "a"),
        ([A | {"gateway_ip": None}, B], [], "b"),
        ([A | {"enable_dhcp": False}, B], [], "b"),
        ([subnet("a", "10.1.0.0/24", 9), B], [], "b"),
        ([A | {"service_types": ["network:distributed"]}, B], [], "b"),
        ([A | {"ip_version": 6}, B], [], "b"),
    ],
)
def test_which_subnet_a_cluster_is_on(subnets: list[dict[str, Any]], legs: list[dict[str, Any]], chosen: str) -> None:
    routers = [ROUTER, {"id": "r2", "external_gateway_info": {"network_id": "x2"}}]
    found = Surroundings(PROJECT, [SITE], subnets, routers, legs).subnet(SITE, "x1")
    assert found is not None
    assert found["id"] == chosen


def ports_made(fake: FakeCloud, cloud: OpenStackCloud, network: str) -> dict[str, Any]:
    """What is asked for one more port."""
    groups = [group(REF, "head", "g1"), group(REF, "members", "g2")]
    fake.neutron("GET", "/security-groups", json={"security_groups": groups})
    fake.neutron("POST", "/ports", status_code=201, json=lambda asked, _: {
        "ports": [port | {"id": port["name"], "fixed_ips": []} for port in asked.json()["ports"]]
    })  # fmt: skip
    cloud.create_ports(REF, [PortRequest("cpu-1", REF.tag(Role.WORKER), network)])
    body: dict[str, Any] = fake.asked("POST", "/ports")[-1].json()["ports"][0]
    return body


@pytest.fixture
def site(fake: FakeCloud) -> FakeCloud:
    fake.neutron("GET", "/networks", json={"networks": [PUBLIC, SITE]})
    fake.neutron("GET", "/networks/n1", json={"network": SITE})
    fake.neutron("GET", "/subnets", json={"subnets": [A, B]})
    fake.neutron("GET", "/routers", json={"routers": [ROUTER]})
    fake.neutron("GET", "/ports", json={"ports": [leg("b")]})
    fake.neutron("GET", "/network-ip-availabilities/x1", status_code=404)
    return fake


def test_a_new_cluster_is_on_the_subnet_that_has_a_way_out(site: FakeCloud, cloud: OpenStackCloud) -> None:
    layout = cloud.layout(REF, Wishes(network="site", slots=2), Observed())
    assert layout.network == Network("n1", "", "10.2.0.0/24", 1450, foreign=True)
    assert ports_made(site, cloud, "n1")["fixed_ips"] == [{"subnet_id": "b"}]


def test_room_is_counted_on_that_subnet_alone(site: FakeCloud, cloud: OpenStackCloud) -> None:
    few = subnet("b", "10.2.0.0/24", 6)  # five addresses
    site.neutron("GET", "/subnets", json={"subnets": [A, few]})
    others = [leg("a") | {"id": f"o{n}", "device_id": "s9"} for n in range(9)]
    site.neutron("GET", "/ports", json={"ports": [leg("b"), *others]})
    cloud.layout(REF, Wishes(network="site", slots=4), Observed())
    with pytest.raises(QuotaError, match="5 addresses asked, 4 free"):
        cloud.layout(REF, Wishes(network="site", slots=5), Observed())


def head_port(fixed: str, on: str) -> dict[str, Any]:
    told = {"id": "p1", "name": "demo-head.abc", "network_id": "n1", "description": REF.tag(Role.HEAD)}
    return told | {
        "fixed_ips": [{"ip_address": "2001:db8::9", "subnet_id": "six"}, {"ip_address": fixed, "subnet_id": on}]
    }


@pytest.mark.parametrize(("on", "cidr"), [("a", "10.1.0.0/24"), ("b", "10.2.0.0/24")])
def test_a_cluster_stays_on_the_subnet_that_its_head_is_on(
    site: FakeCloud, cloud: OpenStackCloud, on: str, cidr: str
) -> None:
    worker = head_port("10.1.0.2", "a") | {"id": "p0", "name": "demo-cpu-2", "description": REF.tag(Role.WORKER)}
    site.neutron("GET", "/ports", json={"ports": [worker, head_port(cidr.replace("0/24", "9"), on)]})
    assert [n.cidr for n in cloud.observe(REF).networks] == [cidr]
    assert ports_made(site, cloud, "n1")["fixed_ips"] == [{"subnet_id": on}]


def test_a_subnet_that_was_added_later_is_found(site: FakeCloud, cloud: OpenStackCloud) -> None:
    site.neutron("GET", "/ports", json={"ports": [head_port("10.1.0.9", "a")]})
    cloud.observe(REF)
    later = subnet("c", "10.3.0.0/24")
    site.neutron("GET", "/subnets", json={"subnets": [A, B, later]})
    site.neutron("GET", "/ports", json={"ports": [head_port("10.3.0.9", "c")]})
    assert [n.cidr for n in cloud.observe(REF).networks] == ["10.3.0.0/24"]


def test_on_a_network_with_one_subnet_none_is_named(site: FakeCloud, cloud: OpenStackCloud) -> None:
    """A port gets an address of each family then; with a subnet named it gets that one's."""
    site.neutron("GET", "/subnets", json={"subnets": [B, B | {"id": "six", "ip_version": 6, "cidr": "2001:db8::/64"}]})
    cloud.layout(REF, Wishes(network="site", slots=2), Observed())
    assert "fixed_ips" not in ports_made(site, cloud, "n1")


def test_a_subnet_that_somebody_put_on_the_clusters_own_network_is_not_used(
    fake: FakeCloud, cloud: OpenStackCloud
) -> None:
    own = SITE | {"description": REF.tag(Role.NETWORK)}
    fake.neutron("GET", "/networks", json={"networks": [own]})
    mine = B | {"description": REF.tag(PartKind.SUBNET)}
    fake.neutron("GET", "/subnets", json={"subnets": [A, mine]})
    assert [n.cidr for n in cloud.observe(REF).networks] == ["10.2.0.0/24"]
    assert ports_made(fake, cloud, "n1")["fixed_ips"] == [{"subnet_id": "b"}]


def test_ports_are_on_the_subnet_that_was_made_just_now(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    tag = REF.tag(PartKind.SUBNET)
    fake.neutron("POST", "/subnets", status_code=201, json={"subnet": B | {"description": tag}})
    seen = Observed(networks=(Network("n1", REF.tag(Role.NETWORK), ""),))
    cloud.create_part(REF, PartRequest(PartKind.SUBNET, "subnet", tag, {"cidr": "10.2.0.0/24"}), seen)
    assert ports_made(fake, cloud, "n1")["fixed_ips"] == [{"subnet_id": "b"}]


@pytest.mark.parametrize(("head_on", "leg_on"), [("a", "a"), ("b", "b"), ("b", "a")])
def test_of_two_subnets_of_ours_that_of_the_head_counts_and_a_leg_on_the_other_is_faulty(
    fake: FakeCloud, cloud: OpenStackCloud, head_on: str, leg_on: str
) -> None:
    """Neutron lets two on one network overlap that come at the same moment."""
    own, tag = SITE | {"description": REF.tag(Role.NETWORK)}, REF.tag(PartKind.SUBNET)
    head = {"id": "p1", "name": "demo-head", "description": REF.tag(Role.HEAD), "network_id": "n1"}
    head |= {"fixed_ips": [{"subnet_id": head_on, "ip_address": "10.1.0.9"}]}
    out = {"id": "l1", "description": REF.tag(PartKind.GATEWAY), "network_id": "n1", "device_id": "r1"}
    out |= {"device_owner": "network:router_interface", "fixed_ips": [{"subnet_id": leg_on, "ip_address": "10.1.0.1"}]}
    fake.neutron("GET", "/networks", json={"networks": [own]})
    fake.neutron("GET", "/subnets", json={"subnets": [A | {"description": tag}, B | {"description": tag}]})
    fake.neutron("GET", "/ports", json={"ports": [head, out]})
    seen = cloud.observe(REF)
    subnet, way_out = (chosen_part(seen, kind, str(kind)) for kind in (PartKind.SUBNET, PartKind.GATEWAY))
    assert subnet is not None
    assert (subnet.uuid, subnet.used_by) == (head_on, "p1")
    assert way_out is not None
    assert bool(way_out.fault) is (leg_on != head_on)


def test_a_workers_port_on_a_twin_of_the_heads_subnet_does_not_count(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    """Its maker may have been the one whose subnet lost; on a subnet that is not ours it was put by somebody."""
    own, tag = SITE | {"description": REF.tag(Role.NETWORK)}, REF.tag(PartKind.SUBNET)

    def port(number: int, role: Role, on: str) -> dict[str, Any]:
        name = "demo-head" if role is Role.HEAD else f"demo-cpu-{number}"
        told = {"id": f"p{number}", "name": name, "description": REF.tag(role), "network_id": "n1"}
        return told | {"fixed_ips": [{"subnet_id": on, "ip_address": f"10.1.0.{number}"}]}

    theirs = subnet("c", "10.3.0.0/24")
    ports = [port(1, Role.WORKER, "b"), port(2, Role.WORKER, "a"), port(3, Role.WORKER, "c"), port(9, Role.HEAD, "a")]
    fake.neutron("GET", "/networks", json={"networks": [own]})
    fake.neutron("GET", "/subnets", json={"subnets": [A | {"description": tag}, B | {"description": tag}, theirs]})
    fake.neutron("GET", "/ports", json={"ports": ports})
    assert sorted(port.uuid for port in chosen_ports(cloud.observe(REF)).values()) == ["p2", "p3", "p9"]


def test_of_two_heads_ports_that_of_the_machine_says_which_subnet_counts(
    fake: FakeCloud, cloud: OpenStackCloud
) -> None:
    """As :mod:`vcluster.chosen` has it: the older one is a twin's, which lost."""
    own, tag = SITE | {"description": REF.tag(Role.NETWORK)}, REF.tag(PartKind.SUBNET)
    common = {"name": "demo-head", "description": REF.tag(Role.HEAD), "network_id": "n1"}
    older = common | {"id": "p1", "created_at": "2026-11-22T12:00:00Z"}
    older |= {"fixed_ips": [{"subnet_id": "a", "ip_address": "10.1.0.9"}]}
    held = common | {"id": "p2", "created_at": "2026-11-22T12:00:05Z", "device_id": "s1"}
    held |= {"fixed_ips": [{"subnet_id": "b", "ip_address": "10.2.0.9"}]}
    out = {"id": "l1", "description": REF.tag(PartKind.GATEWAY), "network_id": "n1", "device_id": "r1"}
    out |= {"device_owner": "network:router_interface", "fixed_ips": [{"subnet_id": "b", "ip_address": "10.2.0.1"}]}
    fake.neutron("GET", "/networks", json={"networks": [own]})
    fake.neutron("GET", "/subnets", json={"subnets": [A | {"description": tag}, B | {"description": tag}]})
    fake.neutron("GET", "/ports", json={"ports": [older, held, out]})
    fake.nova("GET", "/servers/detail", json={"servers": [server()]})
    seen = cloud.observe(REF)
    chosen = [chosen_part(seen, kind, str(kind)) for kind in (PartKind.SUBNET, PartKind.GATEWAY)]
    assert [part and (part.uuid, part.fault) for part in chosen] == [("b", ""), ("l1", "")]
    assert [n.cidr for n in seen.networks] == ["10.2.0.0/24"]
