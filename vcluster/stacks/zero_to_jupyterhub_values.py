"""The values of the zero-to-jupyterhub chart, section by section, from the spec's ``jupyterhub:``. Pure.

Names are those of the chart's ``values.yaml`` and ``values.schema.yaml``; the tests hold the result against the latter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vcluster.capacity import capacity, cpu_share, group_of
from vcluster.model import Role
from vcluster.people import class_size, people
from vcluster.render import render
from vcluster.spec_checks import seconds
from vcluster.spec_hub_cross import PROVIDERS
from vcluster.spec_hub_k3s import CORE
from vcluster.stacks import hub_storage, jupyterhub
from vcluster.stacks.k3s_config import GROUP_LABEL

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec
    from vcluster.spec_hub import HubSpec, ProfileSpec
    from vcluster.stacks.base import Site

__all__ = ["SERVER_LABEL", "SERVER_TOLERATION", "core", "needs_url", "values"]

SERVER_LABEL = {"node-role.kubernetes.io/control-plane": "true"}
SERVER_TOLERATION = {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}
GPU = "nvidia.com/gpu"
GPU_TOLERATION = {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}

HOMES_CLAIM = "vcluster-homes"
"""The claim on the head's export, with ``storage: nfs``."""

CONFIG = "/usr/local/etc/jupyterhub"
"""In the Hub's container: whence its configuration imports."""

HOME = "/home/jovyan"
SCRATCH = 64
"""MiB of a machine's disk that a notebook is counted with; it may take more, up to its limit."""

_STOCK = {
    "shared-password": "shared-password",
    "native": "native",
    "firstuse": "firstuseauthenticator.FirstUseAuthenticator",
    "github": "github",
    "cilogon": "cilogon",
    "globus": "globus",
    "oidc": "generic-oauth",
}
"""The chart's own classes, in place of its default, ``dummy``, which lets anybody in. In the end the Hub takes
our own, stricter ones (templates/zero-to-jupyterhub/hub_config.py)."""

_INSTRUCTOR = ("admin-ui", "list:users", "read:users", "read:servers", "servers", "access:servers", "read:hub")

_PULL = (
    "import sys; from nbgitpuller import GitPuller; url, branch, folder = sys.argv[1:4]; "
    "[print(line, end='') for line in GitPuller(url, folder, branch=branch or None).pull()]"
)
# KubeSpawner takes braces for its own fields, so there are none.
_REPOSITORY = (
    'cd "$4" && (timeout 600 python3 -c "$0" "$1" "$2" "$3" || test -e "$3" || '
    'timeout 600 git clone -q -- "$1" "$3") > /tmp/vcluster-repository.log 2>&1 &'
)


def values(site: Site, url: str = "") -> dict[str, Any]:
    """All but secrets.

    Args:
        url: the address that people type, where it is known.
    """
    spec, hub = site.spec, site.spec.jupyterhub
    assert hub is not None
    return {
        "hub": _hub(site, hub, url),
        "proxy": _proxy(spec),
        "singleuser": _singleuser(spec, hub),
        "scheduling": _scheduling(site),
        "prePuller": {"hook": {"enabled": True, "nodeSelector": core(spec)[0]}, "continuous": {"enabled": True}},
        "ingress": _ingress(hub),
        "cull": _cull(hub),
    }


def needs_url(hub: HubSpec) -> bool:
    """Whether the values have the address that people type: without a domain, a provider sends them back to that."""
    return not hub.domain and hub.auth.method in PROVIDERS


# Where pods run ------------------------------------------------------------------------------------------------------


def core(spec: ClusterSpec) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Where the Hub's own pods run, and what they tolerate: on a group called ``core``, else on the servers."""
    for group in spec.workers:
        if group.name == CORE and group.count:
            return {GROUP_LABEL: CORE}, _tolerations(group.taints or ())
    return dict(SERVER_LABEL), [SERVER_TOLERATION]


def _tolerations(taints: Iterable[str]) -> list[dict[str, str]]:
    found = []
    for taint in taints:
        what, _, effect = taint.rpartition(":")
        key, equal, value = what.partition("=")
        found.append(
            {"key": key, "operator": "Equal", "value": value, "effect": effect}
            if equal
            else {"key": key, "operator": "Exists", "effect": effect}
        )
    return found


def _used(spec: ClusterSpec, hub: HubSpec) -> list[str]:
    """The worker groups that notebooks run on, the usual one first."""
    return list(dict.fromkeys(group_of(spec, profile) for profile in hub.profiles))


def _scheduling(site: Site) -> dict[str, Any]:
    spec, hub = site.spec, site.spec.jupyterhub
    assert hub is not None
    found = capacity(spec, site.slots)
    held = found.placeholders.count if found and found.placeholders else 0
    selector, tolerated = core(spec)
    group = next((group for group in spec.workers if group.name == CORE), None)
    cores = group.count if group and group.count else 1 + len(spec.peers)
    first = hub.profiles[0]
    asked = {"cpu": f"{cpu_share(first, hub.cpu_oversubscribe)}m", "memory": f"{first.memory}Mi"}
    return {
        # Packs notebooks: a worker without any can go.
        "userScheduler": {"enabled": True, "replicas": min(2, cores), "nodeSelector": selector},
        # Without a priority below theirs, placeholders would not give way to notebooks.
        "podPriority": {"enabled": held > 0},
        "userPlaceholder": {"enabled": True, "replicas": held, "resources": {"requests": asked}},
        "corePods": {"tolerations": tolerated},
    }


# The Hub -------------------------------------------------------------------------------------------------------------


def _hub(site: Site, hub: HubSpec, url: str) -> dict[str, Any]:
    spec, size = site.spec, class_size(site.spec)
    selector, _ = core(spec)
    return {
        "config": {"JupyterHub": {"authenticator_class": _STOCK[hub.auth.method]}, "Authenticator": _who(spec, hub)},
        "extraFiles": _files(site, hub, url),
        "extraConfig": {"vcluster": render("zero-to-jupyterhub/hub_config.py")},
        "loadRoles": {
            "instructor": {
                "description": "Sees, stops and opens everybody's servers",
                "scopes": list(_INSTRUCTOR),
                "groups": ["instructors"],
            }
        },
        # A class starts all at once, and one that fails is no reason to end the Hub for all.
        "concurrentSpawnLimit": size + 10,
        "consecutiveFailureLimit": 0,
        **({"activeServerLimit": most} if (most := _most(site)) else {}),
        "allowNamedServers": False,
        "db": _database(spec),
        "nodeSelector": selector,
        "resources": {
            "requests": {"cpu": "500m" if size > 20 else "200m", "memory": f"{384 + 4 * size}Mi"},
            "limits": {"memory": f"{1024 + 8 * size}Mi"},
        },
    }


def _who(spec: ClusterSpec, hub: HubSpec) -> dict[str, Any]:
    """Who may come. Rules of a provider decide among the same people; nobody gets in who is not on the list."""
    named = sorted(person.name for person in people(spec))
    return {
        "admin_users": sorted(person.name for person in people(spec) if person.admin),
        "allow_all": False,
        "allow_existing_users": False,
        "any_allow_config": True,
        "manage_groups": True,
        "auth_refresh_age": 120,
        **({"allowed_users": named} if hub.auth.allow.users else {}),
    }


def _files(site: Site, hub: HubSpec, url: str) -> dict[str, Any]:
    spec, folder = site.spec, jupyterhub.FOLDER
    told = {
        "cluster": spec.name,
        "head": {"address": site.ports[site.slots[0].name].address},
        "class_size": class_size(spec),
        "auth": jupyterhub.auth_facts(hub),
        "domain": hub.domain,
    }
    programs = jupyterhub.login_programs(hub.auth.method)
    return {
        **{name: {"mountPath": f"{CONFIG}/{name}", "stringData": text} for name, text in programs.items()},
        "hub.json": {"mountPath": f"{folder}/hub.json", "data": told},
        # Whither an identity provider sends people back, where no domain says it.
        **(
            {"front.json": {"mountPath": f"{folder}/front.json", "data": {"url": url}}}
            if url and needs_url(hub)
            else {}
        ),
    }


def _most(site: Site) -> int:
    """How many notebooks fit onto all workers that there may ever be."""
    workers = [slot for slot in site.slots if slot.role is Role.WORKER]
    fits = jupyterhub.fits(site.spec, workers)
    return sum(fits.get(slot.group, 0) for slot in workers)


def _database(spec: ClusterSpec) -> dict[str, Any]:
    if storage := hub_storage.database_class(spec):
        return {"type": "sqlite-pvc", "pvc": {"storage": "1Gi", "storageClassName": storage}}
    return {"type": "sqlite-memory"}


def _cull(hub: HubSpec) -> dict[str, Any]:
    idle = hub.idle.seconds
    limits = [limit for limit in (idle["server"], idle["longest"]) if limit]
    if not limits:
        return {"enabled": False}
    return {
        "enabled": True,
        "every": max(60, min(300, min(limits) // 4)),
        "timeout": idle["server"] or 10**9,
        "maxAge": idle["longest"],
        "users": False,
        "adminUsers": True,
    }


# The front door ------------------------------------------------------------------------------------------------------


def _proxy(spec: ClusterSpec) -> dict[str, Any]:
    selector, _ = core(spec)
    return {
        # Ports 80 and 443 are Traefik's, which has the certificate too.
        "service": {"type": "ClusterIP"},
        "https": {"enabled": False},
        "chp": {"nodeSelector": selector, "resources": {"requests": {"cpu": "200m", "memory": "256Mi"}}},
    }


def _ingress(hub: HubSpec) -> dict[str, Any]:
    route = "traefik.ingress.kubernetes.io/router"
    certified = {f"{route}.tls.certresolver": "letsencrypt"} if hub.domain else {}
    return {
        "enabled": True,
        "ingressClassName": "traefik",
        "hosts": [hub.domain] if hub.domain else [],
        "annotations": {f"{route}.entrypoints": "websecure", f"{route}.tls": "true", **certified},
    }


# Notebooks -----------------------------------------------------------------------------------------------------------


def _singleuser(spec: ClusterSpec, hub: HubSpec) -> dict[str, Any]:
    size, first, used = class_size(spec), hub.profiles[0], _used(spec, hub)
    groups = [group for group in spec.workers if group.name in used]
    tolerated = _tolerations(taint for group in groups for taint in group.taints or ())
    tolerated += [GPU_TOLERATION] if any(group.gpus for group in groups) else []
    share = cpu_share(first, hub.cpu_oversubscribe)
    found: dict[str, Any] = {
        "cpu": {"guarantee": share / 1000, "limit": first.cpus},
        "memory": {"guarantee": f"{first.memory}M", "limit": f"{first.memory}M"},
        "startTimeout": max(300, 60 + 3 * size),
        "defaultUrl": "/lab",
        "storage": _storage(spec),
        # The firewall of each machine keeps pods from the cloud's metadata; here it would be a privileged container
        # more for each notebook.
        "cloudMetadata": {"blockWithIptables": False, "ip": "169.254.169.254"},
        "extraTolerations": tolerated,
        "extraNodeAffinity": {
            "required": [{"matchExpressions": [{"key": GROUP_LABEL, "operator": "In", "values": used}]}]
        },
        "extraEnv": {"JUPYTERHUB_ACTIVITY_INTERVAL": str(min(300, _cull(hub).get("every", 300)))},
        **_image(hub),
        **_repository(hub),
        **_kernels(hub),
    }
    if len(hub.profiles) > 1:
        found["profileList"] = [_profile(spec, hub, profile) for profile in hub.profiles]
        # For all; each profile says its own.
        return {**found, "extraResource": _resources(spec, 0)}
    more = _pod(first)
    return {**found, "extraResource": _resources(spec, first.gpus), **({"extraPodConfig": more} if more else {})}


def _profile(spec: ClusterSpec, hub: HubSpec, profile: ProfileSpec) -> dict[str, Any]:
    share, resources = cpu_share(profile, hub.cpu_oversubscribe), _resources(spec, profile.gpus)
    gpus = f", {profile.gpus} GPU{'s' if profile.gpus > 1 else ''}" if profile.gpus else ""
    plain = f"{profile.cpus} CPU{'s' if profile.cpus > 1 else ''}, {profile.memory} MiB{gpus}"
    return {
        "display_name": profile.name,
        "slug": profile.name,
        "description": profile.description or plain,
        "default": profile is hub.profiles[0],
        "kubespawner_override": {
            "cpu_guarantee": share / 1000,
            "cpu_limit": profile.cpus,
            "mem_guarantee": f"{profile.memory}M",
            "mem_limit": f"{profile.memory}M",
            "extra_resource_guarantees": resources["guarantees"],
            "extra_resource_limits": resources["limits"],
            "node_selector": {GROUP_LABEL: group_of(spec, profile)},
            "extra_pod_config": _pod(profile),
        },
    }


def _pod(profile: ProfileSpec) -> dict[str, Any]:
    longest = seconds(profile.time)
    ends = {} if longest is None else {"activeDeadlineSeconds": longest}
    return {**ends, **({"runtimeClassName": "nvidia"} if profile.gpus else {})}


def _resources(spec: ClusterSpec, gpus: int) -> dict[str, dict[str, str]]:
    """Beside processors and memory: GPUs, and of the machine's disk what files may take that go with the notebook."""
    shared = {GPU: str(gpus)} if gpus else {}
    if hub_storage.storage_of(spec) != "none":
        return {"guarantees": shared, "limits": shared}
    most = f"{hub_storage.volume_size(spec)}Mi"
    return {
        "guarantees": {"ephemeral-storage": f"{SCRATCH}Mi", **shared},
        "limits": {"ephemeral-storage": most, **shared},
    }


def _storage(spec: ClusterSpec) -> dict[str, Any]:
    match hub_storage.storage_of(spec):
        case hub_storage.CINDER:
            capacity_ = f"{hub_storage.volume_size(spec)}Mi"
            return {"type": "dynamic", "capacity": capacity_, "dynamic": {"storageClass": hub_storage.CINDER}}
        case "nfs":
            return {"type": "static", "static": {"pvcName": HOMES_CLAIM, "subPath": "home/{username}"}}
    return {"type": "none"}


def _image(hub: HubSpec) -> dict[str, Any]:
    if hub.environment.image is None:
        return {}
    # The chart joins the two with a colon, so a digest's own is as good a place.
    found = re.fullmatch(r"(.+):([^:/]+)", hub.environment.image)
    assert found is not None
    return {"image": {"name": found[1], "tag": found[2]}}


def _repository(hub: HubSpec) -> Mapping[str, Any]:
    wanted = hub.repository
    if wanted.url is None:
        return {}
    folder = wanted.folder or wanted.url.rstrip("/").rpartition("/")[2].removesuffix(".git")
    # In the background, and whatever comes of it: a container whose hook fails is ended.
    command = ["sh", "-c", _REPOSITORY, _PULL, wanted.url, wanted.branch or "", folder, HOME]
    return {"lifecycleHooks": {"postStart": {"exec": {"command": command}}}}


def _kernels(hub: HubSpec) -> Mapping[str, Any]:
    limit = hub.idle.seconds["kernel"]
    if not limit:
        return {}
    settings = {
        "cull_idle_timeout": limit,
        "cull_interval": max(30, min(300, limit // 4)),
        "cull_connected": True,  # an open tab is no use
        "cull_busy": False,
    }
    place = "/usr/local/etc/jupyter/jupyter_server_config.json"
    return {
        "extraFiles": {"jupyter_server_config.json": {"mountPath": place, "data": {"MappingKernelManager": settings}}}
    }
