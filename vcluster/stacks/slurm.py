"""Slurm: what lies on a head and on workers. Pure: spec and site in, text out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vcluster.model import Role, Slot
from vcluster.stacks import jupyterhub
from vcluster.stacks.base import Site
from vcluster.stacks.hostlist import compress, runs
from vcluster.stacks.machines import UNITS, MachineStack, Template
from vcluster.stacks.userdata import File

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["PROBE_PARTITION", "SlurmStack"]

PROBE_PARTITION = "vcluster-probe"
"""The hidden partition in which a worker proves itself."""

SLURM_MEMORY = 0.95
"""The part of a flavor's memory that Slurm hands out: the kernel and the daemons keep the rest."""


@dataclass(frozen=True, slots=True)
class _Partition:
    name: str
    nodes: str
    memory_per_cpu: int
    shared: int


class SlurmStack(MachineStack):
    """The Slurm scheduler as a :class:`vcluster.stacks.base.Stack`. Safe to use from several threads."""

    name = "slurm"
    self_contained = True

    def _installed(self, spec: ClusterSpec) -> dict[str, Any]:
        return {"hub": jupyterhub.installed(spec)}

    def _more(self, site: Site, kind: str) -> dict[str, Any]:
        del kind
        spec = site.spec
        _, *workers = site.slots
        return {
            "accounting": spec.slurm.accounting,
            "default_time": spec.slurm.default_time,
            "hub": jupyterhub.configure(spec),
            "max_time": spec.slurm.max_time,
            "nodes": list(_nodes(workers, site)),
            "partitions": list(_partitions(workers, spec.slurm.memory_per_cpu, jupyterhub.shared_nodes(spec))),
            "probe": PROBE_PARTITION,
        }

    def _templates(self, site: Site, kind: str) -> Iterator[Template]:
        yield from _EVERY
        yield from _HEAD if kind == Role.HEAD else _WORKER
        if kind == Role.HEAD and any(group.gpus for group in site.spec.workers):
            yield "/etc/slurm/gres.conf", "slurm/gres.conf.j2", 0o644

    def _data(self, site: Site, kind: str, values: Mapping[str, Any]) -> Iterator[File]:
        yield File("/etc/vcluster/secrets/munge.key", site.keyring.key("munge", 128), 0o600)
        yield from jupyterhub.files(site, Role(kind), values)

    def _facts(self) -> dict[str, Any]:
        return {"probe": PROBE_PARTITION}


_EVERY: tuple[Template, ...] = (("/etc/openmpi/openmpi-mca-params.conf", "slurm/openmpi-mca-params.conf.j2", 0o644),)
_HEAD: tuple[Template, ...] = (
    ("/etc/default/slurmctld", "slurm/default-slurmctld", 0o644),
    ("/etc/slurm/slurm.conf", "slurm/slurm.conf.j2", 0o644),
    ("/etc/slurm/cgroup.conf", "slurm/cgroup.conf", 0o644),
    ("/etc/slurm/slurmdbd.conf", "slurm/slurmdbd.conf.j2", 0o600),
    ("/etc/mysql/mariadb.conf.d/90-vcluster.cnf", "slurm/mariadb.cnf", 0o644),
    ("/etc/exports.d/vcluster.exports", "slurm/exports.j2", 0o644),
    ("/etc/nfs.conf.d/vcluster.conf", "machine/nfs.conf", 0o644),
    (f"{UNITS}/mariadb.service.d/vcluster.conf", "slurm/mariadb.service.conf", 0o644),
    (f"{UNITS}/slurmdbd.service.d/vcluster.conf", "slurm/slurmdbd.service.conf", 0o644),
    (f"{UNITS}/slurmctld.service.d/vcluster.conf", "slurm/slurmctld.service.conf.j2", 0o644),
    ("/usr/local/sbin/vcluster-node", "slurm/vcluster-node", 0o700),
)
_WORKER: tuple[Template, ...] = (
    ("/etc/default/slurmd", "slurm/default-slurmd.j2", 0o644),
    (f"{UNITS}/slurmd.service.d/vcluster.conf", "slurm/slurmd.service.conf.j2", 0o644),
    (f"{UNITS}/home.mount", "slurm/home.mount.j2", 0o644),
    (f"{UNITS}/vcluster-home.service", "slurm/vcluster-home.service.j2", 0o644),
)


def _memory(slot: Slot) -> int:
    return int(slot.flavor.memory * SLURM_MEMORY)


def _groups(workers: Sequence[Slot]) -> dict[str, list[Slot]]:
    groups: dict[str, list[Slot]] = {}
    for slot in workers:
        groups.setdefault(slot.group, []).append(slot)
    return groups


def _nodes(workers: Sequence[Slot], site: Site) -> Iterator[str]:
    gpus = {group.name: group.gpus for group in site.spec.workers}
    for name, slots in _groups(workers).items():
        flavor = slots[0].flavor
        for names, addresses in runs([(slot.name, site.ports[slot.name].address) for slot in slots]):
            size = f"CPUs={flavor.cpus} RealMemory={_memory(slots[0])}"
            if gpus[name]:
                size += f" Gres=gpu:{gpus[name]}"
            # DOWN until it calls: a place without a machine waits for nobody and troubles nobody.
            yield f"NodeName={names} NodeAddr={addresses} {size}"


def _partitions(workers: Sequence[Slot], memory_per_cpu: int | None, shared: Mapping[str, int]) -> Iterator[_Partition]:
    for group, slots in _groups(workers).items():
        share = max(1, _memory(slots[0]) // slots[0].flavor.cpus)
        yield _Partition(
            name=group,
            nodes=compress(slot.name for slot in slots),
            memory_per_cpu=min(memory_per_cpu or share, share),
            shared=shared.get(group, 1),
        )
