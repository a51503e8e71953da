"""A backup of what Kubernetes knows, and the way back to it."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from vcluster.errors import CancelledError, CloudError, DeadlineError, UsageError
from vcluster.k3s_checks import numbers
from vcluster.kube_backup import Facts, KubeBackup, write
from vcluster.kubernetes import Kubernetes, with_remedy
from vcluster.members import Members
from vcluster.model import Machine, Observed, Role
from vcluster.plan_peers import is_peer
from vcluster.runner import Confirm
from vcluster.turn import Turn
from vcluster.views import PlannedAction, PlanView

__all__ = ["Backup", "Restore", "Restored"]

BACKUP_TIMEOUT = 3600.0
CALL_TIMEOUT = 1900.0
"""For one machine to stop or to start k3s, with a little more than it gives itself."""
RESTORE_TIMEOUT = 3600.0
"""For k3s to stop, to take the snapshot in and to start, on an emulated machine; a real one takes a minute."""
TOKEN = "/var/lib/rancher/k3s/server/token"  # noqa: S105 - a path


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was written."""

    path: Path
    facts: Facts
    seconds: float


@dataclass(frozen=True, slots=True)
class Restored:
    """A cluster that is as it was when the backup was taken."""

    facts: Facts
    machines: tuple[str, ...]
    seconds: float


class Restore(Kubernetes):
    """The part of :class:`vcluster.cluster.Cluster` that keeps and brings back."""

    def backup(
        self,
        path: Path | None = None,
        *,
        keep: bool = False,
        timeout: float | None = None,
        cancel: threading.Event | None = None,
    ) -> Backup:
        """Write what Kubernetes knows into a file here (0600): etcd's snapshot, the server token, the spec.

        What is on the nodes' disks is not in it: volumes and images.

        Args:
            path: the file, or a folder for it; None makes a name of the cluster's and the time, in the current folder.
            keep: leave the snapshot on the head as well.
            timeout: seconds.
            cancel: set it from another thread to stop.

        Raises:
            UsageError: the file is there already; or as :meth:`kubeconfig`.
            QuotaError: the disk is full, here.
            CloudError: the head did not answer, or took no snapshot.
        """
        began, end = time.monotonic(), self._clock().now() + (timeout or BACKUP_TIMEOUT)
        observed = self._kubernetes()
        target = self._target(path)
        spec = (self._applied_spec(observed) or self._spec(observed)).to_yaml()
        with self._machines(observed, cancel or threading.Event()) as members:
            with self._step("snapshot", self.name):
                words = ["snapshot", *(["--keep"] if keep else [])]
                told = members.tell(str(Role.HEAD), *words, timeout=self._left(end, "the snapshot"))
            self._log(f"a snapshot of {told['size'] / (1 << 20):.1f} MiB is on the head")
            try:
                with self._step("fetch", target.name):
                    facts = self._fetch(members, told, target, spec, end)
            finally:
                if not keep:
                    self._forget(observed, told["file"])
        return Backup(target, facts, self._done(began))

    def restore(
        self,
        path: Path,
        *,
        timeout: float | None = None,
        confirm: Confirm | None = None,
        cancel: threading.Event | None = None,
    ) -> Restored:
        """Bring Kubernetes back to a backup of this cluster. All that came into it since then is lost.

        Called again after it was interrupted, it mends what is half done.

        Args:
            path: what :meth:`backup` wrote.
            timeout: seconds.
            confirm: shown what is lost; None agrees.
            cancel: set it from another thread to stop.

        Raises:
            UsageError: the file is none, is damaged or is another cluster's; or as :meth:`kubeconfig`.
            CloudError: a machine did not answer, or k3s took nothing from the snapshot.
            DeadlineError: a node did not come back.
            CancelledError: ``cancel`` was set, or ``confirm`` said no.
        """
        began = time.monotonic()
        backup = KubeBackup.read(path)
        observed = self._kubernetes()
        end = self._clock().now() + (timeout or RESTORE_TIMEOUT + self.cloud.boot_timeout)
        self._must_be_ours(backup)
        machines = self._all_on(observed)
        wait = cancel or threading.Event()
        Turn(self.cloud, self.ref, leaving=False, resting=True).check(observed)
        with self._machines(observed, wait) as members:
            self._must_fit(backup, members, machines)
            self._agree(backup, observed, confirm)
            self._restore(backup, members, machines, end, wait)
        return Restored(backup.facts, tuple(machine.name for machine in machines), self._done(began))

    # Restore, step by step -----------------------------------------------------------------------------------------

    def _must_be_ours(self, backup: KubeBackup) -> None:
        """Whether a backup is of this very cluster, as far as can be told from here.

        Raises:
            UsageError: it is not.
        """
        facts = backup.facts
        if facts.id != self.ref.id:
            text = f"{backup.path} is a backup of another cluster, {facts.cluster} ({facts.id})"
            raise UsageError(text, remedy=f"that of {self.name} is {self.ref.id}: keys and tokens differ")
        if facts.claim != self.folder.claim:
            raise self._earlier(backup)

    def _earlier(self, backup: KubeBackup) -> UsageError:
        return UsageError(
            f"{backup.path} is a backup of an earlier {self.name}, which had other keys",
            remedy="what k3s keeps inside is sealed with the server token of then, which is in the file: `k3s server "
            "--cluster-reset --token` uses it on a machine of your own",
        )

    def _must_fit(self, backup: KubeBackup, members: Members, machines: list[Machine]) -> None:
        """Whether the head can take a backup in, and every machine be told what to do: later would be too late.

        Raises:
            UsageError: it has another token, or an older k3s.
        """
        token = io.BytesIO()
        # There since the first start, and a head that was made anew has it as soon as it joined.
        members.copy(TOKEN, token, 60.0)
        if _password(token.getvalue().decode()) != _password(backup.token):
            raise self._earlier(backup)
        programs = {machine.name: members.program(machine.name) for machine in machines}
        version = programs[str(Role.HEAD)].version
        if numbers(backup.facts.version)[:2] > numbers(version)[:2]:
            raise UsageError(
                f"{backup.path} was taken with {backup.facts.version}, and the head has {version}, which is older",
                remedy="`vcluster upgrade` first",
            )

    def _agree(self, backup: KubeBackup, observed: Observed, confirm: Confirm | None) -> None:
        head = observed.head
        if confirm is None or head is None:
            return
        lost = f"all that came into Kubernetes since {backup.facts.time}"
        action = PlannedAction("replace", "database", head.name, head.uuid, lost, destroys_data=True)
        if not confirm(PlanView((action,), (), place=self.cloud.place)):
            raise CancelledError("nothing was changed")

    def _restore(
        self, backup: KubeBackup, members: Members, machines: list[Machine], end: float, cancel: threading.Event
    ) -> None:
        head, sha256 = str(Role.HEAD), backup.facts.sha256
        peers = [machine.name for machine in machines if is_peer(machine)]
        agents = [machine.name for machine in machines if machine.role is Role.WORKER and not is_peer(machine)]
        with self._step("send", backup.path.name), backup.snapshot() as source:
            members.tell(head, "receive", sha256, source=source, timeout=self._left(end, "the snapshot"))
        self._log(f"Kubernetes stops, and the head takes in the snapshot of {backup.facts.time}")
        try:
            for name in peers:
                with self._step("stop", name):
                    members.tell(name, "halt", timeout=min(CALL_TIMEOUT, self._left(end, name)))
            with self._step("restore", head):
                members.tell(head, "restore", sha256, timeout=min(RESTORE_TIMEOUT, self._left(end, head)))
            self._log(f"Kubernetes runs again on the head; {len(peers) + len(agents)} machines come back to it")
            for name in [*peers, *agents]:
                with self._step("rejoin", name):
                    members.tell(name, "rejoin", timeout=min(CALL_TIMEOUT, self._left(end, name)))
            names = [machine.name for machine in machines]
            self._await(members, names, lambda node: node.ready, end, cancel)
            for name in [head, *peers]:
                members.tell(name, "settle", timeout=min(CALL_TIMEOUT, self._left(end, name)))
        except (CloudError, DeadlineError, CancelledError) as error:
            remedy = f"the same `vcluster restore {self.name}` again begins it anew, and mends what is half done"
            raise with_remedy(error, remedy) from error

    # Inside ----------------------------------------------------------------------------------------------------

    def _target(self, path: Path | None) -> Path:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(self.cloud.now()))
        target = path or Path()
        if target.is_dir():
            target /= f"{self.name}-{stamp}.tar"
        if target.exists():
            raise UsageError(f"{target} is there already", remedy="give another name, or remove it")
        if not target.parent.is_dir():
            raise UsageError(f"there is no folder {target.parent}", remedy="make it, or give another name")
        return target

    def _fetch(self, members: Members, told: Any, target: Path, spec: str, end: float) -> Facts:
        """Write the file."""
        stamp, version, size, sha256 = (told[key] for key in ("time", "version", "size", "sha256"))
        facts = Facts(self.name, self.ref.id, self.folder.claim, version, stamp, size, sha256)
        token = io.BytesIO()
        members.copy(told["token"], token, self._left(end, "the token"))

        def fill(sink: BinaryIO) -> None:
            members.copy(told["file"], sink, self._left(end, "the snapshot"))

        write(target, facts, token.getvalue().decode().strip(), spec, fill)
        return facts

    def _forget(self, observed: Observed, file: str) -> None:
        try:
            # Over a connection of its own: the other one is of no use to who was interrupted.
            with self._machines(observed, threading.Event()) as members:
                members.tell(str(Role.HEAD), "forget", file, timeout=CALL_TIMEOUT)
        except (CloudError, DeadlineError, CancelledError) as error:
            self._log(f"the snapshot stays on the head until the next backup: {error.message}", level="warning")


def _password(token: str) -> str:
    """What of a server token seals: the rest of its full form only names the authority."""
    return token.strip().rpartition("::server:")[2]
