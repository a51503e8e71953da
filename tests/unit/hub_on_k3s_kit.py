"""A Hub on k3s in the memory cloud, and what k3s and helm make of its manifests."""

from __future__ import annotations

from vcluster.clouds.memory import MemoryCloud
from vcluster.clouds.memory_head import PretendedHead
from vcluster.hub_on_k3s import FORGET, READY, RECORDS
from vcluster.model import CommandResult
from vcluster.stacks.k3s_cloud import MANIFESTS
from vcluster.stacks.zero_to_jupyterhub import CHART_FILE

SPEC = """\
name: demo
cloud: memory
scheduler: k3s
head: {flavor: medium}
workers:
  - {name: user, count: 2, flavor: large}
jupyterhub: {people: {count: 4}, instructors: [teacher]}
"""
VALUES = f"{MANIFESTS}/vcluster-jupyterhub-values.yaml"
MORE = SPEC.replace("count: 4", "count: 5")


def head_of(cloud: MemoryCloud) -> PretendedHead:
    return next(entry.head for entry in cloud.entries(cloud.ref("demo")) if entry.head)


def recorded(*statuses: str) -> str:
    """The rows for revisions, in the order in which kubectl lists them, which is that of their names: 1, 10, 2."""
    rows = {str(number): status for number, status in enumerate(statuses, 1)}
    return "".join(f"{number} {rows[number]}\n" for number in sorted(rows))


class Helm:
    """k3s' helm-controller and its job on a pretended head, as far as an install can be ended by what is changed.

    An install is made of what lies on the head when it begins. What differs then ends it, and what is so left is
    failed: the job waits until nothing is recorded any more. An upgrade is done at once.

    Attributes:
        records: helm's, by status.
        ended: installs that were interrupted.
        made_of: the manifests of the install or upgrade that was last.
        fails: what every install comes to, in place of a Hub.
        keeps: whether records cannot be deleted.
    """

    def __init__(self, cloud: MemoryCloud, lasts: float, *records: str) -> None:
        self._cloud, self._execute, self._lasts = cloud, cloud.execute, lasts
        self.records, self.made_of, self.ended = list(records), dict[str, bytes](), 0
        self.fails = self.keeps = False
        self.asked = list[str]()
        self._began = 0.0

    def __call__(self, ref: object, command: str, stdin: str = "", machine: str = "head") -> CommandResult:
        self.look()
        if command in (READY, RECORDS, FORGET):
            self.asked.append(command)
        if command == READY:
            return CommandResult("", "", 0) if "deployed" in self.records else CommandResult("", "not found", 1)
        if command == RECORDS:
            return CommandResult(recorded(*self.records), "", 0)
        if command == FORGET:
            if not self.keeps:
                self.records = [record for record in self.records if record != "failed"]
            return CommandResult("", "", int(self.keeps))
        try:
            return self._execute(ref, command, stdin, machine)  # type: ignore[arg-type]
        finally:
            self.look()

    def look(self) -> None:
        there = head_of(self._cloud).files
        inputs = {path: there[path] for path in (VALUES, CHART_FILE) if path in there}
        if CHART_FILE not in inputs:
            return
        if self.records == ["pending-install"]:
            if inputs != self.made_of:
                self.records, self.ended = ["failed"], self.ended + 1
            elif self._cloud.now() >= self._began + self._lasts:
                self.records = ["failed" if self.fails else "deployed"]
        elif not self.records:
            self.records, self.made_of, self._began = ["pending-install"], inputs, self._cloud.now()
        elif self.records == ["deployed"]:
            self.made_of = inputs
