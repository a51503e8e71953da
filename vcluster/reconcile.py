"""The loop: observe, plan, apply, until nothing is left to do, the deadline passes or the caller cancels.

A crash at any point is mended by running the loop again: it keeps nothing that it could not see again, but a short
memory of what it did itself, because a cloud's listings may lag behind its acts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from types import MappingProxyType

from vcluster import retry
from vcluster.actions import NOTE_READY, Action, Goal, Plan, Power, Verb
from vcluster.clouds.base import Cloud
from vcluster.errors import (
    CancelledError,
    CloudError,
    ConflictError,
    DeadlineError,
    QuotaError,
    TemporaryError,
    VclusterError,
)
from vcluster.events import Event, EventHandler, Log, MachineChanged, PlanMade, Retrying, StepFinished, StepStarted
from vcluster.ledger import Ledger
from vcluster.model import ClusterRef, Observed, PartKind, Role
from vcluster.plan import plan
from vcluster.plan_faults import is_about_quota, needs_zones
from vcluster.reconcile_acts import Acts, Renderer
from vcluster.reconcile_end import ClaimedError, Outcome, final_error, some
from vcluster.reconcile_left import LeftOut, stays_in_the_way
from vcluster.reconcile_look import Look, View, doubts, look_after, suffices
from vcluster.reconcile_wake import WAKES, Wakes
from vcluster.stacks.base import Clock, Control
from vcluster.turn import Turn

__all__ = ["ClaimedError", "Outcome", "Reconciler", "Renderer"]

_CREATES = (Verb.CREATE_NETWORK, Verb.CREATE_PART, Verb.CREATE_VOLUME, Verb.CREATE_PORTS, Verb.CREATE_MACHINE)
_DRAIN_TRIES = 3

_CLAIM_IS_SURE = 30.0
"""Seconds after a look that showed our claim in which nobody can have taken it for abandoned: see plan_claim."""


class Reconciler:
    """Brings one cluster to a goal.

    Args:
        control: asks the scheduler; None where there is no way to it, or the goal (absent) does not need it.
        render: makes user data; None where nothing will be created.
        image: gives the image's id when a machine is to be made, building it where needed.
        emit: takes every event; called from several threads.
        keep_console: called with a machine's name and its console before a failed machine goes.
        may_destroy: whether a person agreed to what destroys data; if not, the run ends before it.
        host_key: the head's public SSH host key, which goes with its create call.
        turn: the command's, where it began to look before this run; None: this run is all of the command.
        ledger: what earlier runs of the command made, which listings may not show yet.
        pool: how many calls may be under way at once.
        poll: seconds between looks while others work.
    """

    def __init__(
        self,
        cloud: Cloud,
        ref: ClusterRef,
        goal: Goal,
        *,
        control: Control | None,
        render: Renderer | None,
        image: Callable[[], str],
        emit: EventHandler,
        clock: Clock,
        cancel: threading.Event,
        keep_console: Callable[[str, str], None] | None = None,
        may_destroy: bool = True,
        host_key: str = "",
        guard: Callable[[Observed], None] | None = None,
        turn: Turn | None = None,
        ledger: Ledger | None = None,
        pool: int = 16,
        poll: float = 2.0,
    ) -> None:
        self._cloud, self._ref, self._goal = cloud, ref, goal
        self._emit, self._clock, self._cancel = emit, clock, cancel
        self._pool_size, self._poll, self._may_destroy = pool, poll, may_destroy
        self._turn = turn or Turn(
            cloud,
            ref,
            leaving=goal.power is Power.ABSENT,
            resting=goal.power in (Power.STOPPED, Power.SHELVED),
            warn=lambda text: self._send(Log, level="warning", message=text),
        )
        self._guard = guard
        self._ledger = ledger or Ledger(clock.now)
        self._view = View(
            cloud,
            ref,
            self._ledger,
            read=lambda call: retry.read(call, sleep=self._sleep, notify=self._notify("looking")),
            whole=self._check_turn,
            control=None if goal.power is Power.ABSENT else control,
            clock=clock.now,
            host_key=host_key,
            leaving=goal.power is Power.ABSENT,
        )
        self._acts = Acts(
            cloud,
            ref,
            goal,
            self._ledger,
            control=control,
            render=render,
            image=image,
            host_key=host_key,
            notify=lambda text: self._send(Log, level="info", message=text),
            cancel=cancel,
            keep_console=keep_console,
        )
        self._doubted: dict[tuple[str, str], float] = {}
        self._spent: frozenset[str] = frozenset()
        self._began = 0.0
        self._given_up: dict[str, CloudError] = {}
        self._left_out = LeftOut(goal.power, lambda text: self._send(Log, level="warning", message=text))
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._wakes = Wakes()
        self._pictures: dict[str, tuple[str, str]] = {}
        self._last_plan: tuple[object, object] = ((), ())
        self._deadline = self._quiet_since = float("inf")
        self._changed = self._running = False
        self._next = Look.WHOLE

    def run(self, timeout: float, first: tuple[Observed, float] | None = None) -> Outcome:
        """Work until the goal is reached.

        Args:
            timeout: seconds until :class:`DeadlineError`.
            first: a look at everything that the caller has just taken, and when it began by the cloud's clock.

        Raises:
            PermanentError: the goal cannot be reached; machines that failed for good are gone, consoles kept.
            QuotaError: there is no room, and fewer machines than the minimum.
            DeadlineError: names what was waited for.
            CancelledError: the caller set ``cancel``.
            ClaimedError: the cluster was made with another secret than the goal's claim; its head is on.
        """
        self._deadline = self._clock.now() + timeout
        self._running = True
        if first is not None and self._view.take(*first):
            self._next = Look.TAKEN
        with ThreadPoolExecutor(self._pool_size, thread_name_prefix=f"vcluster-{self._ref.name}") as pool:
            while True:
                self._check_cancelled()
                observed, current = self._consider()
                self._tell(observed, current)
                if current.hopeless:
                    self._clear_up(pool, current, observed)
                    failures = self._given_up.values()
                    raise final_error(current, self._goal, self._ref.name, failures, self._view.silence)
                if current.empty:
                    if current.claimed:
                        raise ClaimedError(current.claimed, observed)
                    if self._certain():
                        self._left_out.check(observed, self._ref.name, self._view.unseen)
                        if lost := [f"{name}: {current.lost[name]}" for name in current.degraded]:
                            self._send(Log, level="warning", message=f"it goes on without {some(lost)}")
                        return Outcome(observed, self._changed, current.degraded)
                    self._wait(current)
                    continue
                self._quiet_since = float("inf")
                runnable = self._runnable(current)
                if self._apply(pool, runnable, observed):
                    self._next = look_after(runnable)
                if not runnable:
                    self._wait(current)

    def _consider(self) -> tuple[Observed, Plan]:
        """Look as much as is needed for a plan that may be followed."""
        how = Look.WHOLE if self._next is Look.MACHINES and self._view.stale else self._next
        self._next = Look.WHOLE
        observed = self._view.look(how)
        current = self.plan(observed)
        if not suffices(how, current, leaving=self._goal.power is Power.ABSENT):
            observed = self._view.look(Look.WHOLE, ask=how is not Look.MACHINES)
            current = self.plan(observed)
        return observed, current

    def _certain(self) -> bool:
        """Whether "nothing left" may be believed."""
        if self._goal.power is not Power.ABSENT:
            return True
        self._quiet_since = min(self._quiet_since, self._clock.now())
        return self._view.certain(self._cloud.listing_lag, self._quiet_since)

    # Observe and plan ----------------------------------------------------------------------------------------

    def look(self) -> Observed:
        """One picture of all of the cluster."""
        return self._view.look(Look.WHOLE)

    def _check_turn(self, listed: Observed) -> None:
        if self._running:
            self._turn.check(listed)
            if self._guard is not None:
                self._guard(listed)

    def plan(self, observed: Observed) -> Plan:
        """What is left to do, given what this run has given up and what it saw before."""
        now = self._view.began
        self._began = self._began or now
        silent = doubts(observed, self._ref)
        self._doubted = {doubt: self._doubted.get(doubt, now) for doubt in silent}
        self._spent |= {p.uuid for p in observed.parts if p.kind is PartKind.VOLUME and p.used_by}
        self._give_up_for_quota(observed)
        lag = self._cloud.listing_lag
        goal = replace(
            self._goal,
            given_up=MappingProxyType(
                {**self._goal.given_up, **{name: error.message for name, error in self._given_up.items()}}
            ),
            doubted=MappingProxyType({uuid: since for (uuid, _), since in self._doubted.items()}),
            spent=self._spent,
            asleep=self._wakes.asleep(self._clock.now()),
            heard=self._view.heard,
            began=self._began,
            zones=self._view.zones() if needs_zones(self._goal, observed) else (),
            claim_settle=self._goal.claim_settle + lag if lag else 0.0,
        )
        return plan(goal, self._left_out.rest(observed), self._ref, now)

    def _give_up_for_quota(self, observed: Observed) -> None:
        """Remember who has no quota: the machine in ERROR that says so will soon be gone."""
        for machine in observed.machines:
            lasting = machine.role is Role.HEAD and observed.notes.get(NOTE_READY)
            if machine.name in self._goal.wanted and is_about_quota(machine) and not lasting:
                self._given_up.setdefault(machine.name, QuotaError(machine.fault))

    def _tell(self, observed: Observed, current: Plan) -> None:
        for machine in observed.machines:
            health = observed.health.get(machine.name, "")
            picture = (str(machine.state), str(health))
            if self._pictures.get(machine.name) != picture:
                self._pictures[machine.name] = picture
                detail = machine.fault or machine.address
                self._send(MachineChanged, machine=machine.name, state=picture[0], health=picture[1], detail=detail)
        for gone in self._pictures.keys() - {machine.name for machine in observed.machines}:
            del self._pictures[gone]
            self._send(MachineChanged, machine=gone, state="GONE", health="", detail="")
        if (current.actions, current.waiting) != self._last_plan:
            self._last_plan = (current.actions, current.waiting)
            self._send(PlanMade, actions=tuple(str(a) for a in current.actions), waiting=current.waiting)

    # Apply ---------------------------------------------------------------------------------------------------

    def _runnable(self, current: Plan) -> list[Action]:
        now = self._clock.now()
        wave = self._left_out.wave(current.first_wave())
        if not self._may_destroy and self._goal.power is Power.RUNNING and any(a.destroys_data for a in wave):
            raise CancelledError(
                f"not agreed to: {some([str(a) for a in wave if a.destroys_data])}",
                remedy="run the same command again: it shows what would be deleted, and asks",
            )
        return [
            action
            for action in wave
            if self._not_before.get(_key(action), 0.0) <= now and not self._ledger.settling(action)
        ]

    def _apply(self, pool: ThreadPoolExecutor, actions: Sequence[Action], observed: Observed) -> bool:
        """Run actions at the same time; whether there were any, and all succeeded."""
        futures: dict[Future[None], Action] = {pool.submit(self._do, a, observed): a for a in actions}
        well = bool(actions)
        try:
            for future in as_completed(futures):
                well = self._record(futures[future], future.exception()) and well
                if self._cancel.is_set():
                    break
        finally:
            for future in futures:
                future.cancel()
        return well

    def _record(self, action: Action, error: BaseException | None) -> bool:
        """Draw the consequences of how an action ended: the one place where an error's class decides."""
        key = _key(action)
        if error is None:
            self._changed = True
            self._failures.pop(key, None)
            if action.verb in WAKES:
                self._not_before[key] = self._wakes.woke(action.uuids[0], self._clock.now())
            self._left_out.accepted(action, self._clock.now())
            return True
        if isinstance(error, (TemporaryError, ConflictError)):
            count = self._failures[key] = self._failures.get(key, 0) + 1
            most = _DRAIN_TRIES if self._resting(action) else retry.MAX_ATTEMPTS
            if count < most and not self._left_out.takes(action, error, count):
                self._retry(action, error, count)
                return False
        if isinstance(error, CloudError) and action.verb in (Verb.CREATE_MACHINE, Verb.CREATE_VOLUME):
            self._given_up[action.names[0]] = error
            return False
        if isinstance(error, CloudError) and self._resting(action):
            # Best effort: a scheduler that cannot be told does not keep a cluster from being stopped.
            self._send(Log, level="warning", message=f"workers are not drained: {error.message}")
            self._view.control = None
            return False
        if isinstance(error, CloudError) and self._left_out.takes(action, error):
            self._left_out.add(action, error)
            if action.failed:
                self._given_up[action.names[0]] = stays_in_the_way(action, error)
            return False
        if isinstance(error, CloudError) and action.verb is Verb.START and key not in self._failures:
            # Once: the next look shows it in ERROR, and it is judged like any other machine in ERROR.
            self._failures[key] = retry.MAX_ATTEMPTS
            return False
        raise error

    def _resting(self, action: Action) -> bool:
        return action.verb is Verb.DRAIN and self._goal.power is not Power.RUNNING

    def _retry(self, action: Action, error: CloudError, count: int) -> None:
        wait = retry.delay(count, error)
        if action.verb in _CREATES:
            # It may have been done all the same: look only when a listing would show it.
            wait = max(wait, self._cloud.listing_lag)
        self._not_before[_key(action)] = self._clock.now() + wait
        self._notify(action.subject)(error, wait)

    def _do(self, action: Action, observed: Observed) -> None:
        self._check_cancelled()
        began = self._clock.now()
        self._send(StepStarted, action=action.title, subject=action.subject)
        error = "interrupted"
        try:
            self._check_claim(action, observed)
            self._acts.carry_out(action, observed)
            error = ""
        except VclusterError as problem:
            error = problem.message
            raise
        finally:
            seconds = self._clock.now() - began
            self._send(StepFinished, action=action.title, subject=action.subject, error=error, seconds=seconds)

    def _check_claim(self, action: Action, observed: Observed) -> None:
        """A process that slept in the meantime (a closed laptop) must not make machines with a secret that lost."""
        at_risk = action.verb is Verb.CREATE_MACHINE and self._goal.claim and observed.head is None
        if at_risk and self._cloud.now() - self._view.began > _CLAIM_IS_SURE:
            raise TemporaryError("the last look is too old: another run may have claimed the cluster since")

    # Wait and end --------------------------------------------------------------------------------------------

    def _wait(self, current: Plan) -> None:
        self._next = Look.MACHINES if current.waiting and not current.actions and not current.unseen else Look.WHOLE
        now = self._clock.now()
        pending = [self._not_before.get(_key(action), 0.0) for action in current.first_wave()]
        until = min((t for t in pending if t > now), default=now + self._poll)
        try:
            self._sleep(max(0.05, min(until - now, self._poll)))
        except DeadlineError:
            what = some(current.waiting or [str(a) for a in current.actions] or ["what may not be listed yet"])
            raise DeadlineError(
                f"time is up while waiting for {what}{self._view.silence}",
                remedy="run the same command again: it goes on from here",
            ) from None

    def _sleep(self, seconds: float) -> None:
        left = self._deadline - self._clock.now()
        if left <= 0:
            raise DeadlineError("time is up", remedy="run the same command again: it goes on from here")
        self._clock.sleep(min(seconds, left), self._cancel)
        self._check_cancelled()

    def _check_cancelled(self) -> None:
        if self._cancel.is_set():
            raise CancelledError(
                "interrupted; what was made stays", remedy="the same command goes on from here, `down` removes it all"
            )

    def _clear_up(self, pool: ThreadPoolExecutor, current: Plan, observed: Observed) -> None:
        failed = [a for a in current.actions if a.failed and a.verb is Verb.DELETE_MACHINE]
        notes = [a for a in current.first_wave() if a.verb is Verb.NOTE and not a.destroys_data]
        self._apply(pool, [*notes, *failed], observed)

    def _notify(self, subject: str) -> Callable[[BaseException, float], None]:
        return lambda error, wait: self._send(Retrying, subject=subject, error=str(error), delay=wait)

    def _send(self, kind: type[Event], **fields: object) -> None:
        self._emit(kind(cluster=self._ref.name, time=self._cloud.now(), **fields))


def _key(action: Action) -> str:
    return f"{action.title}/{'/'.join(action.uuids or action.names)}"
