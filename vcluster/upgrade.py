"""Another k3s for a cluster that runs: one machine after the other, servers first."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vcluster import delivery
from vcluster.actions import NOTE_SPEC
from vcluster.changes import UPGRADES, ChangeKind, remedies, spec_changes
from vcluster.errors import CancelledError, CloudError, DeadlineError, PermanentError, UsageError, VclusterError
from vcluster.k3s_checks import numbers
from vcluster.kubernetes import POLL, with_remedy
from vcluster.members import Members, Node, Program
from vcluster.model import Health, Machine, Observed, Role
from vcluster.plan_peers import is_peer
from vcluster.restore import CALL_TIMEOUT, Restore
from vcluster.stacks.base import Control, Simulated
from vcluster.stacks.k3s import fetched
from vcluster.turn import Turn

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["Upgrade", "Upgraded"]

STAGE_TIMEOUT = 1200.0
"""To fetch a program and images, with a little more than a machine gives itself for each."""
DRAIN_TIMEOUT = 900.0
REASON = "vcluster upgrade"


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A cluster whose every machine has the version that was asked for.

    Attributes:
        machines: those that were changed now.
        before: those that had it already.
    """

    version: str
    machines: tuple[str, ...]
    before: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Task:
    """What one run is about."""

    spec: ClusterSpec
    order: Mapping[str, Any]
    members: Members
    control: Control
    observed: Observed
    servers: tuple[str, ...]
    end: float
    cancel: threading.Event
    turn: Turn

    @property
    def version(self) -> str:
        return self.spec.kubernetes.version


class Upgrade(Restore):
    """The part of :class:`vcluster.cluster.Cluster` that changes k3s."""

    def upgrade(self, *, timeout: float | None = None, cancel: threading.Event | None = None) -> Upgraded:
        """Give every machine the k3s that the spec asks for, one after the other; machines that have it are passed by.

        Groups keep the number of workers that they have, whatever the spec says: that is for :meth:`up`, which asks.

        It stops at the first machine that fails; called again, it goes on from there. The spec counts as applied once
        all have it.

        Args:
            timeout: seconds; None is long enough for every machine.
            cancel: set it from another thread to stop.

        Raises:
            UsageError: the spec changes more than k3s' program and images, skips a minor version or goes back; or as
                :meth:`kubeconfig`.
            CloudError: a machine could not be asked, or does not run with the new version.
            DeadlineError: pods do not leave a machine, or Kubernetes has it not back.
            CancelledError: ``cancel`` was set.
        """
        began, wait = time.monotonic(), cancel or threading.Event()
        observed = self._kubernetes()
        old = self._applied_spec(observed)
        spec = self._wanted(observed).with_counts_of(old)
        delivery.check(spec)
        self._only_upgrades(old, spec)
        machines = self._all_on(observed)
        patience = timeout or len(machines) * (self.cloud.boot_timeout + DRAIN_TIMEOUT)
        turn = Turn(self.cloud, self.ref, leaving=False, resting=True)
        turn.check(observed)
        with self._machines(observed, wait) as members:
            task = _Task(
                spec=spec,
                order=_order(old, spec),
                members=members,
                control=self._control(),
                observed=observed,
                servers=tuple(m.name for m in machines if m.role is Role.HEAD or is_peer(m)),
                end=self._clock().now() + patience,
                cancel=wait,
                turn=turn,
            )
            try:
                changed = self._each(task, machines)
            finally:
                task.control.close()
        self._applied(spec, observed)
        before = tuple(m.name for m in machines if m.name not in changed)
        return Upgraded(task.version, tuple(changed), before, self._done(began, changed=bool(changed)))

    # Before anything is changed ------------------------------------------------------------------------------------

    def _wanted(self, observed: Observed) -> ClusterSpec:
        if self._given is None:
            raise UsageError(
                "an upgrade needs the spec with the new version, not the cluster's name",
                remedy=f"`vcluster upgrade` with the YAML file of {self.name}",
            )
        self._must_be_k3s(self._given)
        return self._given

    def _only_upgrades(self, old: ClusterSpec | None, spec: ClusterSpec) -> None:
        if old is None:
            return
        refused = [c for c in spec_changes(old, spec) if c.kind is not ChangeKind.IN_PLACE and c.field not in UPGRADES]
        if refused:
            lines = "".join(f"\n  {change}" for change in refused)
            raise UsageError(
                f"the spec changes more of {self.name} than an upgrade does:{lines}", remedy=remedies(refused)
            )

    def _in_reach(self, task: _Task, machines: list[Machine]) -> None:
        """Whether Kubernetes allows this step.

        Raises:
            UsageError: it goes back, or skips a minor version.
        """
        wanted, nodes = numbers(task.version), self._nodes(task)
        running = {m.name: nodes[m.name].version for m in machines if m.name in nodes}
        head = str(Role.HEAD)
        if head not in running:  # it does not answer, maybe because an earlier run went wrong
            running[head] = task.members.program(head).version
        for name, version in running.items():
            there = numbers(version)
            if there > wanted:
                raise UsageError(
                    f"{name} has {version}: Kubernetes does not go back to {task.version}",
                    remedy=f"take {version} or a later version",
                )
            if name in task.servers and wanted[1] - there[1] > 1:
                raise UsageError(
                    f"{name} has {version}: Kubernetes skips no minor version on the way to {task.version}",
                    remedy=f"upgrade to a v{there[0]}.{there[1] + 1} first",
                )

    def _nodes(self, task: _Task) -> Mapping[str, Node]:
        """What Kubernetes says; nothing where it does not answer, which a run that begins there is to mend."""
        try:
            return task.members.nodes()
        except PermanentError as error:
            self._log(f"{error.message}: going on without its word", level="warning")
            return {}

    # One machine after the other -----------------------------------------------------------------------------------

    def _each(self, task: _Task, machines: list[Machine]) -> list[str]:
        self._in_reach(task, machines)
        self._hand_over(task)
        changed: list[str] = []
        for number, machine in enumerate(machines, 1):
            if number > 1:
                task.turn.check(self._observe())
            if task.cancel.is_set():
                raise CancelledError("interrupted between two machines", remedy=_AGAIN)
            try:
                if self._one(task, machine, f"{number} of {len(machines)}"):
                    changed.append(machine.name)
            except (CloudError, DeadlineError, CancelledError) as error:
                raise with_remedy(error, _AGAIN) from error
        return changed

    def _hand_over(self, task: _Task) -> None:
        files = delivery.handed(task.spec)
        head = task.observed.head
        if isinstance(self.cloud, Simulated) or not files or head is None or head.endpoint is None:
            return
        with self._remote(head.endpoint) as remote:
            delivery.deliver(remote, files, self._log)

    def _one(self, task: _Task, machine: Machine, which: str) -> bool:
        """Bring one machine to the new version; False when it has it."""
        name, members = machine.name, task.members
        program, node = members.program(name), self._nodes(task).get(name)
        server = name in task.servers
        if program.restoring:
            text = f"a restore of {self.name} was begun and not ended"
            raise UsageError(text, remedy=f"`vcluster restore {self.name}` again ends it")
        if node is not None and _has(program, node, task):
            if not node.schedulable and not server:
                self._resume(task, name)  # an earlier run drained it, and got no further
            return False
        if server:
            self._others_there(task, name)
        running = node.version if node else "nothing"
        self._log(f"{name}: {running} → {task.version} ({which})")
        with self._step("fetch", name):
            members.tell(name, "stage", given=task.order, timeout=min(self._left(task.end, name), STAGE_TIMEOUT))
        if not server:
            self._drain(task, name)
        with self._step("upgrade", name):
            sha256 = task.order["program"]["sha256"]
            members.tell(name, "upgrade", sha256, timeout=min(self._left(task.end, name), CALL_TIMEOUT))
            self._await(members, [name], lambda n: n.ready and n.version == task.version, task.end, task.cancel)
        if not server:
            self._resume(task, name)
        return True

    def _resume(self, task: _Task, name: str) -> None:
        task.control.health(task.observed)  # the way to the head is made by asking
        task.control.resume([name])

    def _others_there(self, task: _Task, name: str) -> None:
        """Whether the other servers are enough while this one is away.

        Raises:
            DeadlineError: they are not, and do not come back.
        """
        others = [server for server in task.servers if server != name]
        if others:
            self._await(task.members, others, lambda node: node.ready, task.end, task.cancel)

    def _drain(self, task: _Task, name: str) -> None:
        """Let pods move away; who gives up lets them come back."""
        end = min(task.end, self._clock().now() + DRAIN_TIMEOUT)
        with self._step("drain", name):
            try:
                task.control.health(task.observed)  # the way to the head is made by asking
                task.control.drain([name], REASON)
                while task.control.health(task.observed).get(name) is not Health.DRAINED:
                    if self._clock().now() >= end:
                        raise DeadlineError(
                            f"time is up: pods do not leave {name}",
                            remedy=f"`kubectl get pods -A --field-selector spec.nodeName={name}` shows which: a job "
                            "ends by itself, a disruption budget may hold others",
                        )
                    self._clock().sleep(POLL, task.cancel)
                    if task.cancel.is_set():
                        raise CancelledError(f"interrupted while pods left {name}")
            except (DeadlineError, CancelledError):
                self._take_again(task, name)
                raise

    def _take_again(self, task: _Task, name: str) -> None:
        try:
            self._resume(task, name)
        except VclusterError as error:
            self._log(f"{name} stays drained: {error.message}", level="warning")

    # Afterwards ----------------------------------------------------------------------------------------------------

    def _applied(self, spec: ClusterSpec, observed: Observed) -> None:
        """Have the spec count as what the cluster is made of, for every later run on any computer.

        The note comes last: without it the next run does all of this again, and nothing else.
        """
        self._keep_spec(spec.to_yaml())
        self._write(spec, observed)
        if observed.notes.get(NOTE_SPEC) != spec.digest:
            self.cloud.annotate(self.ref, {NOTE_SPEC: spec.digest})


_AGAIN = "the same command again goes on with this machine; the others work meanwhile, each with its own version"


def _order(old: ClusterSpec | None, spec: ClusterSpec) -> dict[str, Any]:
    """What a machine is told to get."""
    source, sha256 = spec.kubernetes.program
    if not sha256:
        raise UsageError("nothing is known to check k3s' program by", remedy="give `sha256` beside its source")
    images = [fetched(file.source, file.sha256) for file in spec.kubernetes.images]
    earlier = [fetched(file.source, file.sha256)["name"] for file in (old.kubernetes.images if old else ())]
    kept = {image["name"] for image in images}
    drop = [name for name in earlier if name not in kept]
    return {
        "version": spec.kubernetes.version,
        "program": fetched(source, sha256),
        "images": images,
        "drop": drop,
    }


def _has(program: Program, node: Node, task: _Task) -> bool:
    """Whether a machine has all of it, and runs with it."""
    images = task.order["images"]
    return (
        program.sha256 == task.order["program"]["sha256"]
        and not program.pending
        and node.version == task.version
        and all(program.images.get(image["name"]) == image["sha256"] for image in images)
        and not any(name in program.images for name in task.order["drop"])
    )
