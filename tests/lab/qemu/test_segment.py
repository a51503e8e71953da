"""A network of the lab: a real switch and a real router, without a machine."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_keeper import Keeper
from lab_segment import Segment, router_argv

PORTS = (40022, 40080)
"""Ports that need no privilege."""


def user_netdev(cidr: str, gateway: str) -> dict[str, str]:
    argv = router_argv(binary="qemu", sockets=Path("/s"), cidr=cidr, gateway=gateway, monitor=Path("/m"))
    (netdev,) = (word for word in argv if word.startswith("user,"))
    return dict(pair.split("=") for pair in netdev.split(",")[1:])


def test_router_has_the_gateway_and_keeps_off_the_low_addresses() -> None:
    found = user_netdev("10.9.0.0/24", "10.9.0.1")
    assert found["net"] == "10.9.0.0/24"
    assert found["host"] == "10.9.0.1"
    assert {found["dns"], found["dhcpstart"]} == {"10.9.0.253", "10.9.0.254"}


@pytest.mark.parametrize("gateway", ["", "10.9.0.254", "10.9.0.253"])
def test_addresses_of_the_router_are_three_different_ones(gateway: str) -> None:
    found = user_netdev("10.9.0.0/24", gateway)
    assert len({found["host"], found["dns"], found["dhcpstart"]}) == 3
    assert not gateway or found["host"] == gateway


@pytest.fixture
def segment() -> Iterator[Segment]:
    # A short path: sockets lie in it.
    folder = Path(tempfile.mkdtemp(prefix="vc-", dir="/tmp"))
    keeper = Keeper()
    segment = Segment(keeper, folder / "net", cidr="10.9.0.0/24", gateway="10.9.0.1", ports=PORTS)
    binary = shutil.which("qemu-system-x86_64")
    assert binary
    try:
        segment.ensure(binary)
        yield segment
    finally:
        segment.stop()
        keeper.close()
        assert not (folder / "net").exists()
        folder.rmdir()


def listens(address: str, port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(60)
        return probe.connect_ex((address, port)) == 0


@pytest.mark.vm
def test_floating_addresses_listen_as_long_as_they_are_wanted(segment: Segment) -> None:
    segment.forward({"127.100.250.1": "10.9.0.7", "127.100.250.2": "10.9.0.8"})
    assert all(listens(f"127.100.250.{last}", port) for last in (1, 2) for port in PORTS)
    assert segment.forwards == {"127.100.250.1": "10.9.0.7", "127.100.250.2": "10.9.0.8"}
    segment.forward({"127.100.250.2": "10.9.0.9"})  # one is given back, the other moves
    assert segment.forwards == {"127.100.250.2": "10.9.0.9"}
    assert not listens("127.100.250.1", PORTS[0])
    assert listens("127.100.250.2", PORTS[0])
    segment.forward({})
    assert not any(listens("127.100.250.2", port) for port in PORTS)


@pytest.mark.vm
def test_address_that_is_taken_is_tried_again(segment: Segment) -> None:
    with socket.socket() as holder:
        holder.bind(("127.100.250.3", PORTS[1]))
        holder.listen()
        segment.forward({"127.100.250.3": "10.9.0.7"})
        assert not segment.forwards
    segment.forward({"127.100.250.3": "10.9.0.7"})
    assert segment.forwards == {"127.100.250.3": "10.9.0.7"}
    assert listens("127.100.250.3", PORTS[0])


@pytest.mark.vm
def test_ensured_twice_is_the_same_and_stopped_twice_no_error(segment: Segment) -> None:
    binary = shutil.which("qemu-system-x86_64")
    assert binary
    segment.forward({"127.100.250.4": "10.9.0.7"})
    segment.ensure(binary)
    assert segment.forwards == {"127.100.250.4": "10.9.0.7"}
    segment.stop()
    assert not listens("127.100.250.4", PORTS[0])
    segment.ensure(binary)
    assert not segment.forwards
    segment.forward({"127.100.250.4": "10.9.0.7"})
    assert listens("127.100.250.4", PORTS[0])
