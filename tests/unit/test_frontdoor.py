"""A Hub's domain points at its head, or is refused before Let's Encrypt is asked."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from vcluster import Cluster, ClusterSpec, frontdoor
from vcluster.clouds.memory import MemoryCloud
from vcluster.errors import SpecError, TemporaryError

DOMAIN = "hub.example.org"
HEAD = "192.0.2.7"
TEXT = f"name: demo\ncloud: memory\naccess: {{floating_ip: {HEAD}}}\njupyterhub:\n  domain: {DOMAIN}\n  class_size: 1\n"


def resolver(monkeypatch: pytest.MonkeyPatch, *addresses: str, error: int = 0) -> list[str]:
    """The host's resolver with one answer; gives the names that it was asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        asked.append(host)
        if error:
            raise socket.gaierror(error, "no")
        # A resolver answers once for each protocol.
        return [(socket.AF_INET, kind, 0, "", (address, port)) for address in addresses for kind in (1, 2)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_a_domain_that_points_here(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolver(monkeypatch, HEAD)
    assert frontdoor.domain_problem(DOMAIN, HEAD) is None
    frontdoor.check_domain(ClusterSpec.from_yaml(TEXT), HEAD)
    assert asked == [DOMAIN, DOMAIN]


def test_without_a_domain_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolver(monkeypatch, error=socket.EAI_AGAIN)
    frontdoor.check_domain(ClusterSpec(name="demo", cloud="local"), HEAD)
    frontdoor.check_domain(ClusterSpec.from_yaml("name: demo\ncloud: local\njupyterhub: {}"), HEAD)
    assert asked == []


@pytest.mark.parametrize(
    ("addresses", "message", "remedy"),
    [
        ((), f"{DOMAIN} has no address", f"make an A record: {DOMAIN} → {HEAD}"),
        (("198.51.100.1",), "points at 198.51.100.1, not at the head's 192.0.2.7", "make an A record"),
        ((HEAD, "198.51.100.1"), "points at 198.51.100.1 as well as at the head", "remove the other records"),
        ((HEAD, "2001:db8::1"), "points at 2001:db8::1 as well as at the head", "remove the other records"),
    ],
)
def test_a_domain_that_does_not(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...], message: str, remedy: str
) -> None:
    resolver(monkeypatch, *addresses)
    with pytest.raises(SpecError) as caught:
        frontdoor.check_domain(ClusterSpec.from_yaml(TEXT, file="class.yaml"), HEAD)
    (problem,) = caught.value.problems
    assert (problem.where, problem.line) == ("jupyterhub.domain", 5)
    assert message in problem.message
    assert remedy in problem.remedy


@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_NODATA])
def test_a_name_that_is_not_there_has_no_address(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    resolver(monkeypatch, error=code)
    assert frontdoor.records(DOMAIN) == ()


def test_a_resolver_that_is_silent_is_weather(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, error=socket.EAI_AGAIN)
    with pytest.raises(TemporaryError, match=f"{DOMAIN} could not be looked up"):
        frontdoor.records(DOMAIN)


def test_plan_looks_the_domain_up_where_the_address_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, "198.51.100.1")
    cloud = MemoryCloud()
    with Cluster(ClusterSpec.from_yaml(TEXT), cloud=cloud, home=tmp_path) as demo:
        with pytest.raises(SpecError, match="points at 198"):
            demo.plan()
        with pytest.raises(SpecError, match="points at 198"):
            demo.up()
    assert cloud.resources() == []
