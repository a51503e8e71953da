"""A cloud that asks to be left alone: who waits, how long, and what is said when that is too long."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
from openstack_kit import REF, FakeCloud, cloud, fake, server

from vcluster.clouds.openstack import OpenStackCloud, rest
from vcluster.clouds.openstack.rest import TRYING
from vcluster.errors import CancelledError, TemporaryError

__all__ = ["cloud", "fake"]


def waiting(cloud: OpenStackCloud, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What Nova's calls wait, on a clock on which nothing else takes time."""
    slept: list[float] = []
    monkeypatch.setattr(rest, "time", SimpleNamespace(monotonic=lambda: sum(slept), time=time.time))
    cloud._services.compute._sleep = slept.append
    return slept


@pytest.mark.parametrize("status", [429, 503])
def test_a_read_waits_as_long_as_the_cloud_asks(
    fake: FakeCloud, cloud: OpenStackCloud, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Behind a layout, a quota or a list is no loop that would come again."""
    cloud.ref("demo")
    slept = waiting(cloud, monkeypatch)
    flavor = {"id": "1", "name": "m3.tiny", "vcpus": 1, "ram": 3072, "disk": 20}
    refused = {"status_code": status, "headers": {"Retry-After": "25"}}
    fake.nova("GET", "/flavors/detail", refused, refused, {"json": {"flavors": [flavor]}})
    assert cloud.flavor("m3.tiny").memory == 3072
    assert slept == [25, 25]


@pytest.mark.parametrize(("asked", "calls"), [(90, 1), (25, 3)])
def test_a_read_that_would_wait_too_long_says_when_to_try_again(
    fake: FakeCloud, cloud: OpenStackCloud, monkeypatch: pytest.MonkeyPatch, asked: int, calls: int
) -> None:
    cloud.ref("demo")
    slept = waiting(cloud, monkeypatch)
    fake.nova("GET", "/flavors/detail", status_code=429, headers={"Retry-After": str(asked)})
    with pytest.raises(TemporaryError, match="how fast") as caught:
        cloud.flavor("m3.tiny")
    assert f"try again in {asked} s" in caught.value.remedy
    assert caught.value.delay == asked
    assert sum(slept) <= TRYING
    assert len(fake.asked("GET", "/flavors/detail")) == calls


def test_who_leaves_does_not_wait_for_the_cloud(fake: FakeCloud) -> None:
    cloud = OpenStackCloud.connect("js2")
    fake.nova("GET", "/flavors/detail", status_code=429, headers={"Retry-After": "50"})

    def ask() -> None:
        with pytest.raises(CancelledError):
            cloud.flavor("m3.tiny")

    asking = threading.Thread(target=ask)
    asking.start()
    while not fake.asked("GET", "/flavors/detail"):
        time.sleep(0.01)
    cloud.close()
    asking.join(40)
    assert not asking.is_alive()


def test_a_console_is_read_again(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.nova("GET", "/servers/s1", json={"server": server()})
    limited = {"status_code": 429, "headers": {"Retry-After": "25"}}
    fake.nova("POST", "/servers/s1/action", limited, {"status_code": 503}, {"json": {"output": "login:"}})
    assert cloud.console(REF, "s1", 10) == "login:"
