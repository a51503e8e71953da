"""The private network of a cluster: one ``vde_switch`` on unix sockets that only its owner may open.

QEMU does not connect again to a switch that died. So a machine's record says which run of the switch it is
connected to; with another run (or none) the machine is off its network, is observed in ERROR, and a reboot mends it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from vcluster.clouds.local import processes
from vcluster.clouds.local.accel import install_hint
from vcluster.clouds.local.processes import Process
from vcluster.errors import PermanentError, TemporaryError, UsageError

__all__ = ["check_socket_path", "choose_cidr", "ensure", "running", "stop"]

_PROGRAM = "vde_switch"

_PORTS = 4096
"""As many as a /20 has addresses; an unused one costs the switch a pointer."""

_LONGEST = 107 if sys.platform == "linux" else 103
"""Bytes that the path of a unix socket may have."""

_BRIEF, _LONG = 5.0, 30.0
"""Seconds after which a switch without its number is told to be dead if no process is there, or else to be late."""

_NAMES = ("net/.4194304-00000", "machines/01234567/qmp.sock")


def check_socket_path(cluster: Path) -> None:
    """See that every socket in a cluster's folder can have its name.

    Raises:
        PermanentError: the folder's path is too long.
    """
    longest = max(len(str(cluster / name).encode()) for name in _NAMES)
    if longest > _LONGEST:
        raise PermanentError(
            f"the path {cluster} is {longest - _LONGEST} bytes too long for the sockets that lie in it",
            remedy="set VCLUSTER_HOME to a shorter path, for example ~/.vc",
        )


def choose_cidr(taken: list[ipaddress.IPv4Network], apart: Iterable[str] = ()) -> str:
    """A /20 that none of the host's own routes leads into, so that a machine can reach what its host can.

    Args:
        taken: where the host's routes lead; where they lead everywhere, they do not count.
        apart: networks that it must not overlap in any case; IPv4.

    Raises:
        UsageError: none is left beside these.
    """
    others = [ipaddress.IPv4Network(network) for network in apart]
    free = [c for c in _private() if not any(c.overlaps(other) for other in others)]
    if not free:
        remedy = "give the pods and services less of them"
        raise UsageError("no private network is left for the machines", remedy=remedy)
    return str(next((c for c in free if not any(c.overlaps(route) for route in taken)), free[0]))


def _private() -> Iterator[ipaddress.IPv4Network]:
    tens = (f"10.{n}" for n in (*range(77, 255), *range(16, 77)))
    return (ipaddress.IPv4Network(f"{two}.0.0/20") for two in (*tens, *(f"172.{n}" for n in range(16, 32)), "192.168"))


def host_routes() -> list[ipaddress.IPv4Network]:
    """Networks that the host routes to, but for the default; empty where that cannot be told."""
    routes = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/route").read_text().splitlines()[1:]:
            words = line.split()
            address, mask = (int.from_bytes(bytes.fromhex(words[n]), "little") for n in (1, 7))
            if mask:
                routes.append(ipaddress.IPv4Network((address, mask.bit_count()), strict=False))
    return routes


def running(sockets: Path) -> Process | None:
    """The cluster's switch, if it runs."""
    with contextlib.suppress(OSError, ValueError):
        # A machine's QEMU has the path in its arguments too, and the number may be its by now.
        return processes.find(int((sockets / "switch.pid").read_text()), str(sockets), program=_PROGRAM)
    return None


def ensure(sockets: Path) -> Process:
    """The cluster's switch, started if it does not run. Call it with the cluster's lock held.

    Raises:
        UsageError: vde_switch is not installed.
        PermanentError: it does not start.
        TemporaryError: the host is too busy.
    """
    found = running(sockets) or processes.find_all({str(sockets)}, program=_PROGRAM).get(str(sockets))
    if found is not None:
        return found
    binary = shutil.which(_PROGRAM)
    if binary is None:
        raise UsageError("vde_switch is not installed", remedy=install_hint("vde2", "vde"))
    for path in sockets.iterdir():  # sockets of the one that died
        path.unlink(missing_ok=True)
    argv = [binary, "--daemon", "--sock", str(sockets), "--pidfile", str(sockets / "switch.pid")]
    argv += ["--numports", str(_PORTS), "--mode", "0600", "--dirmode", "0700", "--rcfile", "/dev/null"]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False, umask=0o077
        )
    except subprocess.TimeoutExpired as error:
        raise TemporaryError("vde_switch did not start within half a minute", delay=10.0) from error
    began = time.monotonic()
    while (found := running(sockets)) is None:
        waited = time.monotonic() - began
        if done.returncode or (waited > _BRIEF and not processes.find_all({str(sockets)}, program=_PROGRAM)):
            raise PermanentError(f"vde_switch does not start: {done.stderr.strip() or f'status {done.returncode}'}")
        if waited > _LONG:
            raise TemporaryError(f"vde_switch has not written its number within {_LONG:.0f} s", delay=10.0)
        time.sleep(0.02)
    return found


def stop(sockets: Path) -> None:
    """End the cluster's switch. Not running: no error. Call it with the cluster's lock held."""
    mark = str(sockets)
    for found in (running(sockets), processes.find_all({mark}, program=_PROGRAM).get(mark)):
        if found is not None:
            processes.kill(found, mark, grace=2.0)
