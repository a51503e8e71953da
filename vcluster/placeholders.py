"""How many placeholders hold room for a class on k3s: pods that do nothing and give way to notebooks. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vcluster.people import class_size

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["ARRIVAL_SECONDS", "NODE_SECONDS", "Placeholders", "placeholders"]

ARRIVAL_SECONDS = 60
"""Within which a class comes: what a rehearsal does, and what classes were seen to do."""

NODE_SECONDS = 300
"""Until a worker that is added takes notebooks: ParallelCluster's mean is 285 s, and 5 to 10 minutes were seen where a
class had to wait for a node (docs/how-to/jupyterhub-k3s.md)."""


@dataclass(frozen=True, slots=True)
class Placeholders:
    """How many, and why."""

    count: int
    reason: str

    def __str__(self) -> str:
        return f"{self.count}: {self.reason}"


def placeholders(spec: ClusterSpec, groups: frozenset[str], total: int) -> Placeholders:
    """As many as people come in the time that a further worker takes, but no more than fit.

    None where no worker can be added: then a placeholder would only have to be turned out for each notebook.

    Args:
        groups: the worker groups that notebooks run on.
        total: how many notebooks fit onto those workers that the spec wants now.
    """
    size = class_size(spec)
    if all(group.count == group.maximum for group in spec.workers if group.name in groups):
        return Placeholders(0, "every worker that may ever be is there from the start, with its images")
    coming = min(size, math.ceil(size * NODE_SECONDS / ARRIVAL_SECONDS))
    told = f"a class of {size} comes within {ARRIVAL_SECONDS} s, a further worker takes {NODE_SECONDS} s"
    told += ", so that all come before it" if coming == size else f", so that {coming} come before it"
    if coming > total:
        told += f"; {total} fit"
    return Placeholders(min(coming, total), told)
