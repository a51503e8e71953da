"""The way into a running cluster: commands, files, plain ssh, and the scheduler's word, all through the head.

A computer that has not the cluster's keys gets them from its head, if that knows one of the user's own SSH keys.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vcluster import delivery
from vcluster.actions import NOTE_SPEC
from vcluster.adopt import Adoption, fits
from vcluster.clouds.base import Cloud
from vcluster.errors import (
    CloudError,
    DeadlineError,
    PermanentError,
    TemporaryError,
    UsageError,
)
from vcluster.events import Event, EventHandler, Log
from vcluster.folder import Folder
from vcluster.model import ClusterRef, CommandResult, Endpoint, Machine, MachineState, Observed, Role
from vcluster.plan import own
from vcluster.ready import HeadControl
from vcluster.remote import Remote
from vcluster.ssh import Ssh
from vcluster.stacks.base import ADMIN_USER, HEAD_SPEC, Clock, Control, Simulated

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["Access", "clock_of"]

ADOPT_TIMEOUT = 60.0
"""Seconds that a command which needs the keys at once waits for a head that is on but does not answer yet."""

KEEP_SPEC = f"umask 077; cat > {HEAD_SPEC}.new && mv {HEAD_SPEC}.new {HEAD_SPEC}"


class _RealClock:
    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float, cancel: threading.Event) -> None:
        cancel.wait(seconds)


def clock_of(cloud: Cloud) -> Clock:
    """The clock to wait by: this computer's, or the one of a cloud that pretends."""
    return cloud.clock if isinstance(cloud, Simulated) else _RealClock()


class Access:
    """What can be done with a cluster that runs; the base of :class:`vcluster.cluster.Cluster`.

    Args:
        cloud: where it lives.
        ref: which one it is.
        folder: its folder on this computer.
        on_event: takes every event, from several threads; None: nobody listens.
    """

    def __init__(self, cloud: Cloud, ref: ClusterRef, folder: Folder, on_event: EventHandler | None = None) -> None:
        self.name = ref.name
        self.cloud, self.ref, self.folder = cloud, ref, folder
        self.ssh = Ssh(folder, self._reachable)
        self._on_event = on_event

    def run(self, command: str, *, timeout: float | None = None, check: bool = True) -> CommandResult:
        """Run a shell command on the head as the administrator.

        Raises:
            UsageError: the cluster has no head that can be reached.
            PermanentError: ``check`` is set and the exit status is not 0.
        """
        if isinstance(self.cloud, Simulated):
            result = self.cloud.execute(self.ref, command)
        else:
            with self._remote(self._head_endpoint()) as remote:
                result = remote.run(command, timeout=timeout)
        if check and result.exit_code:
            tail = (result.stderr or result.stdout).strip()[-500:]
            raise PermanentError(f"exit status {result.exit_code} from: {command[:80]}\n{tail}")
        return result

    def put(self, local: str | Path, remote: str) -> None:
        """Copy a file to the head; raises as :meth:`vcluster.remote.Remote.put`."""
        with self._remote(self._head_endpoint()) as link:
            link.put(Path(local), remote)

    def get(self, remote: str, local: str | Path) -> None:
        """Copy a file from the head."""
        with self._remote(self._head_endpoint()) as link:
            link.get(remote, Path(local))

    def ssh_command(self, machine: str = "head") -> list[str]:
        """The argv of OpenSSH that logs in; append a remote command's words."""
        return self.ssh.command(machine)

    def scp_command(self, sources: Sequence[str], target: str) -> list[str]:
        """The argv of scp; ``:PATH`` is on the head, ``MACHINE:PATH`` on that machine, all else local."""
        return self.ssh.copy(sources, target)

    def forward_command(self, port: int, local_port: int) -> list[str]:
        """The argv of ssh that makes the head's ``port`` reachable at this computer's loopback."""
        return self.ssh.forward(port, local_port)

    def ssh_config(self) -> str:
        """Text for ``~/.ssh/config``: hosts ``NAME`` (the head) and ``NAME-MACHINE``."""
        return self.ssh.config()

    # The keys --------------------------------------------------------------------------------------------------

    def adopt(
        self,
        observed: Observed,
        timeout: float = ADOPT_TIMEOUT,
        cancel: threading.Event | None = None,
        *,
        boot: bool = False,
    ) -> bool:
        """Make sure that this computer has the keys of the cluster that is there, from its head where it must be.

        The head is reached with the user's own SSH keys, and its host key is the one that the cloud keeps for it. A
        secret of another cluster of this name is moved aside, after the right one proved to be right.

        Args:
            observed: the cluster as last seen.
            timeout: seconds to wait for a head that boots or does not answer; 0 tries once.
            boot: switch a head on that is off or shelved, and reset one in ERROR that was ready once.

        Returns:
            True when the keys are here now; False when no head is there that could give them: then somebody is
            making it, or it will be made anew. Before that some seconds have passed, so that one may simply ask again.

        Raises:
            UsageError: the head is off, or takes none of the user's keys.
            DeadlineError: it does not answer, or gives no secret yet.
            PermanentError: it shows another host key, or gives a secret that is not its own.
            CancelledError: ``cancel`` was set.
        """
        clock = clock_of(self.cloud)
        adoption = Adoption(self.cloud, self.ref, self.folder, observe=self._observe, log=self._log, clock=clock)
        return adoption.run(observed, timeout, cancel or threading.Event(), boot=boot)

    def _keys_fit(self, observed: Observed) -> bool:
        return self.folder.known and fits(self.folder.keyring(), observed)

    def _can_ask_now(self, observed: Observed) -> bool:
        """Whether the scheduler can be asked; tries once to get the keys for it, and says why it cannot."""
        if isinstance(self.cloud, Simulated) or self._keys_fit(observed):
            return True
        if observed.head is None or observed.head.state is not MachineState.ACTIVE:
            return False
        try:
            return self.adopt(observed, 0.0)
        except (CloudError, UsageError, DeadlineError) as error:
            self._log(f"the scheduler was not asked: {error.message}", level="warning")
            return False

    def _applied_spec(self, observed: Observed, *, boot: bool = False) -> ClusterSpec | None:
        """The spec that the cluster was last brought up with, from whatever computer; None where nobody can tell.

        It is in the folder here, unless another computer made the cluster or changed it since: then the head has it.

        Args:
            observed: the cluster as last seen.
            boot: switch on a head that is off, if it alone can tell.

        Raises:
            UsageError: the head is off, or takes none of the user's keys.
            CloudError: it could not be asked.
            DeadlineError: it does not answer.
        """
        spec = self.folder.read_spec()
        if observed.head is None or (spec and observed.notes.get(NOTE_SPEC, spec.digest) == spec.digest):
            return spec
        stale = self._keys_fit(observed)
        self.adopt(observed, boot=boot)
        if stale and observed.head.state is MachineState.ACTIVE:
            try:
                told = self.run(f"sudo -n cat {HEAD_SPEC}", timeout=60)
            except (CloudError, UsageError, DeadlineError) as error:
                self._log(f"the head was not asked for its newer spec: {error.message}", level="warning")
            else:
                self.folder.write_spec(told.stdout)
        return self.folder.read_spec()

    def _keep_spec(self, text: str) -> None:
        """Put the spec as applied where other computers find it: on the head.

        Raises:
            CloudError: the head cannot be reached, or its disk is full.
        """
        if isinstance(self.cloud, Simulated):
            result = self.cloud.execute(self.ref, f"sudo -n sh -c '{KEEP_SPEC}'", stdin=text)
        else:
            with self._remote(self._head_endpoint()) as remote:
                result = remote.run(f"sudo -n sh -c '{KEEP_SPEC}'", stdin=text, timeout=60)
        if result.exit_code:
            raise TemporaryError(f"the head did not keep the spec: {(result.stderr or 'no reason').strip()[-200:]}")

    # Inside ----------------------------------------------------------------------------------------------------

    def _observe(self, since: Observed | None = None) -> Observed:
        return own(self.cloud.observe(self.ref, since), self.ref)

    def _must_exist(self, observed: Observed) -> None:
        if observed.empty:
            raise UsageError(f"there is no cluster {self.name!r}", remedy="`vcluster list` shows those there are")

    def _no_machine(self, machine: str, observed: Observed) -> UsageError:
        self._must_exist(observed)
        names = ", ".join(sorted(m.name for m in observed.machines))
        return UsageError(f"{self.name} has no machine {machine!r}", remedy=f"there are: {names}")

    def _can_ask(self, observed: Observed | None = None) -> bool:
        if isinstance(self.cloud, Simulated):
            return True
        return self.folder.known if observed is None else self._keys_fit(observed)

    def _control(self) -> Control:
        if isinstance(self.cloud, Simulated):
            return self.cloud.control(self.ref)
        files = delivery.handed(self.folder.read_spec())

        def greet(remote: Remote) -> None:
            if files:
                delivery.deliver(remote, files, self._log)

        return HeadControl(self._remote, lambda uuid: self.cloud.console(self.ref, uuid, 60), self._way, greet)

    def _way(self, endpoint: Endpoint) -> Endpoint:
        """How an endpoint that the cloud gave is reached from here."""
        return endpoint

    def _remote(self, endpoint: Endpoint) -> Remote:
        if not self.folder.known:
            # Asking must never make a secret: it would be another one than the machines have.
            raise self._no_keys()
        keyring = self.folder.keyring()
        host_key = keyring.host(Role.HEAD).public
        return Remote(self._way(endpoint), user=ADMIN_USER, key=keyring.admin, host_key=host_key)

    def _reachable(self) -> tuple[Endpoint, list[Machine]]:
        observed = self._observe()
        self._must_exist(observed)
        head = observed.head
        if head is None or head.endpoint is None or head.state is not MachineState.ACTIVE:
            state = "gone" if head is None else f"{head.state}"
            raise UsageError(f"the head of {self.name} is {state}", remedy=f"`vcluster start {self.name}`")
        if not isinstance(self.cloud, Simulated):
            self.adopt(observed)
        return head.endpoint, list(observed.machines)

    def _head_endpoint(self) -> Endpoint:
        return self._reachable()[0]

    def _no_keys(self) -> UsageError:
        return UsageError(f"the keys of {self.name} are not on this computer", remedy="use the one that made it")

    def _clock(self) -> Clock:
        return clock_of(self.cloud)

    def _log(self, message: str, level: str = "info") -> None:
        self._emit(Log(cluster=self.name, time=self.cloud.now(), level=level, message=message))

    def _emit(self, event: Event) -> None:
        if self._on_event is not None:
            self._on_event(event)
