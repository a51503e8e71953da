"""Bringing a cluster up: whose keys it has, what is written where, and the run itself."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vcluster.actions import NOTE_SPEC
from vcluster.errors import CancelledError, CloudError, DeadlineError, UsageError
from vcluster.expiry import expiry_of, lifetime_notes
from vcluster.ledger import Ledger
from vcluster.model import MachineState, Observed, Role
from vcluster.offspring import Offspring
from vcluster.outlook import Outlook, missing
from vcluster.reconcile import ClaimedError
from vcluster.runner import Confirm
from vcluster.turn import Turn
from vcluster.views import Result
from vcluster.wiring import check_changes, image_of, images_of, renderer_of

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["BringUp"]

FRESH = 5.0
"""Seconds for which a look may stand for the first one of a run; then a person took their time to answer."""


@dataclass(frozen=True, slots=True)
class Glance:
    """All of a cluster as it was seen: ``began`` by the cloud's clock, ``at`` by the run's."""

    observed: Observed
    began: float
    at: float


@dataclass(frozen=True, slots=True)
class _Order:
    """What was asked of :meth:`BringUp._up`; ``end`` is its deadline by the run's clock.

    The ledger is one for all attempts: what the first made beside another run's cluster must go, also while listings
    do not show it.
    """

    spec: ClusterSpec
    end: float
    confirm: Confirm | None
    cancel: threading.Event | None
    keep_failed: bool
    replace_uuids: frozenset[str]
    turn: Turn
    ledger: Ledger


class BringUp(Outlook):
    """What :class:`vcluster.cluster.Cluster` does to make a cluster run; made with what :class:`Outlook` takes."""

    def _glance(self, *, leaving: bool = False) -> Glance:
        """Look at all of the cluster.

        Args:
            leaving: it shall go: look for what its own software made as well.
        """
        at, began = self._clock().now(), self.cloud.now()
        observed = self._observe()
        if leaving:
            offspring = Offspring(self.cloud, self.ref)
            observed = offspring.beside(observed)
            if offspring.unseen:
                what = f"what {self.name}'s own software made on the cloud is not seen"
                self._log(f"{what}: {offspring.unseen}", level="warning")
        return Glance(observed, began, at)

    def _fresh(self, glance: Glance) -> tuple[Observed, float] | None:
        """A look that may be the first one of a run; None when it is too old for that."""
        return (glance.observed, glance.began) if self._clock().now() - glance.at < FRESH else None

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
        end = self._clock().now() + (timeout or self.cloud.boot_timeout * 4)
        turn = Turn(self.cloud, self.ref, leaving=False)
        order = _Order(spec, end, confirm, cancel, keep_on_failure, replace_uuids, turn, Ledger(self._clock().now))
        while True:
            try:
                return self._attempt(order)
            except ClaimedError as error:
                # Another run made the cluster meanwhile: go on with that one's secret, if it has the same spec.
                left = end - self._clock().now()
                if left <= 0:
                    raise DeadlineError(f"time is up: {error.message}", remedy=error.remedy) from error
                self._log(f"another run brings {self.name} up: its head has the keys")
                self.adopt(error.observed, left, cancel, boot=True)

    def _attempt(self, order: _Order) -> Result:
        spec, clock, cancel = order.spec, self._clock(), order.cancel
        image = image_of(spec, self.cloud, self._log, cancel)
        allowances = self._ask_ahead(spec, image)
        glance = self._glance()
        order.turn.check(glance.observed, act=False)
        self._refuse_expired(glance.observed)
        if self._expired(glance.observed):
            self._log(f"{self.name} has expired: `vcluster reap` will shelve it", level="warning")
        if glance.observed.head is not None and not self._keys_fit(glance.observed):
            self.adopt(glance.observed, order.end - clock.now(), cancel, boot=True)
            glance = self._glance()
            order.turn.check(glance.observed, act=False)
        observed = glance.observed
        check_changes(spec, observed, self.folder)
        goal = self._goal(spec, observed, replace_uuids=order.replace_uuids, keep_failed=order.keep_failed)
        self._check_class(spec, goal)
        goal = self._within_quota(goal, observed, allowances)
        self._check_user_data(spec, goal, observed)
        agreed = self._ask(goal, observed, order.confirm)
        if missing(goal, observed):
            goal = replace(goal, slots=images_of(spec, self.cloud, goal.slots, self._log, cancel))
            image()
            if cancel is not None and cancel.is_set():
                raise CancelledError("interrupted before anything was made")
            self._log(f"{self.name}: {self.cloud.place}")
        told = self._tell_head(spec, observed)
        changed = self._write(spec, observed)
        goal = replace(goal, claim=self.folder.keyring().claim)
        result = self._run(
            goal,
            max(1.0, order.end - clock.now()),
            cancel,
            image=image,
            render=renderer_of(spec, goal.slots, self.ref, self.folder, self.cloud),
            may_destroy=agreed,
            first=None if changed else self._fresh(glance),
            turn=order.turn,
            ledger=order.ledger,
        )
        if not told:
            self._keep_on_head(spec)
        head = next((machine for machine in result.status.machines if machine.role == Role.HEAD), None)
        ways = (head.endpoint, head.web) if head else (None, None)
        door = self._open_door(spec, *ways, cancel, order.end)
        return replace(result, hub=door or None, scheduler=spec.scheduler)

    def _refuse_expired(self, observed: Observed) -> None:
        head = observed.head
        if head is not None and head.state is MachineState.SHELVED and self._expired(observed):
            raise UsageError(
                f"{self.name} has expired: it would be shelved again at once",
                remedy=f"`vcluster extend {self.name} 4h` lets it live on",
            )

    def _expired(self, observed: Observed) -> bool:
        expiry = expiry_of(observed.notes)
        return expiry is not None and expiry.past(self.cloud.now())

    def _write(self, spec: ClusterSpec, observed: Observed) -> bool:
        """Put what the spec says where later runs look: into the folder, and on the cluster.

        Returns:
            Whether anything of the cluster is not any more as it was observed.
        """
        self.folder.write_spec(spec.to_yaml())
        said = lifetime_notes(spec, observed.notes, self.cloud.now())
        if changed := {key: value for key, value in said.items() if key in observed.notes}:
            self.cloud.annotate(self.ref, changed)
        return bool(changed)

    def _tell_head(self, spec: ClusterSpec, observed: Observed) -> bool:
        """Put a changed spec on the head; whether it knows this one, or will: a new head has it from its first boot on.

        One that is off, or was never ready, is told when the cluster is up.
        """
        head, known = observed.head, observed.notes.get(NOTE_SPEC, "")
        if not known and (old := self.folder.read_spec()):
            known = old.digest
        if head is None or known == spec.digest:
            return True
        ready = head.state is MachineState.ACTIVE and NOTE_SPEC in observed.notes
        return ready and self._keep_on_head(spec)

    def _keep_on_head(self, spec: ClusterSpec) -> bool:
        try:
            self._keep_spec(spec.to_yaml())
        except (CloudError, UsageError) as error:
            self._log(f"the head has not the new spec: {error.message}", level="warning")
            return False
        return True
