"""What a plan needs of a quota, and the words for what does not fit."""

from __future__ import annotations

from vcluster.actions import Action, Plan, Verb, Wave
from vcluster.errors import QuotaError
from vcluster.model import Allowance, Flavor, Part, PartKind, PartRequest, Role, Slot
from vcluster.quota import Need, needs, refusal, shortages, without

FLAVOR = Flavor("m3.quad", 4, 15360, 20)


def slot(name: str, disk: int = 0) -> Slot:
    return Slot(name, Role.WORKER, "cpu", FLAVOR, root_disk=disk)


def machine(name: str, disk: int = 0) -> Action:
    return Action(Verb.CREATE_MACHINE, Wave.MACHINES, (name,), slot=slot(name, disk))


def volume(name: str, disk: int) -> Action:
    return Action(Verb.CREATE_VOLUME, Wave.NETWORK, (name,), slot=slot(name, disk))


def part(kind: PartKind, old: Part | None = None) -> Action:
    return Action(Verb.CREATE_PART, Wave.NETWORK, ("x",), part=PartRequest(kind, "x", "t"), old=old)


def allowed(**limits: int) -> dict[str, Allowance]:
    return {name: Allowance(name, 1, limit) for name, limit in limits.items()}


NOT_PARTS = (PartKind.VOLUME, PartKind.LOAD_BALANCER, PartKind.SNAPSHOT)  # made in another way, or by others alone

EVERYTHING = Plan(
    (
        Action(Verb.CREATE_NETWORK, Wave.NETWORK, ("n",)),
        *(part(kind) for kind in PartKind if kind not in NOT_PARTS),
        volume("cpu-1", 60),
        Action(Verb.CREATE_PORTS, Wave.PORTS, ("head", "cpu-1")),
        machine("cpu-1", 60),
        machine("cpu-2"),
    )
)


def test_everything_is_counted() -> None:
    names = "instances cores ram volumes gigabytes ports networks subnets routers security_groups server_groups"
    names += " floating_ips"
    found = {need.resource: need.asked for need in needs(EVERYTHING, allowed(**dict.fromkeys(names.split(), -1)))}
    assert found == {
        "instances": 2,
        "cores": 8,
        "ram": 30720,
        "volumes": 1,
        "gigabytes": 60,
        "ports": 3,
        "networks": 1,
        "subnets": 1,
        "routers": 1,
        "security_groups": 1,
        "server_groups": 1,
        "floating_ips": 1,
    }


def test_what_is_not_asked_for_or_has_no_quota_is_left_out() -> None:
    assert [need.resource for need in needs(Plan((machine("cpu-1"),)), allowed(instances=5, ports=5))] == ["instances"]
    assert needs(EVERYTHING, {}) == ()
    assert needs(Plan(), allowed(instances=0)) == ()


def test_a_machine_that_is_replaced_needs_no_more_room() -> None:
    gone = Action(Verb.DELETE_MACHINE, Wave.REPAIR, ("cpu-1",), ("u",))
    (need,) = needs(Plan((gone, machine("cpu-1"), machine("cpu-2"))), allowed(instances=9))
    assert need.asked == 1


def test_a_part_that_is_completed_is_there_already() -> None:
    old = Part("u", "t", PartKind.ROUTER, "x", ready=False)
    assert needs(Plan((part(PartKind.ROUTER, old),)), allowed(routers=1)) == ()


def test_rules_of_security_groups_are_counted() -> None:
    head = PartRequest(PartKind.SECURITY_GROUP, "head", "t", {"22": "192.0.2.0/24,198.51.100.0/24,2001:db8::/32"})
    members = PartRequest(PartKind.SECURITY_GROUP, "members", "t")
    made = Plan(tuple(Action(Verb.CREATE_PART, Wave.NETWORK, (p.name,), part=p) for p in (head, members)))
    found = {need.resource: need.asked for need in needs(made, allowed(security_groups=9, security_group_rules=9))}
    assert found == {"security_groups": 2, "security_group_rules": 9}


def test_minus_one_is_no_limit() -> None:
    assert Need("cores", 10**6, 10**6, -1).fits
    assert Need("cores", 4, 6, 10).fits
    assert not Need("cores", 5, 6, 10).fits
    assert not Need("cores", 1, 0, 0).fits
    assert "no limit" in str(Need("cores", 1, 0, -1))


def test_fewer_workers() -> None:
    fewer = without(EVERYTHING, frozenset({"cpu-1"}))
    found = {need.resource: need.asked for need in needs(fewer, allowed(instances=9, volumes=9, ports=9))}
    assert found == {"instances": 1, "ports": 3}


def test_the_words_say_what_was_asked_used_and_allowed() -> None:
    short = shortages(needs(EVERYTHING, allowed(instances=2, ram=20480, cores=100)))
    error = refusal(short)
    assert isinstance(error, QuotaError)
    assert "instances: 2 asked, 1 used, 2 allowed" in error.message
    assert "ram: 30720 MiB asked, 1 MiB used, 20480 MiB allowed" in error.message
    assert "cores" not in error.message
    assert "ask for more quota" in error.remedy
