"""The bed of the sweeps: the lab behind its proxy, one worker process, and a project full of look-alikes.

Among the 200 neighbours' things is a whole cluster of the same name, which a colleague made with vcluster itself.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.layout import FAULTY
from tests.lab.neighbours import unusable_network
from tests.lab.proxy import FaultProxy
from tests.lab.snapshot import Snapshot, difference, snapshot
from tests.lab.sweep.bed import Worker, colleagues_cluster, spec_of
from tests.lab.sweep.picture import compare, kinds_in, picture

if TYPE_CHECKING:
    from tests.lab.lab import Lab

NAME = "demo"
SOAK = bool(os.environ.get("VCLUSTER_SOAK"))

EACH = {
    "network": 1,
    "subnet": 1,
    "router": 1,
    "security group": 2,
    "security group rule": 7,
    "port": 1,
    "floating IP": 1,
}
"""Kind -> how many things of it any cluster has. Groups have two rules by themselves; the port is the router's leg."""

IMPLIED = ("security group rule ", "attachment ")
"""What has no room for a mark, and goes with what it belongs to."""


@dataclass
class Bed:
    """What a sweep works on.

    Attributes:
        before: the demo project, with its neighbours, before anything of ours was there.
    """

    lab: Lab
    proxy: FaultProxy
    worker: Worker
    before: Snapshot
    _right: dict[str, list[str]] = field(default_factory=dict)

    def leaks(self) -> list[str]:
        """What differs in the project from how it was before, one line each."""
        return difference(self.before, self._now())

    def amiss(self, spec: str) -> list[str]:
        """In what a cluster that is up differs from one of this spec that came up undisturbed, one line each.

        All that is new in the project counts, of every kind, with our mark or without: a twin, something that is
        missing, and something that was made and is not used.
        """
        return compare(self._right[spec], picture(self.before, self._now()))

    def come_up_undisturbed(self, spec: str) -> None:
        """Have it come up once, and go, to know how it looks then; the first time that this spec is asked for."""
        if spec in self._right:
            return
        self.proxy.reset()
        up = self.worker.run("up", spec)
        assert up.ok, up.answer
        right = picture(self.before, self._now())
        assert [line for line in right if "vcluster/" not in line and not line.startswith(IMPLIED)] == [], "unmarked"
        assert kinds_in(right, self.before) == _census(spec), right
        down = self.worker.run("down", spec)
        assert down.ok, down.answer
        assert self.leaks() == []
        self._right[spec] = right

    def _now(self) -> Snapshot:
        return snapshot(self.lab.connection("admin"), self.lab.project_id())


def _census(spec: str) -> dict[str, int]:
    """How many things of each kind there must be, counted by hand from the spec."""
    asked = json.loads(spec)
    workers = sum(group["count"] for group in asked["workers"])
    disks = sum("root_disk" in group for group in (asked["head"], *asked["workers"]))
    found = Counter(EACH) + Counter({"port": workers + 1, "server": workers + 1})
    found += Counter({"server group": int(workers > 1), "volume": disks, "attachment": disks})
    return dict(found)


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
    """The cluster's spec, which came up undisturbed once; two workers, so that there is a server group."""
    made = spec_of(NAME, count=2)
    bed.come_up_undisturbed(made)
    yield made
    tidy(bed, made)


def tidy(bed: Bed, spec: str) -> None:
    """Take away what a failed test leaves, so that the next one shows its own."""
    bed.proxy.reset()
    if bed.leaks():
        bed.worker.run("down", spec)


def homes(count: int, factory: pytest.TempPathFactory) -> list[Path]:
    return [factory.mktemp("home") for _ in range(count)]
