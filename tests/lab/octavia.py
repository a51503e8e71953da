"""Octavia beside a lab that runs, for the tests that ask for it: most clouds have one, and most tests need none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.lab import install
from tests.lab.identity import keystone
from tests.lab.layout import DIRECT, free_ports
from tests.lab.processes import INSIDE, Processes, environment, wait_until_answering

if TYPE_CHECKING:
    from tests.lab.lab import LabClient

__all__ = ["Octavia", "octavia"]

NAME, KIND = "octavia", "load-balancer"


class Octavia:
    """One that runs; it is in the catalogue of region ``RegionOne`` of every token from now on."""

    def __init__(self, lab: LabClient, url: str) -> None:
        self._holds, self._held = lab.root / "octavia-holds", lab.root / "octavia-held"
        self.url = url

    @contextmanager
    def holding(self) -> Iterator[None]:
        """What is pending meanwhile stays so, as where its workers are busy or gone.

        Raises:
            RuntimeError: Octavia did not notice.
        """
        self._holds.touch()
        self._held.unlink(missing_ok=True)  # of an earlier time, now that none of these is begun any more
        try:
            deadline = time.monotonic() + 300
            while not self._held.exists():  # it may be settling what was pending before
                if time.monotonic() > deadline:
                    raise RuntimeError("Octavia does not notice that it shall hold")
                time.sleep(0.05)
            yield
        finally:
            self._holds.unlink()


@contextmanager
def octavia(lab: LabClient) -> Iterator[Octavia]:
    """Start it, end it, and take it out of the catalogue again. The lab need not be this process's own.

    Raises:
        RuntimeError: it did not answer.
    """
    processes, (port,) = Processes(lab.root / "log"), free_ports(1)
    url = f"http://127.0.0.1:{port}"
    identity = keystone(lab.admin())
    for left in identity.services(type=KIND):  # of a process that was killed, in a lab that goes on
        identity.delete_service(left)
    service = identity.create_service(type=KIND, name=NAME)
    try:
        for interface in ("public", "internal"):
            identity.create_endpoint(service_id=service.id, interface=interface, region_id=DIRECT, url=url)
        venv = install.ensure_venv()
        env = environment(lab.layout, venv)
        processes.start(NAME, [venv / "bin/python", INSIDE / "lab_octavia_one.py", str(port)], env)
        wait_until_answering(processes, NAME, url)
        lab.close()  # their tokens' catalogues are from before
        yield Octavia(lab, url)
        processes.check(NAME)
    finally:
        keystone(lab.admin()).delete_service(service)  # its endpoints go with it
        lab.close()
        processes.stop_all()
