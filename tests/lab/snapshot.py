"""Everything that a project has, in a form that can be compared byte for byte: is it as it was before?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tests.lab.identity import keystone

if TYPE_CHECKING:
    from openstack.connection import Connection

__all__ = ["Snapshot", "difference", "snapshot", "text"]

Snapshot = dict[str, dict[str, dict[str, Any]]]

#: What is left out, by kind, and why. All else counts, times and revision numbers included.
VOLATILE: Mapping[str, Mapping[str, str]] = {
    "*": {"links": "they hold the address by which one asked: the service's or the proxy's"},
    "router": {
        "updated_at": "a network of ours on a router that was there before is noted here, and stays noted",
        "revision_number": "as updated_at",
    },
    "network": {
        "updated_at": "a subnet or a port of ours in a network that was there before may be noted here",
        "revision_number": "as updated_at",
    },
    "volume": {"migration_status": "Cinder's own doing"},
}

# The newest that the lab's Nova and Cinder know would change with their pins; these have all that is of interest.
_NOVA, _CINDER = "2.90", "3.68"


def snapshot(admin: Connection, project_id: str) -> Snapshot:
    """Every resource of the project: kind -> id -> what the service says of it.

    Args:
        admin: a connection of somebody who sees all projects.
    """
    found: Snapshot = {}
    for kind, items in _listings(admin, project_id):
        found[kind] = {item.get("id") or item["name"]: _canonical(kind, item) for item in items}
    return found


def text(taken: Snapshot) -> str:
    """The canonical form: the same bytes for the same resources."""
    return json.dumps(taken, indent=1, sort_keys=True)


def difference(before: Snapshot, after: Snapshot) -> list[str]:
    """What is new, gone or changed, one line each; empty when all is as it was."""
    lines = []
    for kind in sorted(before.keys() | after.keys()):
        old, new = before.get(kind, {}), after.get(kind, {})
        lines += [f"new: {kind} {_title(new[key], key)}" for key in sorted(new.keys() - old.keys())]
        lines += [f"gone: {kind} {_title(old[key], key)}" for key in sorted(old.keys() - new.keys())]
        for key in sorted(old.keys() & new.keys()):
            lines += [
                f"changed: {kind} {_title(old[key], key)}: {name}: {old[key].get(name)!r} -> {new[key].get(name)!r}"
                for name in sorted(old[key].keys() | new[key].keys())
                if old[key].get(name) != new[key].get(name)
            ]
    return lines


def _title(item: Mapping[str, Any], key: str) -> str:
    return f"{item.get('name') or item.get('floating_ip_address') or '(no name)'} {key}"


def _canonical(kind: str, item: Mapping[str, Any]) -> dict[str, Any]:
    left_out = VOLATILE["*"].keys() | VOLATILE.get(kind, {}).keys()
    return {name: _sorted(value, left_out) for name, value in item.items() if name not in left_out}


def _sorted(value: Any, left_out: set[str]) -> Any:
    """The services promise no order within lists."""
    if isinstance(value, dict):
        return {name: _sorted(part, left_out) for name, part in value.items() if name not in VOLATILE["*"]}
    if isinstance(value, list):
        return sorted((_sorted(part, left_out) for part in value), key=lambda part: json.dumps(part, sort_keys=True))
    return value


def _listings(admin: Connection, project_id: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    yield from _compute(admin, project_id)
    for kind, path in (
        ("network", "networks"),
        ("subnet", "subnets"),
        ("port", "ports"),
        ("router", "routers"),
        ("floating IP", "floatingips"),
        ("security group", "security-groups"),
        ("security group rule", "security-group-rules"),
    ):
        yield kind, _pages(admin.network.get, f"/{path}", path.replace("-", "_"), project_id=project_id)
    for kind, path in (("volume", "volumes"), ("volume snapshot", "snapshots"), ("attachment", "attachments")):
        items = _pages(
            admin.block_storage.get, f"/{path}/detail", path, _CINDER, all_tenants="1", project_id=project_id
        )
        yield kind, items
    if any(keystone(admin).services(type="load-balancer")):
        for kind, key in (("load balancer", "loadbalancers"), ("listener", "listeners"), ("pool", "pools")):
            yield kind, _pages(admin.load_balancer.get, f"/lbaas/{key}", key, project_id=project_id)
    images = _pages(admin.image.get, "/images", "images", owner=project_id)
    yield "image", [image for image in images if image["owner"] == project_id]


def _compute(admin: Connection, project_id: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    get = admin.compute.get
    yield "server", _pages(get, "/servers/detail", "servers", _NOVA, all_tenants="1", project_id=project_id)
    groups = _pages(get, "/os-server-groups", "server_groups", _NOVA, all_projects="1")
    yield "server group", [group for group in groups if group["project_id"] == project_id]
    users = {a.user["id"] for a in keystone(admin).role_assignments(scope_project_id=project_id) if a.user}
    pairs = []
    for user in sorted(users):
        of_user = _pages(get, "/os-keypairs", "keypairs", _NOVA, user_id=user)
        pairs += [pair["keypair"] | {"id": f"{user}/{pair['keypair']['name']}"} for pair in of_user]
    yield "key pair", pairs
    credentials = []
    for user in sorted(users):
        credentials += _pages(admin.identity.get, f"/users/{user}/application_credentials", "application_credentials")
    yield "application credential", [one for one in credentials if one["project_id"] == project_id]


def _pages(
    get: Callable[..., Any], path: str, key: str, microversion: str | None = None, **query: str
) -> list[dict[str, Any]]:
    """All of a listing, page after page."""
    found: list[dict[str, Any]] = []
    while True:
        answer = get(path, params=query, microversion=microversion)
        answer.raise_for_status()
        page = answer.json()
        found += page[key]
        more = page.get(f"{key}_links") or ([{"rel": "next"}] if page.get("next") else [])
        if not page[key] or not any(link.get("rel") == "next" for link in more):
            return found
        query["marker"] = page[key][-1].get("id") or page[key][-1]["name"]
