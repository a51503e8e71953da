"""How many notebooks fit onto a cluster's workers, and what would make a class fit that does not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from vcluster import k3s_room
from vcluster.errors import Problem, SpecError
from vcluster.model import Flavor, Role, Slot
from vcluster.people import class_size, people
from vcluster.placeholders import Placeholders, placeholders
from vcluster.spec_cross import MOST_MACHINES
from vcluster.spec_hub_k3s import first_group
from vcluster.stacks import hub_storage
from vcluster.stacks.slurm import SLURM_MEMORY

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec
    from vcluster.spec_hub import HubSpec, ProfileSpec

__all__ = [
    "Capacity",
    "GroupCapacity",
    "Proposal",
    "capacity",
    "cpu_share",
    "group_of",
    "per_node",
    "refuse_too_large",
]

MOST_SHARED = 16
"""Notebooks to a processor up to which sharing is proposed: a class seldom computes all at once."""


SYSTEM_DISK = 4
"""GiB of a head's disk that are not for homes: Debian with the Hub and packages takes 2; logs and databases grow."""


@dataclass(frozen=True, slots=True)
class GroupCapacity:
    """The notebooks of one worker group.

    Attributes:
        profile: the profile that was reckoned with, the first one of this group.
        workers: how many the spec wants now.
        each: how many notebooks fit onto a worker.
        by_cpu: how many would, for the processors alone.
        by_memory: likewise for the memory, without what the machine keeps for itself.
        by_gpu: likewise for the GPUs; None where a notebook wants none.
        cpus: processors of a notebook.
        memory: MiB of a notebook.
        gpus: GPUs of a notebook.
        kept: MiB that each machine keeps for itself.
        spare: MiB that it has for notebooks.
    """

    group: str
    profile: str
    workers: int
    each: int
    by_cpu: int
    by_memory: int
    by_gpu: int | None
    cpus: int
    memory: int
    gpus: int
    kept: int
    spare: int

    @property
    def total(self) -> int:
        """How many fit onto all of the group's workers."""
        return self.workers * self.each

    @property
    def unshared(self) -> int:
        """How many fit onto a worker for what is never shared, as processors may be."""
        return self.by_memory if self.by_gpu is None else min(self.by_memory, self.by_gpu)

    def __str__(self) -> str:
        limit = "processors are"
        if self.unshared < self.by_cpu:
            limit = "memory is" if self.unshared == self.by_memory else "GPUs are"
        workers = _several(self.workers, "worker")
        gpus = f", {_several(self.gpus, 'GPU')}" if self.gpus else ""
        notebook = f"{_several(self.cpus, 'cpu')}{gpus} and {self.memory} MiB each"
        keeps = f"a worker keeps {self.kept} MiB for itself"
        return (
            f"{self.group}: {workers} × {self.each} of profile {self.profile}, {notebook} ({limit} the limit; {keeps})"
        )


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Proposal:
    """What would make the class fit: settings of the spec."""

    settings: Mapping[str, int]

    def __str__(self) -> str:
        return " with ".join(f"{key}: {value}" for key, value in self.settings.items())


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many notebooks fit.

    Attributes:
        total: onto all workers, one group's beside another's.
        groups: the groups that profiles use, in the order of the profiles.
        class_size: how many there shall be.
        fits: whether they fit.
        proposals: what would make them fit; empty where they do, and where only other flavors would help.
        others: what would fit in place of a group's notebooks: the further profiles of groups, each alone.
        homes: how people's files could fill the head's disk; empty where they cannot.
        warnings: what else an organiser should know (k3s).
        placeholders: pods that hold room for the class, and why so many; None on Slurm, which has none.
    """

    total: int
    groups: tuple[GroupCapacity, ...]
    class_size: int
    fits: bool
    proposals: tuple[Proposal, ...] = ()
    others: tuple[GroupCapacity, ...] = ()
    homes: str = ""
    warnings: tuple[str, ...] = ()
    placeholders: Placeholders | None = None

    @property
    def room(self) -> int:
        """How many more than the class would fit; negative when it does not."""
        return self.total - self.class_size

    def __str__(self) -> str:
        return f"{self.total} fit at once, {self.class_size} are wanted"


def group_of(spec: ClusterSpec, profile: ProfileSpec) -> str:
    """The worker group, and partition, on which a profile's notebooks run."""
    return profile.partition or spec.workers[first_group([group.name for group in spec.workers], spec.scheduler)].name


class Limits(NamedTuple):
    """How many notebooks a machine takes for its processors, its memory, and its GPUs; None where they want none."""

    cpu: int
    memory: int
    gpu: int | None

    @property
    def each(self) -> int:
        """How many it takes."""
        return min(limit for limit in self if limit is not None)


def per_node(spec: ClusterSpec, flavor: Flavor, gpus: int, profile: ProfileSpec) -> Limits:
    """What a machine takes that has so many GPUs."""
    assert spec.jupyterhub is not None
    oversubscribe = spec.jupyterhub.cpu_oversubscribe
    by_gpu = gpus // profile.gpus if profile.gpus else None
    if spec.scheduler != "k3s":
        by_cpu = oversubscribe * (flavor.cpus // profile.cpus)
        return Limits(by_cpu, _spare(flavor, spec.scheduler) // profile.memory, by_gpu)
    room = k3s_room.room(flavor)
    found = room.cpu // cpu_share(profile, oversubscribe), room.memory // profile.memory
    by_cpu, by_memory = (min(limit, hub_storage.most_notebooks(spec)) for limit in found)
    return Limits(by_cpu, by_memory, by_gpu)


def cpu_share(profile: ProfileSpec, oversubscribe: int) -> int:
    """Thousandths of a processor that a notebook's pod is guaranteed."""
    return max(1, round(1000 * profile.cpus / oversubscribe))


def _spare(flavor: Flavor, scheduler: str) -> int:
    """MiB that a machine has for notebooks."""
    return k3s_room.room(flavor).memory if scheduler == "k3s" else int(flavor.memory * SLURM_MEMORY)


def capacity(spec: ClusterSpec, slots: Sequence[Slot]) -> Capacity | None:
    """How many notebooks fit; None without a Hub.

    Args:
        slots: as :meth:`~vcluster.spec.ClusterSpec.slots` gives them; those count that the spec wants now.
    """
    hub = spec.jupyterhub
    if hub is None:
        return None
    flavors = {slot.group: slot.flavor for slot in reversed(slots) if slot.role is Role.WORKER}
    workers = {group.name: group for group in spec.workers}
    groups: list[GroupCapacity] = []
    others: list[GroupCapacity] = []
    for profile in hub.profiles:
        name = group_of(spec, profile)
        if name not in flavors:
            continue  # a group without room for any worker
        limits = per_node(spec, flavors[name], workers[name].gpus or 0, profile)
        spare = _spare(flavors[name], spec.scheduler)
        found = GroupCapacity(
            group=name,
            profile=profile.name,
            workers=workers[name].count,
            each=limits.each,
            by_cpu=limits.cpu,
            by_memory=limits.memory,
            by_gpu=limits.gpu,
            cpus=profile.cpus,
            memory=profile.memory,
            gpus=profile.gpus,
            kept=flavors[name].memory - spare,
            spare=spare,
        )
        (others if any(group.group == name for group in groups) else groups).append(found)
    wanted, total = class_size(spec), sum(group.total for group in groups)
    fits = wanted <= total
    proposals = () if fits else tuple(_proposals(groups, wanted - total, hub.cpu_oversubscribe))
    plain = Capacity(total, tuple(groups), wanted, fits, proposals, tuple(others))
    if spec.scheduler != "k3s":
        return replace(plain, homes=_homes(spec, hub, slots))
    told = hub_storage.warnings(spec, max((group.each for group in groups), default=0))
    used = frozenset(group.group for group in groups)
    return replace(plain, warnings=tuple(told), placeholders=placeholders(spec, used, total))


def _homes(spec: ClusterSpec, hub: HubSpec, slots: Sequence[Slot]) -> str:
    """How people's files could fill the head's disk, which the Hub and Slurm write to as well; empty: they cannot."""
    quota, count = hub.people.quota, sum(person.kind == "student" for person in people(spec))
    if not count:
        return ""
    if quota is None:
        return "jupyterhub.people.quota is not set: one full home stops the Hub and Slurm for everybody"
    head = next(slot for slot in slots if slot.role is Role.HEAD)
    disk = head.root_disk or head.flavor.disk  # 0 where the flavor does not say
    free = max(0, disk - SYSTEM_DISK) << 10
    if not disk or count * quota <= free:
        return ""
    best = f"at most {free // count}M would fit" if free >= count else "take a larger one"
    return f"{count} times jupyterhub.people.quota is more than is free of the head's disk of {disk} GiB; {best}"


def _proposals(groups: Iterable[GroupCapacity], absent: int, shared: int) -> Iterator[Proposal]:
    """More workers; or more notebooks to a processor where all else allows, with as many workers as that needs."""
    for group in groups:
        count = f"workers[{group.group}].count"
        if group.each and (more := group.workers + math.ceil(absent / group.each)) <= MOST_MACHINES:
            yield Proposal({count: more})
        alone = group.by_cpu // shared
        if not alone or group.unshared <= group.by_cpu:
            continue
        better = min(MOST_SHARED, math.ceil(group.unshared / alone))
        each = min(better * alone, group.unshared)
        if better > shared and each > group.each:
            needed = math.ceil((absent + group.total) / each)
            yield Proposal({count: max(needed, group.workers), "cpu_oversubscribe": better})


def refuse_too_large(spec: ClusterSpec, found: Capacity | None) -> None:
    """Refuse a class that cannot fit, and a profile that fits onto no machine of its group.

    Raises:
        SpecError: with the line of the spec, and worker counts at which the class would fit.
    """
    if found is None or spec.jupyterhub is None:
        return
    problems = list(_hopeless(spec, found))
    if not problems and not found.fits:
        size = ("jupyterhub", "class_size") if spec.jupyterhub.class_size else ("jupyterhub", "people")
        ways = [str(proposal) for proposal in found.proposals]
        if found.total:
            ways.append(f"class_size: {found.total} when not all come at once")
        told = "; ".join(map(str, found.groups))
        message = f"{found.class_size} notebooks do not fit, only {found.total} do: {told}"
        problems.append(spec.problem(size, message, "; or ".join(ways) or "choose larger flavors"))
    if problems:
        raise SpecError(problems)


def _hopeless(spec: ClusterSpec, found: Capacity) -> Iterator[Problem]:
    hub = spec.jupyterhub
    for group in (*found.groups, *found.others):
        if group.each or hub is None:
            continue
        index = next(n for n, profile in enumerate(hub.profiles) if profile.name == group.profile)
        one = f"more than a worker of group {group.group} can give one notebook"
        if not group.by_memory:
            key, what = "memory", f"{group.memory} MiB is {one}: {group.spare} MiB (it keeps {group.kept} for itself)"
        else:
            more = ": Kubernetes keeps some of a machine's processors" if spec.scheduler == "k3s" else ""
            key, what = "cpus", f"is {one}{more}"
        yield spec.problem(("jupyterhub", "profiles", index, key), what, f"less {key}, or a larger flavor")
