"""The way into a running cluster: commands, files, plain ssh, and the scheduler's word, all through the head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vcluster.clouds.base import Cloud
from vcluster.errors import PermanentError, UsageError
from vcluster.folder import Folder
from vcluster.model import ClusterRef, CommandResult, Endpoint, Machine, MachineState, Observed, Role
from vcluster.plan import own
from vcluster.ready import HeadControl
from vcluster.remote import Remote
from vcluster.ssh import Ssh
from vcluster.stacks.base import ADMIN_USER, Control, Simulated

__all__ = ["Access"]


class Access:
    """What can be done with a cluster that runs; the base of :class:`vcluster.cluster.Cluster`.

    Args:
        cloud: where it lives.
        ref: which one it is.
        folder: its folder on this computer.
    """

    def __init__(self, cloud: Cloud, ref: ClusterRef, folder: Folder) -> None:
        self.name = ref.name
        self.cloud, self.ref, self.folder = cloud, ref, folder
        self.ssh = Ssh(folder, self._reachable)

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

    # Inside ----------------------------------------------------------------------------------------------------

    def _observe(self) -> Observed:
        return own(self.cloud.observe(self.ref), self.ref)

    def _must_exist(self, observed: Observed) -> None:
        if observed.empty:
            raise UsageError(f"there is no cluster {self.name!r}", remedy="`vcluster list` shows those there are")

    def _no_machine(self, machine: str, observed: Observed) -> UsageError:
        self._must_exist(observed)
        names = ", ".join(sorted(m.name for m in observed.machines))
        return UsageError(f"{self.name} has no machine {machine!r}", remedy=f"there are: {names}")

    def _can_ask(self) -> bool:
        return isinstance(self.cloud, Simulated) or self.folder.known

    def _control(self) -> Control:
        if isinstance(self.cloud, Simulated):
            return self.cloud.control(self.ref)
        return HeadControl(self._remote, lambda uuid: self.cloud.console(self.ref, uuid, 60))

    def _remote(self, endpoint: Endpoint) -> Remote:
        if not self.folder.known:
            # Asking must never make a secret: it would be another one than the machines have.
            raise self._no_keys()
        keyring = self.folder.keyring()
        host_key = keyring.host(Role.HEAD).public
        return Remote(endpoint, user=ADMIN_USER, key=keyring.admin, host_key=host_key)

    def _reachable(self) -> tuple[Endpoint, list[Machine]]:
        observed = self._observe()
        self._must_exist(observed)
        head = observed.head
        if head is None or head.endpoint is None or head.state is not MachineState.ACTIVE:
            state = "gone" if head is None else f"{head.state}"
            raise UsageError(f"the head of {self.name} is {state}", remedy=f"`vcluster start {self.name}`")
        if not self._can_ask():
            raise self._no_keys()
        return head.endpoint, list(observed.machines)

    def _head_endpoint(self) -> Endpoint:
        return self._reachable()[0]

    def _no_keys(self) -> UsageError:
        return UsageError(f"the keys of {self.name} are not on this computer", remedy="use the one that made it")
