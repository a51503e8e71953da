"""What a changed spec means for a running cluster: each field changes in place, replaces workers, or is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vcluster.k3s_checks import numbers

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec, WorkerGroup

__all__ = ["TABLE", "UPGRADES", "Change", "ChangeKind", "remedies", "spec_changes"]


class ChangeKind(StrEnum):
    """What a running cluster does with a changed field."""

    IN_PLACE = "changed in place"
    REPLACES = "replaces workers"
    REFUSED = "refused"


_IN_PLACE, _REFUSED = ChangeKind.IN_PLACE, ChangeKind.REFUSED

TABLE: Mapping[str, ChangeKind] = MappingProxyType(
    {
        "name": _REFUSED,
        "cloud": _REFUSED,
        "scheduler": _REFUSED,
        "head.count": _REFUSED,
        "head.flavor": _REFUSED,
        "workers[].name": _REFUSED,
        "workers[].count": _IN_PLACE,
        "workers[].min_count": _IN_PLACE,
        # The names of all workers that may ever be are in Slurm's configuration from the first boot.
        "workers[].max_count": _REFUSED,
        "workers[].flavor": _REFUSED,
        "workers[].gpus": _REFUSED,
        "workers[].labels": _REFUSED,
        "workers[].taints": _REFUSED,
        "access.ssh_keys": _REFUSED,
        "access.allow_from": _REFUSED,
        "users[].name": _REFUSED,
        "users[].ssh_keys": _REFUSED,
        "users[].sudo": _REFUSED,
        "packages": _REFUSED,
        "setup.head": _REFUSED,
        "setup.workers": _REFUSED,
        "slurm.accounting": _REFUSED,
        "slurm.default_time": _REFUSED,
        "slurm.max_time": _REFUSED,
        "slurm.memory_per_cpu": _REFUSED,
        "k3s.version": _REFUSED,
        "k3s.binary": _REFUSED,
        "k3s.images": _REFUSED,
        "k3s.components": _REFUSED,
        "k3s.flannel_backend": _REFUSED,
        "k3s.pod_network": _REFUSED,
        "k3s.service_network": _REFUSED,
        "k3s.api_from": _REFUSED,
        "k3s.tls_san": _REFUSED,
        "k3s.registries": _REFUSED,
        "k3s.embedded_registry": _REFUSED,
        "k3s.openstack.auth_url": _REFUSED,
        "k3s.openstack.application_credential_id": _REFUSED,
        "k3s.openstack.application_credential_secret": _REFUSED,
        "k3s.openstack.region": _REFUSED,
        "k3s.openstack.load_balancers": _REFUSED,
        "k3s.openstack.volumes": _REFUSED,
        "mirrors.apt": _REFUSED,
        "mirrors.pypi": _REFUSED,
        "mirrors.ca": _REFUSED,
        "image.source": _REFUSED,
        "image.sha256": _REFUSED,
        "head.root_disk": _REFUSED,
        "head.image": _REFUSED,
        "head.availability_zone": _REFUSED,
        "workers[].root_disk": _REFUSED,
        "workers[].image": _REFUSED,
        "workers[].availability_zone": _REFUSED,
        "access.public_ip": _REFUSED,
        "access.floating_ip": _REFUSED,
        "access.jump": _REFUSED,
        "network": _REFUSED,
        "external_network": _REFUSED,
        "availability_zone": _REFUSED,
        "expires": _IN_PLACE,
        "grace_period": _IN_PLACE,
        # The head has these from its first boot; of people it keeps a list of its own, and `up` brings the spec's in.
        "jupyterhub.domain": _REFUSED,
        "jupyterhub.email": _REFUSED,
        "jupyterhub.allow_from": _REFUSED,
        "jupyterhub.auth.method": _REFUSED,
        "jupyterhub.auth.password": _REFUSED,
        "jupyterhub.auth.admin_password": _REFUSED,
        "jupyterhub.auth.client_id": _REFUSED,
        "jupyterhub.auth.client_secret": _REFUSED,
        "jupyterhub.auth.allow.users": _REFUSED,
        "jupyterhub.auth.allow.organizations": _REFUSED,
        "jupyterhub.auth.allow.groups": _REFUSED,
        "jupyterhub.auth.allow.domains": _REFUSED,
        "jupyterhub.auth.options": _REFUSED,
        "jupyterhub.people.csv": _IN_PLACE,
        "jupyterhub.people.count": _IN_PLACE,
        "jupyterhub.people.prefix": _IN_PLACE,
        "jupyterhub.people.quota": _REFUSED,
        "jupyterhub.instructors": _IN_PLACE,
        "jupyterhub.admins": _IN_PLACE,
        "jupyterhub.profiles": _REFUSED,
        "jupyterhub.cpu_oversubscribe": _REFUSED,
        "jupyterhub.environment.packages": _REFUSED,
        "jupyterhub.environment.requirements": _REFUSED,
        "jupyterhub.environment.image": _REFUSED,
        "jupyterhub.storage": _REFUSED,
        "jupyterhub.repository.url": _REFUSED,
        "jupyterhub.repository.branch": _REFUSED,
        "jupyterhub.repository.folder": _REFUSED,
        "jupyterhub.idle.server": _REFUSED,
        "jupyterhub.idle.kernel": _REFUSED,
        "jupyterhub.idle.longest": _REFUSED,
        "jupyterhub.class_size": _REFUSED,
        # Figures for people alone: no machine has them.
        "prices": _IN_PLACE,
    }
)
"""Every field of the spec; ``[]`` stands for any item of a list. A test keeps it complete."""


UPGRADES = frozenset({"k3s.version", "k3s.binary", "k3s.images"})
"""What ``vcluster upgrade`` changes, machine by machine, and ``up`` does not."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs.

    Attributes:
        field: ``workers[cpu].count``; lists of groups and users by name, not by position.
        kind: what the cluster does with it.
        old: the value that the cluster was made with; None for something new.
        new: the value that is wanted; None for something taken away.
    """

    field: str
    kind: ChangeKind
    old: Any
    new: Any

    @property
    def remedy(self) -> str:
        """What to do about a refused change; empty for the others."""
        if self.kind is not ChangeKind.REFUSED:
            return ""
        if self.field.endswith(".max_count") and isinstance(self.old, int):
            return f"set max_count: {self.old} to keep the cluster's room; for another, take it down and up again"
        if self.field == "k3s.flannel_backend" and isinstance(self.old, str):
            # Nobody need have written it: another version has another one where the spec says nothing.
            return f"write `flannel_backend: {self.old}` under k3s, which the cluster has; only a new one gets another"
        if self.field == "k3s.version" and numbers(str(self.new)) < numbers(str(self.old or "")):
            return f"Kubernetes does not go back: write `version: {self.old}` under k3s, with its binary and images"
        if self.field in UPGRADES:
            return "`vcluster upgrade` with this spec does it, one machine after the other"
        return "take the cluster down and up again, or give the new one another name"

    def __str__(self) -> str:
        return f"{self.field}: {_short(self.old)} → {_short(self.new)}: {self.kind}"


def _short(value: Any) -> str:
    text = _spelled(value)
    return text if len(text) <= 60 and text.isprintable() else "(a long text)"


def _spelled(value: Any) -> str:
    """A value as one writes it into a spec, without the fields that say nothing."""
    match value:
        case None | "" | []:
            return "not set"
        case bool():
            return "true" if value else "false"
        case dict():
            said = {key: each for key, each in value.items() if each not in (None, "", [], {})}
            return "{" + ", ".join(f"{key}: {_spelled(each)}" for key, each in said.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(_spelled, value)) + "]"
        case _:
            return str(value)


def remedies(changes: Sequence[Change]) -> str:
    """What to do about each of several changes, a line each where they differ; empty where all are allowed."""
    fields: dict[str, list[str]] = {}
    for change in changes:
        if change.remedy:
            fields.setdefault(change.remedy, []).append(change.field)
    if len(fields) <= 1:
        return "".join(fields)
    return "".join(f"\n  {', '.join(names)}: {remedy}" for remedy, names in fields.items())


def spec_changes(old: ClusterSpec, new: ClusterSpec) -> list[Change]:
    """What differs between the spec that a cluster was made with and another one, in the order of the fields.

    A group's ``max_count`` is compared as it works out: without one it is ``count``, so changing ``count`` alone
    changes the room that the cluster has, too.
    """
    found: list[Change] = []
    _compare("", "", _resolved(old), _resolved(new), found)
    return found


def _resolved(spec: ClusterSpec) -> dict[str, Any]:
    data = spec.canonical()
    groups: dict[str, WorkerGroup] = {group.name: group for group in spec.workers}
    data["workers"] = {name: {**_plain(group), "max_count": group.maximum} for name, group in groups.items()}
    if isinstance(data.get("head"), dict) and data["head"].get("flavor") is not None:
        data["head"] = {**data["head"], "flavor": _size(data["head"]["flavor"])}
    data["users"] = {user["name"]: user for user in data["users"]}
    if spec.scheduler == "k3s":  # to leave the section out means its defaults
        # Of the backend what the version makes of it: machines with another one do not hear each other's pods.
        data["k3s"] = {
            **spec.kubernetes.model_dump(mode="json", exclude_none=True),
            "flannel_backend": spec.kubernetes.backend,
        }
    return data


def _plain(group: WorkerGroup) -> dict[str, Any]:
    data = group.model_dump(mode="json")
    data["flavor"] = _size(data["flavor"])
    return data


def _size(flavor: Any) -> Any:
    # Of one piece: "the flavor changed" is what a person wants to hear, not which of its numbers.
    if isinstance(flavor, str):
        return flavor
    return f"{{cpus: {flavor['cpus']}, memory: {flavor['memory']}M, disk: {flavor['disk']}G}}"


def _compare(field: str, entry: str, old: Any, new: Any, found: list[Change]) -> None:
    if old == new:
        return
    listed = entry in {"workers", "users"}
    # A whole group or user that comes or goes is one change.
    if entry in TABLE or not (isinstance(old, dict) and isinstance(new, dict)):
        found.append(Change(field, TABLE.get(entry, ChangeKind.REFUSED), old, new))
        return
    for key in dict.fromkeys([*old, *new]):
        name = f"{field}[{key}]" if listed else f"{field}.{key}" if field else key
        kind = f"{entry}[]" if listed else f"{entry}.{key}" if entry else key
        _compare(name, kind, old.get(key), new.get(key), found)
