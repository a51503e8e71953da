"""What a plan needs of a project's quota, against what is left of it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vcluster.actions import Plan, Verb
from vcluster.errors import QuotaError
from vcluster.model import Allowance, PartKind, PartRequest, Slot

__all__ = ["Need", "needs", "refusal", "shortages", "without"]

_PARTS = {
    PartKind.SUBNET: "subnets",
    PartKind.ROUTER: "routers",
    PartKind.GATEWAY: "ports",
    PartKind.SECURITY_GROUP: "security_groups",
    PartKind.SERVER_GROUP: "server_groups",
    PartKind.FLOATING_IP: "floating_ips",
}
_UNITS = {"ram": " MiB", "gigabytes": " GiB"}


@dataclass(frozen=True, slots=True)
class Need:
    """How much of one resource a plan needs.

    Attributes:
        resource: as :attr:`vcluster.model.Allowance.resource`.
        asked: what the plan would add.
        used: what the project uses already.
        limit: its quota; -1 is no limit.
    """

    resource: str
    asked: int
    used: int
    limit: int

    @property
    def fits(self) -> bool:
        """Whether it can be had."""
        return self.limit < 0 or self.used + self.asked <= self.limit

    def __str__(self) -> str:
        unit = _UNITS.get(self.resource, "")
        allowed = "no limit" if self.limit < 0 else f"{self.limit}{unit} allowed"
        return f"{self.resource.replace('_', ' ')}: {self.asked}{unit} asked, {self.used}{unit} used, {allowed}"


def needs(plan: Plan, allowances: Mapping[str, Allowance]) -> tuple[Need, ...]:
    """Every resource of which a plan would add something, and of which the project has a quota."""
    asked = _asked(plan)
    return tuple(
        Need(name, asked[name], allowance.used, allowance.limit)
        for name, allowance in allowances.items()
        if asked.get(name, 0) > 0
    )


def _asked(plan: Plan) -> Counter[str]:
    asked: Counter[str] = Counter()
    # What is deleted first makes room: a machine that is replaced needs none.
    going = {name for action in plan.actions if action.verb is Verb.DELETE_MACHINE for name in action.names}
    for action in plan.actions:
        match action.verb:
            case Verb.CREATE_MACHINE if action.slot is not None and action.slot.name not in going:
                _add_machine(asked, action.slot)
            case Verb.CREATE_PORTS:
                asked["ports"] += len(action.names)
            case Verb.CREATE_NETWORK:
                asked["networks"] += 1
            case Verb.CREATE_VOLUME if action.slot is not None:
                asked["volumes"] += 1
                asked["gigabytes"] += action.slot.root_disk
            case Verb.CREATE_PART if action.part is not None and action.old is None:
                asked[_PARTS[action.part.kind]] += 1
                if action.part.kind is PartKind.SECURITY_GROUP:
                    asked["security_group_rules"] += _rules(action.part)
    return asked


def _rules(group: PartRequest) -> int:
    """How many rules a security group has: two that OpenStack makes for what goes out, and those for what comes in."""
    networks = [network for networks in group.detail.values() for network in networks.split(",") if network]
    return 2 + (len(networks) or 2)


def _add_machine(asked: Counter[str], slot: Slot) -> None:
    asked["instances"] += 1
    asked["cores"] += slot.flavor.cpus
    asked["ram"] += slot.flavor.memory


def without(plan: Plan, spared: frozenset[str]) -> Plan:
    """The same plan without the machines (and volumes) of some slots: what is needed for fewer workers."""
    made = (Verb.CREATE_MACHINE, Verb.CREATE_VOLUME)
    kept = (a for a in plan.actions if a.verb not in made or a.slot is None or a.slot.name not in spared)
    return Plan(tuple(kept), plan.waiting)


def shortages(found: Iterable[Need]) -> tuple[Need, ...]:
    """Those that cannot be had."""
    return tuple(need for need in found if not need.fits)


def refusal(short: Iterable[Need]) -> QuotaError:
    """The error for what cannot be had: each resource with what was asked, used and allowed."""
    lines = [str(need) for need in short]
    text = lines[0] if len(lines) == 1 else "\n  " + "\n  ".join(lines)
    return QuotaError(
        f"the project's quota is too small: {text}",
        remedy="lower the counts or the flavors in the spec, take something else down, or ask for more quota",
    )
