"""Bringing a cluster up: whose keys it has, what fits into the quota, what it costs, and the run itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vcluster import quota, spans
from vcluster.actions import NOTE_EXPIRES, NOTE_SPEC, Goal, Plan
from vcluster.clouds.base import Cloud
from vcluster.connect import DEFAULT_CLOUD
from vcluster.errors import CancelledError, CloudError, DeadlineError, PermanentError, UsageError
from vcluster.events import EventHandler
from vcluster.expiry import expiry_of, lifetime_notes
from vcluster.folder import Folder
from vcluster.model import ClusterRef, Endpoint, Flavor, MachineState, Observed, Slot
from vcluster.plan import plan
from vcluster.prices import Cost, prices_of
from vcluster.reconcile import ClaimedError
from vcluster.runner import Confirm, Runner
from vcluster.views import PlanView, Result
from vcluster.wiring import check_changes, goal_of, image_of, images_of, renderer_of

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
    """What was asked of :meth:`BringUp._up`; ``end`` is its deadline by the run's clock."""

    spec: ClusterSpec
    end: float
    confirm: Confirm | None
    cancel: threading.Event | None
    keep_failed: bool
    replace_uuids: frozenset[str]


class BringUp(Runner):
    """What :class:`vcluster.cluster.Cluster` does to make a cluster run.

    Args:
        cloud: where it lives.
        ref: which one it is.
        folder: its folder on this computer.
        on_event: takes every event, from several threads.
        spec: what it shall be; None for what it was made of, which lies in the folder.
    """

    def __init__(
        self, cloud: Cloud, ref: ClusterRef, folder: Folder, on_event: EventHandler | None, spec: ClusterSpec | None
    ) -> None:
        super().__init__(cloud, ref, folder, on_event)
        self._given = spec

    # The spec and the way in -----------------------------------------------------------------------------------

    def _known_spec(self) -> ClusterSpec | None:
        if self._given is not None:
            return self._given
        return self.folder.read_spec()

    def _spec(self, observed: Observed | None = None, *, boot: bool = False) -> ClusterSpec:
        """What the cluster shall be: as given, else as it was last brought up, from whatever computer.

        Args:
            observed: the cluster as last seen; None looks now.
            boot: switch on a head that is off, if it alone can tell.
        """
        if self._given is not None:
            return self._given
        observed = observed or self._observe()
        spec = self._applied_spec(observed, boot=boot)
        if spec is None:
            self._must_exist(observed)
            raise UsageError(
                f"the spec of {self.name} is not on this computer", remedy="give its YAML file instead of its name"
            )
        return spec

    def _must_exist(self, observed: Observed) -> None:
        if observed.empty:
            named = [summary.ref for summary in self.cloud.clusters() if summary.ref.name == self.name]
            others = sorted({ref.owner or ref.creator for ref in named if ref.id != self.ref.id})
            if others:
                raise UsageError(
                    f"you have no cluster {self.name!r}, but {', '.join(others)} has",
                    remedy=f"--owner {others[0]} means that one",
                )
        super()._must_exist(observed)

    @property
    def _jump(self) -> str:
        # Not kept: the spec may come from the head only now.
        spec = self._known_spec()
        return (spec.access.jump or "") if spec is not None else ""

    def _observe(self, since: Observed | None = None) -> Observed:
        observed = super()._observe(since)
        head = observed.head
        if head is None or head.endpoint is None:
            return observed
        reached = replace(head, endpoint=self._way(head.endpoint))
        return replace(observed, machines=tuple(reached if m is head else m for m in observed.machines))

    def _glance(self) -> Glance:
        at, began = self._clock().now(), self.cloud.now()
        return Glance(self._observe(), began, at)

    def _fresh(self, glance: Glance) -> tuple[Observed, float] | None:
        """A look that may be the first one of a run; None when it is too old for that."""
        return (glance.observed, glance.began) if self._clock().now() - glance.at < FRESH else None

    def _way(self, endpoint: Endpoint) -> Endpoint:
        jump = self._jump
        return replace(endpoint, jump=jump) if jump else endpoint

    # What it would take ----------------------------------------------------------------------------------------

    def _goal(
        self,
        spec: ClusterSpec,
        observed: Observed,
        *,
        replace_uuids: frozenset[str] = frozenset(),
        keep_failed: bool = False,
    ) -> Goal:
        """What the spec asks for. Looking makes no secret: without one there is no claim yet."""
        claim = self.folder.keyring().claim if self.folder.known else ""
        goal = goal_of(spec, self.cloud, self.ref, observed, claim=claim, replace_uuids=replace_uuids)
        return replace(goal, keep_failed=keep_failed)

    def _view(self, spec: ClusterSpec, goal: Goal, found: Plan, observed: Observed) -> PlanView:
        """A plan with its surroundings: the place, the quota, the cost."""
        allowances = self.cloud.allowances() if _makes_something(found) else {}
        return replace(
            PlanView.of(found),
            place=self.cloud.place,
            quota=quota.needs(found, allowances),
            cost=self._cost(spec, goal, observed),
        )

    def _cost(self, spec: ClusterSpec | None, goal: Goal, observed: Observed) -> Cost | None:
        known = {slot.flavor.name: slot.flavor for slot in goal.slots}

        def size_of(name: str) -> Flavor:
            return known.get(name) or self.cloud.flavor(name)

        table = prices_of(spec)
        wanted = [(slot.flavor.name, str(MachineState.ACTIVE)) for slot in goal.slots if slot.name in goal.wanted]
        per_hour = table.total(wanted, size_of)
        now = self._cost_now(spec, observed, size_of)
        if per_hour is None or now is None:
            return None
        expiry = expiry_of(observed.notes)
        left = None if expiry is None else max(0.0, expiry.at - self.cloud.now())
        if NOTE_EXPIRES in goal.notes and spec is not None:
            left = spans.seconds(spec.expires or "")
        total = None if left is None else per_hour * left / 3600
        return Cost(per_hour, now, total, table.unit)

    def _cost_now(
        self, spec: ClusterSpec | None, observed: Observed, size_of: Callable[[str], Flavor] | None = None
    ) -> float | None:
        machines = [(machine.flavor, str(machine.state)) for machine in observed.machines]
        try:
            return prices_of(spec).total(machines, size_of or self.cloud.flavor)
        except PermanentError:
            return None  # a flavor that is no longer offered

    def _check_images(self, spec: ClusterSpec, goal: Goal, observed: Observed) -> None:
        """Say in a plan what would end the run: an image that the cloud has not. This computer's would be built.

        Raises:
            SpecError: names the field.
            PermanentError: the cloud has no image to start from.
        """
        if self.cloud.name != DEFAULT_CLOUD and _missing(goal, observed):
            image_of(spec, self.cloud, self._log)()
            images_of(spec, self.cloud, goal.slots, self._log)

    def _within_quota(self, goal: Goal, observed: Observed) -> Goal:
        """The goal without the workers that do not fit, as long as the minimum does.

        Raises:
            QuotaError: not even that fits; with what was asked, used and allowed.
        """
        found = plan(goal, observed, self.ref, self.cloud.now())
        if not _makes_something(found):
            return goal
        missing = _missing(goal, observed)
        allowances = self.cloud.allowances()
        if not allowances:
            self.cloud.check_room(self.ref, [slot.flavor for slot in missing])
        short = quota.shortages(quota.needs(found, allowances))
        if not short:
            return goal
        extra, spared = _extra(goal, missing), list[str]()
        while still := quota.shortages(quota.needs(quota.without(found, frozenset(spared)), allowances)):
            if not extra:
                raise quota.refusal(still)
            spared.append(extra.pop())
        reasons = "; ".join(map(str, short))
        self._log(f"{len(spared)} workers do not fit into the quota, the minimum does: {reasons}", level="warning")
        return replace(goal, given_up=dict.fromkeys(spared, f"the project's quota: {reasons}"))

    # The run ---------------------------------------------------------------------------------------------------

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
        order = _Order(spec, end, confirm, cancel, keep_on_failure, replace_uuids)
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
        glance = self._glance()
        self._refuse_expired(glance.observed)
        if glance.observed.head is not None and not self._keys_fit(glance.observed):
            self.adopt(glance.observed, order.end - clock.now(), cancel, boot=True)
            glance = self._glance()
        observed = glance.observed
        check_changes(spec, observed, self.folder)
        goal = self._goal(spec, observed, replace_uuids=order.replace_uuids, keep_failed=order.keep_failed)
        image = image_of(spec, self.cloud, self._log, cancel)
        goal = self._within_quota(goal, observed)
        agreed = self._ask(goal, observed, order.confirm)
        if _missing(goal, observed):
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
        )
        if not told:
            self._keep_on_head(spec)
        return result

    def _refuse_expired(self, observed: Observed) -> None:
        expiry = expiry_of(observed.notes)
        if expiry is None or not expiry.past(self.cloud.now()):
            return
        head = observed.head
        if head is not None and head.state is MachineState.SHELVED:
            raise UsageError(
                f"{self.name} has expired: it would be shelved again at once",
                remedy=f"`vcluster extend {self.name} 4h` lets it live on",
            )
        self._log(f"{self.name} has expired: `vcluster reap` will shelve it", level="warning")

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


def _missing(goal: Goal, observed: Observed) -> list[Slot]:
    """The places whose machines are still to be made or booted."""
    there = {m.name for m in observed.machines if m.state in (MachineState.ACTIVE, MachineState.BUILD)}
    return [slot for slot in goal.slots if slot.name in goal.wanted and slot.name not in there]


def _extra(goal: Goal, missing: list[Slot]) -> list[str]:
    """The missing workers that a cluster can do without, those to leave out first at the end."""
    extra: list[str] = []
    for group, least in goal.minimum.items():
        away = [slot.name for slot in missing if slot.group == group]
        have = sum(slot.group == group and slot.name in goal.wanted for slot in goal.slots) - len(away)
        extra += away[max(0, least - have) :]
    return extra


def _makes_something(found: Plan) -> bool:
    return any(str(action.verb).startswith("create ") for action in found.actions)
