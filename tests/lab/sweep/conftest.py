"""The bed of the sweeps: the lab behind its proxy, one worker process, and a project full of look-alikes.

Among the 200 neighbours' things is a whole cluster of the same name, which a colleague made with vcluster itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.layout import FAULTY
from tests.lab.neighbours import unusable_network
from tests.lab.proxy import FaultProxy
from tests.lab.snapshot import difference, snapshot
from tests.lab.sweep.bed import Worker, colleagues_cluster, spec_of
from vcluster.model import ClusterRef

if TYPE_CHECKING:
    from tests.lab.lab import Lab

NAME = "demo"
SOAK = bool(os.environ.get("VCLUSTER_SOAK"))


@dataclass
class Bed:
    """What a sweep works on.

    Attributes:
        before: the demo project, with its neighbours, before anything of ours was there.
    """

    lab: Lab
    proxy: FaultProxy
    worker: Worker
    before: dict[str, Any]

    def leaks(self) -> list[str]:
        """What differs in the project from how it was before, one line each."""
        return difference(self.before, snapshot(self.lab.connection("admin"), self.lab.project_id()))

    def machines(self) -> list[str]:
        """Names of all servers that carry our cluster's mark, twins included."""
        servers = self.lab.connection("demo").compute.servers(details=True)
        return sorted(s.name for s in servers if s.metadata.get("vcluster", "").startswith(self._mark))

    def ports(self) -> list[str]:
        """Names of all ports of machines that carry it, without the claim in the head's."""
        ports = self.lab.connection("demo").network.ports(project_id=self.lab.project_id())
        marked = [p for p in ports if (p.description or "").startswith((f"{self._mark}head", f"{self._mark}worker"))]
        return sorted(re.sub(r"\.[0-9a-f]+$", "", port.name) for port in marked)

    @property
    def _mark(self) -> str:
        user = self.lab.connection("demo").current_user_id
        return f"vcluster/{ClusterRef(NAME, self.lab.project_id(), user).id}/"


@pytest.fixture(scope="package")
def bed(neighbours: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    lab, admin = neighbours, neighbours.connection("admin")
    empty = snapshot(admin, lab.project_id())
    with (
        unusable_network(lab),
        colleagues_cluster(lab, tmp_path_factory.mktemp("colleague"), NAME),
        FaultProxy(lab.upstreams, lab.proxy_ports) as proxy,
        Worker(tmp_path_factory.mktemp("sweep-home"), lab.cloud_env("demo", FAULTY), "demo-faulty") as worker,
    ):
        yield Bed(lab, proxy, worker, snapshot(admin, lab.project_id()))
    assert difference(empty, snapshot(admin, lab.project_id())) == []


@pytest.fixture
def spec(bed: Bed) -> Iterator[str]:
    """The cluster's spec; whatever of it a failed test leaves is taken away, so that the next one shows its own."""
    yield spec_of(NAME)
    bed.proxy.reset()
    if bed.machines() or bed.ports():
        bed.worker.run("down", spec_of(NAME))


def homes(count: int, factory: pytest.TempPathFactory) -> list[Path]:
    return [factory.mktemp("home") for _ in range(count)]
