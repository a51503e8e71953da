"""The command line of a machine's QEMU. Pure: a record and paths in, words out; never a secret among them.

What was chosen, and why:

- ``q35`` for all: it boots Debian's kernel in emulation, given to it or from an image's own disk. ``microvm`` was
  tried in one configuration, in which it did not.
- ``-cpu Nehalem`` in emulation: the x86-64-v2 level that today's distributions and wheels ask for, and none of the
  later features (AVX, five-level pages) that software is slow at.
- ``cache=writeback`` for the head: what the guest flushed survives the host's crash, and the databases and the
  home lie there. ``cache=unsafe`` for workers, which are replaced and not repaired.
- The whole sandbox: what breaks out of a guest into its QEMU starts no program and gains no privilege.
- ``-action`` stays at its defaults: a guest that powers off ends its QEMU. Which of the two it was is told by
  a second QMP monitor, whose output is a file: it holds every event, the last one included.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vcluster.clouds.local.accel import Accel
from vcluster.clouds.local.records import MachineRecord, mac_of
from vcluster.model import Role

__all__ = ["EMULATION_OVERHEAD", "OVERHEAD", "qemu_argv"]

TB_SIZE = 256
"""MiB for translated code; QEMU's own default is 1024 for each machine, which is a lot for forty."""

OVERHEAD = 120
"""MiB that a QEMU takes beside its guest's memory."""

EMULATION_OVERHEAD = TB_SIZE
"""MiB on top of that in emulation."""


def qemu_argv(
    record: MachineRecord,
    *,
    cluster: str,
    folder: Path,
    sockets: Path,
    binary: str,
    accel: Accel,
    nets: Sequence[str] | None = None,
) -> list[str]:
    """Every word of the command.

    Args:
        folder: the machine's.
        sockets: where the cluster's switch listens.
        nets: words for its network cards, in place of a local cluster's two.
    """
    argv = [binary, "-name", f"{cluster}/{record.name}", "-uuid", record.uuid]
    argv += ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35,vmport=off,smm=off"]
    if accel.native:
        argv += ["-accel", accel.name, "-cpu", "host"]
    else:
        argv += ["-accel", f"tcg,thread=multi,tb-size={TB_SIZE}", "-cpu", "Nehalem"]
    argv += ["-smp", str(record.cpus), "-m", str(record.memory), "-rtc", "base=utc"]
    argv += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    argv += _boot(record, accel) + _disks(record, folder)
    argv += _nets(record, sockets) if nets is None else nets
    argv += ["-device", "virtio-rng-pci"]
    argv += ["-chardev", f"file,id=console,path={_quote(folder / 'console.log')},append=on"]
    argv += ["-serial", "chardev:console"]
    argv += ["-chardev", f"socket,id=qmp,path={_quote(folder / 'qmp.sock')},server=on,wait=off"]
    argv += ["-mon", "chardev=qmp,mode=control"]
    # A "pipe" whose two ends are ordinary files: events.in holds the one handshake that makes QEMU send events.
    argv += ["-chardev", f"pipe,id=events,path={_quote(folder / 'events')}", "-mon", "chardev=events,mode=control"]
    return [*argv, "-pidfile", str(folder / "qemu.pid")]


def _boot(record: MachineRecord, accel: Accel) -> list[str]:
    if not record.kernel:
        return []
    words = ["root=/dev/vda", "rw", "console=ttyS0", "quiet", "loglevel=4", "panic=10"]
    if not accel.native:
        # Software has no speculation to guard against. Its clock is the HPET: on a busy host the kernel measures the
        # TSC's frequency wrong (397 MHz for 2298 MHz was seen), and the machine's clock then runs six times too fast.
        words += ["mitigations=off", "clocksource=hpet", "tsc=unstable", "no_timer_check"]
    boot = ["-kernel", record.kernel, "-append", " ".join(words)]
    return boot + (["-initrd", record.initrd] if record.initrd else [])


def _disks(record: MachineRecord, folder: Path) -> list[str]:
    cache = "writeback" if record.role == Role.HEAD else "unsafe"
    # A full host disk pauses the machine (werror=enospc) instead of telling its file system of a broken disk.
    return [
        "-drive",
        f"file={_quote(folder / 'disk.qcow2')},if=none,id=disk,format=qcow2,cache={cache},"
        "discard=unmap,detect-zeroes=unmap,werror=enospc",
        "-device",
        "virtio-blk-pci,drive=disk,bootindex=1",
        "-drive",
        f"file={_quote(folder / 'seed.iso')},if=none,id=seed,format=raw,readonly=on",
        "-device",
        "virtio-blk-pci,drive=seed",
    ]


def _nets(record: MachineRecord, sockets: Path) -> list[str]:
    # IPv6 off: the host's loopback would be reachable a second way. romfile empty: nobody boots from the network.
    user = "user,id=outside,ipv6=off"
    if record.ssh_port:
        user += f",hostfwd=tcp:127.0.0.1:{record.ssh_port}-:22"
    user += "".join(f",hostfwd=tcp:127.0.0.1:{host}-:{port}" for port, host in record.doors if host)
    return [
        "-netdev",
        f"vde,id=private,sock={_quote(sockets)}",
        "-device",
        f"virtio-net-pci,netdev=private,mac={record.mac},romfile=",
        "-netdev",
        user,
        "-device",
        f"virtio-net-pci,netdev=outside,mac={mac_of(record.address, outside=True)},romfile=",
    ]


def _quote(path: Path) -> str:
    """A comma ends a QEMU option unless it is doubled."""
    return str(path).replace(",", ",,")
