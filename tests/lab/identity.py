"""Who may use the lab: users, projects, roles, and the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.lab import config
from tests.lab.layout import DIRECT, FAULTY, Layout

if TYPE_CHECKING:
    from openstack.connection import Connection
    from openstack.identity.v3._proxy import Proxy

__all__ = ["USERS", "User", "furnish", "keystone"]


@dataclass(frozen=True)
class User:
    """One account: ``roles`` are what it has on ``project``, which is where it logs in."""

    name: str
    project: str
    roles: tuple[str, ...] = ("member", "reader")


#: By name. ``demo`` and ``colleague`` share a project, as people share an allocation; ``reader`` may look only.
USERS = {
    user.name: user
    for user in (
        User("admin", "admin", ("admin",)),
        User("demo", "demo"),
        User("colleague", "demo"),
        User("reader", "demo", ("reader",)),
        User("stranger", "other"),
    )
}

SERVICE_USER = User("svc", "service", ("admin", "service"))


def keystone(connection: Connection) -> Proxy:
    """The connection's identity service, which openstacksdk would also have as version 2."""
    from openstack.identity.v3._proxy import Proxy

    identity = connection.identity
    assert isinstance(identity, Proxy)
    return identity


def furnish(lab: Layout, admin: Connection) -> None:
    """Make regions, catalogue, projects and users in a Keystone that ``keystone-manage bootstrap`` has just filled."""
    identity = keystone(admin)
    identity.create_region(id=FAULTY)
    have = {service.type: service for service in identity.services()}
    for kind, name, direct, proxied in config.catalogue(lab).values():
        service = have.get(kind) or identity.create_service(type=kind, name=name)
        urls = {FAULTY: proxied} if kind in have else {DIRECT: direct, FAULTY: proxied}
        for region, url in urls.items():
            for interface in ("public", "internal"):
                identity.create_endpoint(service_id=service.id, interface=interface, region_id=region, url=url)
    roles = {role.name: role for role in identity.roles()}
    projects = {project.name: project for project in identity.projects()}
    for user in (SERVICE_USER, *USERS.values()):
        if user.project not in projects:
            projects[user.project] = identity.create_project(name=user.project, domain_id="default")
        account = identity.find_user(user.name, ignore_missing=True) or identity.create_user(
            name=user.name, password=lab.password, domain_id="default"
        )
        for role in user.roles:
            identity.assign_project_role_to_user(projects[user.project], account, roles[role])
    # The operator looks after the projects' resources too.
    operator = identity.find_user("admin", ignore_missing=False)
    for project in ("demo", "other"):
        identity.assign_project_role_to_user(projects[project], operator, roles["admin"])
