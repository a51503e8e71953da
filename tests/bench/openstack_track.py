"""Programs that drive the lab through the recorder, timed and counted one after another."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.lab.lab import LabClient
from tests.lab.layout import FAULTY
from tests.lab.proxy import FaultProxy
from tests.lab.proxy_record import Recorded

__all__ = ["Run", "Track"]

HERE = Path(__file__).parent
CLOUD = "demo-faulty"


@dataclass(frozen=True)
class Run:
    """What a program took.

    Attributes:
        seconds: from its start to its end, imports and all.
        own: CPU seconds of the program.
        services: CPU seconds of all the services that it kept busy.
    """

    seconds: float
    own: float
    services: float
    requests: tuple[Recorded, ...]

    @property
    def cpu(self) -> float:
        """Both together: about what bounds it on a machine that has nothing else to do."""
        return self.own + self.services

    def tally(self) -> dict[str, int]:
        """Number of requests by kind."""
        return dict(sorted(Counter(request.kind for request in self.requests).items()))

    def count(self, method: str, ending: str = "") -> int:
        """How many requests have this method, and a template with this ending."""
        return sum(request.method == method and request.template.endswith(ending) for request in self.requests)

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s ({self.own:.1f} + {self.services:.1f} s CPU), {len(self.requests)} requests"


class Track:
    """Runs programs against the lab, through a proxy that spoils nothing.

    Args:
        folder: for what the programs leave behind.
    """

    def __init__(self, lab: LabClient, proxy: FaultProxy, folder: Path) -> None:
        self._proxy, self.folder = proxy, folder
        self._owner = lab.layout.owner
        self._env = lab.cloud_env("demo", FAULTY) | {"VCLUSTER_HOME": str(folder / "home")}

    def bare(self, verb: str, count: int) -> Run:
        """The bare script."""
        return self.run([sys.executable, str(HERE / "openstack_bare.py"), verb, CLOUD, str(count), self._path("ids")])

    def vcluster(self, verb: str, count: int) -> Run:
        """vcluster, as ready with machines that are ACTIVE."""
        script = str(HERE / "openstack_vcluster.py")
        return self.run([sys.executable, script, verb, CLOUD, str(count), self._path("home")])

    def run(self, command: list[str], env: dict[str, str] | None = None) -> Run:
        """Any program; it must succeed."""
        self._proxy.reset()
        log = self.folder / "output"
        busy, began = self._services(), time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=self._env | (env or {}), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
            _, status, usage = os.wait4(process.pid, 0)
        seconds, busy = time.monotonic() - began, self._services() - busy
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, f"{command}\n{log.read_text()[-8000:]}"
        self._proxy.settle()
        return Run(seconds, usage.ru_utime + usage.ru_stime, busy, tuple(self._proxy.requests))

    def _services(self) -> float:
        """CPU seconds of the lab's processes until now."""
        times = [process.cpu_times() for process in psutil.Process(self._owner).children(recursive=True)]
        return sum(one.user + one.system for one in times)

    def _path(self, name: str) -> str:
        return str(self.folder / name)
