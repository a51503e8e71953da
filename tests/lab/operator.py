"""What the cloud's operator can do for a test: quotas, policies, failures, auto-allocated networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.lab.identity import USERS, keystone
from tests.lab.layout import DIRECT, Layout

if TYPE_CHECKING:
    from openstack.connection import Connection

__all__ = ["Operator"]

# Which service's configuration has the policy.
_POLICY = {
    "identity": "keystone",
    "image": "glance",
    "placement": "placement",
    "compute": "nova",
    "network": "neutron",
    "volume": "cinder",
}
_KINDS = ("no-valid-host", "quota", "abort", "crash")


class Operator:
    """Acts as the cloud's operator, on one lab."""

    layout: Layout

    if TYPE_CHECKING:

        def connection(self, user: str = "demo", region: str = DIRECT) -> Connection: ...

    def project_id(self, name: str = "demo") -> str:
        project: str = keystone(self.connection("admin")).find_project(name, ignore_missing=False).id
        return project

    def set_quota(self, project: str = "demo", **limits: int) -> None:
        """Set limits, by the services' own names, -1 for none.

        Nova's are instances, cores, ram, key_pairs, server_groups, server_group_members, metadata_items; Neutron's
        network, subnet, port, router, floatingip, security_group, security_group_rule; Cinder's volumes, gigabytes,
        snapshots. Raises ``KeyError`` for any other.
        """
        admin, project_id = self.connection("admin"), self.project_id(project)
        # Nova and Neutron would not set a limit below what is used; that is a test's way to "all is used up".
        force: dict[str, Any] = {"force": True}
        for names, update, more in (
            (_NOVA_LIMITS, admin.compute.update_quota_set, force),
            (_NEUTRON_LIMITS, admin.network.update_quota, force),
            (_CINDER_LIMITS, admin.block_storage.update_quota_set, {}),
        ):
            mine: dict[str, Any] = {name: limits.pop(name) for name in names if name in limits}
            if mine:
                update(project_id, **mine, **more)
        if limits:
            raise KeyError(f"no such quota: {', '.join(limits)}")

    def reset_quota(self, project: str = "demo") -> None:
        """Give the project the defaults again."""
        admin, project_id = self.connection("admin"), self.project_id(project)
        admin.compute.revert_quota_set(project_id)
        admin.block_storage.revert_quota_set(project_id)
        admin.network.delete_quota(project_id, ignore_missing=True)

    def forbid(self, service: str, *rules: str) -> None:
        """Let nobody do what these rules of the service's policy are about; without rules: as it was.

        Nova's for a new server is ``os_compute_api:servers:create``, Neutron's for giving back a floating IP is
        ``delete_floatingip``. The services look at the file with each request.
        """
        file = self.layout.path("etc", _POLICY[service], "policy.yaml")
        new = file.with_suffix(".new")
        new.write_text(yaml.safe_dump(dict.fromkeys(rules, "!")))
        new.replace(file)

    def fail_servers(self, match: str, kind: str, text: str, times: int | None = None) -> None:
        """Let the next ``times`` servers (all, without it) whose whole name matches ``match`` end in ERROR.

        Args:
            kind: What Nova meets: ``no-valid-host`` (the scheduler), ``quota`` (the check after scheduling), ``abort``
                (the host gives the build up), ``crash`` (the hypervisor fails; Nova tries other hosts, and each try
                counts as a server).
            text: What the fault then says, within Nova's own words.

        Raises:
            ValueError: there is no such kind.
        """
        if kind not in _KINDS:
            raise ValueError(f"{kind!r} is none of {', '.join(_KINDS)}")
        orders = json.loads(self._failures.read_text()) if self._failures.exists() else []
        self._order([*orders, {"match": match, "kind": kind, "text": text, "left": times}])

    def fail_no_servers(self) -> None:
        """Take back all that ``fail_servers`` ordered."""
        self._order([])

    def auto_network(self, user: str = "demo") -> str:
        """Make ``auto_allocated_network`` with its router in the user's project, if need be; its id."""
        connection = self.connection(user)
        made: str = connection.network.get_auto_allocated_topology(self.project_id(USERS[user].project)).id
        return made

    def remove_auto_network(self, user: str = "demo") -> None:
        """Remove what ``auto_network`` made."""
        self.connection(user).network.delete_auto_allocated_topology(self.project_id(USERS[user].project))

    @property
    def _failures(self) -> Path:
        return self.layout.path("failures.json")

    def _order(self, orders: list[dict[str, object]]) -> None:
        new = self._failures.with_suffix(".new")
        new.write_text(json.dumps(orders))
        new.replace(self._failures)


_NOVA_LIMITS = ("instances", "cores", "ram", "key_pairs", "server_groups", "server_group_members", "metadata_items")
_NEUTRON_LIMITS = ("network", "subnet", "port", "router", "floatingip", "security_group", "security_group_rule")
_CINDER_LIMITS = ("volumes", "gigabytes", "snapshots")
