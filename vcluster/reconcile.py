"""The loop: observe, plan, apply, until nothing is left to do, the deadline passes or the caller cancels.

A crash at any point is mended by running the loop again: it keeps nothing that it could not see again, but a short
memory of what it did itself, because a cloud's listings may lag behind its acts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType

from vcluster import retry
from vcluster.actions import Action, Goal, Plan, Power, Verb
from vcluster.clouds.base import Cloud
from vcluster.errors import (
    CancelledError,
    CloudError,
    ConflictError,
    DeadlineError,
    PermanentError,
    QuotaError,
    TemporaryError,
    VclusterError,
)
from vcluster.events import Event, EventHandler, MachineChanged, PlanMade, Retrying, StepFinished, StepStarted
from vcluster.ledger import Ledger
from vcluster.model import (
    ClusterRef,
    Health,
    MachineRequest,
    MachineState,
    Network,
    Observed,
    Port,
    PortRequest,
    Role,
    Slot,
)
from vcluster.plan import chosen_network, chosen_ports, own, plan
from vcluster.stacks.base import Clock, Control
from vcluster.turn import Turn

__all__ = ["Outcome", "Reconciler", "Renderer"]

Renderer = Callable[[Slot, Network, dict[str, Port]], str]
"""Makes the user data of one machine, when every port is known."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run ended with.

    Attributes:
        changed: whether any action was carried out.
        degraded: wanted workers that the cluster goes on without.
    """

    observed: Observed
    changed: bool
    degraded: tuple[str, ...]


class Reconciler:
    """Brings one cluster to a goal.

    Args:
        control: asks the scheduler; None where the goal does not need it (stopped, absent).
        render: makes user data; None where nothing will be created.
        image: gives the image's id when a machine is to be made, building it where needed.
        emit: takes every event; called from several threads.
        keep_console: called with a machine's name and its console before a failed machine goes.
        may_destroy: whether a person agreed to what destroys data; if not, the run ends before it.
        host_key: the head's public SSH host key, which the cloud keeps for other computers.
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
        pool: int = 16,
        poll: float = 2.0,
    ) -> None:
        self._cloud, self._ref, self._goal = cloud, ref, goal
        self._control, self._render, self._image = control, render, image
        self._emit, self._clock, self._cancel = emit, clock, cancel
        self._keep_console, self._pool_size, self._poll = keep_console, pool, poll
        self._may_destroy, self._host_key = may_destroy, host_key
        self._doubted: dict[str, float] = {}
        self._turn = Turn(cloud, ref, leaving=goal.power is Power.ABSENT)
        self._by_uuid: Mapping[Verb, Callable[[ClusterRef, str], None]] = {
            Verb.START: cloud.start_machine,
            Verb.STOP: cloud.stop_machine,
            Verb.REBOOT: cloud.reboot_machine,
            Verb.SHELVE: cloud.shelve_machine,
            Verb.UNSHELVE: cloud.unshelve_machine,
            Verb.DELETE_MACHINE: cloud.delete_machine,
            Verb.DELETE_NETWORK: cloud.delete_network,
        }
        self._ledger = Ledger(clock.now)
        self._given_up: dict[str, CloudError] = {}
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._pictures: dict[str, tuple[str, str]] = {}
        self._last_plan: tuple[object, object] = ((), ())
        self._deadline = float("inf")
        self._changed = self._running = False
        self._quiet_since = float("inf")

    def run(self, timeout: float) -> Outcome:
        """Work until the goal is reached.

        Args:
            timeout: seconds until :class:`DeadlineError`.

        Raises:
            PermanentError: the goal cannot be reached; machines that failed for good are gone, consoles kept.
            QuotaError: there is no room, and fewer machines than the minimum.
            DeadlineError: names what was waited for.
            CancelledError: the caller set ``cancel``.
        """
        self._deadline = self._clock.now() + timeout
        self._running = True
        with ThreadPoolExecutor(self._pool_size, thread_name_prefix=f"vcluster-{self._ref.name}") as pool:
            while True:
                self._check_cancelled()
                observed = self.look()
                current = self.plan(observed)
                self._tell(observed, current)
                if current.empty and not current.hopeless:
                    if self._certain():
                        return Outcome(observed, self._changed, current.degraded)
                    self._wait(current)
                    continue
                self._quiet_since = float("inf")
                if current.hopeless:
                    self._clear_up(pool, current, observed)
                    raise self._final_error(current)
                runnable = self._runnable(current)
                self._apply(pool, runnable, observed)
                if not runnable:
                    self._wait(current)

    def _certain(self) -> bool:
        """Whether "nothing left" may be believed: what a killed run made just before may not be listed yet."""
        if self._goal.power is not Power.ABSENT:
            return True
        self._quiet_since = min(self._quiet_since, self._clock.now())
        return self._clock.now() - self._quiet_since >= self._cloud.listing_lag

    # Observe and plan ----------------------------------------------------------------------------------------

    def look(self) -> Observed:
        """One picture of the cluster, with what this run did and the listing does not show yet."""
        listed = retry.read(self._observe, sleep=self._sleep, notify=self._notify("looking"))
        if self._running:
            self._turn.check(listed)
        observed = self._ledger.merge(listed)
        head = observed.head
        if self._control and self._goal.power is Power.RUNNING and head and head.state is MachineState.ACTIVE:
            observed = observed.with_health(self._control.health(observed))
        return observed

    def _observe(self) -> Observed:
        return own(self._cloud.observe(self._ref), self._ref)

    def plan(self, observed: Observed) -> Plan:
        """What is left to do, given what this run has given up."""
        now = self._cloud.now()
        proved = (Health.READY, Health.BUSY, Health.DRAINED)
        silent = [m.uuid for m in observed.machines if observed.health.get(m.name) not in proved]
        self._doubted = {uuid: self._doubted.get(uuid, now) for uuid in silent}
        given_up = MappingProxyType({name: error.message for name, error in self._given_up.items()})
        goal = replace(self._goal, given_up=given_up, doubted=MappingProxyType(self._doubted))
        return plan(goal, observed, self._ref, now)

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
        wave = current.first_wave()
        if not self._may_destroy and self._goal.power is Power.RUNNING and any(a.destroys_data for a in wave):
            raise CancelledError(
                f"not agreed to: {_some([str(a) for a in wave if a.destroys_data])}",
                remedy="run the same command again: it shows what would be deleted, and asks",
            )
        return [
            action
            for action in wave
            if self._not_before.get(_key(action), 0.0) <= now and not self._ledger.settling(action)
        ]

    def _apply(self, pool: ThreadPoolExecutor, actions: Sequence[Action], observed: Observed) -> None:
        futures: dict[Future[None], Action] = {pool.submit(self._do, a, observed): a for a in actions}
        try:
            for future in as_completed(futures):
                self._record(futures[future], future.exception())
                if self._cancel.is_set():
                    break
        finally:
            for future in futures:
                future.cancel()

    def _record(self, action: Action, error: BaseException | None) -> None:
        key = _key(action)
        if error is None:
            self._changed = True
            self._failures.pop(key, None)
            return
        if isinstance(error, (TemporaryError, ConflictError)):
            count = self._failures[key] = self._failures.get(key, 0) + 1
            if count < retry.MAX_ATTEMPTS:
                wait = retry.delay(count, error)
                if action.verb in (Verb.CREATE_NETWORK, Verb.CREATE_PORTS, Verb.CREATE_MACHINE):
                    # It may have been done all the same: look only when a listing would show it.
                    wait = max(wait, self._cloud.listing_lag)
                self._not_before[key] = self._clock.now() + wait
                self._notify(action.subject)(error, wait)
                return
        if isinstance(error, CloudError) and action.verb is Verb.CREATE_MACHINE:
            self._given_up[action.names[0]] = error
            return
        if isinstance(error, CloudError) and action.verb is Verb.START and key not in self._failures:
            # Once: the next look shows it in ERROR, and it is judged like any other machine in ERROR.
            self._failures[key] = retry.MAX_ATTEMPTS
            return
        raise error

    def _do(self, action: Action, observed: Observed) -> None:
        self._check_cancelled()
        began = self._clock.now()
        self._send(StepStarted, action=str(action.verb), subject=action.subject)
        error = "interrupted"
        try:
            self._carry_out(action, observed)
            error = ""
        except VclusterError as problem:
            error = problem.message
            raise
        finally:
            seconds = self._clock.now() - began
            self._send(StepFinished, action=str(action.verb), subject=action.subject, error=error, seconds=seconds)

    def _carry_out(self, action: Action, observed: Observed) -> None:
        cloud, ref = self._cloud, self._ref
        if action.failed and action.uuids:
            self._save_console(action)
        if action.notes:
            cloud.annotate(ref, dict(action.notes))
            self._ledger.noted(action.notes)
        match action.verb:
            case Verb.CREATE_NETWORK:
                self._ledger.created_network(cloud.create_network(ref, ref.tag(Role.NETWORK)))
            case Verb.CREATE_PORTS:
                head, network = self._goal.slots[0].name, self._network(observed)
                tags = {name: ref.tag(Role.HEAD if name == head else Role.WORKER) for name in action.names}
                requests = [PortRequest(name, tag, network.uuid) for name, tag in tags.items()]
                self._ledger.created_ports(cloud.create_ports(ref, requests))
            case Verb.CREATE_MACHINE:
                self._create_machine(action, observed)
            case Verb.DRAIN:
                self._scheduler().drain(action.names, action.why)
            case Verb.RESUME:
                self._scheduler().resume(action.names)
            case Verb.DELETE_PORTS:
                cloud.delete_ports(ref, action.uuids)
            case verb if verb is not Verb.NOTE:
                self._by_uuid[verb](ref, action.uuids[0])
        self._ledger.did(action)

    def _network(self, observed: Observed) -> Network:
        network = chosen_network(observed)
        if network is None:
            raise TemporaryError("the cluster's network is gone")
        return network

    def _create_machine(self, action: Action, observed: Observed) -> None:
        if action.slot is None or self._render is None:
            raise PermanentError(f"{action.subject}: nothing says what to make")
        slot, ports = action.slot, chosen_ports(observed)
        user_data = self._render(slot, self._network(observed), ports)
        request = MachineRequest(
            name=slot.name,
            tag=self._ref.tag(slot.role),
            role=slot.role,
            group=slot.group,
            flavor=slot.flavor,
            port=ports[slot.name],
            image=self._image(),
            user_data=user_data,
            host_key=self._host_key if slot.role is Role.HEAD else "",
        )
        self._ledger.created_machine(self._cloud.create_machine(self._ref, request))

    def _scheduler(self) -> Control:
        if self._control is None:
            raise PermanentError("this run has no way to the scheduler")
        return self._control

    def _save_console(self, action: Action) -> None:
        if self._keep_console is None:
            return
        # The console is for a person; not having it must not stop the repair.
        with suppress(CloudError, OSError):
            self._keep_console(action.names[0], self._cloud.console(self._ref, action.uuids[0], 400))

    # Wait and end --------------------------------------------------------------------------------------------

    def _wait(self, current: Plan) -> None:
        now = self._clock.now()
        pending = [self._not_before.get(_key(action), 0.0) for action in current.first_wave()]
        until = min((t for t in pending if t > now), default=now + self._poll)
        try:
            self._sleep(max(0.05, min(until - now, self._poll)))
        except DeadlineError:
            raise DeadlineError(
                f"time is up while waiting for {_some(current.waiting) or _some([str(a) for a in current.actions])}",
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

    def _final_error(self, current: Plan) -> CloudError:
        if any(isinstance(error, QuotaError) for error in self._given_up.values()):
            quota = next(error for error in self._given_up.values() if isinstance(error, QuotaError))
            return QuotaError(f"{current.hopeless}", remedy=quota.remedy or "ask for less, or free some room")
        remedy = next((error.remedy for error in self._given_up.values() if error.remedy), "")
        return PermanentError(current.hopeless, remedy=remedy or self._remedy(current))

    def _remedy(self, current: Plan) -> str:
        name, head = self._ref.name, self._goal.slots[0].name
        if head in current.lost and not any(head in action.names for action in current.actions):
            return f"`vcluster logs {name}` shows its console; `vcluster start {name}` tries again, its disk is kept"
        if head in current.lost:
            return f"mend the cause, then `vcluster down {name}` and `vcluster up` again"
        return f"mend the cause, then `vcluster replace {name} {min(current.lost, default='MACHINE')}` tries anew"

    def _notify(self, subject: str) -> Callable[[BaseException, float], None]:
        return lambda error, wait: self._send(Retrying, subject=subject, error=str(error), delay=wait)

    def _send(self, kind: type[Event], **fields: object) -> None:
        self._emit(kind(cluster=self._ref.name, time=self._cloud.now(), **fields))


def _key(action: Action) -> str:
    return f"{action.verb}/{'/'.join(action.uuids or action.names)}"


def _some(phrases: Sequence[str], most: int = 3) -> str:
    more = f" and {len(phrases) - most} more" if len(phrases) > most else ""
    return "; ".join(phrases[:most]) + more
