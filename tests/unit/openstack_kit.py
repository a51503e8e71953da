"""A cloud of canned answers below openstacksdk: Keystone lets in, and everything else is what a test says."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openstack.config  # noqa: F401 (notes the folder at its import, so before a test changes it)
import pytest
import requests_mock
import yaml

from vcluster.clouds.openstack import OpenStackCloud, marks
from vcluster.model import ClusterRef, Flavor, MachineRequest, PartKind, Port, Role

KEYSTONE = "http://keystone.test/v3"
NOVA = "http://nova.test/v2.1"
NEUTRON = "http://neutron.test"
GLANCE = "http://glance.test/v2"
CINDER = "http://cinder.test/v3"
OCTAVIA = "http://octavia.test"
PROJECT, USER = "a" * 32, "b" * 32

DATE = "Sun, 22 Nov 2026 12:00:00 GMT"
NOON = 1795348800.0

Answer = Callable[[Any, Any], Any]


def token(services: tuple[str, ...] = ("compute", "network", "image", "volumev3"), *, scoped: bool = True) -> Any:
    """What Keystone answers to a login."""
    urls = {"compute": NOVA, "network": NEUTRON, "image": GLANCE, "volumev3": CINDER, "load-balancer": OCTAVIA}
    domain = {"id": "default", "name": "Default"}
    told: dict[str, Any] = {
        "methods": ["password"],
        "user": {"id": USER, "name": "alice", "domain": domain},
        "issued_at": "2026-11-22T12:00:00.000000Z",
        "expires_at": "2036-11-22T12:00:00.000000Z",
    }
    if scoped:
        told["project"] = {"id": PROJECT, "name": "BIO210042", "domain": domain}
        told["catalog"] = [
            {
                "type": service,
                "name": service,
                "id": service,
                "endpoints": [
                    {
                        "interface": "public",
                        "url": urls[service],
                        "region": "RegionOne",
                        "region_id": "RegionOne",
                        "id": "1",
                    }
                ],
            }
            for service in services
        ]
    return {"token": told}


REF = ClusterRef("demo", PROJECT, USER, owner="alice")
OTHER = ClusterRef("demo", PROJECT, "c" * 32, owner="bob")
HEAD_PORT = Port("p1", REF.tag(Role.HEAD), "head", "10.0.0.5", "fa:16", network="n1", claim="abc")
PUBLIC = {"id": "x1", "name": "public", "router:external": True, "project_id": "admin"}


def server(ref: ClusterRef = REF, uuid: str = "s1", role: Role = Role.HEAD, **more: Any) -> dict[str, Any]:
    metadata = marks.volume_mark(ref, ref.tag(role), "head")
    return {
        "id": uuid,
        "name": "demo-head",
        "status": "ACTIVE",
        "metadata": metadata,
        "created": "2026-11-22T12:00:00Z",
    } | more


def group(ref: ClusterRef, part: str, uuid: str, **more: Any) -> dict[str, Any]:
    description = marks.signed(ref, ref.tag(PartKind.SECURITY_GROUP))
    name = marks.group_name(ref, part)
    rules = [{"direction": "ingress", "description": ref.tag(PartKind.SECURITY_GROUP)}]
    return {"id": uuid, "name": name, "description": description, "security_group_rules": rules, "tags": []} | more


class FakeCloud:
    """Answers by method and path; what nobody set is an empty listing."""

    def __init__(self, mocker: requests_mock.Mocker) -> None:
        self.mocker = mocker
        self.slept: list[float] = []
        links = [{"rel": "self", "href": KEYSTONE}]
        mocker.get(KEYSTONE, json={"version": {"id": "v3.14", "status": "stable", "links": links}})
        self.login()
        for base, path, key in (
            (NOVA, "/servers/detail", "servers"),
            (NOVA, "/os-server-groups", "server_groups"),
            (NOVA, "/flavors/detail", "flavors"),
            (CINDER, "/volumes/detail", "volumes"),
            (CINDER, "/snapshots/detail", "snapshots"),
            (f"{OCTAVIA}/v2.0", "/lbaas/loadbalancers", "loadbalancers"),
            (GLANCE, "/images", "images"),
            *((f"{NEUTRON}/v2.0", f"/{k.replace('_', '-')}", k) for k in NEUTRON_KINDS),
        ):
            mocker.get(f"{base}{path}", json={key: []}, headers={"Date": DATE})
        for base in (NOVA, CINDER):
            mocker.get(f"{base}/limits", json={"limits": {"absolute": {}}})
        mocker.get(f"{NEUTRON}/v2.0/quotas/{PROJECT}/details", status_code=404)

    def login(self, body: Any = None, **answer: Any) -> None:
        """What Keystone says."""
        given = answer or {"json": body or token(), "headers": {"X-Subject-Token": uuid.uuid4().hex}}
        self.mocker.post(f"{KEYSTONE}/auth/tokens", **given)

    def nova(self, method: str, path: str, *answers: Any, **answer: Any) -> Any:
        return self._set(method, NOVA + path, answers, answer)

    def neutron(self, method: str, path: str, *answers: Any, **answer: Any) -> Any:
        return self._set(method, f"{NEUTRON}/v2.0{path}", answers, answer)

    def cinder(self, method: str, path: str, *answers: Any, **answer: Any) -> Any:
        return self._set(method, CINDER + path, answers, answer)

    def octavia(self, method: str, path: str, *answers: Any, **answer: Any) -> Any:
        return self._set(method, f"{OCTAVIA}/v2.0{path}", answers, answer)

    def glance(self, method: str, path: str, *answers: Any, **answer: Any) -> Any:
        return self._set(method, GLANCE + path, answers, answer)

    def _set(self, method: str, url: str, answers: tuple[Any, ...], answer: dict[str, Any]) -> Any:
        if answers:
            return self.mocker.register_uri(method, url, list(answers))
        return self.mocker.register_uri(method, url, **answer)

    def asked(self, method: str, part: str = "") -> list[Any]:
        """The requests that were made."""
        return [r for r in self.mocker.request_history if r.method == method and part in r.url]


NEUTRON_KINDS = ("networks", "subnets", "ports", "routers", "floatingips", "security_groups")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeCloud]:
    """The canned cloud; nothing else can be reached, and no wait takes time."""
    for name in [n for n in __import__("os").environ if n.startswith("OS_")]:
        monkeypatch.delenv(name)
    file = tmp_path / "clouds.yaml"
    auth = {
        "auth_url": KEYSTONE,
        "username": "alice",
        "password": "secret",
        "project_name": "BIO210042",
        "user_domain_id": "default",
        "project_domain_id": "default",
    }
    entry = {"region_name": "RegionOne", "auth": auth}
    file.write_text(yaml.safe_dump({"clouds": {"js2": entry, "js2-other": entry}}))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(file))
    monkeypatch.chdir(tmp_path)
    with requests_mock.Mocker() as mocker:
        yield FakeCloud(mocker)


@pytest.fixture
def cloud(fake: FakeCloud) -> Iterator[OpenStackCloud]:
    """Our cloud in front of it."""
    with contextlib.closing(connected(fake)) as made:
        yield made


def connected(fake: FakeCloud, name: str = "js2") -> OpenStackCloud:
    """Connect; waits between tries are only noted."""
    cloud = OpenStackCloud.connect(name)
    services = cloud._services
    services._sleep = fake.slept.append
    for service in (services.compute, services.network, services.image, services.volume, services.balancer):
        service._sleep = fake.slept.append
    return cloud


def machine_request(**more: Any) -> MachineRequest:
    given: dict[str, Any] = {
        "name": "cpu-1",
        "tag": REF.tag(Role.WORKER),
        "role": Role.WORKER,
        "group": "cpu",
        "flavor": Flavor("m3.tiny", 1, 3072, 20),
        "port": HEAD_PORT,
        "image": "i1",
        "user_data": "#cloud-config\n",
    }
    return MachineRequest(**(given | more))


@pytest.fixture
def flavors(fake: FakeCloud) -> None:
    flavor = {"id": "f1", "name": "m3.tiny", "vcpus": 1, "ram": 3072, "disk": 20}
    fake.nova("GET", "/flavors/detail", json={"flavors": [flavor]})
