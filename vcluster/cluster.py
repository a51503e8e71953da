"""The facade that people import: ``Cluster(spec).up()``. It wires cloud, stack, scheduler and loop together.

A cluster object keeps nothing that matters: every call begins by looking. Many of them may be used from many threads.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from vcluster.actions import NOTE_ATTEMPTS, Goal, Power
from vcluster.clouds.base import Cloud, ClusterSummary
from vcluster.errors import CancelledError, CloudError, UsageError
from vcluster.events import EventHandler
from vcluster.folder import Folder
from vcluster.model import (
    MachineState,
    Role,
)
from vcluster.places import state_root
from vcluster.runner import Confirm, Runner
from vcluster.views import PlanView, Result, Status
from vcluster.wiring import check_changes, goal_of, image_of, renderer_of

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["Cluster", "Confirm", "PlanView", "Result", "Status", "clusters"]

DOWN_TIMEOUT = 900.0


class Cluster(Runner):
    """One cluster.

    Args:
        spec: what it shall be; or the name of one that exists.
        on_event: takes every event, from several threads.
        cloud: where it lives; None connects to the one that the spec (or ``cloud_name``) names.
        home: vcluster's folder; None means ``VCLUSTER_HOME`` or what is usual on this system.
        cloud_name: the cloud of a cluster that is given by its name.

    Raises:
        UsageError: there is no such cloud.
    """

    def __init__(
        self,
        spec: ClusterSpec | str,
        *,
        on_event: EventHandler | None = None,
        cloud: Cloud | None = None,
        home: Path | None = None,
        cloud_name: str = "local",
    ) -> None:
        name = spec if isinstance(spec, str) else spec.name
        self._given = None if isinstance(spec, str) else spec
        home = home or state_root()
        self._own_cloud = cloud is None
        cloud = cloud or _connect(cloud_name if self._given is None else self._given.cloud, home)
        ref = cloud.ref(name)
        super().__init__(cloud, ref, Folder(home, ref), on_event)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the cloud's connection; the cluster stays."""
        if self._own_cloud:
            self.cloud.close()

    # What one asks ---------------------------------------------------------------------------------------------

    def plan(self) -> PlanView:
        """What :meth:`up` would do now. Changes nothing.

        Raises:
            UsageError: the name is used by another spec.
        """
        spec = self._spec()
        control = self._control()
        try:
            asked = control if self._can_ask() else None
            loop = self._loop(goal_of(spec, self.cloud), control=asked, cancel=threading.Event())
            observed = loop.look()
            check_changes(spec, observed, self.folder)
            return PlanView.of(loop.plan(observed))
        finally:
            control.close()

    def status(self) -> Status:
        """The cluster as it is now; needs no local file.

        Raises:
            CloudError: the cloud could not be asked.
        """
        observed = self._observe()
        if (head := observed.head) and head.state is MachineState.ACTIVE and self._can_ask():
            control = self._control()
            try:
                observed = observed.with_health(control.health(observed))
            except CloudError as error:
                self._log(f"the head was not asked: {error.message}", level="warning")
            finally:
                control.close()
        spec = self._known_spec()
        wanted = frozenset(goal_of(spec, self.cloud).wanted) if spec is not None else frozenset()
        return Status.of(self.name, self.ref.id, self.cloud.name, observed, wanted)

    def logs(self, machine: str = "head", lines: int = 200) -> str:
        """The last lines of a machine's serial console; of one that failed and is gone, the kept console.

        Raises:
            UsageError: there is neither.
        """
        observed = self._observe()
        found = next((m for m in observed.machines if m.name == machine), None)
        if found is not None:
            return self.cloud.console(self.ref, found.uuid, lines)
        if kept := self.folder.consoles(machine):
            return "\n".join(kept[-1].read_text(errors="replace").splitlines()[-lines:]) + "\n"
        raise self._no_machine(machine, observed)

    # What one does ---------------------------------------------------------------------------------------------

    def up(
        self,
        *,
        timeout: float | None = None,
        keep_on_failure: bool = False,
        confirm: Confirm | None = None,
        cancel: threading.Event | None = None,
    ) -> Result:
        """Make the cluster what the spec says, and wait until a job ran on every worker.

        Args:
            timeout: seconds until :class:`~vcluster.errors.DeadlineError`; None is long enough for every repair.
            keep_on_failure: leave a machine that failed for good, for a look.
            confirm: asked before anything that holds data is deleted; None agrees.
            cancel: set it from another thread to stop; what was made stays.

        Raises:
            UsageError: the name is used by another spec.
            QuotaError: there is no room.
            PermanentError: a machine failed for good.
            DeadlineError: names what was waited for.
            CancelledError: ``cancel`` was set, or ``confirm`` said no.
        """
        return self._up(self._spec(), timeout, confirm, cancel, keep_on_failure=keep_on_failure)

    def start(self, *, timeout: float | None = None, cancel: threading.Event | None = None) -> Result:
        """Boot a stopped cluster (or one whose host rebooted); raises as :meth:`up`.

        Raises:
            UsageError: there is no head to boot: making one anew is for :meth:`up`, which asks first.
        """
        observed = self._observe()
        self._must_exist(observed)
        if observed.head is None:
            raise UsageError(f"{self.name} has no head to start", remedy="`vcluster up` with its spec makes a new one")
        if observed.notes.get(NOTE_ATTEMPTS + Role.HEAD):
            # A person asked: the head gets a new budget of reboots.
            self.cloud.annotate(self.ref, {NOTE_ATTEMPTS + Role.HEAD: ""})
        return self._up(self._spec(), timeout, None, cancel)

    def stop(self, *, timeout: float | None = None, cancel: threading.Event | None = None) -> Result:
        """Shut all machines down, the head last; nothing is deleted."""
        self._must_exist(self._observe())
        return self._run(Goal(Power.STOPPED), timeout or DOWN_TIMEOUT, cancel)

    def scale(
        self,
        group: str,
        count: int,
        *,
        timeout: float | None = None,
        confirm: Confirm | None = None,
        cancel: threading.Event | None = None,
    ) -> Result:
        """Change a group's number of workers; those that go are drained first. Raises as :meth:`up`."""
        self._must_exist(self._observe())
        return self._up(self._spec().with_count(group, count), timeout, confirm, cancel)

    def replace(
        self,
        machine: str,
        *,
        timeout: float | None = None,
        confirm: Confirm | None = None,
        cancel: threading.Event | None = None,
    ) -> Result:
        """Drain a worker, delete it and make it anew; one that failed too often gets a new budget.

        Raises:
            UsageError: no such machine, or it is the head, whose disk holds everybody's home.
        """
        spec = self._spec()
        observed = self._observe()
        self._must_exist(observed)
        if machine == Role.HEAD:
            raise UsageError(
                "the head is not replaced: its disk holds /home",
                remedy=f"save what is needed (vcluster cp), then `vcluster down {self.name}` and `vcluster up`",
            )
        if machine not in goal_of(spec, self.cloud).wanted:
            raise self._no_machine(machine, observed)
        there = {m.name for m in observed.machines}
        notes = {key: "" for key in observed.notes if key.startswith(NOTE_ATTEMPTS)}
        spent = {key: "" for key in notes if (name := key.removeprefix(NOTE_ATTEMPTS)) == machine or name not in there}
        if spent:
            # A new budget for this one and for all that were given up: with one of them missing none would be made.
            self.cloud.annotate(self.ref, spent)
        uuids = frozenset(m.uuid for m in observed.machines if m.name == machine)
        return self._up(spec, timeout, confirm, cancel, replace_uuids=uuids)

    def down(
        self,
        *,
        timeout: float | None = None,
        confirm: Confirm | None = None,
        cancel: threading.Event | None = None,
    ) -> Result:
        """Delete everything that carries the cluster's tag, and the cluster's folder on this computer.

        Args:
            confirm: shown every resource by UUID before the first is deleted; None agrees.
        """
        goal = Goal(Power.ABSENT)
        self._ask(goal, confirm, cancel)
        result = self._run(goal, timeout or DOWN_TIMEOUT, cancel)
        if self._observe().empty:
            self.folder.remove()
        return result

    def render(self, folder: Path) -> list[Path]:
        """Write what every machine would get (0600): user data and the install script. Makes nothing.

        Before a cluster exists its addresses are not known; example addresses stand in.
        """
        from vcluster.preview import preview

        spec = self._spec()
        return preview(
            spec,
            slots=spec.slots(self.cloud.flavor),
            observed=self._observe(),
            ref=self.ref,
            guarded=self.cloud.guarded,
            known=self.folder,
            target=folder,
        )

    # Inside ----------------------------------------------------------------------------------------------------

    def _known_spec(self) -> ClusterSpec | None:
        if self._given is not None:
            return self._given
        return self.folder.read_spec()

    def _spec(self) -> ClusterSpec:
        spec = self._known_spec()
        if spec is None:
            self._must_exist(self._observe())
            raise UsageError(
                f"the spec of {self.name} is not on this computer", remedy="give its YAML file instead of its name"
            )
        return spec

    def _up(
        self,
        spec: ClusterSpec,
        timeout: float | None,
        confirm: Confirm | None,
        cancel: threading.Event | None,
        *,
        keep_on_failure: bool = False,
        replace_uuids: frozenset[str] = frozenset(),
    ) -> Result:
        began = time.monotonic()
        goal = goal_of(spec, self.cloud, replace_uuids=replace_uuids, keep_failed=keep_on_failure)
        observed = self._observe()
        if observed.head is not None and not self._can_ask():
            raise self._no_keys()
        check_changes(spec, observed, self.folder)
        there = {m.name for m in observed.machines if m.state in (MachineState.ACTIVE, MachineState.BUILD)}
        missing = [slot.flavor for slot in goal.slots if slot.name in goal.wanted and slot.name not in there]
        image = image_of(spec, self.cloud, self._log, cancel)
        if missing:
            self.cloud.check_room(self.ref, missing)
        agreed = self._ask(goal, confirm, cancel)
        if missing:
            image()
            if cancel is not None and cancel.is_set():
                raise CancelledError("interrupted before anything was made")
        self.folder.write_spec(spec.to_yaml())
        render = renderer_of(spec, goal.slots, self.ref, self.folder, self.cloud)
        limit = timeout or self.cloud.boot_timeout * 4
        return self._run(
            goal, max(1.0, limit - (time.monotonic() - began)), cancel, image=image, render=render, may_destroy=agreed
        )


def _connect(name: str, home: Path) -> Cloud:
    """The one place that knows which clouds there are."""
    if name == "local":
        from vcluster.clouds.local import LocalCloud

        return LocalCloud(home)
    raise UsageError(f"there is no cloud {name!r}", remedy="this version of vcluster knows `local`")


def clusters(cloud_name: str = "local", *, home: Path | None = None) -> list[ClusterSummary]:
    """Every cluster of ours on a cloud.

    Raises:
        UsageError: there is no such cloud.
    """
    cloud = _connect(cloud_name, home or state_root())
    try:
        return list(cloud.clusters())
    finally:
        cloud.close()
