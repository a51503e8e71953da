"""What a cluster would take, before anything is done: its spec and the way to it, its plan, quota and cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from vcluster import delivery, quota, spans, spec_secrets
from vcluster.actions import NOTE_EXPIRES, Goal, Plan
from vcluster.capacity import capacity, refuse_too_large
from vcluster.clouds.base import Cloud
from vcluster.connect import DEFAULT_CLOUD
from vcluster.errors import PermanentError, UsageError
from vcluster.events import EventHandler
from vcluster.expiry import expiry_of
from vcluster.folder import Folder
from vcluster.frontdoor import check_domain
from vcluster.model import Allowance, ClusterRef, Endpoint, Flavor, MachineState, Observed, Role, Slot
from vcluster.plan import plan
from vcluster.preview import samples
from vcluster.prices import Cost, prices_of
from vcluster.runner import Runner
from vcluster.views import PlanView
from vcluster.wiring import goal_of, image_of, images_of

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["Outlook", "missing"]


class Outlook(Runner):
    """What :class:`vcluster.cluster.Cluster` knows of a cluster, there or not.

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
        """A plan with its surroundings: the place, the quota, the cost, the notebooks."""
        allowances = self.cloud.allowances() if _makes_something(found) else {}
        return replace(
            PlanView.of(found),
            place=self.cloud.place,
            quota=quota.needs(found, allowances),
            cost=self._cost(spec, goal, observed),
            notebooks=capacity(spec, goal.slots),
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
        if self.cloud.name != DEFAULT_CLOUD and missing(goal, observed):
            image_of(spec, self.cloud, self._log)()
            images_of(spec, self.cloud, goal.slots, self._log)

    def _check_user_data(self, spec: ClusterSpec, goal: Goal, observed: Observed) -> None:
        """Say before anything is made that a spec's files, users and scripts are too much for a new machine.

        Raises:
            PermanentError: names the machine.
            SpecError: a secret that a new head needs cannot be found.
        """
        groups = frozenset(slot.group for slot in missing(goal, observed))
        if not groups:
            return
        if any(slot.role is Role.HEAD and slot.group in groups for slot in goal.slots):
            delivery.check(spec)  # a head that is there has what it was handed
            spec_secrets.resolve(spec)
        for name, user_data in samples(spec, goal.slots, self.ref, self.cloud.guarded, groups).items():
            try:
                self.cloud.check_user_data(user_data)
            except PermanentError as error:
                raise PermanentError(f"{name}: {error.message}", remedy=error.remedy) from error

    def _check_class(self, spec: ClusterSpec, goal: Goal) -> None:
        """Say before anything is made that a class cannot fit. Who makes workers fewer later is only warned.

        A domain that shall point at an address which is known before is looked up as well.

        Raises:
            SpecError: names the field, and worker counts at which it would fit.
        """
        if spec is self._given and spec.access.floating_ip:
            check_domain(spec, spec.access.floating_ip)
        found = capacity(spec, goal.slots)
        if spec is self._given:
            refuse_too_large(spec, found)
        elif found is not None and not found.fits:
            self._log(f"the class does not fit any more: {found}", level="warning")

    def _ask_ahead(self, spec: ClusterSpec, image: Callable[[], str]) -> Callable[[], Mapping[str, Allowance]]:
        """Ask at once, while the cluster is looked for, what a new one will need; gives the allowances.

        What goes wrong here goes wrong again, and is told, where the answer is needed.
        """
        if self.folder.known or self.cloud.name == DEFAULT_CLOUD:
            return self.cloud.allowances
        pool = ThreadPoolExecutor(3, thread_name_prefix=f"vcluster-{self.name}")
        pool.submit(spec.slots, self.cloud.flavor)
        pool.submit(image)
        allowances = pool.submit(self.cloud.allowances)
        pool.shutdown(wait=False)
        return allowances.result

    def _within_quota(self, goal: Goal, observed: Observed, ask: Callable[[], Mapping[str, Allowance]]) -> Goal:
        """The goal without the workers that do not fit, as long as the minimum does.

        Args:
            ask: gives the project's allowances; called where something is to be made.

        Raises:
            QuotaError: not even that fits; with what was asked, used and allowed.
        """
        found = plan(goal, observed, self.ref, self.cloud.now())
        if not _makes_something(found):
            return goal
        away = missing(goal, observed)
        allowances = ask()
        if not allowances:
            self.cloud.check_room(self.ref, [slot.flavor for slot in away])
        short = quota.shortages(quota.needs(found, allowances))
        if not short:
            return goal
        extra, spared = _extra(goal, away), list[str]()
        while still := quota.shortages(quota.needs(quota.without(found, frozenset(spared)), allowances)):
            if not extra:
                raise quota.refusal(still)
            spared.append(extra.pop())
        reasons = "; ".join(map(str, short))
        self._log(f"{len(spared)} workers do not fit into the quota, the minimum does: {reasons}", level="warning")
        return replace(goal, given_up=dict.fromkeys(spared, f"the project's quota: {reasons}"))


def missing(goal: Goal, observed: Observed) -> list[Slot]:
    """The places whose machines are still to be made or booted."""
    there = {m.name for m in observed.machines if m.state in (MachineState.ACTIVE, MachineState.BUILD)}
    return [slot for slot in goal.slots if slot.name in goal.wanted and slot.name not in there]


def _extra(goal: Goal, absent: list[Slot]) -> list[str]:
    """The missing workers that a cluster can do without, those to leave out first at the end."""
    extra: list[str] = []
    for group, least in goal.minimum.items():
        away = [slot.name for slot in absent if slot.group == group]
        have = sum(slot.group == group and slot.name in goal.wanted for slot in goal.slots) - len(away)
        extra += away[max(0, least - have) :]
    return extra


def _makes_something(found: Plan) -> bool:
    return any(str(action.verb).startswith("create ") for action in found.actions)
