"""How to log in to the lab: clouds.yaml, openrc, application credentials."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.lab.identity import USERS, keystone
from tests.lab.layout import DIRECT, FAULTY, Layout

if TYPE_CHECKING:
    from openstack.connection import Connection

__all__ = ["Access", "ApplicationCredential", "cloud_name", "write"]


def cloud_name(user: str, region: str = DIRECT) -> str:
    """The entry of clouds.yaml: ``demo``, or ``demo-faulty`` for the way through the proxy."""
    return user if region == DIRECT else f"{user}-faulty"


@dataclass(frozen=True)
class ApplicationCredential:
    id: str
    name: str
    secret: str = field(repr=False)


def _private(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text)


def _cloud(lab: Layout, region: str, auth: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "region_name": region,
        "identity_api_version": "3",
        "auth": {"auth_url": lab.auth_url(region)} | auth,
    } | more


def _by_password(lab: Layout, user: str) -> dict[str, Any]:
    return {
        "username": user,
        "password": lab.password,
        "project_name": USERS[user].project,
        "user_domain_id": "default",
        "project_domain_id": "default",
    }


def write(lab: Layout) -> None:
    """Write clouds.yaml: each user directly, and through the proxy."""
    entries = {
        cloud_name(user, region): _cloud(lab, region, _by_password(lab, user))
        for user in USERS
        for region in (DIRECT, FAULTY)
    }
    _private(lab.path("clouds.yaml"), yaml.safe_dump({"clouds": entries}))


class Access:
    """The ways in, for tests and for the programs that they start."""

    layout: Layout

    if TYPE_CHECKING:

        def connection(self, user: str = "demo", region: str = DIRECT) -> Connection: ...

    @property
    def clouds_yaml(self) -> Path:
        return self.layout.path("clouds.yaml")

    def cloud_env(self, user: str = "demo", region: str = DIRECT) -> dict[str, str]:
        """Environment for a program that reads clouds.yaml, and in which nothing else says where to log in."""
        return self.clean_env() | {
            "OS_CLIENT_CONFIG_FILE": str(self.clouds_yaml),
            "OS_CLOUD": cloud_name(user, region),
        }

    def openrc(self, user: str = "demo", region: str = DIRECT) -> str:
        """The file that a dashboard would offer, with the password in it rather than asked for."""
        values = {
            "OS_AUTH_URL": self.layout.auth_url(region),
            "OS_USERNAME": user,
            "OS_PASSWORD": self.layout.password,
            "OS_PROJECT_NAME": USERS[user].project,
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_ID": "default",
            "OS_REGION_NAME": region,
            "OS_INTERFACE": "public",
            "OS_IDENTITY_API_VERSION": "3",
        }
        return "".join(f'export {name}="{value}"\n' for name, value in values.items())

    def openrc_env(self, user: str = "demo", region: str = DIRECT) -> dict[str, str]:
        """What the environment is after ``source openrc``."""
        lines = (line.removeprefix("export ").partition("=") for line in self.openrc(user, region).splitlines())
        return self.clean_env() | {name: value.strip('"') for name, _, value in lines}

    def application_credential(
        self,
        user: str = "demo",
        *,
        name: str,
        unrestricted: bool = False,
        roles: Sequence[str] | None = None,
        expires_at: str | None = None,
    ) -> ApplicationCredential:
        """Make one in the user's name; a restricted one (the default) can't make further ones.

        Args:
            roles: Those of the user's roles that it is to have; all without it.
            expires_at: When it ends, ISO 8601 in UTC without a zone; never without it. Keystone refuses the past.
        """
        connection = self.connection(user)
        wanted: dict[str, Any] = {"unrestricted": unrestricted}
        if roles is not None:
            wanted["roles"] = [{"name": role} for role in roles]
        if expires_at is not None:
            wanted["expires_at"] = expires_at
        owner = connection.current_user_id or ""
        made = keystone(connection).create_application_credential(user=owner, name=name, **wanted)
        return ApplicationCredential(id=made.id, name=name, secret=made.secret)

    def credential_clouds_yaml(self, folder: Path, credential: ApplicationCredential, region: str = DIRECT) -> Path:
        """Write ``folder/clouds.yaml`` with one cloud, ``openstack``, as a dashboard offers it for a credential."""
        auth = {"application_credential_id": credential.id, "application_credential_secret": credential.secret}
        cloud = _cloud(self.layout, region, auth, auth_type="v3applicationcredential", interface="public")
        file = folder / "clouds.yaml"
        _private(file, yaml.safe_dump({"clouds": {"openstack": cloud}}))
        return file

    @staticmethod
    def clean_env() -> dict[str, str]:
        """This process's environment without what openstacksdk reads."""
        return {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
