"""The fault proxy before the real control plane: a client stays behind it, and meets faults as clouds have them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import openstack
import pytest
from keystoneauth1.exceptions import ConnectFailure
from openstack.exceptions import ConflictException, HttpException

from tests.lab import proxy_faults as faults
from tests.lab.clouds import cloud_name
from tests.lab.layout import FAULTY
from tests.lab.proxy import FaultProxy
from tests.lab.proxy_faults import Rule

if TYPE_CHECKING:
    from openstack.connection import Connection

    from tests.lab.lab import LabClient

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def proxy(lab: LabClient) -> Iterator[FaultProxy]:
    """A proxy on the ports that the catalogue names in region Faulty."""
    with FaultProxy(lab.upstreams, lab.proxy_ports, keep_bodies=True) as proxy:
        yield proxy


@pytest.fixture
def cloud(lab: LabClient, proxy: FaultProxy) -> Iterator[Connection]:
    """A fresh connection of the stranger's through it, which meets no faults until a test wants some."""
    proxy.reset()
    config = openstack.config.OpenStackConfig(config_files=[str(lab.clouds_yaml)], load_envvars=False)
    with openstack.connection.Connection(config=config.get_one(cloud_name("stranger", FAULTY))) as connection:
        connection.authorize()
        yield connection


@pytest.fixture
def groups(cloud: Connection, proxy: FaultProxy) -> Iterator[list[Any]]:
    """Three security groups, so that lists have pages."""
    made = [cloud.network.create_security_group(name=f"page-{n}") for n in range(3)]
    yield made
    proxy.reset()
    for group in cloud.network.security_groups(project_id=cloud.current_project_id):
        if group.name.startswith("page-"):
            cloud.network.delete_security_group(group)


def hrefs(value: Any) -> Iterator[str]:
    """Every address in an answer."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from hrefs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from hrefs(inner)
    elif isinstance(value, str) and value.startswith("http://"):
        yield value


def test_no_link_leads_past_the_proxy(lab: LabClient, proxy: FaultProxy, cloud: Connection, groups: list[Any]) -> None:
    for service in ("identity", "image", "compute", "network", "block-storage"):
        endpoint = cloud.session.get_endpoint(service_type=service, region_name=FAULTY)
        root = "/".join(str(endpoint).split("/")[:3])
        cloud.session.get(root, authenticated=False, raise_exc=False)
    # Everybody's, so that there are several; one a page, so that each page but the last has a link to the next.
    assert len(list(cloud.image.images(limit=1))) > 1
    assert len(list(cloud.compute.flavors(limit=1))) > 1
    assert len(list(cloud.network.security_groups(limit=1))) > len(groups)
    cloud.session.get("/auth/projects", endpoint_filter={"service_type": "identity", "region_name": FAULTY})
    assert list(cloud.block_storage.volumes(limit=1)) == []
    seen = [
        href for request in proxy.requests if request.answer[:1] == b"{" for href in hrefs(json.loads(request.answer))
    ]
    past = {href for href in seen for upstream in lab.upstreams.values() if href.startswith(upstream)}
    services = {service for service, url in proxy.urls.items() for href in seen if href.startswith(url)}
    assert past == set()
    assert services >= {"identity", "image", "compute", "network", "volume"}
    for path in ("/images$", "/flavors/detail$", "/security-groups$"):
        assert proxy.count(method="GET", path=path) > 2, "further pages were asked of the proxy too"
    assert {request.service for request in proxy.requests} == services


def test_the_answer_is_503_and_the_thing_is_there(proxy: FaultProxy, cloud: Connection, groups: list[Any]) -> None:
    proxy.script(Rule(faults.failing(503, after=True), method="POST", path="/security-groups$"))
    with pytest.raises(HttpException) as caught:
        cloud.network.create_security_group(name="page-twin")
    assert caught.value.status_code == 503
    assert len(list(cloud.network.security_groups(name="page-twin"))) == 1


def test_the_connection_ends_and_the_thing_is_gone(proxy: FaultProxy, cloud: Connection, groups: list[Any]) -> None:
    proxy.script(Rule(faults.drop(after=True, reset=True), method="DELETE"))
    with pytest.raises(ConnectFailure):
        cloud.network.delete_security_group(groups[0])
    assert list(cloud.network.security_groups(name=groups[0].name)) == []


def test_an_expired_token_costs_one_more_log_in(proxy: FaultProxy, cloud: Connection) -> None:
    proxy.reset()
    proxy.script(Rule(faults.expired(), path="/networks$"))
    assert isinstance(list(cloud.network.networks()), list)
    assert [request.status for request in proxy.requests if request.template == "/v2.0/networks"] == [401, 200]
    assert proxy.count("identity", "POST", "/auth/tokens$") == 1


def test_quota_in_neutrons_words(proxy: FaultProxy, cloud: Connection) -> None:
    proxy.script(Rule(faults.quota(), method="POST", path="/networks$"))
    with pytest.raises(ConflictException, match="Quota exceeded for resources"):
        cloud.network.create_network(name="page-none")
    assert list(cloud.network.networks(name="page-none")) == []
