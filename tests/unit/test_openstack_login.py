"""Logging in: what a credential may lack, and what Keystone may say to it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import requests
import requests_mock
from keystoneauth1.identity.base import BaseIdentityPlugin
from openstack_kit import KEYSTONE, FakeCloud, cloud, connected, fake, token

from vcluster.clouds.openstack import OpenStackCloud
from vcluster.clouds.openstack.connect import LOGIN_PATIENCE, LOGIN_TIMEOUT, LOGIN_TRIES
from vcluster.clouds.openstack.rest import TIMEOUT, repeated
from vcluster.clouds.openstack.rules import CHANGES, LOOKS
from vcluster.errors import CloudError, PermanentError, TemporaryError, UsageError
from vcluster.model import Observed, Wishes

__all__ = ["cloud", "fake"]


def test_a_wrong_password(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    body = {"error": {"code": 401, "message": "The request you have made requires authentication.", "title": "x"}}
    fake.login(status_code=401, json=body)
    with pytest.raises(PermanentError, match=r"js2.*does not accept the credential") as caught:
        cloud.ref("demo")
    assert "secret" not in str(caught.value)
    assert "entry `js2` of " in caught.value.remedy
    assert "get a new credential" in caught.value.remedy
    assert "`openstack --os-cloud js2 token issue` (of the package python-openstackclient)" in caught.value.remedy


@pytest.mark.parametrize(
    ("body", "word"),
    [('{"error": {"code": 400, "message": "Expecting to find domain in user."}}', "domains"), ("plain", "auth_url")],
)
def test_a_log_in_that_is_not_understood(fake: FakeCloud, cloud: OpenStackCloud, body: str, word: str) -> None:
    fake.login(status_code=400, text=body)
    with pytest.raises(PermanentError, match="asking for a token") as caught:
        cloud.ref("demo")
    assert word in caught.value.remedy


def test_a_wrong_path_is_no_wrong_password(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.login(status_code=404, text="<h1>Not Found</h1>")
    with pytest.raises(PermanentError, match="no OpenStack: Not Found") as caught:
        cloud.ref("demo")
    assert f"check auth_url ({KEYSTONE}) in entry `js2` of " in caught.value.remedy


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (requests.exceptions.ConnectionError("[Errno 111] Connection refused"), TemporaryError, "Connection refused"),
        (requests.exceptions.ConnectTimeout("x"), TemporaryError, "no answer"),
        (requests.exceptions.SSLError("[SSL: WRONG_VERSION_NUMBER] wrong"), PermanentError, "speaks no https"),
    ],
)
def test_a_wrong_address_is_named_with_its_entry_and_no_secret(
    fake: FakeCloud, error: Exception, kind: type[CloudError], message: str
) -> None:
    file = Path("clouds.yaml")
    file.write_text(file.read_text().replace("http://keystone.test", "http://alice:hush@keystone.test"))
    fake.mocker.get(requests_mock.ANY, exc=error)
    fake.mocker.post(requests_mock.ANY, exc=error)
    with pytest.raises(kind, match=message) as caught:
        connected(fake).ref("demo")
    assert f"check auth_url ({KEYSTONE}) in entry `js2` of " in caught.value.remedy
    assert "firewall" in caught.value.remedy
    assert "hush" not in caught.value.remedy


def test_a_log_in_waits_for_less_long_than_a_read(fake: FakeCloud) -> None:
    cloud = connected(fake)
    cloud.ref("demo")
    fake.nova("GET", "/flavors/detail", json={"flavors": []})
    with pytest.raises(PermanentError, match="no flavor"):
        cloud.flavor("m3.tiny")
    assert {r.timeout for r in fake.mocker.request_history if r.url.startswith(KEYSTONE)} == {LOGIN_TIMEOUT}
    assert {r.timeout for r in fake.asked("GET", "/flavors/detail")} == {TIMEOUT}
    # Two requests begin within the patience, and the try that began last has two.
    assert LOGIN_PATIENCE + 2 * LOGIN_TIMEOUT < 60


def test_no_try_begins_when_the_time_is_over() -> None:
    tried: list[float] = []

    def fail() -> None:
        tried.append(0)
        raise TemporaryError("no answer")

    with pytest.raises(TemporaryError):
        repeated(fail, tried.append, until=time.monotonic() - 1)
    assert tried == [0]


def test_keystone_is_down(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.login(status_code=503)
    with pytest.raises(TemporaryError, match="asking for a token"):
        cloud.ref("demo")
    assert len(fake.asked("POST", "/auth/tokens")) == LOGIN_TRIES


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
    assert "put it at ~/.config/openstack/clouds.yaml" in caught.value.remedy


@pytest.mark.parametrize("name", ["js2", "defaults", "openstack"])
@pytest.mark.parametrize("text", ["", "clouds: {}\n", "clouds:\n"])
def test_an_empty_clouds_yaml_has_no_defaults(fake: FakeCloud, name: str, text: str) -> None:
    Path("clouds.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        OpenStackCloud.connect(name)
    assert "put it at ~/.config/openstack/clouds.yaml" in caught.value.remedy
    assert "`defaults`" not in caught.value.remedy


@pytest.mark.parametrize("text", ["clouds: {js2: }", "clouds: {js2: words}", "clouds: {js2: {auth: }}"])
def test_an_entry_without_anything_in_it(fake: FakeCloud, text: str) -> None:
    Path("clouds.yaml").write_text(text)
    with pytest.raises(PermanentError, match="cloud `js2`") as caught:
        OpenStackCloud.connect("js2")
    assert "`auth:`" in caught.value.remedy


def test_an_entry_that_is_called_defaults(fake: FakeCloud) -> None:
    file = Path("clouds.yaml")
    file.write_text(file.read_text().replace("js2:", "defaults:"))
    assert connected(fake, "defaults").ref("demo").owner == "alice"


def test_a_broken_clouds_yaml(fake: FakeCloud) -> None:
    Path("clouds.yaml").write_text("clouds: [")
    with pytest.raises(UsageError) as caught:
        OpenStackCloud.connect("js2")
    assert "clouds.yaml" in caught.value.remedy


def test_no_variables(fake: FakeCloud) -> None:
    with pytest.raises(UsageError, match=r"no OS_\* variables, and no entry `openstack`") as caught:
        OpenStackCloud.connect("openstack")
    assert "openrc" in caught.value.remedy
    assert "there is `js2`" in caught.value.remedy


@pytest.mark.parametrize("line", ["passwort: secret", "user_id: alice"])
def test_an_entry_without_a_password(fake: FakeCloud, line: str) -> None:
    file = Path("clouds.yaml")
    file.write_text(file.read_text().replace("password: secret", line))
    with pytest.raises(PermanentError, match=r"password|passwort") as caught:
        OpenStackCloud.connect("js2").ref("demo")
    assert "`auth:` in entry `js2` of " in caught.value.remedy


def test_an_entry_without_any_password_says_what_to_write(fake: FakeCloud) -> None:
    file = Path("clouds.yaml")
    file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if "password" not in line))
    with pytest.raises(PermanentError, match="password is a required attribute") as caught:
        OpenStackCloud.connect("js2").ref("demo")
    assert caught.value.remedy.startswith("write `password: …` under `auth:` in entry `js2` of ")


def test_an_entry_without_an_auth_url_says_what_to_write(fake: FakeCloud) -> None:
    file = Path("clouds.yaml")
    file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if "auth_url" not in line))
    with pytest.raises(PermanentError, match="auth_url missing") as caught:
        OpenStackCloud.connect("js2").ref("demo")
    assert caught.value.remedy.startswith("write `auth_url: …` under `auth:` in entry `js2` of ")


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


# Access rules ---------------------------------------------------------------------------------------------------


def ruled(fake: FakeCloud, *rules: tuple[str, str]) -> OpenStackCloud:
    """A cloud as one sees it with an application credential that has these rules."""
    told = token()
    given = [{"id": "1", "path": "/**", "service": service, "method": method} for service, method in rules]
    told["token"]["application_credential"] = {"id": "c1", "name": "gate", "restricted": True, "access_rules": given}
    fake.login(told)
    return connected(fake)


def test_access_rules_that_do_not_let_look_are_said_at_once(fake: FakeCloud) -> None:
    cloud = ruled(fake, ("compute", "GET"), ("image", "GET"))
    with pytest.raises(PermanentError, match="access rules, and they do not allow") as caught:
        cloud.ref("demo")
    assert caught.value.message.endswith("allow GET to network")
    assert "without access rules" in caught.value.remedy
    cloud.close()


def test_access_rules_that_do_not_let_make_are_said_before_anything_is_made(fake: FakeCloud) -> None:
    cloud = ruled(fake, *LOOKS)
    assert cloud.observe(cloud.ref("demo")) == Observed()
    with pytest.raises(PermanentError, match="GET to image, POST to compute, DELETE to compute, POST to network, PUT"):
        cloud.layout(cloud.ref("demo"), Wishes(public_ip=False), Observed())
    cloud.close()


def test_access_rules_that_let_do_all_are_no_hindrance(fake: FakeCloud) -> None:
    cloud = ruled(fake, *CHANGES)
    assert cloud.layout(cloud.ref("demo"), Wishes(public_ip=False), Observed()).parts
    cloud.close()


def test_a_service_that_refuses_a_fresh_token_is_not_answered_with_get_a_new_one(
    fake: FakeCloud, cloud: OpenStackCloud
) -> None:
    """That is how keystonemiddleware says that no access rule allows a call."""
    fake.neutron("POST", "/networks", status_code=401, text="401 Unauthorized")
    with pytest.raises(PermanentError, match="Neutron does not accept the credential's token") as caught:
        cloud.create_network(cloud.ref("demo"), "vcluster/0123456789/network")
    assert "allows POST of /networks" in caught.value.remedy
    assert "get a new credential" not in caught.value.remedy


@pytest.mark.parametrize("times", [1, 100])
def test_a_token_that_another_thread_gives_up_is_asked_for_again(
    fake: FakeCloud, cloud: OpenStackCloud, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Keystoneauth asserts that it has one, and may be wrong: another thread's 401 came between two of its lines."""
    lost: list[BaseIdentityPlugin] = []
    needs = BaseIdentityPlugin._needs_reauthenticate

    def given_up_meanwhile(auth: BaseIdentityPlugin) -> bool:
        if len(lost) >= times:
            return needs(auth)
        lost.append(auth)
        auth.auth_ref = None
        return False

    fake.neutron("POST", "/networks", status_code=201, json={"network": {"id": "n1"}})
    _ = cloud.place  # logged in
    monkeypatch.setattr(BaseIdentityPlugin, "_needs_reauthenticate", given_up_meanwhile)
    if times == 1:
        assert cloud.create_network(cloud.ref("demo"), "vcluster/0123456789/network").uuid == "n1"
        assert len(fake.asked("POST", "/networks")) == 1
    else:
        with pytest.raises(TemporaryError, match="token was taken back"):
            cloud.create_network(cloud.ref("demo"), "vcluster/0123456789/network")
        assert fake.asked("POST", "/networks") == []
