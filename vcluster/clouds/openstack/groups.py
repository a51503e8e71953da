"""What a security group of ours lets in: which rules it should have, whether it has them, and which it has twice."""

from __future__ import annotations

import ipaddress

from vcluster.clouds.openstack import marks
from vcluster.clouds.openstack.rest import Json
from vcluster.model import PartRequest

__all__ = ["doubles", "is_open", "lacking", "rules"]


def rules(group: str, request: PartRequest) -> list[Json]:
    """The least that works: the head's doors from where the spec says, and members among themselves."""
    base = {"security_group_id": group, "direction": "ingress", "description": request.tag}
    if request.name == "head":
        return [
            base
            | {
                "ethertype": f"IPv{ipaddress.ip_network(prefix, strict=False).version}",
                "protocol": "tcp",
                "port_range_min": port,
                "port_range_max": port,
                "remote_ip_prefix": str(ipaddress.ip_network(prefix, strict=False)),
            }
            for port, prefixes in ((int(port), prefixes) for port, prefixes in request.detail.items())
            for prefix in filter(None, prefixes.split(","))
        ]
    return [base | {"ethertype": family, "remote_group_id": group} for family in ("IPv4", "IPv6")]


def lacking(group: Json, request: PartRequest) -> list[Json]:
    """The rules that the group should have and has not; Neutron refuses all rules of a call if it has one of them."""
    there = {_same(rule) for rule in group.get("security_group_rules", [])}
    wanted = {_same(rule): rule for rule in rules(str(group["id"]), request)}
    return [rule for key, rule in wanted.items() if key not in there]


def is_open(group: Json) -> bool:
    """Whether the group has its rules: all come in one call, each with our mark.

    What else lets somebody in may be the operator's: a cloud can give every new group rules of its own.
    """
    return marks.OPEN in group.get("tags", []) or bool(_ours(group))


def doubles(group: Json) -> list[str]:
    """The ids of our rules that say what another of ours says: Neutron lets two in that come in the same moment.

    Everybody who looks finds the same ones, the lowest id stays.
    """
    said: set[tuple[str, ...]] = set()
    found = []
    for rule in sorted(_ours(group), key=lambda rule: str(rule.get("id"))):
        if _same(rule) in said:
            found.append(str(rule["id"]))
        said.add(_same(rule))
    return found


def _ours(group: Json) -> list[Json]:
    tag = marks.tag_in(group.get("description"))
    return [rule for rule in group.get("security_group_rules", []) if marks.tag_in(rule.get("description")) == tag]


def _same(rule: Json) -> tuple[str, ...]:
    """What two rules of one group have in common when Neutron takes them for the same."""
    word = {"6": "tcp", "0.0.0.0/0": "", "::/0": ""}
    what = ("direction", "ethertype", "protocol", "port_range_min", "port_range_max")
    whom = ("remote_ip_prefix", "remote_group_id", "remote_address_group_id")
    values = ("" if rule.get(key) is None else str(rule[key]) for key in (*what, *whom))
    return tuple(word.get(value, value) for value in values)
