"""The way into a cluster's Kubernetes: for a person's programs, and to its machines for what is done with them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from vcluster.bringup import BringUp
from vcluster.doors import KUBERNETES
from vcluster.errors import (
    CancelledError,
    DeadlineError,
    PermanentError,
    TemporaryError,
    UsageError,
    VclusterError,
)
from vcluster.events import Done, StepFinished, StepStarted
from vcluster.identity import natural
from vcluster.kubeconfig import Kubeconfig, taken
from vcluster.members import Link, Members, Node, RemoteLink
from vcluster.model import CommandResult, Endpoint, Machine, MachineState, Observed, Role
from vcluster.plan_peers import is_peer
from vcluster.remote import Remote
from vcluster.stacks.base import ADMIN_USER, Simulated

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["Kubernetes", "with_remedy"]

POLL = 5.0
SSH_PORT = 22


class Kubernetes(BringUp):
    """The part of :class:`vcluster.cluster.Cluster` that is about Kubernetes."""

    def kubeconfig(self, port: int = KUBERNETES) -> Kubeconfig:
        """How kubectl and other programs reach the cluster as its administrator. What is given holds a key.

        Where the head has no door for it, the address is this computer's own: :meth:`forward_command` makes the way.

        Args:
            port: the port of this computer at which that way ends.

        Raises:
            UsageError: it is no Kubernetes cluster, or has no head that can be reached.
            CloudError: the head did not answer, or Kubernetes has not started there.
        """
        observed = self._kubernetes()
        door = observed.head.doors.get(KUBERNETES) if observed.head else None
        with self._machines(observed, threading.Event()) as members:
            text = members.kubeconfig()
        if door is None:
            return taken(text, self.name, f"https://127.0.0.1:{port}", port)
        host = f"[{door.host}]" if ":" in door.host else door.host
        return taken(text, self.name, f"https://{host}:{door.port}")

    # For what is done with it --------------------------------------------------------------------------------------

    def _kubernetes(self) -> Observed:
        """The cluster as it is, whose head can be reached and which has Kubernetes.

        Raises:
            UsageError: it is not so.
        """
        observed = self._observe()
        self._must_exist(observed)
        self._must_be_k3s(self._spec(observed))
        head = observed.head
        if head is None or head.endpoint is None or head.state is not MachineState.ACTIVE:
            state = "gone" if head is None else f"{head.state}"
            raise UsageError(f"the head of {self.name} is {state}", remedy=f"`vcluster start {self.name}`")
        self.adopt(observed)
        return observed

    def _must_be_k3s(self, spec: ClusterSpec) -> None:
        if spec.scheduler != "k3s":
            raise UsageError(f"{self.name} runs Slurm, not Kubernetes", remedy="`scheduler: k3s` in a spec makes one")

    def _all_on(self, observed: Observed) -> list[Machine]:
        """Every machine: the head, its peers, the agents; each in the order of their names.

        Raises:
            UsageError: one is not on.
        """
        for machine in observed.machines:
            if machine.state is not MachineState.ACTIVE:
                raise UsageError(
                    f"{machine.name} is {machine.state}: all machines must be on",
                    remedy=f"`vcluster up {self.name}` mends that",
                )
        return sorted(observed.machines, key=lambda m: (m.role is not Role.HEAD, not is_peer(m), natural(m.name)))

    @contextlib.contextmanager
    def _machines(self, observed: Observed, cancel: threading.Event) -> Iterator[Members]:
        """Talk to machines, over connections that are made when they are needed."""
        if isinstance(self.cloud, Simulated):
            cloud, ref = self.cloud, self.ref
            yield Members(lambda name: _Pretended(lambda *given: cloud.execute(ref, *given), name))
            return
        head = observed.head
        if head is None or head.endpoint is None:
            raise UsageError(f"the head of {self.name} has no address")
        addresses = {machine.name: machine.address for machine in observed.machines}
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(self._remote(head.endpoint))
            known: dict[str, Link] = {str(Role.HEAD): RemoteLink(first, cancel)}

            def link(name: str) -> Link:
                if name not in known:
                    remote = stack.enter_context(self._behind_head(name, addresses[name], first))
                    known[name] = RemoteLink(remote, cancel)
                return known[name]

            yield Members(link)

    def _behind_head(self, name: str, address: str, head: Remote) -> Remote:
        keyring = self.folder.keyring()
        endpoint, key = Endpoint(address, SSH_PORT), keyring.host(name).public
        return Remote(endpoint, user=ADMIN_USER, key=keyring.admin, host_key=key, via=head)

    def _await(
        self,
        members: Members,
        names: list[str],
        good: Callable[[Node], bool],
        end: float,
        cancel: threading.Event,
    ) -> Mapping[str, Node]:
        """Wait until Kubernetes says of every one of these nodes what is hoped for.

        Raises:
            DeadlineError: names those of which it does not.
        """
        while True:
            try:
                nodes, why = members.nodes(), ""
            except (PermanentError, TemporaryError, DeadlineError) as error:  # it starts, or is just elected
                nodes, why = {}, f": {error.message}"
            missing = [name for name in names if name not in nodes or not good(nodes[name])]
            if not missing:
                return nodes
            if self._clock().now() >= end:
                raise DeadlineError(
                    f"time is up: Kubernetes has not {', '.join(missing)} back{why}",
                    remedy=f"`vcluster ssh {self.name} -m {missing[0]} -- sudo journalctl -u 'k3s*'` says more",
                )
            self._clock().sleep(POLL, cancel)
            if cancel.is_set():
                raise CancelledError(f"interrupted while Kubernetes had not {', '.join(missing)} back")

    def _left(self, end: float, what: str) -> float:
        left = end - self._clock().now()
        if left <= 0:
            raise DeadlineError(f"time is up before {what} was done")
        return left

    @contextlib.contextmanager
    def _step(self, action: str, subject: str) -> Iterator[None]:
        """Tell that something begins, and how it ended."""
        began, error = time.monotonic(), ""
        self._emit(StepStarted(cluster=self.name, time=self.cloud.now(), action=action, subject=subject))
        try:
            yield
        except VclusterError as problem:
            error = problem.message
            raise
        finally:
            seconds = time.monotonic() - began
            self._emit(
                StepFinished(
                    cluster=self.name,
                    time=self.cloud.now(),
                    action=action,
                    subject=subject,
                    error=error,
                    seconds=seconds,
                )
            )

    def _done(self, began: float, *, changed: bool = True) -> float:
        seconds = time.monotonic() - began
        self._emit(Done(cluster=self.name, time=self.cloud.now(), changed=changed, degraded=(), seconds=seconds))
        return seconds


@dataclass(frozen=True, slots=True)
class _Pretended:
    """A machine of a cloud without guests: bytes that are no text go through as they are."""

    execute: Callable[[str, str, str], CommandResult]
    machine: str

    def __call__(self, command: str, source: BinaryIO | None, sink: BinaryIO | None, timeout: float) -> CommandResult:
        stdin = source.read().decode(errors="surrogateescape") if source else ""
        result = self.execute(command, stdin, self.machine)
        if sink is None:
            return result
        sink.write(result.stdout.encode(errors="surrogateescape"))
        return CommandResult("", result.stderr, result.exit_code)


def with_remedy(error: VclusterError, remedy: str) -> VclusterError:
    """The same error, with one thing more to do about it."""
    whole = f"{error.remedy}; {remedy}" if error.remedy else remedy
    return type(error)(error.message, remedy=whole)
