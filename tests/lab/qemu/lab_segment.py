"""A tenant network of the lab: a switch, and a router with the subnet's gateway address.

The switch is ``vde_switch``, as in the local cloud. The router is a QEMU without a machine: a hub that joins the
switch with QEMU's user-mode network stack, which has the gateway's address on this segment. Machines reach the world
through it, and a floating IP is an address of the host's own loopback network from which it forwards to the machine.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import shutil
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import lab_monitor
from lab_keeper import Child, Keeper
from lab_monitor import MonitorError

__all__ = ["Segment", "router_argv"]

_LOG = logging.getLogger("nova.virt.lab_qemu")
_PATIENCE = 300.0
"""Seconds for a process to answer; two busy processors can be slow."""


def router_argv(*, binary: str, sockets: Path, cidr: str, gateway: str, monitor: Path) -> list[str]:
    """The command of a network's router.

    Args:
        cidr: of the tenant's subnet.
        gateway: its address for the gateway; empty when it has none.
    """
    net = ipaddress.IPv4Network(cidr)
    # The stack answers for these three addresses. Neutron gives out the highest ones last.
    last = int(net.broadcast_address) - 1
    spare = [str(ipaddress.IPv4Address(last - n)) for n in range(3)]
    host, dns, dhcp = [gateway, *(address for address in spare if address != gateway)][:3] if gateway else spare
    user = f"user,id=user,ipv6=off,net={net},host={host},dns={dns},dhcpstart={dhcp}"
    argv = [binary, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "none", "-accel", "tcg"]
    argv += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    argv += ["-netdev", f"vde,id=segment,sock={sockets}", "-netdev", user]
    argv += ["-netdev", "hubport,id=port0,hubid=0,netdev=segment", "-netdev", "hubport,id=port1,hubid=0,netdev=user"]
    return [*argv, "-qmp", f"unix:{monitor},server=on,wait=off"]


class Segment:
    """One network's switch and router, started once something is on it. Any thread may call.

    Args:
        folder: of this segment alone; a short path, for unix sockets lie in it.
        ports: of each floating IP, forwarded to the machine.
    """

    def __init__(self, keeper: Keeper, folder: Path, *, cidr: str, gateway: str, ports: Sequence[int]) -> None:
        self._keeper = keeper
        self._folder = folder
        self._cidr, self._gateway = cidr, gateway
        self._ports = tuple(ports)
        self._lock = threading.Lock()
        self._switch: Child | None = None
        self._router: Child | None = None
        self._forwards: dict[str, str] = {}
        self.users: set[str] = set()

    @property
    def sockets(self) -> Path:
        """Where the switch listens."""
        return self._folder / "switch"

    @property
    def _monitor(self) -> Path:
        return self._folder / "router.sock"

    @property
    def forwards(self) -> dict[str, str]:
        """Floating address to fixed address, as forwarded now."""
        with self._lock:
            return dict(self._forwards)

    def ensure(self, binary: str) -> None:
        """Have switch and router running.

        Args:
            binary: QEMU's path.

        Raises:
            RuntimeError: one of them does not start.
        """
        with self._lock:
            if self._switch is None or not self._switch.alive:
                self._stop()
                self._start_switch()
            if self._router is None or not self._router.alive:
                self._start_router(binary)

    def _start_switch(self) -> None:
        program = shutil.which("vde_switch")
        if program is None:
            raise RuntimeError("vde_switch is not installed (Debian: vde2)")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, mode=0o700)
        argv = [program, "--sock", str(self.sockets), "--mode", "0600", "--dirmode", "0700", "--numports", "4096"]
        argv += ["--rcfile", "/dev/null"]
        log = self._folder / "switch.log"
        self._switch = self._keeper.start(f"switch {self._folder.name}", argv, log)
        deadline = time.monotonic() + _PATIENCE
        while not _listens(self.sockets / "ctl"):
            if not self._switch.alive or time.monotonic() > deadline:
                raise RuntimeError(f"vde_switch does not start: {log.read_text()[-500:]}")
            time.sleep(0.02)

    def _start_router(self, binary: str) -> None:
        argv = router_argv(
            binary=binary, sockets=self.sockets, cidr=self._cidr, gateway=self._gateway, monitor=self._monitor
        )
        log = self._folder / "router.log"
        router = self._keeper.start(f"router {self._folder.name}", argv, log)
        try:
            lab_monitor.wait_ready(self._monitor, lambda: router.alive, _PATIENCE)
        except MonitorError as error:
            raise RuntimeError(f"the router does not start: {error}: {log.read_text()[-500:]}") from error
        self._router, self._forwards = router, {}

    def forward(self, wanted: Mapping[str, str]) -> None:
        """Make the floating addresses those that are wanted; what cannot be done now is tried again at the next call.

        Args:
            wanted: floating address to fixed address.
        """
        with self._lock:
            if self._router is None or not self._router.alive:
                return
            for floating, fixed in list(self._forwards.items()):
                if wanted.get(floating) != fixed and self._all("remove", floating):
                    del self._forwards[floating]
            for floating, fixed in wanted.items():
                if floating not in self._forwards and self._all("add", floating, fixed):
                    self._forwards[floating] = fixed
                    _LOG.info("floating IP %s leads to %s", floating, fixed)

    def _all(self, verb: str, floating: str, fixed: str = "") -> bool:
        # A half-done addition is undone by what precedes the next: a removal of what is not there does nothing.
        good = True
        for port in self._ports:
            rule = f"tcp:{floating}:{port}" + (f"-{fixed}:{port}" if fixed else "")
            try:
                if verb == "add":
                    lab_monitor.human(self._monitor, f"hostfwd_remove user tcp:{floating}:{port}")
                said = lab_monitor.human(self._monitor, f"hostfwd_{verb} user {rule}")
            except MonitorError as error:
                said = f"Could not: {error}"
            if said.startswith("Could not"):
                _LOG.warning("floating IP: hostfwd_%s %s: %s", verb, rule, said)
                good = False
        return good

    def stop(self) -> None:
        """End both. Not running: no error."""
        with self._lock:
            self._stop()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _stop(self) -> None:
        for child in (self._router, self._switch):
            if child is not None:
                child.end(grace=3.0)
        self._router = self._switch = None
        self._forwards = {}


def _listens(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
        return True
    return False
