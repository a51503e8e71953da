"""The Hub's front door is open where the spec says, on every cloud, and nowhere else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from local_kit import EMULATED, local, make_network, make_ports, record_for, request_for
from local_kit import REF as LOCAL_REF
from openstack_kit import REF, FakeCloud, cloud, fake
from slurm_kit import parsed, site

from vcluster.actions import Action, Plan, Verb, Wave
from vcluster.clouds.local import vm
from vcluster.clouds.local.argv import qemu_argv
from vcluster.clouds.openstack import OpenStackCloud, pictures
from vcluster.doors import url_of
from vcluster.model import (
    Allowance,
    Endpoint,
    Machine,
    MachineState,
    Observed,
    PartKind,
    PartRequest,
    Port,
    Role,
    Wishes,
)
from vcluster.quota import needs
from vcluster.stacks.slurm import SlurmStack

__all__ = ["cloud", "fake"]

FROM = {"allow_from": ["192.0.2.0/24", "2001:db8::/32"]}
ELSEWHERE: dict[str, Any] = {
    "cloud": "js2",
    "head": {"flavor": "m3.small"},
    "workers": [{"name": "cpu", "flavor": "m3.small", "count": 2}],
}
GROUP = REF.tag(PartKind.SECURITY_GROUP)


def firewall(slot: int, **spec: Any) -> str:
    where = site(**spec)
    _, files = parsed(SlurmStack().user_data(where, where.slots[slot]))
    return str(files["/etc/nftables.conf"]["content"])


def opened(rules: str) -> list[str]:
    chain = rules.partition("chain input")[2].partition("chain output")[0]
    return [line.strip() for line in chain.splitlines() if re.search(r"dport .*\b(80|443)\b", line)]


def test_the_head_alone_has_a_front_door() -> None:
    head = opened(firewall(0, jupyterhub=FROM))
    assert head == [
        'ip saddr @guarded_ipv4 tcp dport { 443 } accept comment "as above"',
        "ip saddr { 192.0.2.0/24 } tcp dport 443 accept",
        "ip6 saddr { 2001:db8::/32 } tcp dport 443 accept",
        "ip saddr { 192.0.2.0/24 } tcp dport 80 accept",
        "ip6 saddr { 2001:db8::/32 } tcp dport 80 accept",
    ]
    assert opened(firewall(1, jupyterhub=FROM)) == []
    assert opened(firewall(0)) == []


def test_with_a_domain_the_proof_is_reached_from_everywhere() -> None:
    rules = opened(firewall(0, **ELSEWHERE, jupyterhub={"domain": "hub.example.org", "email": "a@x.org", **FROM}))
    assert "ip saddr { 0.0.0.0/0 } tcp dport 80 accept" in rules
    assert "ip saddr { 0.0.0.0/0 } tcp dport 443 accept" not in rules


def test_security_groups_say_the_same_in_one_call(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.neutron("GET", "/networks", json={"networks": []})
    wishes = Wishes(slots=2, public_ip=False, doors={443: ("192.0.2.0/24",), 80: ("0.0.0.0/0", "::/0")})
    parts = cloud.layout(REF, wishes, Observed()).parts
    head = next(part for part in parts if part.name == "head")
    fake.neutron("POST", "/security-groups", status_code=201, json=lambda asked, _: {
        "security_group": asked.json()["security_group"] | {"id": "g1"}
    })  # fmt: skip
    fake.neutron("POST", "/security-group-rules", status_code=201, json={"security_group_rules": []})
    cloud.create_part(REF, head, Observed())
    rules = fake.asked("POST", "/security-group-rules")[0].json()["security_group_rules"]
    assert len(fake.asked("POST", "/security-group-rules")) == 1
    assert [(r["port_range_min"], r["port_range_max"], r["remote_ip_prefix"]) for r in rules] == [
        (22, 22, "0.0.0.0/0"),
        (443, 443, "192.0.2.0/24"),
        (80, 80, "0.0.0.0/0"),
        (80, 80, "::/0"),
    ]


def test_the_rules_are_counted_beforehand() -> None:
    detail = {"22": "192.0.2.0/24", "443": "192.0.2.0/24,2001:db8::/32", "80": "0.0.0.0/0"}
    part = PartRequest(PartKind.SECURITY_GROUP, "head", GROUP, detail)
    plan = Plan((Action(Verb.CREATE_PART, Wave.NETWORK, ("head",), part=part),))
    quota = {"security_group_rules": Allowance("security_group_rules", 0, 100)}
    assert [need.asked for need in needs(plan, quota)] == [2 + 4]


def test_an_openstack_head_is_reached_by_its_floating_ip() -> None:
    head = Machine("u", "t", "head", Role.HEAD, "", MachineState.ACTIVE, "f", "port-1", "10.0.0.10")
    assert pictures.reached(head, {}).web == Endpoint("10.0.0.10", 443)
    found = pictures.reached(head, {"port-1": "198.51.100.7"})
    assert (found.endpoint, found.web) == (Endpoint("198.51.100.7", 22), Endpoint("198.51.100.7", 443))
    assert pictures.reached(replace(head, role=Role.WORKER), {}).web is None


def test_a_local_head_is_reached_on_the_loopback_alone() -> None:
    record = record_for(REF, Port("p", "t", "head", "10.77.0.10", "02:76:0a:4d:00:0a"))
    record = replace(record, ssh_port=20022, doors=((443, 20443),))
    where = {"folder": Path("/h/m"), "sockets": Path("/h/net"), "binary": "qemu", "cluster": "demo"}
    words = " ".join(qemu_argv(record, accel=EMULATED, **where))  # type: ignore[arg-type]
    forwards = re.findall(r"hostfwd=[^, ]*", words)
    assert forwards == ["hostfwd=tcp:127.0.0.1:20022-:22", "hostfwd=tcp:127.0.0.1:20443-:443"]


@pytest.mark.parametrize(
    ("hub", "web", "url"),
    [
        ({}, Endpoint("127.0.0.1", 20443), "https://127.0.0.1:20443/"),
        ({}, Endpoint("198.51.100.7", 443), "https://198.51.100.7/"),
        ({}, Endpoint("2001:db8::7", 443), "https://[2001:db8::7]/"),
        ({"domain": "hub.example.org", "email": "a@x.org"}, Endpoint("198.51.100.7", 443), "https://hub.example.org/"),
    ],
)
def test_the_address_that_people_type(hub: dict[str, str], web: Endpoint, url: str) -> None:
    assert url_of(site(**ELSEWHERE, jupyterhub=hub).spec, web) == url


def test_a_local_head_keeps_its_ports_and_they_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choices = iter([20001, 20001, 20002, 20003, 20004])
    monkeypatch.setattr(vm, "_choose_port", lambda: next(choices))
    taken: set[int] = set()
    monkeypatch.setattr(vm, "_port_free", lambda one: bool(one) and one not in taken)
    monkeypatch.setattr(vm, "create_disk", lambda *_: None)
    monkeypatch.setattr(vm, "_start", lambda *_: True)
    monkeypatch.setattr(vm, "qemu_binary", lambda: "qemu")
    monkeypatch.setattr(vm.switch, "ensure", lambda _: SimpleNamespace(run="1"))
    monkeypatch.setattr(vm.switch, "check_socket_path", lambda _: None)
    cloud = local(tmp_path)
    make_network(cloud, LOCAL_REF)
    (port,) = make_ports(cloud, LOCAL_REF, "head")
    made = cloud.create_machine(LOCAL_REF, replace(request_for(LOCAL_REF, port), doors=(443,)))
    assert (made.endpoint, made.web) == (Endpoint("127.0.0.1", 20001), Endpoint("127.0.0.1", 20002))
    record = cloud._folder(LOCAL_REF).machine(made.uuid)
    assert record is not None
    again = vm.launch(cloud._folder(LOCAL_REF), record, EMULATED)
    assert (again.ssh_port, *again.doors) == (20001, (443, 20002))
    taken.add(20002)
    again = vm.launch(cloud._folder(LOCAL_REF), again, EMULATED)
    assert (again.ssh_port, *again.doors) == (20001, (443, 20003))
