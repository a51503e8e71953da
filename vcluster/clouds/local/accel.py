"""How machines are run here: natively where that really works, else in software.

That ``/dev/kvm`` exists says little: in some virtual machines it opens, accepts a guest, and then runs an ordinary
64-bit kernel hundreds of times slower than emulation, or not at all. So it is tried, once per boot of the host: a
boot sector enters long mode, counts twenty million rounds and says so on the debug-exit port. Hardware does that
in a tenth of a second and emulation in a third; what takes longer than the limit is of no use.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vcluster.clouds.local.files import private_dir, read_json, write_json
from vcluster.clouds.local.processes import boot_id
from vcluster.errors import PermanentError, UsageError

__all__ = ["QEMU", "Accel", "accelerator", "boot_sector", "qemu_binary"]

QEMU = "qemu-system-x86_64"
"""Machines are x86-64 everywhere; on another processor they are emulated."""

_LIMIT = 5.0
_ANSWER = (0x10 << 1) | 1
"""What QEMU exits with once the guest wrote 0x10 to the debug-exit port."""


@dataclass(frozen=True, slots=True)
class Accel:
    """What ``-accel`` is given, and what the person should know of it."""

    name: str
    detail: str

    @property
    def native(self) -> bool:
        """Whether machines run on the processor itself."""
        return self.name != "tcg"


@cache
def qemu_binary() -> str:
    """The path of QEMU.

    Raises:
        UsageError: it is not installed.
    """
    path = shutil.which(QEMU)
    if path is None:
        raise UsageError(f"{QEMU} is not installed", remedy=install_hint("qemu-system-x86", "qemu"))
    return path


def install_hint(debian: str, brew: str) -> str:
    """How to get a missing tool on this system."""
    if sys.platform == "darwin":
        return f"brew install {brew}"
    return f"sudo apt-get install {debian}"


def accelerator(cache_folder: Path) -> Accel:
    """The fastest accelerator that works. Tried once per boot of the host and version of QEMU, then remembered."""
    names = {"linux": "kvm", "darwin": "hvf"}
    name = names.get(sys.platform)
    if name is None or platform.machine() not in {"x86_64", "AMD64"}:
        return Accel("tcg", f"no accelerator runs x86-64 machines on {platform.machine()} {sys.platform}")
    if name == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        why = "is not there" if not Path("/dev/kvm").exists() else "may not be opened by this user (group kvm)"
        return Accel("tcg", f"/dev/kvm {why}")
    binary = qemu_binary()
    key = f"{boot_id()} {binary} {Path(binary).stat().st_mtime_ns} {os.getuid()}"
    memo = cache_folder / "accel.json"
    with contextlib.suppress(PermanentError):
        known = read_json(memo)
        if known is not None and known.get("key") == key:
            return Accel(str(known["name"]), str(known["detail"]))
    reason = _try(binary, name)
    found = Accel("tcg", f"{name} was tried and {reason}") if reason else Accel(name, f"{name} works")
    with contextlib.suppress(OSError):  # a cache that cannot be written only costs the next run a second
        write_json(private_dir(cache_folder) / "accel.json", {"key": key, "name": found.name, "detail": found.detail})
    return found


def _try(binary: str, name: str) -> str:
    """Empty when it works, else what happened."""
    with tempfile.TemporaryDirectory(prefix="vcluster-") as folder:
        disk = Path(folder, "probe.img")
        disk.write_bytes(boot_sector())
        argv = [binary, "-accel", name, "-machine", "pc", "-m", "16", "-nodefaults", "-no-user-config"]
        argv += ["-display", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        argv += ["-drive", f"file={disk},format=raw,if=floppy"]
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=_LIMIT, check=False, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            return f"ran no 64-bit code within {_LIMIT:.0f} s"
    if done.returncode == _ANSWER:
        return ""
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return f"failed: {lines[-1]}"


def boot_sector() -> bytes:
    """The machine code of ``probe.S``, which lies beside this file, padded to a bootable sector."""
    return bytes.fromhex(_CODE).ljust(510, b"\0") + b"\x55\xaa"


_CODE = """
fa31c08ed88ec08ed0bc007cbf0010b90018fcf3ab66c70600100320000066c70600200330000066c70600308300000066b8
001000000f22d80f20e06683c8200f22e066b9800000c00f32660d000100000f300f0116a07c0f20c0660d010000800f22c0
ea697c0800b9002d3101ffc975fc0f20d80f22d8b9800000c00f32a9000400007407b01066baf400eef4ebfd000000000000
000000000000009a20000f00907c
"""
