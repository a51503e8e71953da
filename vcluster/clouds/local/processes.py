"""Which QEMU is whose: a process is known by its owner and by its command line, never by its number alone.

Linux is read from ``/proc``; elsewhere one ``ps`` tells of all processes at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vcluster.errors import TemporaryError

__all__ = ["LAUNCH", "Process", "boot_id", "find", "find_all", "kill", "machine_id"]

LAUNCH = ("/bin/sh", "-c", '"$@" </dev/null &', "qemu-system-launcher")
"""The words before those of a QEMU that shall run on its own.

The last one is the shell's ``$0``, by which it is found: until it becomes QEMU it may be the only trace of what begins.
"""

_PROC = Path("/proc")
_PROGRAM = re.compile(r"\S*(qemu-system-|vde_switch)")
_POLL = 0.02
_EXEC = 0.2
"""Seconds within which a process that executes a program has its arguments again: milliseconds on an idle host."""

_EXEC_POLL = 0.001
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
    """End a process: asked first, then by force; done when it is gone. On Linux a recycled number is never hit.

    Args:
        grace: seconds from SIGTERM to SIGKILL.

    Raises:
        TemporaryError: it is still there some seconds after SIGKILL (it hangs in the kernel).
    """
    with _aim(process, mark) as target:
        if target is None:
            return
        target.send(signal.SIGTERM)
        if target.ended(grace):
            return
        target.send(signal.SIGKILL)
        if not target.ended(10.0):
            raise TemporaryError(f"process {process.pid} does not die", delay=5.0)


class _Target(Protocol):
    """A process to be ended."""

    def send(self, number: signal.Signals) -> None: ...

    def ended(self, seconds: float) -> bool:
        """Wait so long for its end; whether it came."""


@contextlib.contextmanager
def _aim(process: Process, mark: str) -> Iterator[_Target | None]:
    """The process, unless it has ended."""
    if not _LINUX:
        yield _ByNumber(process, mark)
        return
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # Looked at after the handle was taken: from here on the handle cannot mean another process.
        now = find(process.pid, mark)
        yield _ByHandle(handle) if now is not None and now.started == process.started else None
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True)
class _ByHandle:
    """Linux: a pidfd, which means no other process, and tells the end once all files are closed.

    The arguments are gone long before, and a disk that is still locked would keep the next QEMU from it.
    """

    handle: int

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, number)

    def ended(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self.handle, select.POLLIN)
        return bool(poll.poll(seconds * 1000))


@dataclass(frozen=True, slots=True)
class _ByNumber:
    """Elsewhere: looked at before each signal."""

    process: Process
    mark: str

    def send(self, number: signal.Signals) -> None:
        if not self._gone():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def ended(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self._gone():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL)
        return True

    def _gone(self) -> bool:
        now = find(self.process.pid, self.mark)
        return now is None or now.started != self.process.started


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
        about, words = _told(folder)
    except OSError:
        return None
    if len(words) > len(LAUNCH) and words[1] == LAUNCH[1] and words[3] == LAUNCH[3] and words[0].endswith("sh"):
        words = words[3:]
    command = _ours_alone(" ".join(words))
    return Process(pid=pid, started=about[19], command=command) if command else None


def _told(folder: Path) -> tuple[list[str], list[str]]:
    """What ``stat`` says from the state on, and the arguments.

    These are empty while a program is executed, and then are read again. They stay empty of a process that has ended
    and was not reaped yet, which is nobody's, as of the kernel's own: neither has memory.
    """
    deadline = 0.0
    while True:
        # A name may have any bytes, and a bracket.
        about = (folder / "stat").read_bytes().rsplit(b")", 1)[1].decode().split()
        line = (folder / "cmdline").read_bytes()
        now = time.monotonic()
        deadline = deadline or now + _EXEC
        if line or about[20] == "0" or now > deadline:
            return about, line.rstrip(b"\0").decode(errors="replace").split("\0")
        time.sleep(_EXEC_POLL)


def _ours_alone(command: str) -> str:
    """The command line, or nothing: a person's grep for the same words is not ours to end."""
    return command if _PROGRAM.match(command) else ""


def _ps() -> Iterator[Process]:
    # lstart is five words
    for line in _output(["ps", "-axww", "-o", "pid=,uid=,lstart=,command="]).splitlines():
        words = line.split()
        text = " ".join(words[7:]).removeprefix(" ".join(LAUNCH[:3]) + " ")
        if words[1] == str(os.getuid()) and (command := _ours_alone(text)):
            yield Process(pid=int(words[0]), started="-".join(words[2:7]), command=command)


def _output(argv: list[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
