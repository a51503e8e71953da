"""Logging in: what a credential may lack, and what Keystone may say to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from openstack_kit import KEYSTONE, FakeCloud, cloud, connected, fake, token

from vcluster.clouds.openstack import OpenStackCloud
from vcluster.errors import PermanentError, TemporaryError, UsageError

__all__ = ["cloud", "fake"]


def test_a_wrong_password(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    body = {"error": {"code": 401, "message": "The request you have made requires authentication.", "title": "x"}}
    fake.login(status_code=401, json=body)
    with pytest.raises(PermanentError, match=r"js2.*does not accept the credential") as caught:
        cloud.ref("demo")
    assert "secret" not in str(caught.value)


def test_keystone_is_down(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.login(status_code=503)
    with pytest.raises(TemporaryError, match="asking for a token"):
        cloud.ref("demo")
    assert len(fake.asked("POST", "/auth/tokens")) == 5


def test_keystone_was_down_for_a_moment(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    good = {"json": token(), "headers": {"X-Subject-Token": "t"}}
    fake.mocker.post(f"{KEYSTONE}/auth/tokens", [{"status_code": 503}, {"status_code": 429}, good])
    assert cloud.ref("demo").owner == "alice"


def test_no_project(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.login(token(scoped=False))
    with pytest.raises(PermanentError, match="for no project"):
        cloud.ref("demo")


def test_no_compute_service(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.login(token(("network",)))
    with pytest.raises(PermanentError, match="no compute service"):
        cloud.ref("demo")


def test_a_wrong_region(fake: FakeCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path("clouds.yaml")
    file.write_text(file.read_text().replace("RegionOne", "RegionTwo"))
    with pytest.raises(PermanentError, match="no region 'RegionTwo'") as caught:
        connected(fake).ref("demo")
    assert "RegionOne" in caught.value.remedy


def test_no_region_where_there_are_several(fake: FakeCloud) -> None:
    file = Path("clouds.yaml")
    file.write_text(file.read_text().replace("region_name: RegionOne", "interface: public"))
    assert connected(fake).ref("demo").name == "demo"  # there is but one
    two = token()
    endpoints = two["token"]["catalog"][0]["endpoints"]
    endpoints.append(endpoints[0] | {"region": "RegionTwo", "region_id": "RegionTwo", "id": "2"})
    fake.login(two)
    with pytest.raises(PermanentError, match="several regions") as caught:
        connected(fake).ref("demo")
    assert "RegionOne, RegionTwo" in caught.value.remedy


def test_an_unknown_cloud_names_the_nearest(fake: FakeCloud) -> None:
    with pytest.raises(UsageError, match="no cloud `js`") as caught:
        OpenStackCloud.connect("js")
    assert "`js2`" in caught.value.remedy


def test_no_clouds_yaml(fake: FakeCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("clouds.yaml").unlink()
    with pytest.raises(UsageError) as caught:
        OpenStackCloud.connect("js2")
    assert "no clouds.yaml was found" in caught.value.remedy


def test_a_broken_clouds_yaml(fake: FakeCloud) -> None:
    Path("clouds.yaml").write_text("clouds: [")
    with pytest.raises(UsageError) as caught:
        OpenStackCloud.connect("js2")
    assert "clouds.yaml" in caught.value.remedy


def test_no_variables(fake: FakeCloud) -> None:
    with pytest.raises(UsageError, match=r"no OS_\* variables"):
        OpenStackCloud.connect("openstack")


@pytest.mark.parametrize("line", ["passwort: secret", "user_id: alice"])
def test_an_entry_without_a_password(fake: FakeCloud, line: str) -> None:
    file = Path("clouds.yaml")
    file.write_text(file.read_text().replace("password: secret", line))
    with pytest.raises(PermanentError, match=r"password|passwort"):
        OpenStackCloud.connect("js2").ref("demo")


def test_variables_of_an_openrc(fake: FakeCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "OS_AUTH_URL": KEYSTONE,
        "OS_USERNAME": "alice",
        "OS_PASSWORD": "secret",
        "OS_PROJECT_NAME": "BIO210042",
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_REGION_NAME": "RegionOne",
    }.items():
        monkeypatch.setenv(name, value)
    cloud = connected(fake, "openstack")
    assert "BIO210042" in cloud.place
    assert cloud.ref("demo").owner == "alice"
    cloud.close()


def test_an_application_credential_that_was_deleted_says_what_to_do(fake: FakeCloud) -> None:
    said = {"error": {"code": 404, "title": "Not Found", "message": "Could not find Application Credential: 1f2e."}}
    fake.login(status_code=404, json=said)
    cloud = connected(fake)
    with pytest.raises(PermanentError, match=r"does not accept the credential: Could not find Application") as caught:
        cloud.observe(cloud.ref("demo"))
    assert "get a new credential" in caught.value.remedy
    cloud.close()


def test_a_credential_that_is_deleted_while_it_is_used_says_the_same(fake: FakeCloud) -> None:
    cloud = connected(fake)
    ref = cloud.ref("demo")
    said = {"error": {"code": 404, "title": "Not Found", "message": "Could not find Application Credential: 1f2e."}}
    fake.login(status_code=404, json=said)
    fake.nova("GET", "/flavors/detail", status_code=401)
    with pytest.raises(PermanentError, match="does not accept the credential") as caught:
        cloud.flavor(ref.name)
    assert "get a new credential" in caught.value.remedy
    cloud.close()
