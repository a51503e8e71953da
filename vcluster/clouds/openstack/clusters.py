"""Every cluster of ours in a project, whoever made it, also those of which only leftovers are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field

from vcluster.clouds.base import ClusterSummary
from vcluster.clouds.openstack import kubernetes, marks, pictures
from vcluster.clouds.openstack.connect import Services
from vcluster.clouds.openstack.observe import server_groups, volumes
from vcluster.clouds.openstack.offspring import balancers_or_none
from vcluster.clouds.openstack.rest import GONE, Json
from vcluster.model import ClusterRef, MachineState, PartKind, Role

__all__ = ["summaries"]

_FIELDS = ("id", "name", "description", "created_at", "tags", "device_id")

_LISTED = ("/networks", "/subnets", "/routers", "/floatingips", "/ports", "/security-groups")

_BORN = {"/floatingips": PartKind.FLOATING_IP, "/security-groups": PartKind.SECURITY_GROUP}
"""What the software on a cluster makes as well, see :mod:`vcluster.clouds.openstack.kubernetes`."""

EXTENSIONS = ("/routers", "/floatingips")
"""A cloud that puts machines on its own networks may do without."""


@dataclass
class _Found:
    """What was seen of one cluster."""

    signatures: list[marks.Signature] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    created: list[float] = field(default_factory=list)
    flavors: list[tuple[str, MachineState]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    head: bool = False
    claimed: float = 0.0


def summaries(services: Services, pool: Executor) -> list[ClusterSummary]:
    """One for each cluster of which anything is there but volumes that a person asked to keep, by name."""
    found: dict[str, _Found] = {}
    project = services.identity.project
    servers = pool.submit(_servers, services)
    disks = pool.submit(volumes, services)
    groups = pool.submit(server_groups, services)
    listed = {path: pool.submit(_listing, services, path, project) for path in _LISTED}
    balancers = pool.submit(balancers_or_none, services)
    for told in servers.result():
        _take_server(found, told)
    for told in disks.result():
        metadata: Mapping[str, str] = told.get("metadata") or {}
        if marks.KEPT not in metadata:
            _take(found, marks.signature(metadata), told)
            _take_offspring(found, PartKind.VOLUME, told)
    for told in groups.result():
        if id_ := marks.cluster_of(str(told.get("name", ""))):
            found.setdefault(id_, _Found())
    for told in balancers.result():
        _take_offspring(found, PartKind.LOAD_BALANCER, told)
    for path, answer in listed.items():
        for told in answer.result():
            _take_from_neutron(found, told)
            if path in _BORN:
                _take_offspring(found, _BORN[path], told)
    summed = [_summary(id_, seen, services) for id_, seen in found.items()]
    return sorted(summed, key=lambda s: (s.ref.name, s.ref.owner, s.ref.id))


def _servers(services: Services) -> list[Json]:
    params = {"tags": marks.MARK}
    return services.compute.listing("/servers/detail", "servers", doing="list servers", params=params)


def _listing(services: Services, path: str, project: str) -> list[Json]:
    key = path.strip("/").replace("-", "_")
    doing = f"list {key.replace('_', ' ')}"
    params = {"project_id": project, "fields": _FIELDS}
    none = GONE if path in EXTENSIONS else ()
    return services.network.listing(path, key, doing=doing, params=params, none=none)


def _take(found: dict[str, _Found], signature: marks.Signature | None, told: Json) -> _Found | None:
    if signature is None:
        return None
    seen = found.setdefault(signature.id, _Found())
    seen.signatures.append(signature)
    seen.names.append(str(told.get("name", "")))
    if when := pictures.moment(told.get("created_at") or told.get("created")):
        seen.created.append(when)
    return seen


def _take_offspring(found: dict[str, _Found], kind: PartKind, told: Json) -> None:
    """What a cluster's own software made tells its id alone; its name is the software's."""
    if id_ := kubernetes.id_of(kind, told):
        seen = found.setdefault(id_, _Found())
        if when := pictures.moment(told.get("created_at")):
            seen.created.append(when)


def _take_server(found: dict[str, _Found], told: Json) -> None:
    metadata: Mapping[str, str] = told.get("metadata") or {}
    state = pictures.state_of(told)
    if state is None or (seen := _take(found, marks.signature(metadata), told)) is None:
        return
    seen.names.pop()  # the signature has the cluster's
    seen.flavors.append((str((told.get("flavor") or {}).get("original_name", "")), state))
    if marks.role_of(marks.tag_in(metadata.get(marks.MARK))) is Role.HEAD:
        seen.head = True


def _take_from_neutron(found: dict[str, _Found], told: Json) -> None:
    description = told.get("description")
    if (seen := _take(found, marks.signature(description), told)) is None:
        return
    if marks.role_of(marks.tag_in(description)) is Role.HEAD:
        seen.claimed = max(seen.claimed, pictures.moment(told.get("created_at")))
    for key, value in marks.notes_of(told.get("tags", [])).items():
        seen.notes.setdefault(key, value)


def _summary(id_: str, seen: _Found, services: Services) -> ClusterSummary:
    return ClusterSummary(
        ref=_ref(id_, seen, services),
        machines=len(seen.flavors),
        active=sum(state is MachineState.ACTIVE for _, state in seen.flavors),
        created=min(seen.created, default=0.0),
        flavors=tuple(sorted(seen.flavors)),
        notes=seen.notes,
        headless=not seen.head,
        claimed=seen.claimed,
    )


def _ref(id_: str, seen: _Found, services: Services) -> ClusterRef:
    """The cluster's identity, by its three words where they are told; a leftover may know its id alone."""
    project = services.identity.project
    told = next((s for s in seen.signatures if s.name and s.user), None)
    if told is not None:
        ref = ClusterRef(told.name, project, told.user, owner=told.owner)
        return ref if ref.id == id_ else ClusterRef(told.name, project, told.user, known_id=id_, owner=told.owner)
    name = next(_guesses(seen), id_)
    mine = ClusterRef(name, project, services.identity.user, owner=services.identity.user_name)
    return mine if mine.id == id_ else ClusterRef(name, project, "", known_id=id_)


def _guesses(seen: _Found) -> Iterator[str]:
    """The cluster's name is how the names of its networks, routers and ports begin; the shortest is the name alone."""
    for name in sorted(filter(None, seen.names), key=len):
        yield name.removesuffix("-gateway").partition("-head.")[0].removesuffix("-head")
