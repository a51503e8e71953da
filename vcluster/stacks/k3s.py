"""Kubernetes by k3s: what lies on its servers and its agents. Pure: spec and site in, text out."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from vcluster.k3s_ca import AUTHORITIES, authority
from vcluster.model import Role, Slot
from vcluster.stacks import k3s_cloud, k3s_config, k3s_gpu, k3s_registries, zero_to_jupyterhub
from vcluster.stacks.base import Site
from vcluster.stacks.hub_storage import NFS_FOLDER, NFS_OPTIONS, wants_nfs
from vcluster.stacks.k3s_config import BACKEND_PORTS, SERVERS, components, servers
from vcluster.stacks.machines import LIBRARY, UNITS, MachineStack, Template
from vcluster.stacks.userdata import File

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["AGENT", "FILES_PORT", "SERVER", "K3sStack", "fetched"]

SERVER, AGENT = "server", "agent"
"""Kinds of machines beside the head, which is a server too."""

FILES_PORT = 6816
"""Where members get the files that the head was handed."""

DATA = "/var/lib/rancher/k3s"
ETC = "/etc/vcluster/k3s"


class K3sStack(MachineStack):
    """k3s as a :class:`vcluster.stacks.base.Stack`. Safe to use from several threads."""

    name = "k3s"
    self_contained = False  # nor without components: people install their own cloud controller or storage driver

    def _kind(self, slot: Slot) -> str:
        if slot.role is Role.HEAD:
            return str(Role.HEAD)
        return SERVER if slot.group == Role.HEAD else AGENT

    def _installed(self, spec: ClusterSpec) -> dict[str, Any]:
        return {"nfs": wants_nfs(spec)}

    def _more(self, site: Site, kind: str) -> dict[str, Any]:
        spec = site.spec.kubernetes
        source, checksum = spec.program
        return {
            "agent": kind == AGENT,
            "data": DATA,
            "etc": ETC,
            "files_port": FILES_PORT,
            "homes": NFS_FOLDER if wants_nfs(site.spec) else "",
            "founded": site.founded,
            "images": [fetched(file.source, file.sha256) for file in spec.images],
            "pods": {
                "network": spec.pod_network,
                "services": spec.service_network,
                "udp": BACKEND_PORTS[spec.backend],
                "registry": spec.embedded_registry,
                "balancers": spec.openstack.given and spec.openstack.load_balancers,
            },
            "program": fetched(source, checksum),
            # On OpenStack a node is known by its machine's uuid.
            "provider_id": k3s_cloud.PROVIDER_ID if any(k3s_cloud.machine_files(site.spec)) else "",
            "server_name": SERVERS,
            "servers": servers(site),
            "setup": site.spec.setup.workers if kind == AGENT else site.spec.setup.head,
        }

    def _templates(self, site: Site, kind: str) -> Iterator[Template]:
        yield from _EVERY
        if kind == AGENT:
            yield f"{UNITS}/k3s-agent.service", "k3s/k3s-agent.service.j2", 0o644
            return
        yield from _SERVER
        if kind == Role.HEAD:
            yield from _HEAD
            if wants_nfs(site.spec):
                yield "/etc/nfs.conf.d/vcluster.conf", "machine/nfs.conf", 0o644

    def _data(self, site: Site, kind: str, values: Mapping[str, Any]) -> Iterator[File]:
        del values
        yield from k3s_cloud.machine_files(site.spec)
        yield from k3s_registries.files(site)
        if kind == AGENT:
            return
        yield from k3s_cloud.files(site, components(site.spec))
        yield from k3s_gpu.gpu_files(site)
        facts = {"head": site.slots[0].name, "servers": servers(site), "founded": site.founded}
        yield File(f"{ETC}/join.json", json.dumps(facts, indent=1) + "\n")
        for name in AUTHORITIES:
            made = authority(site.keyring, name)
            yield File(f"{DATA}/server/tls/{name}.crt", made.certificate)
            yield File(f"{DATA}/server/tls/{name}.key", made.key, 0o600)
        if kind != Role.HEAD:
            return
        # Every server applies its own folder anew when k3s starts, and `up` changes the Hub's on the head alone.
        yield from zero_to_jupyterhub.files(site)
        if wants_nfs(site.spec):
            yield File("/etc/exports.d/vcluster.exports", f"{NFS_FOLDER} {site.network.cidr}({NFS_OPTIONS})\n")

    def _own(self, site: Site, slot: Slot, values: Mapping[str, Any]) -> Iterable[File]:
        agent = self._kind(slot) == AGENT
        config = k3s_config.agent(site, slot) if agent else k3s_config.server(site, slot)
        yield File(f"{ETC}/config.yaml", config, 0o600)
        # The server remembers a node's password: a machine that takes a dead one's name must know it.
        yield File("/etc/rancher/node/password", f"{site.keyring.password(f'k3s-node/{slot.name}')}\n", 0o600)

    def _facts(self) -> dict[str, Any]:
        return {"files": FILES_PORT}


_EVERY: tuple[Template, ...] = (
    (f"{LIBRARY}/fetch", "k3s/fetch", 0o755),
    (f"{LIBRARY}/vcluster_kube.py", "k3s/vcluster_kube.py", 0o644),
    ("/usr/local/sbin/vcluster-k3s", "k3s/vcluster-k3s", 0o700),
    ("/etc/systemd/network/10-vcluster-flannel.link", "k3s/flannel.link", 0o644),
    (f"{UNITS}/nftables.service.d/vcluster.conf", "k3s/nftables.service.conf", 0o644),
    ("/etc/modules-load.d/vcluster-k3s.conf", "k3s/modules.conf", 0o644),
)
_SERVER: tuple[Template, ...] = (
    (f"{UNITS}/k3s.service", "k3s/k3s.service", 0o644),
    (f"{LIBRARY}/join", "k3s/join", 0o700),
)
_HEAD: tuple[Template, ...] = (
    (f"{UNITS}/vcluster-files.service", "k3s/vcluster-files.service.j2", 0o644),
    ("/usr/local/sbin/vcluster-node", "k3s/vcluster-node", 0o700),
)


def fetched(source: str, checksum: str) -> dict[str, str]:
    """How a machine gets a file: from an address, or from the head, which this computer hands it to."""
    local = source.startswith("/")
    return {"source": "head:" if local else source, "sha256": checksum, "name": posixpath.basename(source)}
