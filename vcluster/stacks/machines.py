"""What a machine gets whatever scheduler it serves: accounts, firewall, time, its own report. Pure: text out."""

from __future__ import annotations

import ipaddress
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vcluster.doors import doors_of, forwarded
from vcluster.model import Role, Slot
from vcluster.render import render
from vcluster.stacks.base import ADMIN_UID, ADMIN_USER, HEAD_SECRET, HEAD_SPEC, Site
from vcluster.stacks.userdata import File, lean, write_files

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["FIRST_USER_UID", "LIBRARY", "REPORTS_PORT", "UNITS", "MachineStack", "Template", "by_family", "lines"]

FIRST_USER_UID = 2001
REPORTS_PORT = 6815
"""Where the head hears workers say that their configuration failed; next to Slurm's own ports."""

LIBRARY = "/usr/local/lib/vcluster"
UNITS = "/etc/systemd/system"

Template = tuple[str, str, int]
"""Where a file lies on the machine, the template that it comes from, and its mode."""


class MachineStack(ABC):
    """The part of a :class:`vcluster.stacks.base.Stack` that all have in common. Safe to use from several threads."""

    name = ""

    def __init__(self) -> None:
        # What the machines of a site have in common is rendered once for each kind, not once for each machine.
        # One site is remembered, replaced in one assignment, so that threads see the old or the new.
        self._last: tuple[Site | None, dict[str, tuple[dict[str, Any], str]]] = (None, {})

    def install_script(self, spec: ClusterSpec) -> str:
        """The packages and nothing that names a cluster; equal specs give equal text.

        Raises:
            PermanentError: a template is missing or wrong.
        """
        mirrors = spec.mirrors
        values = {"apt": mirrors.apt, "pypi": mirrors.pypi, "ca": mirrors.ca, "packages": tuple(spec.packages)}
        return render("install.sh.j2", scheduler=self.name, **values, **self._installed(spec))

    def user_data(self, site: Site, slot: Slot) -> str:
        """The complete user data of one machine; it holds this machine's secrets and nobody else's.

        Raises:
            PermanentError: a template is missing or wrong.
        """
        kind = self._kind(slot)
        values, shared = self._common(site, kind)
        configure = render(f"{self.name}/configure-{kind}.sh.j2", slot=slot, **values)
        own = [File("/usr/local/sbin/vcluster-configure", configure, 0o700), *self._own(site, slot, values)]
        return render(
            "machine/user-data.yaml.j2",
            slot=slot,
            host_key=site.keyring.host(slot.name),
            files=f"{shared}\n{write_files(own)}",
            **values,
        )

    # What a scheduler adds -------------------------------------------------------------------------------------

    @abstractmethod
    def _installed(self, spec: ClusterSpec) -> dict[str, Any]:
        """Values for the install script."""

    @abstractmethod
    def _more(self, site: Site, kind: str) -> dict[str, Any]:
        """Values for the templates, beside or instead of those that all have."""

    @abstractmethod
    def _templates(self, site: Site, kind: str) -> Iterable[Template]:
        """Files that are templates, on every machine of a kind."""

    @abstractmethod
    def _data(self, site: Site, kind: str, values: Mapping[str, Any]) -> Iterator[File]:
        """Files that are data, on every machine of a kind."""

    def _own(self, site: Site, slot: Slot, values: Mapping[str, Any]) -> Iterable[File]:
        """Files of one machine alone."""
        del site, slot, values
        return ()

    def _kind(self, slot: Slot) -> str:
        """Which machines have the same files."""
        return str(slot.role)

    # What all have ---------------------------------------------------------------------------------------------

    def _common(self, site: Site, kind: str) -> tuple[dict[str, Any], str]:
        known, texts = self._last
        if known is not site:
            texts = {}
            self._last = (site, texts)
        if kind not in texts:
            values = {**_values(site, kind), **self._more(site, kind)}
            head = kind == Role.HEAD
            templates = [*_EVERY, *(_HEAD if head else _OTHERS), *self._templates(site, kind)]
            templates += _EXPIRING if head and values["expiring"] else ()
            rendered = [File(path, _lean(path, render(name, **values)), mode) for path, name, mode in templates]
            made = [*self._made(site, kind, values), *self._data(site, kind, values)]
            texts[kind] = (values, write_files([*rendered, *made]))
        return texts[kind]

    def _made(self, site: Site, kind: str, values: Mapping[str, Any]) -> Iterator[File]:
        spec = site.spec
        yield File(f"/etc/vcluster/keys/{ADMIN_USER}", lines(values["admin_keys"]))
        if kind == Role.HEAD:
            # From here other computers get them, and a lost folder comes back.
            yield File(HEAD_SECRET, f"{site.keyring.encoded}\n", 0o600)
            yield File(HEAD_SPEC, spec.to_yaml(), 0o600)
            for user in spec.users:
                yield File(f"/etc/vcluster/keys/{user.name}", lines(user.ssh_keys))
        yield File("/var/lib/vcluster/cluster.json", json.dumps({**_facts(site), **self._facts()}, indent=1) + "\n")
        yield File(f"{LIBRARY}/install.sh", self.install_script(spec), 0o755)
        if values["setup"]:
            yield File(f"{LIBRARY}/setup.sh", values["setup"], 0o700)

    def _facts(self) -> dict[str, Any]:
        """What the head's programs must know beside the machines' addresses; no secret."""
        return {}


_EVERY: tuple[Template, ...] = (
    ("/etc/hosts", "machine/hosts.j2", 0o644),
    ("/etc/nftables.conf", "machine/nftables.conf.j2", 0o644),
    ("/etc/ssh/sshd_config.d/10-vcluster.conf", "machine/sshd.conf", 0o644),
    ("/etc/chrony/chrony.conf", "machine/chrony.conf.j2", 0o644),
    ("/etc/sudoers.d/vcluster", "machine/sudoers.j2", 0o440),
    ("/etc/apt/apt.conf.d/20auto-upgrades", "machine/auto-upgrades", 0o644),
    (f"{UNITS}/apt-daily.timer.d/vcluster.conf", "machine/apt-timer.conf", 0o644),
    (f"{UNITS}/apt-daily-upgrade.timer.d/vcluster.conf", "machine/apt-timer.conf", 0o644),
    (f"{LIBRARY}/wait-for", "machine/wait-for", 0o755),
    (f"{LIBRARY}/vcluster_reports.py", "machine/vcluster_reports.py", 0o644),
)
_HEAD: tuple[Template, ...] = (
    (f"{UNITS}/vcluster-report.socket", "machine/vcluster-report.socket.j2", 0o644),
    (f"{UNITS}/vcluster-report@.service", "machine/vcluster-report@.service", 0o644),
)
_EXPIRING: tuple[Template, ...] = (
    ("/usr/local/sbin/vcluster-expire", "machine/vcluster-expire", 0o700),
    (f"{UNITS}/vcluster-expire.service", "machine/vcluster-expire.service", 0o644),
    (f"{UNITS}/vcluster-expire.timer", "machine/vcluster-expire.timer", 0o644),
)
_OTHERS: tuple[Template, ...] = (
    (f"{UNITS}/vcluster-clock.service", "machine/vcluster-clock.service", 0o644),
    (f"{UNITS}/vcluster-route.service", "machine/vcluster-route.service.j2", 0o644),
    (f"{UNITS}/vcluster-report.service", "machine/vcluster-report.service", 0o644),
    (f"{LIBRARY}/report", "machine/vcluster-report", 0o755),
)


def _values(site: Site, kind: str) -> dict[str, Any]:
    spec = site.spec
    return {
        "admin": ADMIN_USER,
        "admin_keys": [site.keyring.admin.public, *spec.access.ssh_keys],
        "admin_uid": ADMIN_UID,
        "allowed": by_family(spec.access.allow_from),
        "cidr": site.network.cidr,
        "cluster": spec.name,
        "doors": {port: by_family(networks) for port, networks in doors_of(spec).items()},
        # Where the head may ask a cloud, if somebody gives it a credential.
        "expiring": spec.cloud != "local",
        "forwarded": forwarded(spec),
        "gpus": {group.name: group.gpus for group in spec.workers if group.gpus},
        "guarded": by_family(site.guarded),
        "head": site.slots[0],
        "hub": None,
        "members": _ranges(port.address for port in site.ports.values()),
        "pods": None,
        "ports": site.ports,
        "reports_port": REPORTS_PORT,
        # Kubernetes' alone; a name by which several servers are known.
        "server_name": "",
        "servers": {},
        "setup": spec.setup.head if kind == Role.HEAD else spec.setup.workers,
        "slot_role": kind,
        "slots": site.slots,
        "user_uid": FIRST_USER_UID,
        "users": spec.users,
    }


def _facts(site: Site) -> dict[str, Any]:
    head, *workers = site.slots
    return {
        "cluster": site.spec.name,
        "head": head.name,
        "id": site.ref.id,
        "reports": REPORTS_PORT,
        "workers": {slot.name: site.ports[slot.name].address for slot in workers},
    }


def _lean(path: str, text: str) -> str:
    return lean(text) if path.endswith(".py") or text.startswith("#!/usr/bin/python3") else text


def lines(texts: Sequence[str]) -> str:
    """A file of these lines."""
    return "".join(f"{line}\n" for line in texts)


def by_family(addresses: Sequence[str]) -> dict[str, list[str]]:
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
