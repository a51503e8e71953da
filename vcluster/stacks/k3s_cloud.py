"""Kubernetes on an OpenStack project: load balancers by Octavia, volumes by Cinder. Pure: spec and site in, text out.

What is needed of both (rights, arguments, configuration) is as in kubernetes/cloud-provider-openstack, v1.32 to v1.36:
``manifests/``, ``docs/openstack-cloud-controller-manager`` and ``docs/cinder-csi-plugin`` there. k3s applies what lies
in its folder of manifests.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vcluster.render import render
from vcluster.spec_secrets import CREDENTIAL
from vcluster.stacks.userdata import File

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec
    from vcluster.stacks.base import Site

__all__ = [
    "ATTACH_LIMIT",
    "KUBELET",
    "MANIFESTS",
    "PROVIDER_ID",
    "files",
    "images",
    "kubelet_args",
    "machine_files",
    "server_options",
]

MANIFESTS = "/var/lib/rancher/k3s/server/manifests"
KUBELET = "/var/lib/kubelet"
"""The kubelet's folder, which k3s leaves where Kubernetes has it."""

PROVIDER_ID = "/usr/local/lib/vcluster/k3s-provider-id"
"""The program that every machine runs before k3s starts, where :func:`machine_files` yields it."""

ATTACH_LIMIT = 24
"""Volumes for one machine. Nova names 26 disks on libvirt (nova-specs, stein, conf-max-attach-volumes): one is the
machine's own, one may be a flavor's ephemeral disk. The driver's own default, 256, is more than a machine can have."""

_PROJECT = "registry.k8s.io/provider-os"
_SIDECARS = "registry.k8s.io/sig-storage"
_RELEASES: Mapping[int, str] = MappingProxyType(
    {32: "v1.32.1", 33: "v1.33.1", 34: "v1.34.1", 35: "v1.35.0", 36: "v1.36.0"}
)
"""The release for each of Kubernetes' minor versions; a newer Kubernetes gets the last, which may be one behind."""

_OLDER = {
    "attacher": "v4.7.0",
    "provisioner": "v5.1.0",
    "resizer": "v1.12.0",
    "registrar": "v2.12.0",
    "liveness": "v2.14.0",
}
_NEWER = {
    "attacher": "v4.10.0",
    "provisioner": "v5.3.0",
    "resizer": "v1.14.0",
    "registrar": "v2.15.0",
    "liveness": "v2.17.0",
}
"""The sidecars with which the releases were tried: _OLDER those before v1.34."""

_NAMES = {
    "attacher": "csi-attacher",
    "provisioner": "csi-provisioner",
    "resizer": "csi-resizer",
    "registrar": "csi-node-driver-registrar",
    "liveness": "livenessprobe",
}
_ARGUMENTS = {
    "attacher": ["--timeout=3m", "--leader-election=true", "--default-fstype=ext4"],
    "provisioner": ["--timeout=3m", "--leader-election=true", "--default-fstype=ext4", "--extra-create-metadata"],
    "resizer": ["--timeout=3m", "--leader-election=true", "--handle-volume-inuse-error=false"],
    "liveness": [],
}
"""Of the sidecars beside Cinder's controller."""

_SERVERS_ONLY = (
    "{nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: "
    "[{matchExpressions: [{key: node-role.kubernetes.io/control-plane, operator: Exists}]}]}}}"
)
"""So that the credential lies on servers alone; the label's value differs from one Kubernetes to another."""


def server_options(spec: ClusterSpec) -> dict[str, Any]:
    """What the configuration of every server of k3s has beside the rest: its own cloud controller stands aside."""
    return {"disable-cloud-controller": True} if _managed(spec) else {}


def kubelet_args(spec: ClusterSpec) -> list[str]:
    """What ``kubelet-arg`` of every server and agent has.

    k3s says this itself only while its own cloud controller runs.
    """
    return ["cloud-provider=external"] if _managed(spec) else []


def machine_files(spec: ClusterSpec) -> Iterator[File]:
    """On every machine: :data:`PROVIDER_ID`, which writes a part of k3s' configuration; none where it is not needed."""
    if _managed(spec):
        yield File(PROVIDER_ID, render("k3s/cloud/provider-id"), 0o755)


def files(site: Site, components: Collection[str]) -> Iterator[File]:
    """Manifests for every server; none without a credential.

    Args:
        components: k3s' own that run. With ``servicelb`` load balancers are its business and not Octavia's: two that
            answer for one service would take its address from each other.

    Raises:
        SpecError: the credential's secret cannot be found.
    """
    options = site.spec.kubernetes.openstack
    if not options.given or not (options.load_balancers or options.volumes):
        return
    config = _configuration(site, octavia="servicelb" not in components)
    values = {
        "cluster_name": site.ref.kubernetes,
        "config": config,
        "default_class": "local-storage" not in components,
        "images": images(site.spec),
        "kubelet": KUBELET,
        "mark": _mark(site, config),
        "secret_name": "vcluster-cloud-config",
        "servers_only": _SERVERS_ONLY,
    }
    yield _manifest("cloud-config", "config", values)
    if options.load_balancers:
        yield _manifest("openstack-cloud-controller-manager", "controller-manager", values)
    if options.volumes:
        more = {"driver": "cinder.csi.openstack.org", "node_config": _node_configuration(), "sidecars": _ARGUMENTS}
        yield _manifest("cinder-csi", "cinder", {**values, **more})


def images(spec: ClusterSpec) -> dict[str, str]:
    """The container images by what they are for."""
    minor = spec.kubernetes.numbers[1]
    release = _RELEASES.get(minor, _RELEASES[max(_RELEASES)])
    sidecars = _OLDER if minor < 34 else _NEWER
    return {
        "manager": f"{_PROJECT}/openstack-cloud-controller-manager:{release}",
        "driver": f"{_PROJECT}/cinder-csi-plugin:{release}",
        **{name: f"{_SIDECARS}/{_NAMES[name]}:{tag}" for name, tag in sidecars.items()},
    }


def _managed(spec: ClusterSpec) -> bool:
    options = spec.kubernetes.openstack
    return options.given and options.load_balancers


def _manifest(name: str, template: str, values: Mapping[str, Any]) -> File:
    return File(
        f"{MANIFESTS}/vcluster-{name}.yaml", render(f"k3s/cloud/{template}.yaml.j2", name=name, **values), 0o600
    )


def _configuration(site: Site, *, octavia: bool) -> str:
    """cloud.conf with the credential, for those that run on servers."""
    options, external = site.spec.kubernetes.openstack, site.spec.external_network or ""
    section: dict[str, str] = {
        "auth-url": options.auth_url,
        "application-credential-id": options.application_credential_id or "",
        "application-credential-secret": site.secrets[CREDENTIAL],
    }
    if options.region:
        section["region"] = options.region
    # Nothing else lets Octavia's machines reach ours, which are no members of our group.
    balancers = {"enabled": json.dumps(octavia), "manage-security-groups": "true"}
    # Only an id can be given; without one it takes the first external network, and a service's annotation goes before.
    if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", external):
        balancers["floating-network-id"] = external
    return _ini({"Global": section, "LoadBalancer": balancers})


def _node_configuration() -> str:
    """cloud.conf for machines, without the credential."""
    return _ini(
        {
            # Always right, which a config drive need not be; but not on every cloud.
            "Metadata": {"search-order": "metadataService,configDrive"},
            "BlockStorage": {"node-volume-attach-limit": str(ATTACH_LIMIT)},
        }
    )


def _ini(sections: Mapping[str, Mapping[str, str]]) -> str:
    """As gcfg reads it, where # and ; begin a comment outside of quotation marks."""
    lines = []
    for name, section in sections.items():
        lines.append(f"[{name}]")
        for key, value in section.items():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            lines.append(f'{key} = "{escaped}"')
    return "".join(f"{line}\n" for line in lines)


def _mark(site: Site, config: str) -> str:
    """Another word for another configuration, that gives nothing of it away: it is no secret's place."""
    return hmac.digest(site.keyring.key("k3s-cloud-config"), config.encode(), "sha256").hex()[:16]
