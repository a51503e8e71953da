"""Servers of the lab are machines: one scenario with real Nova, Neutron and Glance, as user ``demo``.

The tests run in their order, on one head with a floating IP and one worker; each leaves both running.
"""

from __future__ import annotations

import base64
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from openstack.exceptions import ResourceNotFound

from tests.lab.qemu.lab_qemu_fixtures import machine_processes

if TYPE_CHECKING:
    from openstack.connection import Connection

    from tests.lab.lab import LabClient

pytestmark = [pytest.mark.lab, pytest.mark.vm, pytest.mark.timeout(3600)]

MINUTE = 60.0
BOOT = 8 * MINUTE
"""In emulation, on processors that others use too."""

USER_DATA = """#cloud-config
disable_root: false
users:
  - name: root
    ssh_authorized_keys: ["{key}"]
write_files:
  - path: /usr/local/sbin/vcluster-configure
    permissions: "0755"
    content: |
      #!/bin/sh
      echo CONFIGURED > /dev/console
"""


def until(done: Callable[[], Any], what: str, timeout: float) -> Any:
    deadline = time.monotonic() + timeout
    while True:
        value = done()
        if value:
            return value
        assert time.monotonic() < deadline, f"no {what} after {timeout:.0f} s"
        time.sleep(0.5)


@dataclass
class Pair:
    """A head with a floating IP, and a worker."""

    lab: LabClient
    cloud: Connection
    key: Path
    network: str
    subnet: str
    ports: dict[str, Any]
    servers: dict[str, str]
    floating: str = ""

    def address(self, name: str) -> str:
        return str(self.ports[name].fixed_ips[0]["ip_address"])

    def ssh(self, command: str, *, timeout: float = BOOT) -> str:
        """Run a command on the head as root, through its floating IP, as soon as it answers."""
        options = ["BatchMode=yes", "ConnectTimeout=10", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
        argv = ["ssh", "-i", str(self.key), *(word for option in options for word in ("-o", option))]

        def ask() -> subprocess.CompletedProcess[str] | None:
            full = [*argv, f"root@{self.floating}", command]
            done = subprocess.run(full, capture_output=True, text=True, check=False, timeout=5 * MINUTE)
            return None if done.returncode == 255 else done

        done: subprocess.CompletedProcess[str] = until(ask, f"SSH to {self.floating}", timeout)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def boot_id(self) -> str:
        return self.ssh("cat /proc/sys/kernel/random/boot_id")

    def wait(self, name: str, status: str) -> None:
        def there() -> bool:
            server = self.cloud.compute.get_server(self.servers[name])
            assert server.status != "ERROR", server.fault
            return bool(server.status == status and server.task_state is None)

        until(there, f"{status} of {name}", 5 * MINUTE)

    def console(self, name: str) -> str:
        return str(self.cloud.compute.get_server_console_output(self.servers[name])["output"])

    def configured(self, name: str) -> None:
        until(lambda: "CONFIGURED" in self.console(name), f"end of cloud-init on {name}", BOOT)

    def qemu(self, name: str) -> int:
        """Process number of its QEMU; 0 when there is none."""
        found = [pid for pid, words in machine_processes(self.lab.root).items() if self.servers[name] in words]
        assert len(found) <= 1
        return found[0] if found else 0


@pytest.fixture(scope="module")
def pair(qemu_lab: LabClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    cloud = qemu_lab.connection("demo")
    key = tmp_path_factory.mktemp("ssh") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    network = cloud.network.create_network(name="pair")
    subnet = cloud.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.20.0.0/24")
    public = cloud.network.find_network("public", ignore_missing=False)
    router = cloud.network.create_router(name="pair", external_gateway_info={"network_id": public.id})
    cloud.network.add_interface_to_router(router, subnet=subnet.id)
    names = ("pair-head", "pair-worker")
    made = cloud.network.create_ports([{"network_id": network.id, "name": name} for name in names])
    ports = {port.name: port for port in made}
    user_data = base64.b64encode(USER_DATA.format(key=key.with_suffix(".pub").read_text().strip()).encode()).decode()
    flavor = cloud.compute.find_flavor("lab.worker", ignore_missing=False)
    image = cloud.image.find_image("debian-12", ignore_missing=False)
    servers = {
        name: cloud.compute.create_server(
            name=name,
            flavor_id=flavor.id,
            image_id=image.id,
            networks=[{"port": ports[name].id}],
            user_data=user_data,
            config_drive=True,
        ).id
        for name in names
    }
    pair = Pair(qemu_lab, cloud, key, network.id, subnet.id, ports, servers)
    yield pair
    for ip in cloud.network.ips():
        cloud.network.delete_ip(ip)
    for server in servers.values():
        cloud.compute.delete_server(server)
    until(lambda: not list(cloud.compute.servers()), "end of the servers", 10 * MINUTE)
    for port in ports.values():
        cloud.network.delete_port(port)
    cloud.network.remove_interface_from_router(router, subnet=subnet.id)
    cloud.network.delete_router(router)
    cloud.network.delete_network(network)


def test_machine_looks_like_one_of_openstack(pair: Pair) -> None:
    pair.wait("pair-head", "ACTIVE")
    pair.wait("pair-worker", "ACTIVE")
    public = pair.cloud.network.find_network("public", ignore_missing=False)
    # After the server, so it is Neutron that tells Nova, and Nova's driver that looks.
    made = pair.cloud.network.create_ip(floating_network_id=public.id, port_id=pair.ports["pair-head"].id)
    pair.floating = made.floating_ip_address
    assert pair.floating.startswith("127.100.")
    assert pair.ssh("hostname") == "pair-head"
    cards = pair.ssh("ls /sys/class/net").split()
    assert len(cards) == 2
    assert "lo" in cards
    card = next(name for name in cards if name != "lo")
    assert pair.ssh(f"cat /sys/class/net/{card}/address /sys/class/net/{card}/mtu").split() == [
        pair.ports["pair-head"].mac_address,
        "1450",
    ]
    assert f"inet {pair.address('pair-head')}/24 " in pair.ssh(f"ip -4 addr show {card}")
    assert pair.ssh("ip route show default").startswith("default via 10.20.0.1 ")
    assert pair.ssh("cat /run/cloud-init/cloud-id") == "configdrive"


def test_machines_reach_each_other_and_the_gateway(pair: Pair) -> None:
    pair.configured("pair-worker")
    for address in ("10.20.0.1", pair.address("pair-worker")):
        assert " 0% packet loss" in pair.ssh(f"ping -c 3 -W 5 {address}")


def test_stop_and_start_keep_the_disk(pair: Pair) -> None:
    before = pair.boot_id()
    pair.ssh("echo kept > /root/kept")
    pair.cloud.compute.stop_server(pair.servers["pair-head"])
    pair.wait("pair-head", "SHUTOFF")
    assert not pair.qemu("pair-head")
    # Of an orderly end: what was written a moment ago is on the disk without a sync.
    pair.cloud.compute.start_server(pair.servers["pair-head"])
    pair.wait("pair-head", "ACTIVE")
    assert pair.ssh("cat /root/kept") == "kept"
    assert pair.boot_id() != before


def test_reboots(pair: Pair) -> None:
    before, process = pair.boot_id(), pair.qemu("pair-worker")
    pair.cloud.compute.reboot_server(pair.servers["pair-head"], "SOFT")
    pair.cloud.compute.reboot_server(pair.servers["pair-worker"], "HARD")
    until(lambda: pair.qemu("pair-worker") not in {0, process}, "other QEMU of the worker", 5 * MINUTE)
    pair.wait("pair-worker", "ACTIVE")
    pair.wait("pair-head", "ACTIVE")
    assert pair.boot_id() != before
    pair.configured("pair-worker")


def test_machine_that_switches_itself_off_is_shutoff(pair: Pair) -> None:
    worker = pair.address("pair-worker")
    pair.ssh(f"umask 077; cat > /root/key << 'END'\n{pair.key.read_text()}END\n")
    pair.ssh(
        "ssh -i /root/key -o StrictHostKeyChecking=no -o BatchMode=yes "
        f"root@{worker} 'systemd-run --on-active=1 systemctl poweroff'"
    )
    pair.wait("pair-worker", "SHUTOFF")
    assert not pair.qemu("pair-worker")


def test_shelved_machine_has_its_disk_when_it_comes_back(pair: Pair) -> None:
    pair.ssh("echo shelved >> /root/kept")
    pair.cloud.compute.shelve_server(pair.servers["pair-head"])
    pair.wait("pair-head", "SHELVED_OFFLOADED")
    assert not pair.qemu("pair-head")
    assert [image.status for image in pair.cloud.image.images(name="pair-head-shelved")] == ["active"]
    pair.cloud.compute.unshelve_server(pair.servers["pair-head"])
    pair.wait("pair-head", "ACTIVE")
    assert pair.ssh("cat /root/kept") == "kept\nshelved"
    assert not list(pair.cloud.image.images(name="pair-head-shelved"))


def test_floating_ip_goes_when_it_is_given_back(pair: Pair) -> None:
    old, pair.floating = pair.floating, ""
    (held,) = pair.cloud.network.ips(floating_ip_address=old)
    pair.cloud.network.delete_ip(held)

    def refused() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((old, 22)) != 0

    until(refused, "end of the forwarding", 5 * MINUTE)
    public = pair.cloud.network.find_network("public", ignore_missing=False)
    made = pair.cloud.network.create_ip(floating_network_id=public.id, port_id=pair.ports["pair-head"].id)
    pair.floating = made.floating_ip_address
    assert pair.ssh("hostname") == "pair-head"


def test_boot_volume_is_the_disk_and_goes_with_its_server(pair: Pair) -> None:
    image = pair.cloud.image.find_image("debian-12", ignore_missing=False)
    disk = {"boot_index": 0, "source_type": "image", "destination_type": "volume", "uuid": image.id, "volume_size": 7}
    server = pair.cloud.compute.create_server(
        name="pair-volume",
        flavor_id=pair.cloud.compute.find_flavor("lab.worker", ignore_missing=False).id,
        networks=[{"uuid": pair.network}],
        block_device_mapping=[disk | {"delete_on_termination": True}],
    ).id
    pair.servers["pair-volume"] = server
    pair.wait("pair-volume", "ACTIVE")
    (volume,) = pair.cloud.compute.get_server(server).attached_volumes
    file = pair.lab.root / "qemu/volumes" / f"{volume['id']}.qcow2"
    assert (pair.lab.root / "qemu/vm" / server[:8] / "disk.qcow2").resolve() == file
    size = subprocess.run(["qemu-img", "info", "-U", file], capture_output=True, text=True, check=True).stdout
    assert "virtual size: 7 GiB" in size
    assert pair.qemu("pair-volume")
    pair.cloud.compute.delete_server(server)
    until(lambda: _gone(pair, server), "end of the server", 10 * MINUTE)
    del pair.servers["pair-volume"]
    assert not file.exists()


def test_deleted_machines_leave_nothing(pair: Pair) -> None:
    root = pair.lab.root / "qemu"
    head = root / "vm" / pair.servers["pair-head"][:8]
    assert (head / "disk.qcow2").stat().st_mode & 0o077 == 0
    assert (head / "seed.iso").stat().st_mode & 0o077 == 0
    for server in pair.servers.values():
        pair.cloud.compute.delete_server(server)
    until(lambda: all(_gone(pair, server) for server in pair.servers.values()), "end of the servers", 10 * MINUTE)
    until(lambda: not machine_processes(pair.lab.root), "end of the processes", 5 * MINUTE)
    assert not list((root / "vm").iterdir())
    assert not list((root / "net").iterdir())
    pair.servers.clear()


def _gone(pair: Pair, server: str) -> bool:
    try:
        pair.cloud.compute.get_server(server)
    except ResourceNotFound:
        return True
    return False
