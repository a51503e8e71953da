"""What a cluster costs: a table of prices by flavor pattern, and pure functions that add up.

The unit is the project's own, on Jetstream2 the service unit (SU). A flavor that no entry fits has no known price, and
then nothing is said of the whole: a sum that leaves some out would be taken for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from vcluster.model import Flavor, MachineState

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec, PriceSpec

__all__ = ["Cost", "Price", "PriceTable", "prices_of", "shipped"]


@dataclass(frozen=True, slots=True)
class Price:
    """One entry: ``pattern`` as in a shell; units for a machine and hour, or for each of its processors and hour."""

    pattern: str
    per_hour: float = 0.0
    per_vcpu_hour: float = 0.0


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices in the order in which they are tried.

    Attributes:
        unit: what the numbers count.
        states: the share of its price that a machine in a state costs; 1 for all others.
    """

    prices: tuple[Price, ...] = ()
    unit: str = "SU"
    states: Mapping[str, float] = field(default_factory=dict)

    def per_hour(self, flavor: str, size_of: Callable[[str], Flavor], state: str = MachineState.ACTIVE) -> float | None:
        """Units an hour for one machine; None when no entry fits its flavor.

        Args:
            flavor: the flavor's name.
            size_of: looks it up; asked only where a price is for each processor.
            state: what the machine does.
        """
        share = self.states.get(str(state), 1.0)
        for price in self.prices:
            if fnmatchcase(flavor, price.pattern):
                cpus = size_of(flavor).cpus if price.per_vcpu_hour and share else 0
                return share * (price.per_hour + price.per_vcpu_hour * cpus)
        return None

    def total(self, machines: Iterable[tuple[str, str]], size_of: Callable[[str], Flavor]) -> float | None:
        """Units an hour for machines given as (flavor, state); None when one has no known price."""
        found = [self.per_hour(flavor, size_of, state) for flavor, state in machines]
        known = [price for price in found if price is not None]
        return sum(known) if len(known) == len(found) else None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a cluster costs.

    Attributes:
        per_hour: units an hour as it will be, all wanted machines running.
        total: units from now until it expires; None when it never does.
        now: units an hour as it is now.
        unit: what the numbers count.
    """

    per_hour: float
    now: float
    total: float | None = None
    unit: str = "SU"


@cache
def shipped() -> PriceTable:
    """The prices that come with vcluster."""
    import yaml

    text = resources.files("vcluster").joinpath("prices.yaml").read_text(encoding="utf-8")
    data: dict[str, Any] = yaml.safe_load(text)
    prices = [
        Price(entry["flavor"], entry.get("per_hour", 0.0), entry.get("per_vcpu_hour", 0.0)) for entry in data["flavors"]
    ]
    return PriceTable(tuple(prices), data["unit"], data["states"])


def prices_of(spec: ClusterSpec | None) -> PriceTable:
    """The shipped prices, with those of a spec before them."""
    table = shipped()
    if spec is None or not spec.prices:
        return table
    return PriceTable((*map(_entry, spec.prices), *table.prices), table.unit, table.states)


def _entry(price: PriceSpec) -> Price:
    return Price(price.flavor, price.per_hour or 0.0, price.per_vcpu_hour or 0.0)
