"""Where a lab's things lie, which ports its services have, and what they are called."""

from __future__ import annotations

import json
import os
import socket
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

#: The services by the name that tests use, in the order in which they are listed.
SERVICES = ("identity", "image", "placement", "compute", "network", "volume")

#: Hosts of Nova's. The last is in zone ``zone-b`` and never runs real machines, whatever the others do.
COMPUTES = tuple(f"compute{number}" for number in range(1, 4))
ZONES = {"nova": COMPUTES[:-1], "zone-b": COMPUTES[-1:]}

#: Region whose catalogue holds the services' own addresses, and the one whose catalogue holds the proxy's.
DIRECT, FAULTY = "RegionOne", "Faulty"

#: What follows a service's address in the catalogue.
PATHS = {
    "identity": "/v3",
    "image": "",
    "placement": "",
    "compute": "/v2.1",
    "network": "",
    "volume": "/v3/%(project_id)s",
}


@dataclass(frozen=True)
class Layout:
    """All that the lab's parts must agree on; ``lab.json`` in the lab's folder holds it while the lab is there."""

    root: Path
    ports: dict[str, int]
    """Loopback port by service."""
    proxy_ports: dict[str, int]
    """Loopback port by service that region ``Faulty`` names; nobody listens there until a proxy does."""
    password: str = field(repr=False)
    """Of every user: a lab is made and thrown away."""
    machines: str = "fake"
    """What stands behind Nova: ``fake`` or ``qemu``."""
    owner: int = field(default_factory=os.getpid)
    """Process that ends the lab, and with which the lab ends."""

    def path(self, *parts: str) -> Path:
        return self.root.joinpath(*parts)

    def url(self, service: str) -> str:
        """Where a service itself listens, without a path."""
        return f"http://127.0.0.1:{self.ports[service]}"

    def proxy_url(self, service: str) -> str:
        """Where a proxy in front of a service is expected, without a path."""
        return f"http://127.0.0.1:{self.proxy_ports[service]}"

    def auth_url(self, region: str = DIRECT) -> str:
        return (self.url if region == DIRECT else self.proxy_url)("identity") + PATHS["identity"]

    def save(self) -> None:
        """Write ``lab.json``, readable by its owner alone as it has the password; whoever looks finds it whole."""
        draft = self.path("lab.json.new")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(asdict(self) | {"root": str(self.root)}, indent=1))
        draft.replace(self.path("lab.json"))

    @classmethod
    def load(cls, root: Path) -> Self:
        """Raises ``FileNotFoundError`` when there is no lab in ``root``."""
        values = json.loads((root / "lab.json").read_text())
        return replace(cls(**values), root=Path(values["root"]))


_LEAST_ROOM = 16000
"""The kernel's lowest port for outgoing connections, from which on those below it are enough for some labs."""


def free_ports(count: int) -> list[int]:
    """``count`` different loopback ports that nobody listens on now.

    They come from below the range from which the kernel takes ports for outgoing connections, where that leaves room
    there, so that none of them is taken before its service listens, or while a test's proxy is not there.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if lowest < _LEAST_ROOM:  # no room below: the chance of a port that is taken meanwhile has to be borne
        lowest = 32768
    found: list[int] = []
    with ExitStack() as stack:
        start = 10000 + os.getpid() * 64 % max(1, lowest - 12000)
        for port in range(start, lowest):
            listener = stack.enter_context(socket.socket())
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError(f"no {count} free ports on 127.0.0.1 between {start} and {lowest}")
