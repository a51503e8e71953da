"""k3s' configuration file of each machine. Options follow the version. Pure: spec and site in, text out.

Every key is a flag of ``k3s server`` or ``k3s agent`` (k3s documentation, "k3s server", "k3s agent").
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import yaml

from vcluster import k3s_room
from vcluster.k3s_ca import agent_token, join_token, server_token
from vcluster.k3s_checks import COMPONENTS
from vcluster.model import Role, Slot
from vcluster.stacks import k3s_cloud

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec
    from vcluster.stacks.base import Site

__all__ = ["BACKEND_PORTS", "GPU_LABEL", "GROUP_LABEL", "SERVERS", "agent", "components", "server", "servers"]

SERVERS = "vcluster-servers"
"""A name that every agent knows all servers by: whichever of them is there answers to it."""

GROUP_LABEL = "vcluster/group"
GPU_LABEL = "vcluster/gpu"
SERVER_TAINT = "node-role.kubernetes.io/control-plane=true:NoSchedule"
"""Only Kubernetes' own pods run on servers: the packaged components tolerate this."""

BACKEND_PORTS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"vxlan": (8472,), "wireguard-native": (51820, 51821), "host-gw": ()}
)
"""UDP ports between nodes (k3s documentation, "Requirements", networking)."""

_DEFAULT_COMPONENTS = ("coredns", "local-storage", "metrics-server")
_OF_THE_HUB = ("servicelb", "traefik")
_LEADERS = ("controller-manager", "scheduler", "cloud-controller-manager")
INTERFACE = "@interface@"
"""Stands for the name of the private interface, which only the machine itself knows."""


def servers(site: Site) -> dict[str, str]:
    """Address by name of every server, the head first."""
    names = [slot.name for slot in site.slots if slot.role is Role.HEAD or slot.group == Role.HEAD]
    return {name: site.ports[name].address for name in names}


def components(spec: ClusterSpec) -> tuple[str, ...]:
    """The packaged components that run."""
    listed = spec.kubernetes.components
    if listed is not None:
        return listed
    return (*_DEFAULT_COMPONENTS, *(_OF_THE_HUB if spec.jupyterhub else ()))


def server(site: Site, slot: Slot) -> str:
    """The configuration of a server; how it begins or joins is written beside it by the machine itself."""
    spec, options = site.spec, site.spec.kubernetes
    there = servers(site)
    floating = [spec.access.floating_ip] if spec.access.floating_ip else []
    names = [*there, *there.values(), spec.name, SERVERS, "127.0.0.1", *floating, *options.tls_san]
    config: dict[str, Any] = {
        "token": server_token(site.keyring),
        "agent-token": agent_token(site.keyring),
        **_node(site, slot),
        "advertise-address": site.ports[slot.name].address,
        "tls-san": list(dict.fromkeys(names)),
        "write-kubeconfig-mode": "0600",
        "cluster-cidr": options.pod_network,
        "service-cidr": options.service_network,
        "flannel-backend": options.backend,
        "secrets-encryption": True,
        "node-taint": [SERVER_TAINT],
    }
    if leases := _leases(site):
        config |= {f"kube-{name}-arg": leases for name in _LEADERS}
    config |= k3s_cloud.server_options(spec)
    if without := [name for name in COMPONENTS if name not in components(spec)]:
        config["disable"] = without
    if options.embedded_registry:
        config["embedded-registry"] = True
    return _text(config)


def agent(site: Site, slot: Slot) -> str:
    """The configuration of an agent: it has the agents' token alone, which pins the authority."""
    group = next(group for group in site.spec.workers if group.name == slot.group)
    labels = {GROUP_LABEL: group.name, **({GPU_LABEL: "true"} if group.gpus else {}), **(group.labels or {})}
    taints = [*(["nvidia.com/gpu=present:NoSchedule"] if group.gpus else []), *(group.taints or ())]
    config: dict[str, Any] = {
        "server": f"https://{SERVERS}:6443",
        "token": join_token(site.keyring, server=False),
        **_node(site, slot),
        "node-label": [f"{key}={value}" for key, value in labels.items()],
    }
    if taints:
        config["node-taint"] = taints
    return _text(config)


def _node(site: Site, slot: Slot) -> dict[str, Any]:
    agent = slot.role is Role.WORKER and slot.group != Role.HEAD
    kubelet = [*(k3s_room.KUBELET if agent else ()), *k3s_cloud.kubelet_args(site.spec)]
    return {
        **({"kubelet-arg": kubelet} if kubelet else {}),
        "node-name": slot.name,
        "node-ip": site.ports[slot.name].address,
        "flannel-iface": INTERFACE,
    }


def _leases(site: Site) -> list[str]:
    """How the control plane's parts agree who leads: a lone server leads anyway, and one that is emulated is slow.

    A part that cannot renew its lease in time ends, and k3s with it. Kubernetes' own spans are 15, 10 and 2 seconds.
    """
    if len(servers(site)) == 1:
        return ["leader-elect=false"]
    if site.spec.cloud == "local":
        spans = {"lease-duration": 120, "renew-deadline": 100, "retry-period": 10}
        return [f"leader-elect-{name}={seconds}s" for name, seconds in spans.items()]
    return []


def _text(config: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(config), sort_keys=False, default_flow_style=False)
