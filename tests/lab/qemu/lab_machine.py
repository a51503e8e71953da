"""A server of the lab as a QEMU: the local cloud's machine, but with an OpenStack machine's network cards."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lab_monitor
from lab_keeper import Child, Keeper
from lab_monitor import MonitorError

from vcluster.clouds.local import qmp, vm
from vcluster.clouds.local.accel import Accel, qemu_binary
from vcluster.clouds.local.argv import qemu_argv
from vcluster.clouds.local.records import MachineRecord, Wish
from vcluster.model import Role

__all__ = ["Card", "Image", "Machine", "Size"]

_PATIENCE = 300.0
_GRACE = 180.0
"""Seconds for a guest to power off; in emulation, beside others that boot, it takes its time."""

_PRESS_AGAIN = 15.0


@dataclass(frozen=True, slots=True)
class Size:
    """vCPUs, MiB, GiB."""

    cpus: int
    memory: int
    disk: int


@dataclass(frozen=True, slots=True)
class Card:
    """A network card: a port's hardware address and the sockets of its network's switch."""

    mac: str
    sockets: Path


@dataclass(frozen=True, slots=True)
class Image:
    """A baked image of the local cloud: a folder with ``disk.qcow2`` and, for direct boot, ``kernel``, ``initrd``."""

    folder: Path

    @property
    def disk(self) -> Path:
        """Never written to; machines' disks are overlays on it."""
        return self.folder / "disk.qcow2"

    def boot_file(self, name: str) -> str:
        """The path of ``kernel`` or ``initrd``, or an empty string."""
        path = self.folder / name
        return str(path) if path.is_file() else ""


class Machine:
    """One server's files and process. Calls for one machine come one after the other, as Nova makes them.

    Args:
        folder: of this machine alone; a short path, for unix sockets lie in it.
        disk: where its disk lies: in ``folder``, or elsewhere for a volume, which outlives the machine.
    """

    def __init__(self, keeper: Keeper, folder: Path, *, uuid: str, name: str, image: Image) -> None:
        self._keeper = keeper
        self.folder = folder
        self.uuid, self.name = uuid, name
        self._image = image
        self._child: Child | None = None
        self._lock = threading.Lock()

    @property
    def disk(self) -> Path:
        """Its disk, or a link to the volume that is."""
        return self.folder / "disk.qcow2"

    @property
    def seed(self) -> Path:
        """The config drive."""
        return self.folder / "seed.iso"

    @property
    def _monitor(self) -> Path:
        return self.folder / "qmp.sock"

    @property
    def alive(self) -> bool:
        """Whether its QEMU runs."""
        return self._child is not None and self._child.alive

    def create_disk(self, size: int, *, layer: Path | None = None, volume: Path | None = None) -> None:
        """Make its disk: empty over the image, from a snapshot, or a volume as it is.

        Args:
            size: GiB; 0 for the image's own.
            layer: a snapshot's file; it is moved away.
            volume: the file of a boot volume, made if it is not there yet.

        Raises:
            vcluster.errors.CloudError: the disk cannot be made.
            RuntimeError: the snapshot cannot be used.
        """
        self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        if volume is not None:
            volume.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
            if not volume.exists():
                self._overlay(volume, size)
            self.disk.unlink(missing_ok=True)
            self.disk.symlink_to(volume)
        elif layer is not None:
            # A snapshot holds what was changed, without the name of the file it stands on.
            _qemu_img("rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", str(self._image.disk), str(layer))
            shutil.move(layer, self.disk)
            self.disk.chmod(0o600)
        else:
            self._overlay(self.disk, size)

    def _overlay(self, path: Path, size: int) -> None:
        least = -(-_virtual_size(self._image.disk) // (1 << 30))
        work = self.folder / "new"
        work.mkdir(mode=0o700, exist_ok=True)
        vm.create_disk(work, self._image.disk, size or least)
        shutil.move(work / "disk.qcow2", path)
        work.rmdir()

    def save_layer(self, target: Path) -> None:
        """Write the disk's own layer, what is not in the image, to a file that names no other file.

        A running machine stands still while it is copied.

        Raises:
            RuntimeError: it cannot be copied.
        """
        running = self.alive
        if running:
            lab_monitor.execute(self._monitor, "stop")  # which also writes out what QEMU holds in memory
        try:
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", self.disk, target], check=True)
        finally:
            if running:
                lab_monitor.execute(self._monitor, "cont")
        _qemu_img("rebase", "-u", "-f", "qcow2", "-b", "", str(target))

    def start(self, size: Size, cards: Sequence[Card], accel: Accel) -> None:
        """Switch it on. Already on: nothing.

        Raises:
            RuntimeError: QEMU does not start; with its last words.
        """
        with self._lock:
            if self.alive:
                return
            self._fresh_files()
            argv = qemu_argv(
                self._record(size, cards),
                cluster="lab",
                folder=self.folder,
                sockets=self.folder,
                binary=qemu_binary(),
                accel=accel,
                nets=_nets(cards),
            )
            self._child = child = self._keeper.start(f"machine {self.uuid}", argv, self.folder / "qemu.log")
            try:
                lab_monitor.wait_ready(self._monitor, lambda: child.alive, _PATIENCE)
            except MonitorError as error:
                child.end(grace=2.0)
                said = vm.tail(self.folder / "qemu.log", 10)
                raise RuntimeError(f"QEMU of {self.name} does not start: {said or error}") from error

    def power_down(self, grace: float = _GRACE) -> None:
        """Press the power button, wait, and pull the plug when the guest takes too long.

        Args:
            grace: seconds.
        """
        deadline = time.monotonic() + grace
        while (child := self._child) is not None and child.alive and (left := deadline - time.monotonic()) > 0:
            child.wanted = True
            with contextlib.suppress(MonitorError):  # it has just ended
                lab_monitor.execute(self._monitor, "cont")
                lab_monitor.execute(self._monitor, "system_powerdown")
            # A guest that is still booting does not hear it.
            child.gone.wait(min(left, _PRESS_AGAIN))
        self.kill()

    def kill(self) -> None:
        """Pull the plug; QEMU still writes out what it holds. Not running: no error."""
        with self._lock:
            if self._child is not None:
                self._child.end(grace=10.0)
                self._child = None

    def pause(self) -> None:
        """Let it stand still.

        Raises:
            MonitorError: it does not run.
        """
        lab_monitor.execute(self._monitor, "stop")

    def resume(self) -> None:
        """Let it go on.

        Raises:
            MonitorError: it does not run.
        """
        lab_monitor.execute(self._monitor, "cont")

    def console(self) -> bytes:
        """What it wrote to its serial port since it was switched on."""
        try:
            return (self.folder / "console.log").read_bytes()
        except FileNotFoundError:
            return b""

    def remove(self) -> None:
        """End it, and remove its files. A boot volume stays."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _fresh_files(self) -> None:
        for name in ("qmp.sock", "qemu.pid"):
            (self.folder / name).unlink(missing_ok=True)
        for name, content in (("events.in", qmp.HANDSHAKE), ("events.out", b""), ("console.log", b"")):
            (self.folder / name).write_bytes(content)
        for name in ("qemu.log", "events.in", "events.out", "console.log"):
            (self.folder / name).touch()
            (self.folder / name).chmod(0o600)

    def _record(self, size: Size, cards: Sequence[Card]) -> MachineRecord:
        return MachineRecord(
            uuid=self.uuid,
            tag="",
            name=self.name,
            role=Role.WORKER.value,  # whose disk need not survive the host
            group="",
            flavor="",
            cpus=size.cpus,
            memory=size.memory,
            disk=size.disk,
            port="",
            address="",
            mac=cards[0].mac if cards else "",
            image=self._image.folder.name,
            kernel=self._image.boot_file("kernel"),
            initrd=self._image.boot_file("initrd"),
            wish=Wish.RUNNING,
            created=0.0,
        )


def _nets(cards: Sequence[Card]) -> list[str]:
    words: list[str] = []
    for number, card in enumerate(cards):
        words += ["-netdev", f"vde,id=net{number},sock={card.sockets}"]
        words += ["-device", f"virtio-net-pci,netdev=net{number},mac={card.mac},romfile="]
    return words


def _virtual_size(image: Path) -> int:
    with image.open("rb") as file:
        header = file.read(32)
    if header[:4] != b"QFI\xfb":
        raise RuntimeError(f"{image} is no qcow2 image")
    return int.from_bytes(header[24:32], "big")


def _qemu_img(*words: str) -> None:
    done = subprocess.run(
        ["qemu-img", *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=os.environ
    )
    if done.returncode:
        raise RuntimeError(f"qemu-img {words[0]}: {done.stderr.strip()}")
