"""What one does with the Hub of a cluster that runs: its door, how it is, who may use it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from vcluster.doors import url_of
from vcluster.errors import (
    CancelledError,
    CloudError,
    DeadlineError,
    PermanentError,
    TemporaryError,
    UsageError,
    VclusterError,
)
from vcluster.frontdoor import check_domain
from vcluster.hub import Hub, HubDoor, HubPasswords, HubPerson, HubStatus, NewPerson, Removed
from vcluster.hub_on_k3s import ChartAccess
from vcluster.model import Endpoint, Health, MachineState, Observed
from vcluster.people import people
from vcluster.stacks.jupyterhub import entry

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["HubAccess"]

FRONT_TRIES = 3
FRONT_EVERY = 5.0
PROOF_SECONDS = 900.0
"""For a notebook server to be ready, on an emulated machine that is busy; a real one takes some seconds."""
LOOK_EVERY = 0.2


class HubAccess(ChartAccess):
    """The part of :class:`vcluster.cluster.Cluster` that is about JupyterHub, most of it about a Slurm head's."""

    def hub_status(self) -> HubStatus:
        """How the Hub is: up or not, who is active, how many servers run, how many more fit.

        Raises:
            UsageError: the cluster has no Hub, or no head that can be reached.
            CloudError: the head did not answer.
        """
        with self._hub() as hub:
            return hub.status()

    def users(self) -> tuple[HubPerson, ...]:
        """Everybody who may use the Hub, in the order of their names; raises as :meth:`hub_status`."""
        with self._hub() as hub:
            people, problem = hub.people()
        if problem:
            self._log(f"nothing is known of their servers: {problem}", level="warning")
        return people

    def users_add(self, people: Sequence[NewPerson | str]) -> tuple[str, ...]:
        """Let people in while the cluster runs, all or none.

        Args:
            people: names, or more of each.

        Returns:
            Their names.

        Raises:
            UsageError: a name is taken or cannot be one; or as :meth:`hub_status`.
            CloudError: the head did not answer.
        """
        with self._hub() as hub:
            added = hub.add([NewPerson(each) if isinstance(each, str) else each for each in people])
        if hub.warning:
            self._log(hub.warning, level="warning")
        return added

    def users_remove(self, names: Sequence[str]) -> Removed:
        """Let people in no more: sessions, servers and jobs end, their files stay. Raises as :meth:`users_add`.

        Of who was removed already what is left is done.
        """
        with self._hub() as hub:
            return hub.remove(names)

    def users_password(self, who: str = "", password: str = "") -> HubPasswords:
        """The Hub's passwords, after one was changed; who is logged in stays so.

        Args:
            who: ``class``, ``admin`` or a person's name to change that one; empty only shows them.
            password: the new one; empty makes one.

        Raises:
            UsageError: there is no such password here, or it is too short; or as :meth:`hub_status`.
            CloudError: the head did not answer.
        """
        if not who and (spec := self._chart_spec()):
            return self._chart_passwords(spec)
        with self._hub() as hub:
            return hub.passwords(who, password)

    # Inside ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _hub(self, endpoint: Endpoint | None = None) -> Iterator[Hub]:
        """The Hub over one connection to the head, which is looked for where it is not given."""
        endpoint = endpoint or self._head_endpoint()
        self._refuse_chart()
        with self._head(endpoint) as tell:
            yield Hub(tell)

    def _open_door(
        self,
        spec: ClusterSpec,
        endpoint: Endpoint | None,
        web: Endpoint | None,
        cancel: threading.Event | None,
        end: float = float("inf"),
    ) -> HubDoor | None:
        """Tell the Hub its address and the spec's people, once the cluster is ready; None without a Hub.

        Ready means that the Hub starts servers: once for each boot of the head it has to.

        Args:
            endpoint: the head's SSH.
            web: where its port 443 is reached.
            end: when time is up, by the run's clock.

        Raises:
            UsageError: the head has no address.
            SpecError: the domain does not point at it.
            CloudError: it did not answer or started no server, again and again.
            DeadlineError: time was up before it had started one.
            CancelledError: ``cancel`` was set.
        """
        if spec.jupyterhub is None:
            return None
        if endpoint is None or web is None:
            raise UsageError(
                f"the Hub of {self.name} has no address: its head was made without one",
                remedy="take the cluster down and up again",
            )
        url, wait = url_of(spec, web), cancel or threading.Event()
        if spec.scheduler == "k3s":
            return self._open_chart_door(spec, endpoint, web, wait, end)
        everybody = [{"name": person.name, **entry(person)} for person in people(spec)]
        for attempt in range(FRONT_TRIES):
            try:
                check_domain(spec, web.host)
                with self._hub(endpoint) as hub:
                    door, first, proved = hub.front(url, everybody)
                    if door.problem:
                        self._log(f"not all is as the spec has the Hub's people: {door.problem}", level="warning")
                    if not proved:
                        self._prove(hub, end, wait)
                    # Only now: who is shown passwords is never shown them again, and would not see those of a failure.
                    return replace(door, passwords=hub.passwords()) if first else door
            except TemporaryError as error:
                if attempt + 1 == FRONT_TRIES:
                    raise
                self._log(f"the Hub is asked again: {error.message}", level="warning")
                self._clock().sleep(FRONT_EVERY, wait)
                if wait.is_set():
                    raise CancelledError("interrupted before the Hub knew its address") from error
        raise TemporaryError("the Hub was not told its address")

    def _prove(self, hub: Hub, end: float, cancel: threading.Event) -> None:
        """Have a server started, and tell how long that took."""
        left = min(PROOF_SECONDS, end - self._clock().now())
        remedy = f"`vcluster ssh {self.name} -- sudo journalctl -u jupyterhub` says more; then `vcluster up` again"
        if left < 1.0:
            raise DeadlineError("time is up: the Hub has not started a notebook server yet", remedy=remedy)
        self._log("the Hub starts a notebook server, to prove that it can")
        pool = ThreadPoolExecutor(1, "vcluster-proof")
        try:
            asked = pool.submit(hub.probe, left)
            while not asked.done():
                if cancel.wait(LOOK_EVERY):
                    # With the connection the call ends here; the head puts away what it began.
                    raise CancelledError("interrupted while the Hub started a notebook server")
            proof = asked.result()
        except PermanentError as error:
            text = f"the Hub starts no notebook server: {error.message}"
            raise (TemporaryError if self._clock().now() < end else DeadlineError)(text, remedy=remedy) from error
        finally:
            pool.shutdown(wait=False)
        if proof.problem:
            self._log(f"the server that proved the Hub is not gone: {proof.problem}", level="warning")
        if proof.skipped:
            self._log(f"the Hub was not asked for a notebook server: {proof.skipped}")
        else:
            self._log(f"a notebook server started on {proof.host} in {proof.seconds:.0f} s")

    def _hub_seen(self, spec: ClusterSpec | None, observed: Observed) -> HubStatus | None:
        """How the Hub is, for a picture of the whole cluster; None where there is none, or where nobody can tell."""
        head = observed.head
        if spec is None or spec.jupyterhub is None or head is None or head.state is not MachineState.ACTIVE:
            return None
        if spec.scheduler == "k3s":
            return None  # nobody on the head counts its servers
        if head.endpoint is None or observed.health.get(head.name, Health.UNKNOWN) is Health.UNKNOWN:
            return None
        try:
            with self._hub(head.endpoint) as hub:
                return hub.status()
        except (CloudError, UsageError, DeadlineError) as error:
            return HubStatus(up=False, problem=_first_line(error))


def _first_line(error: VclusterError) -> str:
    return (error.message.splitlines() or [type(error).__name__])[0]
