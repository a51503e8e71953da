"""Slurm: what lies on a head and on workers. Pure: spec and site in, text out."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vcluster.doors import doors_of, forwarded
from vcluster.model import Role, Slot
from vcluster.render import render
from vcluster.stacks import jupyterhub
from vcluster.stacks.base import ADMIN_UID, ADMIN_USER, HEAD_SECRET, HEAD_SPEC, Site
from vcluster.stacks.hostlist import compress, runs
from vcluster.stacks.userdata import File, lean, write_files

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["PROBE_PARTITION", "SlurmStack"]

PROBE_PARTITION = "vcluster-probe"
"""The hidden partition in which a worker proves itself."""

FIRST_USER_UID = 2001
REPORTS_PORT = 6815
"""Where the head hears workers say that their configuration failed; next to Slurm's own ports."""

SLURM_MEMORY = 0.95
"""The part of a flavor's memory that Slurm hands out: the kernel and the daemons keep the rest."""

LIBRARY = "/usr/local/lib/vcluster"
UNITS = "/etc/systemd/system"


@dataclass(frozen=True, slots=True)
class _Partition:
    name: str
    nodes: str
    memory_per_cpu: int
    shared: int


class SlurmStack:
    """The Slurm scheduler as a :class:`vcluster.stacks.base.Stack`. Safe to use from several threads."""

    name = "slurm"

    def __init__(self) -> None:
        # What the machines of a site have in common is rendered once for each role, not once for each machine.
        # One site is remembered, replaced in one assignment, so that threads see the old or the new.
        self._last: tuple[Site | None, dict[Role, tuple[dict[str, Any], str]]] = (None, {})

    def install_script(self, spec: ClusterSpec) -> str:
        """The packages and nothing that names a cluster; equal specs give equal text.

        Raises:
            PermanentError: a template is missing or wrong.
        """
        mirrors = spec.mirrors
        hub = jupyterhub.installed(spec)
        values = {"apt": mirrors.apt, "pypi": mirrors.pypi, "ca": mirrors.ca, "packages": tuple(spec.packages)}
        return render("install.sh.j2", hub=hub, **values)

    def user_data(self, site: Site, slot: Slot) -> str:
        """The complete user data of one machine; it holds this machine's secrets and nobody else's.

        Raises:
            PermanentError: a template is missing or wrong.
        """
        values, shared = self._common(site, slot.role)
        configure = render(f"slurm/configure-{slot.role}.sh.j2", slot=slot, **values)
        own = write_files([File("/usr/local/sbin/vcluster-configure", configure, 0o700)])
        return render(
            "machine/user-data.yaml.j2",
            slot=slot,
            host_key=site.keyring.host(slot.name),
            files=f"{shared}\n{own}",
            **values,
        )

    def _common(self, site: Site, role: Role) -> tuple[dict[str, Any], str]:
        known, texts = self._last
        if known is not site:
            texts = {}
            self._last = (site, texts)
        if role not in texts:
            values = self._values(site, role)
            files = _HEAD if role is Role.HEAD else _WORKER
            rendered = [File(path, _lean(render(name, **values)), mode) for path, name, mode in (*_EVERY, *files)]
            made = (*self._made(site, role, values), *jupyterhub.files(site, role, values))
            texts[role] = (values, write_files([*rendered, *made]))
        return texts[role]

    def _values(self, site: Site, role: Role) -> dict[str, Any]:
        spec = site.spec
        head, *workers = site.slots
        script = spec.setup.head if role is Role.HEAD else spec.setup.workers
        return {
            "accounting": spec.slurm.accounting,
            "admin": ADMIN_USER,
            "admin_keys": [site.keyring.admin.public, *spec.access.ssh_keys],
            "admin_uid": ADMIN_UID,
            "allowed": _by_family(spec.access.allow_from),
            "cidr": site.network.cidr,
            "cluster": spec.name,
            "default_time": spec.slurm.default_time,
            # Where the head may ask a cloud, if somebody gives it a credential.
            "expiring": spec.cloud != "local",
            "forwarded": forwarded(spec),
            "gpus": {group.name: group.gpus for group in spec.workers if group.gpus},
            "guarded": _by_family(site.guarded),
            "head": head,
            "hub": jupyterhub.configure(spec),
            "max_time": spec.slurm.max_time,
            "members": _ranges(port.address for port in site.ports.values()),
            "nodes": list(_nodes(workers, site)),
            "partitions": list(_partitions(workers, spec.slurm.memory_per_cpu, jupyterhub.shared_nodes(spec))),
            "ports": site.ports,
            "probe": PROBE_PARTITION,
            "reports_port": REPORTS_PORT,
            "setup": script,
            "slot_role": str(role),
            "slots": site.slots,
            "user_uid": FIRST_USER_UID,
            "users": spec.users,
            "doors": {port: _by_family(networks) for port, networks in doors_of(spec).items()},
        }

    def _made(self, site: Site, role: Role, values: Mapping[str, Any]) -> Iterator[File]:
        """Files that are data, not templates."""
        spec = site.spec
        yield File("/etc/vcluster/secrets/munge.key", site.keyring.key("munge", 128), 0o600)
        yield File(f"/etc/vcluster/keys/{ADMIN_USER}", _lines(values["admin_keys"]))
        if role is Role.HEAD:
            # From here other computers get them, and a lost folder comes back.
            yield File(HEAD_SECRET, f"{site.keyring.encoded}\n", 0o600)
            yield File(HEAD_SPEC, spec.to_yaml(), 0o600)
            for path, name, mode in _EXPIRING if values["expiring"] else ():
                yield File(path, _lean(render(name)), mode)
            if values["gpus"]:
                yield File("/etc/slurm/gres.conf", render("slurm/gres.conf.j2", **values))
            for user in spec.users:
                yield File(f"/etc/vcluster/keys/{user.name}", _lines(user.ssh_keys))
        yield File("/var/lib/vcluster/cluster.json", json.dumps(_facts(site), indent=1) + "\n")
        yield File(f"{LIBRARY}/install.sh", self.install_script(spec), 0o755)
        if values["setup"]:
            yield File(f"{LIBRARY}/setup.sh", values["setup"], 0o700)


_EVERY = (
    ("/etc/hosts", "machine/hosts.j2", 0o644),
    ("/etc/nftables.conf", "machine/nftables.conf.j2", 0o644),
    ("/etc/ssh/sshd_config.d/10-vcluster.conf", "machine/sshd.conf", 0o644),
    ("/etc/chrony/chrony.conf", "machine/chrony.conf.j2", 0o644),
    ("/etc/sudoers.d/vcluster", "machine/sudoers.j2", 0o440),
    ("/etc/openmpi/openmpi-mca-params.conf", "machine/openmpi-mca-params.conf.j2", 0o644),
    ("/etc/apt/apt.conf.d/20auto-upgrades", "machine/auto-upgrades", 0o644),
    (f"{UNITS}/apt-daily.timer.d/vcluster.conf", "machine/apt-timer.conf", 0o644),
    (f"{UNITS}/apt-daily-upgrade.timer.d/vcluster.conf", "machine/apt-timer.conf", 0o644),
    (f"{LIBRARY}/wait-for", "machine/wait-for", 0o755),
)
_HEAD = (
    ("/etc/default/slurmctld", "slurm/default-slurmctld", 0o644),
    ("/etc/slurm/slurm.conf", "slurm/slurm.conf.j2", 0o644),
    ("/etc/slurm/cgroup.conf", "slurm/cgroup.conf", 0o644),
    ("/etc/slurm/slurmdbd.conf", "slurm/slurmdbd.conf.j2", 0o600),
    ("/etc/mysql/mariadb.conf.d/90-vcluster.cnf", "slurm/mariadb.cnf", 0o644),
    ("/etc/exports.d/vcluster.exports", "slurm/exports.j2", 0o644),
    ("/etc/nfs.conf.d/vcluster.conf", "slurm/nfs.conf", 0o644),
    (f"{UNITS}/mariadb.service.d/vcluster.conf", "slurm/mariadb.service.conf", 0o644),
    (f"{UNITS}/slurmdbd.service.d/vcluster.conf", "slurm/slurmdbd.service.conf", 0o644),
    (f"{UNITS}/slurmctld.service.d/vcluster.conf", "slurm/slurmctld.service.conf.j2", 0o644),
    (f"{UNITS}/vcluster-report.socket", "slurm/vcluster-report.socket.j2", 0o644),
    (f"{UNITS}/vcluster-report@.service", "slurm/vcluster-report@.service", 0o644),
    ("/usr/local/sbin/vcluster-node", "slurm/vcluster-node", 0o700),
)
_EXPIRING = (
    ("/usr/local/sbin/vcluster-expire", "machine/vcluster-expire", 0o700),
    (f"{UNITS}/vcluster-expire.service", "machine/vcluster-expire.service", 0o644),
    (f"{UNITS}/vcluster-expire.timer", "machine/vcluster-expire.timer", 0o644),
)
_WORKER = (
    ("/etc/default/slurmd", "slurm/default-slurmd.j2", 0o644),
    (f"{UNITS}/slurmd.service.d/vcluster.conf", "slurm/slurmd.service.conf.j2", 0o644),
    (f"{UNITS}/home.mount", "slurm/home.mount.j2", 0o644),
    (f"{UNITS}/vcluster-home.service", "slurm/vcluster-home.service.j2", 0o644),
    (f"{UNITS}/vcluster-clock.service", "slurm/vcluster-clock.service", 0o644),
    (f"{UNITS}/vcluster-route.service", "slurm/vcluster-route.service.j2", 0o644),
    (f"{UNITS}/vcluster-report.service", "slurm/vcluster-report.service", 0o644),
    (f"{LIBRARY}/report", "slurm/vcluster-report", 0o755),
)


def _lean(text: str) -> str:
    return lean(text) if text.startswith("#!/usr/bin/python3") else text


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _facts(site: Site) -> dict[str, Any]:
    head, *workers = site.slots
    return {
        "cluster": site.spec.name,
        "head": head.name,
        "id": site.ref.id,
        "probe": PROBE_PARTITION,
        "reports": REPORTS_PORT,
        "workers": {slot.name: site.ports[slot.name].address for slot in workers},
    }


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


def _by_family(addresses: Sequence[str]) -> dict[str, list[str]]:
    """Addresses and networks for nftables, by family; doubles and networks in others would upset its sets."""
    networks = [ipaddress.ip_network(address, strict=False) for address in addresses]
    four = ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv6Network))
    return {"ipv4": [str(n) for n in four], "ipv6": [str(n) for n in six]}


def _ranges(addresses: Iterator[str]) -> list[str]:
    """Addresses as few ranges, in order."""
    networks = ipaddress.collapse_addresses(ipaddress.IPv4Network(address) for address in addresses)
    found: list[tuple[int, int]] = []
    for network in networks:
        first, last = int(network[0]), int(network[-1])
        if found and found[-1][1] + 1 == first:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return [
        str(ipaddress.IPv4Address(first))
        if first == last
        else f"{ipaddress.IPv4Address(first)}-{ipaddress.IPv4Address(last)}"
        for first, last in found
    ]
