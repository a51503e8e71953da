"""Which QEMU is whose: a process is known by its owner and by its command line, never by its number alone.

Linux is read from ``/proc``; elsewhere one ``ps`` tells of all processes at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vcluster.errors import TemporaryError

__all__ = ["Process", "boot_id", "find", "find_all", "kill", "machine_id"]

_PROC = Path("/proc")
_PROGRAM = re.compile(r"\S*(qemu-system-|vde_switch)")
_POLL = 0.02
_LINUX: bool = sys.platform == "linux"
_MACOS: bool = sys.platform == "darwin"


@dataclass(frozen=True, slots=True)
class Process:
    """A live process of ours.

    Attributes:
        started: the kernel's word for when it started; with the pid it names one process for a whole host boot.
    """

    pid: int
    started: str
    command: str

    @property
    def run(self) -> str:
        """One word for this very process."""
        return f"{self.pid}:{self.started}"


def boot_id() -> str:
    """A word that changes whenever the host boots."""
    if _LINUX:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return _output(["sysctl", "-n", "kern.bootsessionuuid"])


def machine_id() -> str:
    """The host's own id, or an empty string where it has none."""
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        with contextlib.suppress(OSError):
            if text := path.read_text().strip():
                return text
    if _MACOS:
        return _output(["sysctl", "-n", "kern.uuid"])
    return ""


def find(pid: int, mark: str, *, program: str = "") -> Process | None:
    """The process of this number, if it is ours and one of our programs, and ``mark`` is in its arguments.

    Args:
        program: which of our programs; default any.
    """
    if pid <= 0:
        return None
    process = _read(pid) if _LINUX else next((p for p in _ps() if p.pid == pid), None)
    return process if process is not None and _is(process, program) and mark in process.command else None


def find_all(marks: set[str], *, program: str = "qemu-system-") -> dict[str, Process]:
    """For each mark, a process of ours that runs ``program`` and has the mark in its arguments."""
    found: dict[str, Process] = {}
    for process in _ours():
        if _is(process, program):
            found.update({mark: process for mark in marks if mark in process.command})
    return found


def _is(process: Process, program: str) -> bool:
    return program in process.command.split(" ", 1)[0]


def kill(process: Process, mark: str, *, grace: float) -> None:
    """End a process: asked first, then by force; done when it is gone. A recycled number is never hit.

    Args:
        grace: seconds from SIGTERM to SIGKILL.

    Raises:
        TemporaryError: it is still there some seconds after SIGKILL (it hangs in the kernel).
    """

    def gone() -> bool:
        now = find(process.pid, mark)
        return now is None or now.started != process.started

    with _aim(process, gone) as send:
        send(signal.SIGTERM)
        if _wait(gone, grace):
            return
        send(signal.SIGKILL)
        if not _wait(gone, 10.0):
            raise TemporaryError(f"process {process.pid} does not die", delay=5.0)


@contextlib.contextmanager
def _aim(process: Process, gone: Callable[[], bool]) -> Iterator[Callable[[signal.Signals], None]]:
    if not _LINUX:

        def shoot(number: signal.Signals) -> None:
            if not gone():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)

        yield shoot
        return
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield lambda _number: None
        return
    try:
        # Looked at after the handle was taken: from here on the handle cannot mean another process.
        right = not gone()

        def send(number: signal.Signals) -> None:
            if right:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, number)

        yield send
    finally:
        os.close(handle)


def _wait(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def _ours() -> Iterator[Process]:
    if not _LINUX:
        yield from _ps()
        return
    for entry in os.scandir(_PROC):
        if entry.name.isdigit():
            process = _read(int(entry.name))
            if process is not None:
                yield process


def _read(pid: int) -> Process | None:
    folder = _PROC / str(pid)
    try:
        if folder.stat().st_uid != os.getuid():
            return None
        stat = (folder / "stat").read_text()
        # A process that ended and was not yet reaped has an empty command line, and so is nobody's.
        command = (folder / "cmdline").read_bytes().rstrip(b"\0").decode(errors="replace").replace("\0", " ")
    except OSError:
        return None
    if not _PROGRAM.match(command):  # a person's grep for the same words is not ours to end
        return None
    return Process(pid=pid, started=stat.rsplit(")", 1)[1].split()[19], command=command)


def _ps() -> Iterator[Process]:
    # lstart is five words
    for line in _output(["ps", "-axww", "-o", "pid=,uid=,lstart=,command="]).splitlines():
        words = line.split()
        command = " ".join(words[7:])
        if words[1] == str(os.getuid()) and _PROGRAM.match(command):
            yield Process(pid=int(words[0]), started="-".join(words[2:7]), command=command)


def _output(argv: list[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
