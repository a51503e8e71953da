"""What a cloud answers, and which of our classes that is: the class decides what happens next."""
# ruff: noqa: E501 (a table has one row a line)

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests
import yaml
from openstack_kit import GLANCE, FakeCloud, cloud, connected, fake, token

from vcluster.clouds.openstack import OpenStackCloud, errors
from vcluster.clouds.openstack.rest import TRIES
from vcluster.errors import (
    CloudError,
    ConflictError,
    PermanentError,
    QuotaError,
    TemporaryError,
)
from vcluster.model import ImageRequest

__all__ = ["cloud", "fake"]


def nova(word: str, message: str, code: int = 400, **more: object) -> str:
    return json.dumps({word: {"code": code, "message": message} | more})


def neutron(kind: str, message: str) -> str:
    return json.dumps({"NeutronError": {"type": kind, "message": message, "detail": ""}})


TABLE: list[tuple[str, int, str, type[CloudError], str]] = [
    # name, status, body, class, a word of the message
    ("nova's quota", 403, nova("forbidden", "Quota exceeded for cores: Requested 8, but already used 4 of 10 cores", 403), QuotaError, "already used 4 of 10"),
    ("unified limits", 403, nova("forbidden", "Resource servers is over limit of 1 due to current usage 1 and delta 1", 403), QuotaError, "over limit of 1"),
    ("neutron's quota is a conflict", 409, neutron("OverQuota", "Quota exceeded for resources: ['floatingip']."), QuotaError, "floatingip"),
    ("neutron's quota by its type", 409, neutron("OverQuota", "No room"), QuotaError, "No room"),
    ("cinder's quota", 413, nova("overLimit", "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded for quota 'volumes'.", 413), QuotaError, "volumes allowed (10)"),
    ("cinder's gigabytes", 413, nova("overLimit", "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes quota. Requested 20G, quota is 1000G and 990G has been consumed.", 413), QuotaError, "990G"),
    ("an empty pool", 409, neutron("IpAddressGenerationFailure", "No more IP addresses available on network 123."), QuotaError, "No more IP addresses"),
    ("rate limit", 429, "", TemporaryError, "how fast"),
    ("service down", 503, "<html><title>503</title><body>Service Unavailable</body></html>", TemporaryError, "Service Unavailable"),
    ("broken", 500, nova("computeFault", "Unexpected API Error.", 500), TemporaryError, "Unexpected API Error"),
    ("bad gateway", 502, "", TemporaryError, "no reason given"),
    ("gateway time-out", 504, "", TemporaryError, "504"),
    ("request time-out", 408, "", TemporaryError, "408"),
    ("in use", 409, neutron("NetworkInUse", "Unable to complete operation on network 1."), ConflictError, "Unable to complete"),
    ("port in use", 409, nova("conflictingRequest", "Port 1 is still in use.", 409), ConflictError, "still in use"),
    ("changed since", 412, neutron("RevisionNumberConstraintFailed", "Constrained to 5, but current revision is 6"), ConflictError, "revision is 6"),
    ("a port that went", 400, nova("badRequest", "Port 4f11 could not be found."), ConflictError, "4f11"),
    ("a port that went, in nova's other words", 400, nova("badRequest", "Port id 4f11 could not be found."), ConflictError, "4f11"),
    ("a volume that went", 400, nova("badRequest", "Block Device Mapping is Invalid: failed to get volume 77."), ConflictError, "77"),
    ("a network that went", 404, neutron("NetworkNotFound", "Network 1 could not be found."), ConflictError, "could not be found"),
    ("a twin's subnet", 400, neutron("InvalidInput", "Requested subnet with cidr: 10.0.0.0/24 for network: 1 overlaps with another subnet."), ConflictError, "overlaps"),
    ("a twin's subnet on the same router", 400, neutron("BadRequest", "Bad router request: Cidr 10.0.0.0/24 of subnet 1 overlaps with cidr 10.0.0.0/24 of subnet 2."), ConflictError, "overlaps"),
    ("no such image", 400, nova("badRequest", "Can not find requested image"), PermanentError, "requested image"),
    ("no such zone", 400, nova("badRequest", "The requested availability zone is not available"), PermanentError, "availability zone"),
    ("a flavor without a disk", 403, nova("forbidden", "Only volume-backed servers are allowed for flavors with zero disk.", 403), PermanentError, "root_disk"),
    ("no way out", 404, neutron("ExternalGatewayForFloatingIPNotFound", "External network 1 is not reachable from subnet 2."), PermanentError, "router"),
    ("policy of nova", 403, nova("forbidden", "Policy doesn't allow os_compute_api:servers:create to be performed.", 403), PermanentError, "servers:create"),
    ("policy of neutron", 403, neutron("PolicyNotAuthorized", "(rule:create_floatingip) is disallowed by policy"), PermanentError, "create_floatingip"),
    ("a restricted application credential", 403, nova("error", "You are not authorized to perform the requested action", 403), PermanentError, "role `member`"),
    ("expired", 401, nova("error", "The request you have made requires authentication.", 401), PermanentError, "credential"),
    ("an old cloud", 406, nova("computeFault", "Version 2.85 is not supported by the API.", 406), PermanentError, "too old"),
    ("not built", 501, "", PermanentError, "501"),
    ("html", 400, "<html><head><title>x</title></head><body><h1>Bad Request</h1></body></html>", PermanentError, "Bad Request"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "word"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_class_of_an_answer(status: int, body: str, kind: type[CloudError], word: str) -> None:
    error = errors.from_answer(status, body, doing="create server demo-head")
    assert type(error) is kind
    assert word in str(error)
    assert error.message.startswith("create server demo-head: ")


@pytest.mark.parametrize(
    "row", [row for row in TABLE if row[3] in (QuotaError, PermanentError)], ids=lambda row: row[0]
)
def test_what_ends_a_run_names_its_remedy_or_the_clouds_reason(
    row: tuple[str, int, str, type[CloudError], str],
) -> None:
    error = errors.from_answer(row[1], row[2], doing="x")
    assert error.remedy or row[4] in error.message


def test_a_read_of_what_is_not_there_is_no_conflict() -> None:
    assert type(errors.from_answer(404, "", doing="x", reading=True)) is PermanentError
    assert type(errors.from_answer(404, "", doing="x")) is ConflictError


def test_413_with_retry_after_is_an_old_rate_limit() -> None:
    body = nova("overLimit", "This request was rate-limited.", 413)
    error = errors.from_answer(413, body, doing="x", delay=7.0)
    assert isinstance(error, TemporaryError)
    assert error.delay == 7.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("", 0.0), ("7", 7.0), ("-1", 0.0), ("Sun, 22 Nov 2026 12:00:30 GMT", 30.0), ("soon", 0.0)],
)
def test_retry_after(value: str, seconds: float) -> None:
    noon = 1795348800.0
    assert errors.retry_after({"Retry-After": value}, noon) == seconds


# On the wire ----------------------------------------------------------------------------------------------------


def test_a_limited_create_is_repeated_since_nothing_was_done(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    made = {"network": {"id": "n1", "mtu": 1450}}
    limited = {"status_code": 429, "headers": {"Retry-After": "3"}}
    fake.neutron("POST", "/networks", limited, limited, {"status_code": 201, "json": made})
    ref = cloud.ref("demo")
    network = cloud.create_network(ref, ref.tag("network"))  # type: ignore[arg-type]
    assert network.uuid == "n1"
    assert len(fake.asked("POST", "/v2.0/networks")) == 3
    assert [s >= 3 for s in fake.slept] == [True, True]


def test_a_long_limit_is_handed_on(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.neutron("POST", "/networks", status_code=429, headers={"Retry-After": "90"})
    with pytest.raises(TemporaryError) as caught:
        cloud.create_network(cloud.ref("demo"), "vcluster/0123456789/network")
    assert caught.value.delay == 90
    assert len(fake.asked("POST", "/v2.0/networks")) == 1
    assert fake.slept == []


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_create_is_never_repeated_when_it_may_have_been_done(
    fake: FakeCloud, cloud: OpenStackCloud, status: int
) -> None:
    fake.neutron("POST", "/networks", status_code=status)
    with pytest.raises(TemporaryError):
        cloud.create_network(cloud.ref("demo"), "vcluster/0123456789/network")
    assert len(fake.asked("POST", "/v2.0/networks")) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_read_is_repeated(fake: FakeCloud, cloud: OpenStackCloud, status: int) -> None:
    flavor = {"id": "1", "name": "m3.tiny", "vcpus": 1, "ram": 3072, "disk": 20}
    fake.nova("GET", "/flavors/detail", {"status_code": status}, {"json": {"flavors": [flavor]}})
    assert cloud.flavor("m3.tiny").memory == 3072
    assert len(fake.slept) == 1


def test_a_read_ends_after_some_tries(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.nova("GET", "/flavors/detail", status_code=503)
    with pytest.raises(TemporaryError, match="list flavors"):
        cloud.flavor("m3.tiny")
    assert len(fake.asked("GET", "/flavors/detail")) == TRIES


def test_a_lost_answer_is_weather(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    import requests

    fake.neutron("POST", "/networks", exc=requests.exceptions.ConnectionError("reset by peer"))
    with pytest.raises(TemporaryError, match="no answer"):
        cloud.create_network(cloud.ref("demo"), "vcluster/0123456789/network")
    assert len(fake.asked("POST", "/v2.0/networks")) == 1


def test_a_time_out_is_weather(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    import requests

    fake.neutron("POST", "/networks", exc=requests.exceptions.ReadTimeout)
    with pytest.raises(TemporaryError):
        cloud.create_network(cloud.ref("demo"), "vcluster/0123456789/network")


@pytest.mark.parametrize("body", ['{"networks": [', "[]", "<html>"])
def test_an_answer_that_is_cut_off_is_weather(fake: FakeCloud, cloud: OpenStackCloud, body: str) -> None:
    fake.neutron("POST", "/networks", status_code=201, text=body)
    with pytest.raises(TemporaryError, match="create network"):
        cloud.create_network(cloud.ref("demo"), "vcluster/0123456789/network")


def test_a_delete_of_what_is_gone_is_done(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.nova("GET", "/servers/s1", status_code=404, json={"itemNotFound": {"message": "no", "code": 404}})
    cloud.delete_machine(cloud.ref("demo"), "s1")
    assert fake.asked("DELETE") == []


@pytest.mark.parametrize("trouble", [{"status_code": 503}, {"status_code": 500}, {"text": "<html>"}])
def test_a_service_that_does_not_say_its_version_is_asked_again(fake: FakeCloud, trouble: dict[str, object]) -> None:
    told = token()
    for entry in told["token"]["catalog"]:
        if entry["type"] == "image":
            entry["endpoints"][0]["url"] = "http://glance.test"  # without a version, as most clouds have it
    fake.login(told)
    links = [{"rel": "self", "href": f"{GLANCE}/"}]
    versions = {"versions": [{"id": "v2.17", "status": "CURRENT", "links": links}]}
    fake.mocker.get("http://glance.test/", [trouble, trouble, {"status_code": 300, "json": versions}])
    fake.mocker.get("http://glance.test", [trouble, trouble, {"status_code": 300, "json": versions}])
    image = {"id": "1", "name": "one", "status": "active"}
    fake.glance("GET", "/images", json={"images": [image]})
    cloud = connected(fake)
    assert cloud.image(ImageRequest(source="one"), print) == "1"
    cloud.close()


def test_an_expired_token_is_renewed(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    flavor = {"id": "1", "name": "m3.tiny", "vcpus": 1, "ram": 3072, "disk": 20}
    fake.nova("GET", "/flavors/detail", {"status_code": 401}, {"json": {"flavors": [flavor]}})
    assert cloud.flavor("m3.tiny").cpus == 1
    assert len(fake.asked("POST", "/auth/tokens")) == 2


def test_a_revoked_credential_says_so(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.nova("GET", "/flavors/detail", status_code=401)
    with pytest.raises(PermanentError, match="does not accept the credential"):
        cloud.flavor("m3.tiny")
    assert len(fake.slept) == 4


def test_a_service_that_mistrusts_a_new_token_is_asked_again(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    made = {"status_code": 201, "json": {"network": {"id": "n1"}}}
    refused = {"status_code": 401}
    fake.neutron("POST", "/networks", refused, refused, refused, made)
    assert cloud.create_network(cloud.ref("demo"), "vcluster/0123456789/network").uuid == "n1"
    assert len(fake.slept) == 1  # each try is two: keystoneauth's own, with a new token


# What a spec may ask for ----------------------------------------------------------------------------------------


def test_an_unknown_flavor_names_the_nearest(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    names = ["m3.tiny", "m3.small", "g3.xl"]
    flavors = [{"id": n, "name": n, "vcpus": 1, "ram": 1, "disk": 1} for n in names]
    fake.nova("GET", "/flavors/detail", json={"flavors": flavors})
    with pytest.raises(PermanentError, match="no flavor") as caught:
        cloud.flavor("m3.tinny")
    assert "`m3.tiny`" in caught.value.remedy


def test_images(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    def image(id_: str, name: str, status: str = "active", owner: str = "x") -> dict[str, str]:
        return {"id": id_, "name": name, "status": status, "owner": owner}

    images = [
        image("1", "one"),
        image("2", "two"),
        image("3", "two"),
        image("4", "slow", "saving"),
        image("5", "Debian 12"),
    ]

    def answer(request: object, context: object) -> dict[str, object]:
        name = getattr(request, "qs", {}).get("name", [""])[0]
        return {"images": [i for i in images if not name or i["name"].lower() == name]}

    fake.glance("GET", "/images", json=answer)
    fake.mocker.get(f"{GLANCE}/images/5", json=images[4])
    for name in ("non", "Featured-Ubuntu24", "debian-12"):
        fake.mocker.get(f"{GLANCE}/images/{name}", status_code=404)

    def ask(source: str, sha256: str = "") -> str:
        return cloud.image(ImageRequest(source=source, sha256=sha256), print)

    assert ask("one") == "1"
    assert ask("5") == "5"
    assert ask("") == "5"
    for source, word in (
        ("two", "2 images"),
        ("slow", "it is saving"),
        ("non", "no image 'non'"),
        ("./x.qcow2", "by its name"),
    ):
        with pytest.raises(PermanentError, match=word):
            ask(source)
    with pytest.raises(PermanentError) as caught:
        ask("non")
    assert "did you mean `one`" in caught.value.remedy
    with pytest.raises(PermanentError, match="sha256"):
        ask("one", "00")


def test_what_a_service_quotes_is_left_out() -> None:
    """Nova's answer to a field that it finds wrong has the field's value: of user data that would be a secret."""
    said = f"Invalid input for field/attribute user_data. Value: {'QUJD' * 100}. {'QUJD' * 100} is too long"
    error = errors.from_answer(400, nova("badRequest", said), doing="create server demo-head")
    assert "QUJD" not in str(error)
    assert "Value: …" in str(error)
    assert "is too long" in str(error)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "Unable to establish connection to http://127.0.0.1:9/v3/auth/tokens: HTTPConnectionPool(host='127.0.0.1', "
            'port=9): Max retries exceeded with url: /v3/auth/tokens (Caused by NewConnectionError("HTTPConnection('
            "host='127.0.0.1', port=9): Failed to establish a new connection: [Errno 111] Connection refused\"))",
            "no answer from http://127.0.0.1:9: Connection refused",
        ),
        ("Request to https://js2.test:8774/v2.1/servers timed out", "no answer from https://js2.test:8774: timed out"),
        ("('Connection aborted.', RemoteDisconnected('x'))", "no answer: Connection aborted"),
        ("something else", "no answer"),
    ],
)
def test_no_answer_says_from_whom_and_why(said: str, told: str) -> None:
    from keystoneauth1 import exceptions

    error = errors.from_exception(exceptions.ConnectFailure(said), doing="list servers")
    assert isinstance(error, TemporaryError)
    assert error.message == f"list servers: {told}"


def test_a_server_without_https_has_no_bad_certificate() -> None:
    from keystoneauth1 import exceptions

    said = "SSL exception connecting to https://js2.test:5000/v3: [SSL: WRONG_VERSION_NUMBER] wrong version number"
    error = errors.from_exception(exceptions.SSLError(said), doing="cloud `js2`")
    assert isinstance(error, PermanentError)
    assert error.message == "cloud `js2`: the server speaks no https: https://js2.test:5000"
    assert "auth_url" in error.remedy
    assert "cacert" not in error.remedy


def test_a_certificate_that_is_not_trusted_is_no_weather() -> None:
    from keystoneauth1 import exceptions

    error = errors.from_exception(exceptions.SSLError("certificate verify failed"), doing="list servers")
    assert isinstance(error, PermanentError)
    assert "cacert" in error.remedy


@pytest.mark.parametrize(
    ("trouble", "kind", "word"),
    [
        ({"exc": requests.exceptions.ConnectionError("refused")}, TemporaryError, "no answer"),
        ({"exc": requests.exceptions.ConnectTimeout("slow")}, TemporaryError, "no answer"),
        ({"status_code": 503}, TemporaryError, "503"),
        ({"status_code": 429}, TemporaryError, "429"),
        ({"exc": requests.exceptions.SSLError("certificate verify failed")}, PermanentError, "not trusted"),
        ({"status_code": 404}, PermanentError, "no OpenStack"),
        ({"text": "<html>It works!</html>"}, PermanentError, "no OpenStack"),
    ],
)
def test_a_keystone_that_does_not_answer_is_weather_also_where_its_address_has_no_version(
    fake: FakeCloud, monkeypatch: pytest.MonkeyPatch, trouble: dict[str, object], kind: type[CloudError], word: str
) -> None:
    for name in ("", "/", "/v3"):
        fake.mocker.get(f"http://keystone.test{name}", **trouble)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", "none.yaml")
    given = {"AUTH_URL": "http://keystone.test", "USERNAME": "alice", "PASSWORD": "x", "PROJECT_NAME": "p"}
    for name, value in (given | {"USER_DOMAIN_ID": "default", "PROJECT_DOMAIN_ID": "default"}).items():
        monkeypatch.setenv(f"OS_{name}", value)
    cloud = connected(fake, "envvars")
    with pytest.raises(kind, match=word):
        cloud.ref("demo")
    cloud.close()


@pytest.mark.parametrize("failure", [{"status_code": 503}, {"exc": requests.exceptions.ConnectTimeout}])
def test_no_setting_makes_the_sdk_repeat_a_create(
    fake: FakeCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: dict[str, object]
) -> None:
    file = tmp_path / "clouds.yaml"
    told = yaml.safe_load(file.read_text())
    more = {f"{s}_{kind}_retries": 3 for s in ("network", "compute") for kind in ("connect", "status_code")}
    told["clouds"]["js2"] |= more
    file.write_text(yaml.safe_dump(told))
    monkeypatch.setattr("time.sleep", fake.slept.append)
    cloud = connected(fake)
    fake.neutron("POST", "/networks", **failure)
    with pytest.raises(TemporaryError):
        cloud.create_network(cloud.ref("demo"), "vcluster/0123456789/network")
    assert len(fake.asked("POST", "/networks")) == 1
    cloud.close()


def test_a_programs_own_error_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        errors.from_exception(ZeroDivisionError(), doing="list servers")
