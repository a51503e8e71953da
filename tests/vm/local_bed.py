"""A cluster of machines with empty disks, for tests of their life; and a cable into its network."""

from __future__ import annotations

import contextlib
import multiprocessing
import select
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from vcluster.clouds.local import LocalCloud
from vcluster.clouds.local.image import BaseImage
from vcluster.clouds.local.records import ClusterFolder
from vcluster.model import (
    ClusterRef,
    Flavor,
    Machine,
    MachineRequest,
    MachineState,
    Port,
    PortRequest,
    Role,
)

TINY = Flavor("tiny", cpus=1, memory=64, disk=1)
FORK = multiprocessing.get_context("fork")


class Bed:
    """One cluster in a cloud of its own, whose image ``empty`` holds nothing."""

    def __init__(self, home: Path, cache: Path, name: str = "bed") -> None:
        self.cloud = LocalCloud(home, cache)
        self.ref: ClusterRef = self.cloud.ref(name)
        self.folder = ClusterFolder(self.cloud._clouds, self.ref)
        cache.mkdir(parents=True, exist_ok=True)
        disk = cache / "empty.qcow2"
        if not disk.exists():
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "64M"], check=True)
        self.cloud._images["empty"] = BaseImage(id="empty", disk=disk, kernel=None, initrd=None)
        self.ports: dict[str, Port] = {}

    def network(self, *names: str) -> None:
        """Make the network and the ports of these machines."""
        self.cloud.create_network(self.ref, self.ref.tag(Role.NETWORK))
        requests = [PortRequest(name, self.ref.tag(_role(name))) for name in names]
        self.ports = {port.name: port for port in self.cloud.create_ports(self.ref, requests)}

    def request(self, name: str, image: str = "empty", flavor: Flavor = TINY, data: str = "") -> MachineRequest:
        role, port = _role(name), self.ports[name]
        data = data or "#cloud-config\n"
        return MachineRequest(name, self.ref.tag(role), role, "cpu", flavor, port, image, data)

    def create(self, name: str, **how: Any) -> Machine:
        return self.cloud.create_machine(self.ref, self.request(name, **how))

    def machines(self) -> dict[str, Machine]:
        return {machine.name: machine for machine in self.cloud.observe(self.ref).machines}

    def state(self, name: str) -> MachineState:
        return self.machines()[name].state

    def qemu(self, name: str) -> psutil.Process:
        return psutil.Process(int((self.folder.machine_path(self.machines()[name].uuid) / "qemu.pid").read_text()))

    def running(self) -> list[psutil.Process]:
        """Every process of this cluster, found without the help of what is tried here."""
        mark = str(self.folder.path)
        return [process for process in psutil.process_iter() if any(mark in word for word in _words(process))]

    def qemus(self) -> list[psutil.Process]:
        """Those of them that are machines, or are about to be."""
        return [process for process in self.running() if any("qemu-system-" in word for word in _words(process))]

    def clear(self) -> None:
        """What ``down`` does."""
        seen = self.cloud.observe(self.ref)
        for machine in seen.machines:
            self.cloud.delete_machine(self.ref, machine.uuid)
        self.cloud.delete_ports(self.ref, [port.uuid for port in seen.ports])
        for network in seen.networks:
            self.cloud.delete_network(self.ref, network.uuid)


def _words(process: psutil.Process) -> list[str]:
    """The arguments; none of what has ended. They are empty for a moment while a program is executed."""
    end = time.monotonic() + 1.0
    with contextlib.suppress(psutil.Error):
        while not (words := process.cmdline()) and time.monotonic() < end:
            if process.status() == psutil.STATUS_ZOMBIE or not process.memory_info().vms:
                return []
            time.sleep(0.01)
        return words
    return []


def _role(name: str) -> Role:
    return Role.HEAD if name == "head" else Role.WORKER


@contextlib.contextmanager
def made(home: Path, cache: Path) -> Iterator[Bed]:
    """A cluster's bed, which must be left without a process or a file."""
    one = Bed(home / "bed", cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalCloud, "_grace", 1.0)  # nothing in an empty machine hears the power button
        yield one
        one.clear()
    assert one.running() == []
    assert not one.cloud._home.exists()


class Plug:
    """A cable into a cluster's switch that shows the frames."""

    def __init__(self, sockets: Path) -> None:
        self.process = subprocess.Popen(
            ["vde_plug", str(sockets)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def send(self, text: bytes) -> None:
        frame = b"\xff" * 6 + b"\x02\x00\x00\x00\x00\x01" + b"\x88\xb5" + text.ljust(46, b"\0")
        assert self.process.stdin is not None
        self.process.stdin.write(struct.pack(">H", len(frame)) + frame)

    def receive(self, text: bytes, seconds: float) -> bool:
        """Whether a frame with this text comes within so many seconds."""
        assert self.process.stdout is not None
        heard, deadline = b"", time.monotonic() + seconds
        while text not in heard and (left := deadline - time.monotonic()) > 0:
            if select.select([self.process.stdout], [], [], left)[0]:
                heard += self.process.stdout.read(4096)
        return text in heard

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.kill()
        self.process.wait()
