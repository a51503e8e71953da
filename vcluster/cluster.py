"""The facade that people import: ``Cluster(spec).up()``. It wires cloud, stack, scheduler and loop together.

A cluster object keeps nothing that matters: every call begins by looking. Many of them may be used from many threads.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from vcluster.actions import NOTE_ATTEMPTS
from vcluster.clouds.base import Cloud, ClusterSummary
from vcluster.connect import DEFAULT_CLOUD, connect, default_cloud, ref_of
from vcluster.errors import PermanentError, SpecError, UsageError
from vcluster.events import EventHandler
from vcluster.folder import Folder
from vcluster.lifecycle import Lifecycle
from vcluster.model import ClusterRef, MachineState, Observed, Role
from vcluster.places import state_root
from vcluster.plan_peers import are_most
from vcluster.prices import prices_of
from vcluster.runner import Confirm
from vcluster.upgrade import Upgrade
from vcluster.views import ClusterInfo, PlanView, Result, Status
from vcluster.wiring import check_changes, wanted_of

if TYPE_CHECKING:
    from vcluster.rehearsal.report import Report
    from vcluster.spec import ClusterSpec

__all__ = ["Cluster", "ClusterInfo", "Confirm", "PlanView", "Result", "Status", "clusters"]


class Cluster(Lifecycle, Upgrade):
    """One cluster.

    Args:
        spec: what it shall be; or the name of one that exists; or which one exactly, as :func:`clusters` lists it.
        on_event: takes every event, from several threads.
        cloud: where it lives; None connects to the one that the spec (or ``cloud_name``) names.
        home: vcluster's folder; None means ``VCLUSTER_HOME`` or what is usual on this system.
        cloud_name: the cloud of a cluster that is given without a spec; None means ``VCLUSTER_CLOUD`` or ``local``.
        owner: whose cluster of this name, when it is not the caller's own: a user's name or id.

    Raises:
        UsageError: there is no such cloud, or that owner has no such cluster.
        CloudError: the cloud could not be asked.
    """

    def __init__(
        self,
        spec: ClusterSpec | str | ClusterRef,
        *,
        on_event: EventHandler | None = None,
        cloud: Cloud | None = None,
        home: Path | None = None,
        cloud_name: str | None = None,
        owner: str = "",
    ) -> None:
        given = None if isinstance(spec, str | ClusterRef) else spec
        home = home or state_root()
        self._own_cloud = cloud is None
        cloud = cloud or connect(given.cloud if given else cloud_name or default_cloud(), home)
        try:
            ref = spec if isinstance(spec, ClusterRef) else ref_of(cloud, given.name if given else str(spec), owner)
        except BaseException:
            if self._own_cloud:
                cloud.close()
            raise
        super().__init__(cloud, ref, Folder(home, ref), on_event, given)

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
        observed = self._observe()
        spec = self._spec(observed)
        if (head := observed.head) and head.state is MachineState.ACTIVE:
            self._can_ask_now(observed)  # what it was made of may lie on its head alone
        check_changes(spec, observed, self.folder)
        goal = self._goal(spec, observed)
        self._check_class(spec, goal)
        self._check_images(spec, goal, observed)
        self._check_user_data(spec, goal, observed)
        return self._view(spec, goal, self._foresee(goal, observed), observed)

    def status(self) -> Status:
        """The cluster as it is now; needs no local file.

        Raises:
            CloudError: the cloud could not be asked.
        """
        observed = self._with_health(self._observe())
        spec = self._known_spec()
        wanted = wanted_of(spec) if spec is not None else frozenset[str]()
        status = Status.of(self.name, self.ref.id, self.cloud.name, observed, wanted)
        unit = prices_of(spec).unit
        cost, hub = self._cost_now(spec, observed), self._hub_seen(spec, observed)
        return replace(status, owner=self.ref.owner, cost=cost, unit=unit, hub=hub)

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
        spec = self._given
        if spec is None:
            observed = self._observe()
            self._refuse_expired(observed)
            spec = self._spec(observed, boot=True)
        return self._up(spec, timeout, confirm, cancel, keep_on_failure=keep_on_failure)

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
        observed = self._observe()
        self._must_exist(observed)
        spec = self._spec(observed, boot=True).with_count(group, count)
        return self._up(spec, timeout, confirm, cancel)

    def replace(
        self,
        machine: str,
        *,
        timeout: float | None = None,
        confirm: Confirm | None = None,
        cancel: threading.Event | None = None,
    ) -> Result:
        """Drain a machine, delete it and make it anew; one that failed too often gets a new budget.

        Groups keep the number of workers that they have, whatever the spec says: that is for :meth:`up`, which asks.

        Raises:
            UsageError: no such machine; or it is a head that is alone, whose disk holds everybody's home or Kubernetes'
                database; or one of several servers, of which most of the others are not on.
        """
        observed = self._observe()
        self._must_exist(observed)
        spec = self._spec(observed, boot=True)
        if self._given is not None:
            spec = spec.with_counts_of(self._applied_spec(observed, boot=True))
        if machine == Role.HEAD and not spec.peers:
            kept, by = ("Kubernetes' database", "kubectl, ") if spec.scheduler == "k3s" else ("/home", "")
            raise UsageError(
                f"the head is not replaced: its disk holds {kept}",
                remedy=f"save what is needed ({by}vcluster cp), then `vcluster down {self.name}` and `vcluster up`",
            )
        if machine not in wanted_of(spec):
            raise self._no_machine(machine, observed)
        self._must_carry(spec, machine, observed)
        there = {m.name for m in observed.machines}
        notes = {key: "" for key in observed.notes if key.startswith(NOTE_ATTEMPTS)}
        spent = {key: "" for key in notes if (name := key.removeprefix(NOTE_ATTEMPTS)) == machine or name not in there}
        if spent:
            # A new budget for this one and for all that were given up: with one of them missing none would be made.
            self.cloud.annotate(self.ref, spent)
        uuids = frozenset(m.uuid for m in observed.machines if m.name == machine)
        return self._up(spec, timeout, confirm, cancel, replace_uuids=uuids)

    def _must_carry(self, spec: ClusterSpec, machine: str, observed: Observed) -> None:
        """See that a server's peers can do without it: their database needs most of all servers."""
        servers = frozenset({str(Role.HEAD), *spec.peers}) if spec.peers else frozenset[str]()
        on = {m.name for m in observed.machines if m.state is MachineState.ACTIVE} & servers - {machine}
        if machine in servers and not are_most(len(on), len(spec.peers)):
            off = ", ".join(sorted(servers - on - {machine}))
            raise UsageError(
                f"{machine} is not replaced while {off} is off: Kubernetes' database needs most of its servers",
                remedy=f"`vcluster up {self.name}` mends the others first",
            )

    def rehearse(
        self,
        users: int,
        *,
        within: float = 60.0,
        lasting: float = 300.0,
        profile: str = "",
        bound: float | None = None,
        seed: int = 1,
        force: bool = False,
        cancel: threading.Event | None = None,
    ) -> Report:
        """Send so many made-up users through the Hub's front door, have them work, and take every trace of them away.

        Args:
            users: how many.
            within: seconds within which they arrive, at random moments that ``seed`` stands for.
            lasting: seconds that each works after the first cell.
            profile: the notebooks' profile; empty takes the first.
            bound: seconds from log-in to first cell that 95 of 100 may have at most for the rehearsal to pass.
            force: end a rehearsal that seems to be going on.
            cancel: set it from another thread to send all home.

        Raises:
            UsageError: no Hub, no room for them, or another rehearsal is going on.
            CloudError: the head did not answer.
        """
        from vcluster.rehearsal.client import Pace
        from vcluster.rehearsal.report import Report
        from vcluster.rehearsal.run import Script, guests, rehearse

        script = Script(within, Pace(lasting, profile=profile), seed)
        warn = partial(self._log, level="warning")
        with guests(self._hub, users, warn, seconds=within + lasting, force=force) as (door, accounts):
            return Report.of(rehearse(door, accounts, script, told=self._log, cancel=cancel), bound)

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


def clusters(
    cloud_name: str | None = None, *, cloud: Cloud | None = None, home: Path | None = None
) -> list[ClusterInfo]:
    """Every vcluster cluster on a cloud, whoever made it, in the order of their names.

    Args:
        cloud_name: None means ``VCLUSTER_CLOUD`` or ``local``.
        cloud: where to look; None connects to ``cloud_name``.
        home: as for :class:`Cluster`.

    Raises:
        UsageError: there is no such cloud.
        CloudError: it could not be asked.
    """
    home = home or state_root()
    opened = cloud or connect(cloud_name or default_cloud(), home)
    try:
        found = sorted(opened.clusters(), key=lambda summary: (summary.ref.name, summary.ref.owner))
        return [_info(opened, summary, home) for summary in found]
    finally:
        if cloud is None:
            opened.close()


def _info(cloud: Cloud, summary: ClusterSummary, home: Path) -> ClusterInfo:
    table = prices_of(_kept_spec(home, summary.ref))
    try:
        cost = table.total(summary.flavors, cloud.flavor)
    except PermanentError:
        cost = None  # a flavor that is no longer offered
    if cloud.name == DEFAULT_CLOUD and not summary.flavors:
        cost = None  # nobody pays for this computer
    mine = cloud.ref(summary.ref.name).id == summary.ref.id
    return ClusterInfo.of(summary, mine=mine, cost=cost, unit=table.unit)


def _kept_spec(home: Path, ref: ClusterRef) -> ClusterSpec | None:
    """A cluster's spec where it lies on this computer, for its prices."""
    try:
        return Folder(home, ref).read_spec()
    except SpecError:
        return None  # somebody edited it; whoever brings that cluster up is told
