"""Security groups on a cloud that gives every new one rules of its own."""

from __future__ import annotations

from typing import Any

import pytest
from openstack_kit import REF, FakeCloud, cloud, fake, group

from vcluster.clouds.openstack import OpenStackCloud, pictures
from vcluster.errors import ConflictError
from vcluster.model import Observed, Part, PartKind, PartRequest

__all__ = ["cloud", "fake"]

TAG = REF.tag(PartKind.SECURITY_GROUP)
HEAD = PartRequest(PartKind.SECURITY_GROUP, "head", TAG, {"22": "0.0.0.0/0", "443": "0.0.0.0/0"})
MEMBERS = PartRequest(PartKind.SECURITY_GROUP, "members", TAG)
SSH = {
    "security_group_id": "g1",
    "direction": "ingress",
    "ethertype": "IPv4",
    "protocol": "tcp",
    "port_range_min": 22,
    "port_range_max": 22,
    "remote_ip_prefix": None,
    "description": "from the operator",
}
OUT = {"security_group_id": "g1", "direction": "egress", "ethertype": "IPv4", "remote_group_id": None}
AMONG = [
    {"security_group_id": "g1", "direction": "ingress", "ethertype": family, "remote_group_id": "g1"}
    for family in ("IPv4", "IPv6")
]


def there(fake: FakeCloud, name: str, rules: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    told = group(REF, name, "g1", security_group_rules=rules, **more)
    fake.neutron("GET", "/security-groups/g1", json={"security_group": told})
    fake.neutron("GET", "/security-groups", json={"security_groups": [told]})
    fake.neutron("POST", "/security-groups", status_code=201, json={"security_group": told})
    fake.neutron("POST", "/security-group-rules", status_code=201, json={"security_group_rules": []})
    fake.neutron("PUT", "/security-groups/g1/tags/vcluster-open", status_code=201, text="null")
    return told


@pytest.mark.parametrize("name", ["head", "members"])
def test_a_group_with_the_operators_rules_alone_is_not_open(fake: FakeCloud, cloud: OpenStackCloud, name: str) -> None:
    """A run was killed between the group and its rules: what lets somebody in need not be what a cluster needs."""
    there(fake, name, [OUT, SSH, *AMONG])
    assert [(p.name, p.ready) for p in cloud.observe(REF).parts] == [(name, False)]
    there(fake, name, [OUT, SSH, *AMONG, {"direction": "ingress", "description": TAG}])
    assert [p.ready for p in cloud.observe(REF).parts] == [True]
    there(fake, name, [OUT, SSH, *AMONG], tags=["vcluster-open", "spec=1"])
    assert [p.ready for p in cloud.observe(REF).parts] == [True]


@pytest.mark.parametrize("made", [True, False])
def test_only_rules_that_are_not_there_are_made(fake: FakeCloud, cloud: OpenStackCloud, *, made: bool) -> None:
    """Neutron refuses the whole call for one that is."""
    told = there(fake, "head", [OUT, SSH])
    parts = [pictures.security_group(REF, told)] if made else []
    cloud.create_part(REF, HEAD, Observed(parts=tuple(p for p in parts if p)))
    assert len(fake.asked("POST", "/security-groups")) == (not made)
    (post,) = fake.asked("POST", "/security-group-rules")
    assert [(r["port_range_min"], r["description"]) for r in post.json()["security_group_rules"]] == [(443, TAG)]
    assert fake.asked("PUT") == []


def test_a_group_that_has_all_by_itself_is_marked(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    there(fake, "members", [OUT, *AMONG])
    assert cloud.create_part(REF, MEMBERS, Observed()).ready
    assert fake.asked("POST", "/security-group-rules") == []
    assert len(fake.asked("PUT", "/tags/vcluster-open")) == 1


def test_a_rule_that_two_runs_made_in_the_same_moment_is_there_once_again(
    fake: FakeCloud, cloud: OpenStackCloud
) -> None:
    """Neutron looks whether it has the rule before it writes it down, so it takes both; and the operator's are his."""
    twice = [rule | {"id": f"r{n}", "description": TAG} for n, rule in enumerate([*reversed(AMONG), *AMONG])]
    told = there(fake, "members", [OUT, *AMONG, *twice])
    fake.neutron("DELETE", "/security-group-rules/r2", status_code=204)
    fake.neutron("DELETE", "/security-group-rules/r3", status_code=404)  # the other run was quicker
    (part,) = cloud.observe(REF).parts
    assert not part.ready
    assert cloud.create_part(REF, MEMBERS, Observed(parts=(part,))).ready
    assert [asked.path.rpartition("/")[2] for asked in fake.asked("DELETE")] == ["r2", "r3"]
    assert fake.asked("POST", "/security-group-rules") == []
    told["security_group_rules"] = [OUT, *AMONG, *twice[:2]]
    assert [p.ready for p in cloud.observe(REF).parts] == [True]


def test_one_network_written_in_two_ways_is_one_rule(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    there(fake, "head", [OUT])
    request = PartRequest(PartKind.SECURITY_GROUP, "head", TAG, {"22": "192.0.2.1/24,192.0.2.2/24"})
    cloud.create_part(REF, request, Observed())
    (post,) = fake.asked("POST", "/security-group-rules")
    assert [r["remote_ip_prefix"] for r in post.json()["security_group_rules"]] == ["192.0.2.0/24"]


def test_a_group_that_went_meanwhile_is_looked_for_again(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.neutron("GET", "/security-groups/g1", status_code=404)
    old = Part("g1", TAG, PartKind.SECURITY_GROUP, "head", ready=False)
    with pytest.raises(ConflictError, match="security group head is gone"):
        cloud.create_part(REF, HEAD, Observed(parts=(old,)))
