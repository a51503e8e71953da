"""One machine's QEMU: its files, its start, its end, and what it looks like from outside."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from vcluster.clouds.base import BOOT_MARK
from vcluster.clouds.local import processes, qmp, switch
from vcluster.clouds.local.accel import Accel, install_hint, qemu_binary
from vcluster.clouds.local.argv import qemu_argv
from vcluster.clouds.local.files import is_locked, write_atomic
from vcluster.clouds.local.processes import Process
from vcluster.clouds.local.records import ClusterFolder, MachineRecord, Wish
from vcluster.errors import (
    CloudError,
    ConflictError,
    PermanentError,
    QuotaError,
    TemporaryError,
    UsageError,
    disk_error,
)
from vcluster.model import Role

__all__ = ["create_disk", "end", "launch", "power_down", "process_of", "resume", "tail"]

_BEGINS = "begins"
"""The file that a shell holds locked which is about to have a child that becomes QEMU."""

_START = 60.0
_POLL = 0.02
_SETTLE = 1.0
"""Seconds within which a machine that goes on is paused again, if the disk is still full."""

_CONSOLE_MOST, _CONSOLE_KEPT = 4 << 20, 1 << 20
"""Bytes of a console's log above which a boot cuts it, and of its end that are kept then."""

_PORT_RANGE = range(20000, 30000)
"""Below the range from which the host picks its own outgoing ports, so that a stopped head keeps its port."""

_PORT_TRIES = 5


def process_of(folder: Path, record: MachineRecord) -> Process | None:
    """The machine's QEMU, looked for by its pid file alone."""
    with contextlib.suppress(OSError, ValueError):
        return processes.find(int((folder / "qemu.pid").read_text()), record.uuid, program="qemu-system-")
    return None


def create_disk(folder: Path, base: Path, size: int) -> None:
    """A qcow2 overlay of ``size`` GiB on an image.

    Raises:
        UsageError: qemu-img is not installed.
        PermanentError: the image is missing, unreadable or larger than the disk.
        QuotaError: the host's disk is full.
        TemporaryError: the host is too busy.
    """
    binary = shutil.which("qemu-img")
    if binary is None:
        raise UsageError("qemu-img is not installed", remedy=install_hint("qemu-utils", "qemu"))
    kind, least = _format(base)
    if least > size << 30:
        raise PermanentError(
            f"the image {base.name} is {least / (1 << 30):.1f} GiB large, the flavor's disk {size} GiB",
            remedy="choose a flavor with a larger disk",
        )
    argv = [binary, "create", "-q", "-f", "qcow2", "-F", kind, "-b", str(base)]
    argv += [str(folder / "disk.qcow2"), f"{size}G"]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, umask=0o077
        )
    except subprocess.TimeoutExpired as error:
        raise TemporaryError("qemu-img did not make the machine's disk within a minute", delay=10.0) from error
    if done.returncode:
        raise _refused("qemu-img cannot make the machine's disk", done.stderr)


def _format(image: Path) -> tuple[str, int]:
    """An image's format, and the bytes of the disk that it holds. Whether it may be used was seen when it was had."""
    try:
        with image.open("rb") as file:
            header = file.read(32)
            size = file.seek(0, 2)
    except OSError as error:
        raise disk_error(error, "cannot read the image") from error
    if header[:4] != b"QFI\xfb":
        return "raw", size
    if len(header) < 32:
        raise PermanentError(f"the image {image} is cut off")
    return "qcow2", int(struct.unpack(">Q", header[24:32])[0])


def launch(folder: ClusterFolder, record: MachineRecord, accel: Accel) -> MachineRecord:
    """Start a machine's QEMU. The record says so before it starts. Call it with the machine's lock held.

    Raises:
        PermanentError: QEMU does not start; with its last words.
        QuotaError: for want of memory or disk.
        TemporaryError: the host is too busy.
    """
    path = folder.machine_path(record.uuid)
    end(path, record)  # what a vcluster that was killed just then may have begun
    tries = _PORT_TRIES
    while True:
        with folder.lock() as there:
            if not there:
                raise ConflictError(f"cluster {folder.ref.name!r} is gone")
            run = switch.ensure(folder.sockets).run
        if record.role == Role.HEAD and not _port_free(record.ssh_port):
            record = replace(record, ssh_port=_choose_port())
        record = replace(record, doors=_free_doors(record))
        record = replace(record, wish=Wish.RUNNING, boot_id=processes.boot_id(), switch=run, started=time.time())
        try:
            _fresh_files(path)
            folder.save(record)
            argv = qemu_argv(
                record, cluster=folder.ref.name, folder=path, sockets=folder.sockets, binary=qemu_binary(), accel=accel
            )
            started = _start(path, argv)
        except BlockingIOError as error:  # no process can be made now
            raise TemporaryError(f"cannot start {record.name}: {error.strerror}", delay=10.0) from error
        except OSError as error:
            raise disk_error(error, f"cannot start {record.name}") from error
        if started:
            return record
        hangs = record.uuid in processes.find_all({record.uuid})
        end(path, record)
        if hangs:
            raise TemporaryError(f"QEMU of {record.name} did not start within {_START:.0f} s", delay=10.0)
        said = tail(path / "qemu.log", 10)
        if 'Failed to get "write" lock' in said:  # of its last run, which is still closing its files
            raise TemporaryError(f"the disk of {record.name} is in use still", delay=5.0)
        tries -= 1
        if "host forwarding rule" not in said or not tries:
            raise _refused(f"QEMU of {record.name} does not start", said)
        doors = tuple((port, 0) for port, _ in record.doors)
        record = replace(record, ssh_port=0, doors=doors)  # somebody took a port in between: others


def _start(path: Path, argv: list[str]) -> bool:
    """Run QEMU on its own; whether it came to the point at which it runs its guest and answers.

    Not by ``-daemonize``, which the stricter sandbox forbids: a shell puts it into the background and ends, so that
    the system's first process is its parent, and no terminal's Ctrl-C reaches it. It keeps the end of a pipe; that
    the pipe closes tells at once that QEMU ended.

    Raises:
        TemporaryError: the shell could not begin it.
    """
    here, there = os.pipe()
    try:
        with (path / "qemu.log").open("ab") as log, (path / _BEGINS).open("rb") as begins:
            fcntl.flock(begins, fcntl.LOCK_EX)
            subprocess.run(
                [*processes.LAUNCH, *argv],
                stdin=begins,  # the lock is free once the child is there, whoever is killed meanwhile
                stdout=log,
                stderr=log,
                pass_fds=(there,),
                start_new_session=True,
                umask=0o077,
                cwd="/",
                check=True,
            )
    except subprocess.CalledProcessError as error:
        os.close(here)
        raise TemporaryError(f"the shell cannot start QEMU: it ended with {error.returncode}", delay=10.0) from error
    except BaseException:
        os.close(here)
        raise
    finally:
        os.close(there)
    deadline = time.monotonic() + _START
    try:
        while time.monotonic() < deadline:
            if qmp.answered(path / "events.out"):
                return True
            if select.select([here], [], [], _POLL)[0]:
                return qmp.answered(path / "events.out")  # it ran, and its guest was very quick to power off
    finally:
        os.close(here)
    return False


def _fresh_files(path: Path) -> None:
    for name in ("qmp.sock", "qemu.pid", "qemu.log"):
        (path / name).unlink(missing_ok=True)
    write_atomic(path / "events.in", qmp.HANDSHAKE)
    write_atomic(path / "events.out", b"")
    for name in ("qemu.log", "console.log", _BEGINS):  # made here for the mask
        (path / name).touch(mode=0o600)
    if (path / "console.log").stat().st_size > _CONSOLE_MOST:
        with (path / "console.log").open("rb") as long:
            long.seek(-_CONSOLE_KEPT, os.SEEK_END)
            kept = long.read()
        write_atomic(path / "console.log", kept)
    with (path / "console.log").open("a") as console:
        console.write(f"{BOOT_MARK} {time.strftime('%Y-%m-%d %H:%M:%S %z')}\n")


def _refused(what: str, said: str) -> CloudError:
    text = f"{what}:\n{said.strip()}"
    if any(word in said for word in ("No space left", "Cannot allocate memory", "Disk quota exceeded")):
        return QuotaError(text, remedy="make room on this machine")
    return PermanentError(text)


def _free_doors(record: MachineRecord) -> tuple[tuple[int, int], ...]:
    """The machine's doors, each at a port of the host's that is free; it stays the one that it was where that is."""
    taken, doors = {record.ssh_port}, []
    for port, before in record.doors:
        host = before
        while host in taken or not _port_free(host):
            host = _choose_port()
        taken.add(host)
        doors.append((port, host))
    return tuple(doors)


def _choose_port() -> int:
    for port in random.sample(_PORT_RANGE, 200):
        if _port_free(port):
            return port
    raise TemporaryError("no free port on the loopback interface for the head", delay=10.0)


def _port_free(port: int) -> bool:
    if not port:
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as QEMU does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def power_down(path: Path, record: MachineRecord, *, grace: float) -> None:
    """Press the power button, wait, and pull the plug when the guest takes too long."""
    deadline = time.monotonic() + grace
    if process_of(path, record) is not None and qmp.power_down(path / "qmp.sock"):
        pressed = time.monotonic()
        while process_of(path, record) is not None and time.monotonic() < deadline:
            if time.monotonic() - pressed > 15:  # a guest that was still booting did not hear it
                pressed = time.monotonic()
                qmp.power_down(path / "qmp.sock")
            time.sleep(0.1)
    end(path, record)


def resume(folder: ClusterFolder, record: MachineRecord) -> bool:
    """Let a machine go on that the host's full disk paused: nothing of it is lost, as a reset would lose it.

    Returns:
        Whether it runs again. False also when it was not paused, or is off its network and so needs a reset.

    Raises:
        QuotaError: the host's disk is still full; the machine stays paused.
    """
    path = folder.machine_path(record.uuid)
    run = switch.running(folder.sockets)
    if not qmp.read_events(path / "events.out").stuck or run is None or run.run != record.switch:
        return False
    if process_of(path, record) is None or not qmp.resume(path / "qmp.sock"):
        return False
    deadline = time.monotonic() + _SETTLE
    stuck = ""
    while not stuck and time.monotonic() < deadline:  # the writes that failed are tried at once
        time.sleep(_POLL)
        stuck = qmp.read_events(path / "events.out").stuck
    if stuck == qmp.FULL:
        raise QuotaError(f"{record.name} is paused: {stuck}", remedy="make room on this disk, then run it again")
    return not stuck


def _settle(path: Path) -> None:
    """Return when no shell is about to begin a machine's QEMU any more: one whose vcluster was killed may still be."""
    deadline = time.monotonic() + _START
    while is_locked(path, _BEGINS) and time.monotonic() < deadline:
        time.sleep(_POLL)


def end(path: Path, record: MachineRecord) -> None:
    """End a machine's QEMU, wherever it is, at once. Not running: no error."""
    _settle(path)
    known = process_of(path, record)
    if known is not None:
        processes.kill(known, record.uuid, grace=5.0)
    # Started, and its pid file not written or lost; a shell that begins it has a child that is it.
    while (stray := processes.find_all({record.uuid}).get(record.uuid)) is not None:
        processes.kill(stray, record.uuid, grace=5.0)


def tail(path: Path, lines: int) -> str:
    """The last lines of a text file, at most 256 KiB; empty when it is not there."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - (256 << 10)))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.replace("\r", "").splitlines()[-lines:]) if lines > 0 else ""
