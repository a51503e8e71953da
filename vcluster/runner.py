"""One run of the loop for one cluster: what it needs is put together here, and what it tells is passed on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vcluster.actions import Goal, Plan, Power
from vcluster.clouds.base import Cloud
from vcluster.errors import CancelledError, CloudError
from vcluster.events import Done, EventHandler
from vcluster.folder import Folder
from vcluster.hub_access import HubAccess
from vcluster.ledger import Ledger
from vcluster.model import ClusterRef, MachineState, Observed, Role
from vcluster.plan import plan
from vcluster.reconcile import Outcome, Reconciler, Renderer
from vcluster.stacks.base import Control
from vcluster.turn import Turn
from vcluster.views import PlanView, Result, Status
from vcluster.wiring import explained

__all__ = ["Confirm", "Guard", "Runner"]

Confirm = Callable[[PlanView], bool]
"""Shown what is about to be deleted; returns whether to go on."""

Guard = Callable[[Observed], None]
"""Called with every look at everything; raises to end a run that is not due any more."""


class Runner(HubAccess):
    """Runs the loop; the base of :class:`vcluster.cluster.Cluster`.

    Args:
        cloud: where the cluster lives.
        ref: which one it is.
        folder: its folder on this computer.
        on_event: takes every event, from several threads; None: nobody listens.
    """

    def __init__(self, cloud: Cloud, ref: ClusterRef, folder: Folder, on_event: EventHandler | None) -> None:
        super().__init__(cloud, ref, folder, on_event)
        self._kept: list[Path] = []

    def _ask(self, goal: Goal, observed: Observed, confirm: Confirm | None) -> bool:
        """Whether what destroys data was agreed to; False when there was nothing to agree to."""
        if confirm is None:
            return True
        foreseen = self._foresee(goal, observed)
        deletes = goal.power is Power.ABSENT and bool(foreseen.actions)
        if not deletes and not any(action.destroys_data for action in foreseen.actions):
            return False
        if not confirm(replace(PlanView.of(foreseen), place=self.cloud.place)):
            raise CancelledError("nothing was changed")
        return True

    def _foresee(self, goal: Goal, observed: Observed) -> Plan:
        """What a run would do first and later, the scheduler's word on the machines included."""
        now = self.cloud.now()
        if goal.power is Power.RUNNING:
            observed = self._with_health(observed)
        return plan(replace(goal, began=now), observed, self.ref, now)

    def _with_health(self, observed: Observed) -> Observed:
        head = observed.head
        if head is None or head.state is not MachineState.ACTIVE or not self._can_ask_now(observed):
            return observed
        control = self._control()
        try:
            return observed.with_health(control.health(observed))
        except CloudError as error:
            self._log(f"the head was not asked: {error.message}", level="warning")
            return observed
        finally:
            control.close()

    def _loop(
        self,
        goal: Goal,
        *,
        control: Control | None,
        cancel: threading.Event,
        image: Callable[[], str] = str,
        render: Renderer | None = None,
        may_destroy: bool = True,
        guard: Guard | None = None,
        turn: Turn | None = None,
        ledger: Ledger | None = None,
    ) -> Reconciler:
        return Reconciler(
            self.cloud,
            self.ref,
            goal,
            control=None if goal.power is Power.ABSENT else control,
            render=render,
            image=image,
            emit=self._emit,
            clock=self._clock(),
            cancel=cancel,
            keep_console=self._keep_console,
            may_destroy=may_destroy,
            guard=guard,
            turn=turn,
            ledger=ledger,
            host_key="" if render is None else self.folder.keyring().host(Role.HEAD).public,
        )

    def _run(
        self,
        goal: Goal,
        timeout: float,
        cancel: threading.Event | None,
        *,
        image: Callable[[], str] = str,
        render: Renderer | None = None,
        may_destroy: bool = True,
        first: tuple[Observed, float] | None = None,
        guard: Guard | None = None,
        turn: Turn | None = None,
        ledger: Ledger | None = None,
    ) -> Result:
        began = time.monotonic()
        self._kept = []
        control = self._control()
        # A cluster that is brought up gets our keys, whatever was there before; one that is put to rest has its own.
        there = first[0] if first and goal.power is not Power.RUNNING else None
        try:
            loop = self._loop(
                goal,
                control=control if self._can_ask(there) else None,
                cancel=cancel or threading.Event(),
                image=image,
                render=render,
                may_destroy=may_destroy,
                guard=guard,
                turn=turn,
                ledger=ledger,
            )
            outcome: Outcome = loop.run(timeout, first)
        except CloudError as error:
            raise explained(error, self._kept) from error
        finally:
            control.close()
        seconds = time.monotonic() - began
        status = Status.of(self.name, self.ref.id, self.cloud.name, outcome.observed, goal.wanted)
        self._emit(
            Done(
                cluster=self.name,
                time=self.cloud.now(),
                changed=outcome.changed,
                degraded=outcome.degraded,
                seconds=seconds,
            )
        )
        return Result(outcome.changed, outcome.degraded, seconds, status)

    def _keep_console(self, name: str, text: str) -> None:
        path = self.folder.keep_console(name, text)
        self._kept.append(path)
        self._log(f"{name} failed; its console is kept in {path}", level="warning")
