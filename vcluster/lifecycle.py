"""The life of a cluster after it is up: stopped, shelved, back again, given more time, taken down."""

from __future__ import annotations

import threading

from vcluster import spans
from vcluster.actions import NOTE_ATTEMPTS, NOTE_EXPIRES, Goal, Power
from vcluster.bringup import BringUp, Glance
from vcluster.errors import CancelledError, CloudError, UsageError
from vcluster.expiry import NOTE_REAPED, expiry_of, extended
from vcluster.model import Health, MachineState, Observed, Part, PartKind, Role
from vcluster.plan_peers import is_peer
from vcluster.reconcile_end import some
from vcluster.runner import Confirm, Guard
from vcluster.turn import OvertakenError, going_down
from vcluster.views import PlanView, Result

__all__ = ["Lifecycle"]

DOWN_TIMEOUT = 900.0


class _ExtendedError(CancelledError):
    """What was due is not due any more."""


class Lifecycle(BringUp):
    """What :class:`vcluster.cluster.Cluster` does with a cluster that exists."""

    def start(self, *, timeout: float | None = None, cancel: threading.Event | None = None) -> Result:
        """Boot a stopped cluster (or one whose host rebooted); raises as :meth:`up`.

        Raises:
            UsageError: there is no head to boot: making one anew is for :meth:`up`, which asks first.
        """
        observed = self._observe()
        self._must_exist(observed)
        if observed.head is None:
            raise UsageError(f"{self.name} has no head to start", remedy="`vcluster up` with its spec makes a new one")
        servers = (machine for machine in observed.machines if machine.role is Role.HEAD or is_peer(machine))
        spent = {key: "" for machine in servers if observed.notes.get(key := NOTE_ATTEMPTS + machine.name)}
        if spent:
            # A person asked: the servers get a new budget of reboots.
            self.cloud.annotate(self.ref, spent)
        self._refuse_expired(observed)
        return self._up(self._spec(observed, boot=True), timeout, self._never, cancel)

    def stop(
        self, *, wait_jobs: float = 0.0, timeout: float | None = None, cancel: threading.Event | None = None
    ) -> Result:
        """Shut all machines down, the head last; nothing is deleted.

        Args:
            wait_jobs: seconds that running jobs may take to end; no new ones start meanwhile.
            timeout: seconds for all else.
            cancel: set it from another thread to stop.

        Raises:
            UsageError: there is no such cluster.
            CancelledError: ``cancel`` was set, or the cluster is being taken down.
        """
        glance = self._glance()
        self._must_exist(glance.observed)
        self._can_ask_now(glance.observed)  # so that it can be drained, from a computer that had no keys, too
        goal = Goal(Power.STOPPED, job_patience=wait_jobs)
        return self._run(goal, (timeout or DOWN_TIMEOUT) + wait_jobs, cancel, first=self._fresh(glance))

    def shelve(
        self, *, wait_jobs: float = 0.0, timeout: float | None = None, cancel: threading.Event | None = None
    ) -> Result:
        """Put the cluster on the shelf, where it costs little or nothing: the workers go, the head and its disk stay.

        So do the other servers where there are three: their disks are the database.

        Args:
            wait_jobs: seconds that running jobs may take to end; no new ones start meanwhile.
            timeout: seconds for all else.
            cancel: set it from another thread to stop.

        Raises:
            UsageError: there is no such cluster, or no head that could be kept.
            CancelledError: ``cancel`` was set, or the cluster is being taken down.
        """
        return self._put_on_shelf(wait_jobs, timeout, cancel)

    def _put_on_shelf(
        self, wait_jobs: float, timeout: float | None, cancel: threading.Event | None, guard: Guard | None = None
    ) -> Result:
        glance = self._glance()
        self._must_exist(glance.observed)
        if glance.observed.head is None:
            raise UsageError(
                f"{self.name} has no head that could be kept",
                remedy=f"`vcluster down {self.name}` deletes what is left of it",
            )
        self._can_ask_now(glance.observed)
        goal = Goal(Power.SHELVED, job_patience=wait_jobs)
        return self._run(goal, (timeout or DOWN_TIMEOUT) + wait_jobs, cancel, first=self._fresh(glance), guard=guard)

    def unshelve(self, *, timeout: float | None = None, cancel: threading.Event | None = None) -> Result:
        """Take a cluster from the shelf: the head boots with all that it had, workers are made anew.

        Raises as :meth:`up`.

        Raises:
            UsageError: it is not shelved, or its time is up.
        """
        observed = self._observe()
        self._must_exist(observed)
        if observed.head is None or observed.head.state is not MachineState.SHELVED:
            state = "has no head" if observed.head is None else f"is not shelved: its head is {observed.head.state}"
            raise UsageError(f"{self.name} {state}", remedy=f"`vcluster status {self.name}` shows what there is")
        self._refuse_expired(observed)
        return self._up(self._spec(observed, boot=True), timeout, self._never, cancel)

    def _never(self, foreseen: PlanView) -> bool:
        """Nobody was asked, so nothing that holds data goes: the head may be lost since it was looked for."""
        lost = some([f"{a.verb} {a.kind} {a.name}: {a.detail}" for a in foreseen.actions if a.destroys_data])
        raise CancelledError(
            f"not agreed to: {lost}",
            remedy=f"`vcluster up` with the spec of {self.name} shows what would go, and asks",
        )

    def extend(self, seconds: float) -> float:
        """Let a cluster live longer, counted from its end or, when its time is up, from now.

        Returns:
            When it expires now, seconds since the epoch.

        Raises:
            UsageError: there is no such cluster, or it never expires.
        """
        observed = self._observe()
        self._must_exist(observed)
        notes = extended(observed.notes, seconds, self.cloud.now())
        if notes is None:
            raise UsageError(
                f"{self.name} never expires", remedy="`expires: 8h` in its spec, and `vcluster up`, give it an end"
            )
        self.cloud.annotate(self.ref, notes)
        expires = float(notes[NOTE_EXPIRES])
        self._log(f"{self.name} expires in {spans.spell(expires - self.cloud.now())}")
        return expires

    def end(
        self, *, dry_run: bool = False, wait_jobs: float = 0.0, cancel: threading.Event | None = None
    ) -> tuple[str, float]:
        """Do what is due with a cluster whose time is up: shelve it, or delete it after its grace period.

        Args:
            dry_run: only say what would be done.
            wait_jobs: seconds that running jobs may take to end before it is shelved.
            cancel: set it from another thread to stop.

        Returns:
            ``shelve``, ``delete``, ``wait`` (it is shelved and has some grace left), or an empty word when its time is
            not up, or somebody takes it down or brings it up just now, which an event says; and when it is to be
            deleted, seconds since the epoch.
        """
        observed, now = self._observe(), self.cloud.now()
        expiry = expiry_of(observed.notes)
        if expiry is None or not expiry.past(now):
            return "", 0.0
        if why := going_down(observed, now):
            self._log(f"{self.name} has expired, and is left alone: {why}")
            return "", 0.0
        act = "shelve" if not _at_rest(observed) else "delete" if expiry.doomed(now) else "wait"
        if dry_run:
            return act, (expiry.deletion if act != "shelve" else 0.0) or now + expiry.grace
        try:
            if act == "delete":
                self._go(Goal(Power.ABSENT), self._glance(leaving=True), None, cancel, self._check_past)
                return act, expiry.deletion
            if act == "shelve":
                self._put_on_shelf(wait_jobs, None, cancel, self._check_past)
        except (_ExtendedError, OvertakenError) as error:
            self._log(error.message)
            if isinstance(error, _ExtendedError):
                self._take_back()
            return "", 0.0
        deletion = self._begin_grace(anew=act == "shelve")
        return (act, deletion) if deletion or act == "shelve" else ("", 0.0)

    def _check_past(self, observed: Observed) -> None:
        """Stop a run that does what is due when it is not due any more: jobs may have been waited for, for hours.

        That no end is written says nothing here: the word goes with the resource that it was written on.
        """
        expiry = expiry_of(observed.notes)
        if expiry is not None and not expiry.past(self.cloud.now()):
            raise _ExtendedError(f"{self.name} was given more time meanwhile: it is left as it is")

    def _begin_grace(self, *, anew: bool) -> float:
        """Count the grace period from now, or from when that was written first; gives its end.

        Returns:
            Seconds since the epoch; 0 when the cluster was given more time meanwhile.
        """
        expiry, now = expiry_of(self._observe().notes), self.cloud.now()
        if expiry is None or not expiry.past(now):
            return 0.0
        if expiry.reaped and not anew:
            return expiry.deletion
        self.cloud.annotate(self.ref, {NOTE_REAPED: f"{now:.0f}"})
        return now + expiry.grace

    def _take_back(self) -> None:
        """Let workers have jobs again that were drained for a shelf that they do not go to."""
        observed = self._with_health(self._observe())
        drained = [m.name for m in observed.workers() if observed.health.get(m.name) in (Health.BUSY, Health.DRAINED)]
        if not drained:
            return
        control = self._control()
        try:
            control.resume(drained)
        except CloudError as error:
            self._log(f"workers stay drained until the next `vcluster up`: {error.message}", level="warning")
        finally:
            control.close()

    def down(
        self,
        *,
        keep_volumes: bool = False,
        timeout: float | None = None,
        confirm: Confirm | None = None,
        cancel: threading.Event | None = None,
    ) -> Result:
        """Delete all of the cluster, what its own software made for it too, and its folder on this computer.

        Args:
            keep_volumes: let the volume that the head boots from stay, with everybody's home on it, and the volumes
                (and snapshots) that the cluster's own software made.
            confirm: shown every resource by UUID before the first is deleted; None agrees.
        """
        goal = Goal(Power.ABSENT, keep_volumes=keep_volumes)
        glance = self._glance(leaving=True)
        homes = _homes(glance.observed) if keep_volumes else []
        if keep_volumes and not homes:
            raise UsageError(
                f"{self.name} has no volume to keep",
                remedy="its head boots from its flavor's disk; what was kept before stays without --keep-volumes too",
            )
        self._ask(goal, glance.observed, confirm)
        result = self._go(goal, glance, timeout, cancel)
        for part in homes:
            what = f"{part.kind} {part.name}" if part.maker else "the head's volume"
            self._log(f"kept: {what} {part.uuid}")
        return result

    def _go(
        self,
        goal: Goal,
        glance: Glance,
        timeout: float | None,
        cancel: threading.Event | None,
        guard: Guard | None = None,
    ) -> Result:
        result = self._run(goal, timeout or DOWN_TIMEOUT, cancel, first=self._fresh(glance), guard=guard)
        if result.status.state == "absent":
            self.folder.remove()
        return result


def _at_rest(observed: Observed) -> bool:
    """Whether an expired cluster's grace period may begin: no worker is left, and the head is on the shelf.

    So are the servers beside it. One in ERROR cannot be shelved; it must not live for ever because of that.
    """
    resting = (MachineState.SHELVED, MachineState.ERROR)
    servers = all(m.state in resting and (m.role is Role.HEAD or is_peer(m)) for m in observed.machines)
    return observed.head is not None and servers


def _homes(observed: Observed) -> list[Part]:
    """What people have files on: the head's own volume, whatever else bears its name from an earlier life, and what the
    cluster's own software made for that.

    One that is marked as kept counts as well, so that a run that was killed can be repeated.
    """
    theirs = [part for part in observed.parts if part.maker and part.kind in (PartKind.VOLUME, PartKind.SNAPSHOT)]
    volumes = [p for p in observed.parts if p.kind is PartKind.VOLUME and p.name == Role.HEAD and not p.maker]
    head = observed.head
    if head is None or head.state is MachineState.DELETING:
        return volumes + theirs
    own = [volume for volume in volumes if volume.used_by == head.uuid]
    if own or head.state is not MachineState.SHELVED:
        return own + theirs
    # Some clouds do not say whose volume it is while its machine is on the shelf.
    return [volume for volume in volumes if not volume.kept and not volume.used_by] + theirs
