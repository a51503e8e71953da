"""Is this host able to run the local cloud? What is missing, and how to get it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from vcluster.clouds.local import accel, room
from vcluster.clouds.local.argv import EMULATION_OVERHEAD, OVERHEAD
from vcluster.clouds.local.switch import check_socket_path
from vcluster.errors import VclusterError
from vcluster.places import cache_root, state_root

__all__ = ["Check", "checks"]

_LEAST_QEMU = (6, 2)
"""``-sandbox`` beside ``-daemonize``, ``vde`` and the events of ``BLOCK_IO_ERROR`` as they are read here."""

_DEMO = 3
"""Machines of the smallest useful cluster: a head and two workers."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of ``vcluster doctor``.

    Attributes:
        ok: False when the local cloud cannot work without it; a slow or small host is still ok, and ``detail`` says so.
        detail: what was found.
        remedy: how to get what is missing, or how it would be faster; empty when there is nothing to do.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def checks() -> list[Check]:
    """Try everything that the local cloud needs; never raises for what is missing."""
    return [
        _python(),
        _qemu(),
        _qemu_img(),
        _switch(),
        _builder(),
        _namespaces(),
        _accelerator(),
        _memory(),
        _disk(),
        _paths(),
    ]


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    ok = sys.version_info >= (3, 11)
    return Check("python", ok, version, "" if ok else "Python 3.11 or later: sudo apt-get install python3")


def _qemu() -> Check:
    remedy = accel.install_hint("qemu-system-x86", "qemu")
    try:
        binary = accel.qemu_binary()
    except VclusterError as error:
        return Check("qemu", ok=False, detail=error.message, remedy=error.remedy)
    said = _run([binary, "--version"])
    found = re.search(r"version (\d+)\.(\d+)", said)
    if found is None:
        return Check("qemu", ok=False, detail=f"{binary} does not run: {said}", remedy=remedy)
    version = (int(found[1]), int(found[2]))
    if version < _LEAST_QEMU:
        least = ".".join(str(part) for part in _LEAST_QEMU)
        return Check("qemu", ok=False, detail=f"{found[0]} is too old", remedy=f"QEMU {least} or later")
    lacks = [what for what in ("vde", "user") if what not in _run([binary, "-netdev", "help"]).split()]
    if lacks:
        remedy = "a QEMU that is built with vde and slirp, as Debian's and Homebrew's are"
        return Check("qemu", ok=False, detail=f"{binary} has no -netdev {', '.join(lacks)}", remedy=remedy)
    return Check("qemu", ok=True, detail=f"{binary}, {found[0]}")


def _tool(name: str, debian: str, brew: str) -> Check:
    path = shutil.which(name)
    if path is None:
        return Check(name, ok=False, detail="not installed", remedy=accel.install_hint(debian, brew))
    return Check(name, ok=True, detail=path)


def _qemu_img() -> Check:
    return _tool("qemu-img", "qemu-utils", "qemu")


def _switch() -> Check:
    return _tool("vde_switch", "vde2", "vde")


def _builder() -> Check:
    """The default image's builder, mmdebstrap; without it an image can still be named in the spec."""
    if sys.platform != "linux":
        return Check("mmdebstrap", ok=True, detail="not on this system", remedy="name an image in the spec (`image:`)")
    return _tool("mmdebstrap", "mmdebstrap", "")


def _namespaces() -> Check:
    """As an ordinary user, mmdebstrap works in a user namespace with a range of ids."""
    name = "user namespaces"
    if sys.platform != "linux":
        return Check(name, ok=True, detail="not needed on this system")
    if os.getuid() == 0:
        return Check(name, ok=True, detail="not needed by root")
    if shutil.which("newuidmap") is None:
        return Check(name, ok=False, detail="newuidmap is not installed", remedy=accel.install_hint("uidmap", ""))
    said = _run(["unshare", "--user", "--map-auto", "--map-root-user", "true"])
    if said:
        remedy = "a range of ids in /etc/subuid and /etc/subgid (usermod --add-subuids), "
        remedy += "and `sysctl kernel.unprivileged_userns_clone=1` or an AppArmor profile where the system closes them"
        return Check(name, ok=False, detail=said.splitlines()[-1], remedy=remedy)
    return Check(name, ok=True, detail="usable")


def _accelerator() -> Check:
    try:
        found = accel.accelerator(cache_root())
    except (VclusterError, OSError) as error:
        return Check("acceleration", ok=False, detail=str(error).splitlines()[0], remedy="install QEMU first")
    if found.native:
        return Check("acceleration", ok=True, detail=found.detail)
    remedy = "a host with hardware virtualisation (a cloud's machine: one with nested virtualisation)"
    if Path("/dev/kvm").exists() and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        remedy = "sudo usermod -aG kvm $USER, then log in again"
    return Check("acceleration", ok=True, detail=f"software emulation, slow: {found.detail}", remedy=remedy)


def _memory() -> Check:
    free = room.free_memory()
    if free is None:
        return Check("memory", ok=True, detail="cannot be told on this system")
    need = _DEMO * (room.FLAVORS["small"].memory + OVERHEAD + EMULATION_OVERHEAD) + room.MEMORY_RESERVE
    ok = free >= need
    detail = f"{free} MiB available; a head and two workers of flavor small ask for {need} MiB"
    return Check("memory", ok, detail, "" if ok else "end other programs, or ask for fewer or smaller machines")


def _disk() -> Check:
    places = {"state": (state_root(), _DEMO * room.USUAL_DISK + room.DISK_RESERVE), "images": (cache_root(), 4)}
    details, ok = [], True
    for what, (path, need) in places.items():
        free = room.free_disk(path)
        ok = ok and free >= need
        details.append(f"{what} {path}: {free:.0f} GiB free, {need} GiB of use")
    return Check("disk", ok, "; ".join(details), "" if ok else "set VCLUSTER_HOME and VCLUSTER_CACHE to a larger disk")


def _paths() -> Check:
    root, cache = state_root(), cache_root()
    try:
        check_socket_path(root / "local" / ("0" * 10))
    except VclusterError as error:
        return Check("folders", ok=False, detail=error.message, remedy=error.remedy)
    for path, variable in ((root, "VCLUSTER_HOME"), (cache, "VCLUSTER_CACHE")):
        there = next(folder for folder in (path, *path.parents) if folder.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            remedy = f"set {variable} to a folder that you may write to"
            return Check("folders", ok=False, detail=f"{there} may not be written to", remedy=remedy)
    return Check("folders", ok=True, detail=f"state {root}, images {cache}")


def _run(argv: list[str]) -> str:
    """What a command says, on either stream; an error in words when it cannot be run."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return f"{done.stdout}{done.stderr}".strip()
