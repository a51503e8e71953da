"""The fault proxy before a tiny service: real sockets, no lab."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.lab import proxy_faults as faults
from tests.lab.proxy import FaultProxy
from tests.lab.proxy_faults import Fault, Rule
from tests.lab.proxy_record import Moment
from tests.lab.tiny_service import LARGE, Service, ask, connect, tiny_proxy, tiny_service

NET = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def service() -> Iterator[str]:
    """The base URL of a running service that has seen nothing yet."""
    with tiny_service() as url:
        yield url


@pytest.fixture
def proxy(service: str) -> Iterator[FaultProxy]:
    """A proxy before it, as ``compute``."""
    with tiny_proxy(service) as made:
        yield made


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[http.client.HTTPConnection]:
    """One connection through the proxy."""
    connection = connect(proxy)
    yield connection
    connection.close()


def test_passes_everything_over_one_connection(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    assert ask(client, "POST", "/v2.1/servers", b"{}") == (202, b'{"size": 2}')
    first = client.sock
    assert ask(client, "GET", "/chunks") == (200, b"one" + b"two" * 30000)
    assert ask(client, "DELETE", f"/v2.1/servers/{NET}") == (204, b"")
    assert ask(client, "HEAD", "/v2.1/") == (200, b"")
    assert ask(client, "GET", "/large") == (200, b"x" * LARGE)
    assert ask(client, "POST", "/v2/images/1/file", b"y" * LARGE) == (202, b'{"size": %d}' % LARGE)
    assert ask(client, "POST", "/v2/images/1/file", (b"z" * 1000 for _ in range(3))) == (202, b'{"size": 3000}')
    assert client.sock is first
    assert ask(client, "GET", "/endless") == (200, b"until the end")
    assert [request.status for request in proxy.requests] == [202, 200, 204, 200, 200, 202, 202, 200]
    proxy.settle()
    assert all(request.end >= request.start > 0 and request.waited > 0 for request in proxy.requests)


def test_links_lead_back_to_the_proxy(proxy: FaultProxy, client: http.client.HTTPConnection, service: str) -> None:
    client.request("GET", "/")
    answer = client.getresponse()
    content = json.loads(answer.read())
    here = f"http://127.0.0.1:{urlsplit(proxy.urls['compute']).port}"
    assert content["host"] == here.removeprefix("http://"), "services build links from the Host header"
    assert content["links"][0]["href"] == f"{here}/v2.1/"
    assert content["links"][1]["href"] == f"http://127.0.0.1:{urlsplit(service).port}9/", "another port is left alone"
    assert answer.headers["Location"] == f"{here}/v2.1/servers/1"
    assert proxy.urls == {"compute": f"{here}/v2.1"}


@pytest.mark.parametrize(
    ("fault", "status", "key"),
    [
        (faults.rate_limited(), 429, None),
        (faults.failing(500), 500, "computeFault"),
        (faults.failing(500, after=True), 500, "computeFault"),
        (faults.failing(503), 503, None),
        (faults.failing(503, after=True), 503, None),
        (faults.quota(), 403, "forbidden"),
        (faults.forbidden(), 403, "forbidden"),
        (faults.missing("Flavor m9.none could not be found."), 404, "itemNotFound"),
        (faults.conflict(), 409, "conflictingRequest"),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
def test_statuses(
    proxy: FaultProxy, client: http.client.HTTPConnection, fault: Fault, status: int, key: str | None
) -> None:
    proxy.script(Rule(fault, method="POST", path="/servers$"))
    told, body = ask(client, "POST", "/v2.1/servers", b"{}")
    assert told == status
    if key is None:
        assert body.startswith(b"<html>"), "a load balancer speaks no JSON"
    else:
        assert json.loads(body)[key]["code"] == status
        assert fault.message in body.decode()
    assert Service.acts == (["POST /v2.1/servers 2"] if fault.after else [])
    assert ask(client, "POST", "/v2.1/servers", b"{}")[0] == 202, "one fault, on a connection that lives on"
    first = proxy.requests[0]
    assert (first.fault, first.status, first.acted) == (fault.name, status, 202 if fault.after else 0)


@pytest.mark.parametrize("fault", [faults.silence(), faults.silence(after=True)], ids=lambda fault: fault.name)
def test_silence_lasts_until_the_client_gives_up(proxy: FaultProxy, fault: Fault) -> None:
    proxy.script(Rule(fault))
    there, where = threading.Event(), Moment.ACTED if fault.after else Moment.ARRIVED
    proxy.on_request(lambda _, now: there.set() if now is where else None)
    impatient = connect(proxy)
    impatient.request("DELETE", "/v2.1/servers/1")
    assert there.wait(120)
    impatient.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        impatient.getresponse()
    with pytest.raises(TimeoutError):
        proxy.settle(0)
    impatient.close()
    proxy.settle()
    assert [(request.status, request.acted) for request in proxy.requests] == [(0, 204 if fault.after else 0)]
    assert len(Service.acts) == fault.after


@pytest.mark.parametrize(
    "fault",
    [faults.drop(), faults.drop(after=True), faults.drop(after=True, reset=True), faults.cut(), faults.cut(reset=True)],
    ids=lambda fault: f"{fault.name} {fault.reset}",
)
def test_connections_that_end(proxy: FaultProxy, client: http.client.HTTPConnection, fault: Fault) -> None:
    proxy.script(Rule(fault))
    with pytest.raises((ConnectionError, http.client.IncompleteRead)) as caught:
        ask(client, "POST", "/v2.1/servers", b"{}")
    if fault == faults.cut():
        assert isinstance(caught.value, http.client.IncompleteRead)
        assert (len(caught.value.partial), caught.value.expected) == (5, 6)
    client.close()
    proxy.settle()
    assert len(Service.acts) == fault.after
    assert proxy.requests[0].fault == fault.name
    assert ask(client, "GET", "/")[0] == 200


def test_slow_is_late_but_true(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    proxy.script(Rule(faults.slow(0.2)))
    assert ask(client, "POST", "/v2.1/servers", b"{}") == (202, b'{"size": 2}')
    request = proxy.requests[0]
    proxy.settle()
    assert request.end - request.start >= 0.2
    assert (request.fault, request.status) == ("slow 0.2 s", 202)


def test_retry_after(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    proxy.script(Rule(faults.rate_limited(7)))
    client.request("GET", "/")
    answer = client.getresponse()
    answer.read()
    assert (answer.status, answer.headers["Retry-After"]) == (429, "7")


@pytest.mark.parametrize(("name", "status", "key"), [
    ("compute", 403, "forbidden"), ("network", 409, "NeutronError"), ("volume", 413, "overLimit"),
])  # fmt: skip
def test_quota_hides_in_many_statuses(service: str, name: str, status: int, key: str) -> None:
    with FaultProxy({name: service}) as proxy:
        proxy.script(Rule(faults.quota()))
        client = http.client.HTTPConnection(urlsplit(proxy.urls[name]).netloc, timeout=120)
        client.request("POST", "/", b"{}")
        answer = client.getresponse()
        assert (answer.status, list(json.loads(answer.read()))) == (status, [key])
        assert answer.headers["Retry-After"] == ("0" if name == "volume" else None)
        client.close()


def test_an_expired_token_stays_so_and_a_fresh_one_is_good(
    proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    proxy.script(Rule(faults.expired(), path="/servers$"))
    asked = [ask(client, "GET", path, **{"X-Auth-Token": token})[0] for path, token in [
        ("/v2.1/flavors", "old"), ("/v2.1/servers", "old"), ("/v2.1/flavors", "old"), ("/v2.1/servers", "new"),
    ]]  # fmt: skip
    assert asked == [200, 401, 401, 200]
    assert b"old" not in repr(proxy.requests).encode(), "no token is kept"


def test_rules_skip_and_repeat(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    proxy.script(
        Rule(faults.failing(500), path="#os-stop", skip=1, times=2),
        Rule(faults.conflict(), service="compute", method="DELETE", times=None),
        Rule(faults.failing(503), service="network", times=None),
    )
    stops = [ask(client, "POST", f"/v2.1/servers/{NET}/action", b'{"os-stop": null}')[0] for _ in range(4)]
    assert stops == [202, 500, 500, 202]
    assert ask(client, "POST", f"/v2.1/servers/{NET}/action", b'{"os-start": null}')[0] == 202
    assert {ask(client, "DELETE", f"/v2.1/servers/{n}")[0] for n in range(5)} == {409}
    assert proxy.tally() == {
        "compute POST /v2.1/servers/{id}/action#os-stop": 4,
        "compute POST /v2.1/servers/{id}/action#os-start": 1,
        "compute DELETE /v2.1/servers/{id}": 5,
    }
    assert (proxy.count(fault=""), proxy.count(fault="409"), proxy.count(method="POST", path="stop")) == (3, 5, 4)
    proxy.reset()
    assert (proxy.count(), ask(client, "DELETE", "/v2.1/servers/1")[0]) == (0, 204)


def test_a_fresh_token_never_expires_by_a_seed(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    proxy.seed(1, 1.0, [faults.expired()])
    asked = [ask(client, "GET", f"/v2.1/{n}", **{"X-Auth-Token": "one"})[0] for n in "abcdefghij"]
    assert asked == [200] * 8 + [401] * 2
    assert ask(client, "GET", "/v2.1/i", **{"X-Auth-Token": "two"})[0] == 200


def test_bodies_are_kept_on_request_only_and_passwords_never(service: str) -> None:
    with FaultProxy({"compute": service}, keep_bodies=True) as keeping:
        client = connect(keeping)
        ask(client, "POST", "/v2.1/servers", b'{"a": 1}')
        ask(client, "POST", "/v3/auth/tokens", b'{"password": "x"}')
        client.close()
        kept = [(request.sent, request.answer) for request in keeping.requests]
        assert kept == [(b'{"a": 1}', b'{"size": 8}'), (b"", b"")]


def test_a_service_that_dies_is_a_bad_gateway(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    assert ask(client, "GET", "/die")[0] == 502
    assert proxy.requests[0].fault == "upstream"
    assert ask(client, "GET", "/")[0] == 200


def test_many_clients_at_once(proxy: FaultProxy) -> None:
    proxy.seed(3, 0.5, [faults.failing(500), faults.failing(503, after=True)])

    def work() -> None:
        client = connect(proxy)
        for _ in range(25):
            ask(client, "POST", "/v2.1/servers", b"{}")
        client.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    requests = proxy.requests
    assert [request.number for request in requests] == list(range(1, 201))
    assert len(Service.acts) == sum(request.acted == 202 for request in requests)
    assert proxy.count(fault="") == sum(request.status == 202 for request in requests) < 200


def test_refuses_addresses_beyond_loopback_and_twice_the_same(service: str) -> None:
    with pytest.raises(ValueError, match="not plain HTTP on a loopback"):
        FaultProxy({"compute": "http://192.0.2.1:80"})
    with pytest.raises(ValueError, match="another service's address"):
        FaultProxy({"compute": service, "volume": service.replace("v2.1", "v3")})
