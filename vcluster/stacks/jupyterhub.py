"""JupyterHub on a Slurm head: what it brings beside Slurm's own files. Pure: spec and site in, text out.

Programs are the same for every cluster and read what they need to know of one from ``/etc/vcluster/hub``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from vcluster.model import Role, Slot
from vcluster.people import FIRST_UID, Person, class_size, people
from vcluster.render import render
from vcluster.spec_hub_cross import PROVIDERS
from vcluster.stacks.base import ADMIN_UID
from vcluster.stacks.userdata import File, lean

if TYPE_CHECKING:
    from vcluster.secrets import Keyring
    from vcluster.spec import ClusterSpec
    from vcluster.spec_hub import HubSpec
    from vcluster.stacks.base import Site

__all__ = [
    "FOLDER",
    "HUB_PORT",
    "PROXY_PORT",
    "auth_facts",
    "configure",
    "entry",
    "facts",
    "files",
    "fits",
    "installed",
    "login_programs",
    "passwords",
    "people_list",
    "shared_nodes",
]

FOLDER = "/etc/vcluster/hub"
"""On the head, for root and the Hub: facts, people and passwords."""

LIBRARY = "/usr/local/lib/vcluster/jupyterhub"
UNITS = "/etc/systemd/system"
SECRETS = "/etc/vcluster/secrets"

HUB_PORT, PROXY_PORT, API_PORT = 8081, 8000, 8001
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""Of a password to be read aloud: none that is taken for another."""

_ON_HEAD = (
    "hub_api.py",
    "hub_facts.py",
    "hub_front.py",
    "hub_login.py",
    "hub_passwords.py",
    "hub_people.py",
    "hub_probe.py",
    "hub_queue.py",
    "hub_quota.py",
    "hub_rehearsal.py",
    "hub_state.py",
    "jupyterhub_config.py",
    "vcluster_auth.py",
    "vcluster_proxy.py",
    "vcluster_spawner.py",
)
_OF_THE_WAY = {
    "firstuse": ("vcluster_own.py", "vcluster_firstuse.py"),
    "native": ("vcluster_own.py", "vcluster_native.py"),
    **dict.fromkeys(PROVIDERS, ("vcluster_provider.py",)),
}
"""What a way to log in needs, and no other: the user data of a class has little room."""
_SSHD = ("/etc/ssh/sshd_config.d/20-vcluster-people.conf", "jupyterhub/sshd.conf.j2", 0o644)
_HEAD = (
    _SSHD,
    # The more special one of two drop-ins of the same name counts alone.
    (f"{UNITS}/user-.slice.d/vcluster.conf", "jupyterhub/user-slice.conf", 0o644),
    (f"{UNITS}/user-{ADMIN_UID}.slice.d/vcluster.conf", "jupyterhub/admin-slice.conf", 0o644),
    (f"{LIBRARY}/hub-sync", "jupyterhub/hub-sync", 0o755),
    ("/usr/local/sbin/vcluster-hub", "jupyterhub/vcluster-hub", 0o700),
    ("/usr/local/sbin/vcluster-notebook", "jupyterhub/vcluster-notebook", 0o700),
    ("/etc/sudoers.d/vcluster-jupyterhub", "jupyterhub/sudoers", 0o440),
    ("/etc/caddy/Caddyfile", "jupyterhub/Caddyfile.j2", 0o644),
    ("/etc/sysctl.d/91-vcluster-hub.conf", "jupyterhub/sysctl.conf", 0o644),
    (f"{UNITS}/caddy.service.d/vcluster.conf", "jupyterhub/caddy.service.conf.j2", 0o644),
    (f"{UNITS}/jupyterhub.service", "jupyterhub/jupyterhub.service.j2", 0o644),
    (f"{UNITS}/jupyterhub-proxy.service", "jupyterhub/jupyterhub-proxy.service.j2", 0o644),
)
_WORKER = (
    _SSHD,
    (f"{LIBRARY}/notebook", "jupyterhub/notebook", 0o644),
    (f"{LIBRARY}/vcluster_activity.py", "jupyterhub/vcluster_activity.py", 0o644),
    (f"{LIBRARY}/vcluster_kernels.py", "jupyterhub/vcluster_kernels.py", 0o644),
    (f"{LIBRARY}/prolog", "jupyterhub/prolog", 0o755),
    (f"{UNITS}/vcluster-people.service", "jupyterhub/vcluster-people.service", 0o644),
    (f"{UNITS}/srv-shared.mount", "jupyterhub/srv-shared.mount.j2", 0o644),
    (f"{UNITS}/opt-vcluster.mount", "jupyterhub/opt-vcluster.mount.j2", 0o644),
)
_PROGRAMS = {
    f"jupyterhub/{name}"
    for name in (
        *("hub-sync", "vcluster-hub", "vcluster-notebook", "notebook"),
        *("vcluster_activity.py", "vcluster_kernels.py"),
    )
}
"""Python, without a template's gaps."""


def installed(spec: ClusterSpec) -> dict[str, Any] | None:
    """What the install script is to add; None without a Hub. Nothing in it names a cluster."""
    hub = spec.jupyterhub
    if hub is None:
        return None
    return {"packages": hub.environment.every, "node": render("jupyterhub/node.txt").strip()}


def shared_nodes(spec: ClusterSpec) -> Mapping[str, int]:
    """The worker groups whose processors several notebooks share, and how many share one."""
    hub = spec.jupyterhub
    if hub is None or hub.cpu_oversubscribe == 1:
        return {}
    return dict.fromkeys((profile.partition or spec.workers[0].name for profile in hub.profiles), hub.cpu_oversubscribe)


def configure(spec: ClusterSpec) -> dict[str, Any] | None:
    """Values for the configure steps and templates; None without a Hub."""
    hub = spec.jupyterhub
    if hub is None:
        return None
    return {
        "api_port": API_PORT,
        "domain": hub.domain,
        "email": hub.email,
        "hub_port": HUB_PORT,
        "library": LIBRARY,
        "method": hub.auth.method,
        "proxy_port": PROXY_PORT,
        "quota": hub.people.quota is not None,
    }


def files(site: Site, role: Role, values: Mapping[str, Any]) -> Iterator[File]:
    """The Hub's files on a machine; none without a Hub.

    Args:
        values: of the stack's templates.
    """
    hub = site.spec.jupyterhub
    if hub is None:
        return
    more = {**values, **(configure(site.spec) or {})}
    for path, name, mode in _HEAD if role is Role.HEAD else _WORKER:
        text = render(name, **more)
        yield File(path, lean(text) if name in _PROGRAMS else text, mode)
    if role is not Role.HEAD:
        return
    if hub.people.quota is not None:
        yield File(f"{UNITS}/vcluster-quota.service", render("jupyterhub/vcluster-quota.service", **more), 0o644)
    if hub.auth.method == "pam":
        yield File("/etc/pam.d/vcluster-jupyterhub", render("jupyterhub/pam"), 0o644)
    for name in (*_ON_HEAD, *_OF_THE_WAY.get(hub.auth.method, ())):
        yield File(f"{LIBRARY}/{name}", lean(render(f"jupyterhub/{name}")))
    yield _data("hub.json", facts(site))
    yield File(f"{FOLDER}/people.initial.json", people_list(site.spec), 0o640)
    yield _data("passwords.initial.json", passwords(site))
    yield from _secrets(site, hub)


def facts(site: Site) -> dict[str, Any]:
    """What the Hub's programs know of the cluster; no secret."""
    spec, hub = site.spec, site.spec.jupyterhub
    assert hub is not None
    head, *workers = site.slots
    repository, fitting = hub.repository, fits(spec, workers)
    return {
        "cluster": spec.name,
        "head": {"name": head.name, "address": site.ports[head.name].address},
        "nodes": {slot.name: site.ports[slot.name].address for slot in workers},
        "ports": {"hub": HUB_PORT, "proxy": PROXY_PORT, "api": API_PORT},
        "class_size": class_size(spec),
        "quota_mib": hub.people.quota,
        "capacity": sum(fitting[slot.group] for slot in workers if slot.group in fitting),
        "fits": fitting,
        "profiles": [
            {
                "name": profile.name,
                "description": profile.description,
                "cpus": profile.cpus,
                "memory_mib": profile.memory,
                "time": profile.time,
                "gpus": profile.gpus,
                "partition": profile.partition or spec.workers[0].name,
            }
            for profile in hub.profiles
        ],
        "idle": hub.idle.seconds,
        "auth": auth_facts(hub),
        "domain": hub.domain,
        "email": hub.email,
        "repository": {"url": repository.url, "branch": repository.branch, "folder": repository.folder},
        "shared": "/srv/shared",
        "state": "/var/lib/jupyterhub",
        "user_python": "/opt/vcluster/user/bin/python",
        "helper": ["sudo", "-n", "/usr/local/sbin/vcluster-notebook"],
        "squeue": ["/usr/bin/squeue"],
    }


def auth_facts(hub: HubSpec) -> dict[str, Any]:
    """What the programs for logging in know; no secret."""
    auth = hub.auth
    return {
        "method": auth.method,
        "client_id": auth.client_id,
        "options": dict(auth.options),
        "allow": {
            "users": auth.allow.users,
            "organizations": list(auth.allow.organizations),
            "groups": list(auth.allow.groups),
            "domains": list(auth.allow.domains),
        },
    }


def login_programs(method: str) -> dict[str, str]:
    """The programs by which people log in, by file name."""
    names = ("hub_facts.py", "hub_login.py", "vcluster_auth.py", *_OF_THE_WAY.get(method, ()))
    return {name: lean(render(f"jupyterhub/{name}")) for name in names}


def fits(spec: ClusterSpec, workers: list[Slot]) -> dict[str, int]:
    """How many notebooks fit onto a worker of each group that has any."""
    from vcluster.capacity import group_of, per_node

    hub = spec.jupyterhub
    assert hub is not None
    first = {group_of(spec, profile): profile for profile in reversed(hub.profiles)}
    gpus = {group.name: group.gpus or 0 for group in spec.workers}
    flavors = {slot.group: slot.flavor for slot in workers if slot.group in first}
    return {group: per_node(spec, flavor, gpus[group], first[group]).each for group, flavor in flavors.items()}


def entry(person: Person) -> dict[str, Any]:
    """Somebody as the head's list has them, below their name."""
    known: dict[str, Any] = {
        "uid": person.uid,
        "kind": person.kind,
        "admin": person.admin,
        "instructor": person.instructor,
        "email": person.email,
        "login": person.login,
    }
    # The spec's users have their keys by other files.
    return {**known, "keys": list(person.ssh_keys)} if person.ssh_keys and person.kind != "user" else known


def passwords(site: Site) -> dict[str, str | None]:
    """The class's and the admins' as the user gave them, or as every run makes them."""
    given = site.secrets
    return {
        "class": given.get("password") or _readable(site.keyring),
        "admin": given.get("admin_password") or site.keyring.password("jupyterhub-admin"),
        "rehearsal": None,
    }


def _readable(keyring: Keyring) -> str:
    number = int.from_bytes(keyring.key("jupyterhub-class", 24))
    letters = []
    for _ in range(16):
        number, at = divmod(number, len(LETTERS))
        letters.append(LETTERS[at])
    return "-".join("".join(letters[n : n + 4]) for n in range(0, 16, 4))


def _secrets(site: Site, hub: HubSpec) -> Iterator[File]:
    ring = site.keyring
    proxy = {"CONFIGPROXY_AUTH_TOKEN": ring.password("jupyterhub-proxy")}
    own = {
        **proxy,
        "VCLUSTER_SERVICE_TOKEN": ring.password("jupyterhub-service"),
        "JPY_COOKIE_SECRET": ring.key("jupyterhub-cookie").hex(),
        "JUPYTERHUB_CRYPT_KEY": ring.key("jupyterhub-crypt").hex(),
    }
    if hub.auth.client_secret is not None:
        own["VCLUSTER_CLIENT_SECRET"] = _quoted(site.secrets["client_secret"])
    yield File(f"{SECRETS}/jupyterhub.env", _environment(own), 0o600)
    yield File(f"{SECRETS}/proxy.env", _environment(proxy), 0o600)


def _quoted(secret: str) -> str:
    """As systemd reads the value of an environment file."""
    escaped = "".join(f"\\{letter}" if letter in '"\\$`' else letter for letter in secret)
    return f'"{escaped}"'


def _environment(values: Mapping[str, str]) -> str:
    return "".join(f"{key}={value}\n" for key, value in values.items())


def people_list(spec: ClusterSpec) -> str:
    """The first list of people, one a line: the user data of a class has little room."""
    named = (f"{json.dumps(person.name)}: {json.dumps(entry(person), ensure_ascii=False)}" for person in people(spec))
    text = ",\n".join(named)
    return f'{{"next_uid": {FIRST_UID}, "people": {{\n{text}\n}}}}\n'


def _data(name: str, data: Mapping[str, Any]) -> File:
    return File(f"{FOLDER}/{name}", json.dumps(data, indent=1, ensure_ascii=False) + "\n", 0o640)
