"""The cluster's secret from its head, for a computer that has none: whoever has a key that the head knows may have it.

Nothing is believed before it is checked: the head shows the host key that its create call wrote down, and the secret
that it gives must be the one that this host key and the claim on the head's port come from.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from vcluster.actions import NOTE_READY
from vcluster.chosen import chosen_ports
from vcluster.clouds.base import Cloud
from vcluster.errors import (
    CancelledError,
    CloudError,
    ConflictError,
    DeadlineError,
    PermanentError,
    TemporaryError,
    UsageError,
    VclusterError,
)
from vcluster.folder import Folder
from vcluster.model import ClusterRef, CommandResult, Machine, MachineState, Observed, Role
from vcluster.remote import KEY_VARIABLE, NotAdmittedError, Remote, answers
from vcluster.secrets import Keyring, decode
from vcluster.stacks.base import ADMIN_USER, HEAD_SECRET, HEAD_SPEC, Clock, Simulated

__all__ = ["FETCH_COMMAND", "Adoption", "fetch", "fits"]

POLL = 5.0
"""Seconds between two attempts."""

FETCH_COMMAND = f"sudo -n cat {HEAD_SECRET} {HEAD_SPEC}"
"""What is run on the head; the first line of its output is the secret, the rest is the spec."""

_OFF = (MachineState.SHUTOFF, MachineState.SHELVED, MachineState.ERROR)


class Log(Protocol):
    """Tells a person something."""

    def __call__(self, message: str, level: str = "info") -> None: ...


def fits(keyring: Keyring, observed: Observed) -> bool:
    """Whether these are the keys of the cluster that is there; True when nothing of it tells."""
    claim, head = _claim_of(observed), observed.head
    if claim and claim != keyring.claim:
        return False
    return head is None or not head.host_key or _same_key(keyring.host(Role.HEAD).public, head.host_key)


def fetch(run: Callable[[str], CommandResult], head: Machine, claim: str) -> tuple[Keyring, str]:
    """The secret and the spec (YAML) that lie on a head.

    Args:
        run: runs a shell command there.
        claim: the fingerprint that the secret must have; empty where the cloud does not tell.

    Raises:
        TemporaryError: they are not there yet.
        PermanentError: the head gave what is not its cluster's secret.
    """
    result = run(FETCH_COMMAND)
    first, _, spec = result.stdout.partition("\n")
    if result.exit_code or not spec:
        # Nothing of standard output goes into the message: it may begin with the secret.
        said = (result.stderr.strip().splitlines() or ["no answer"])[-1]
        raise TemporaryError(f"the head does not give its secret yet: {said}")
    try:
        keyring = Keyring(decode(first))
    except ValueError as error:
        raise PermanentError(f"what the head gave is no secret: {error}") from None
    wrong_key = head.host_key and not _same_key(keyring.host(Role.HEAD).public, head.host_key)
    if wrong_key or (claim and claim != keyring.claim):
        raise PermanentError(
            "the head gave a secret that its own host key does not come from",
            remedy="somebody changed it there, or it is not this cluster's head: ask whoever made the cluster",
        )
    return keyring, spec


class Adoption:
    """Gets the keys of one cluster into its folder here.

    Args:
        cloud: where the cluster lives.
        ref: which one it is.
        folder: its folder on this computer.
        observe: looks at its machines; the rest is taken from the picture that it is given.
        log: tells the person who waits.
        clock: the clock to wait by.
    """

    def __init__(
        self,
        cloud: Cloud,
        ref: ClusterRef,
        folder: Folder,
        *,
        observe: Callable[[Observed], Observed],
        log: Log,
        clock: Clock,
    ) -> None:
        self._cloud, self._ref, self._folder = cloud, ref, folder
        self._observe, self._log, self._clock = observe, log, clock
        self._woken: set[str] = set()

    def run(self, observed: Observed, timeout: float, cancel: threading.Event, *, boot: bool) -> bool:
        """As :meth:`vcluster.access.Access.adopt`, which says all about it."""
        end = self._clock.now() + timeout
        told = False
        while not (self._folder.known and fits(self._folder.keyring(), observed)):
            head = observed.head
            if head is None or head.state is MachineState.DELETING:
                self._pause(min(POLL, timeout), cancel)
                return False
            try:
                self._fetch(head, observed, boot=boot)
                return True
            except (TemporaryError, ConflictError) as error:
                if isinstance(error, NotAdmittedError) and NOTE_READY in observed.notes:
                    raise self._refused(error) from error
                left = end - self._clock.now()
                if left <= 0:
                    raise self._no_secret(error) from error
                if not told:
                    self._log(f"waiting for the head of {self._ref.name}, which has the keys: {error.message}")
                    told = True
                self._pause(min(POLL, left), cancel)
            observed = self._observe(observed)
        return True

    def _fetch(self, head: Machine, observed: Observed, *, boot: bool) -> None:
        """Get the keys now or raise.

        Raises:
            TemporaryError: it is worth another try.
        """
        if head.state in _OFF:
            self._wake(head, observed, boot=boot)
        if head.state is not MachineState.ACTIVE:
            raise TemporaryError(f"it is in state {head.state}")
        claim = _claim_of(observed)
        if isinstance(self._cloud, Simulated):
            cloud = self._cloud
            keyring, spec = fetch(lambda command: cloud.execute(self._ref, command), head, claim)
        else:
            with self._as_user(head) as remote:
                keyring, spec = fetch(lambda command: remote.run(command, timeout=30), head, claim)
        aside = self._folder.adopt(keyring, spec)
        self._log(f"the keys of {self._ref.name} came from its head to {self._folder.path}")
        if aside is not None:
            self._log(f"another cluster's secret lay there; it is now {aside}", level="warning")

    def _wake(self, head: Machine, observed: Observed, *, boot: bool) -> None:
        """Switch a head on, once.

        Raises:
            TemporaryError: it is being switched on; or another run is making it, and may make it anew.
            UsageError: nobody asked for that.
        """
        if head.state is MachineState.ERROR and NOTE_READY not in observed.notes:
            raise TemporaryError("it is in state ERROR before it was ever ready")
        if not boot:
            raise UsageError(
                f"{self._missing()}, and its head, which has them, is {head.state}",
                remedy=f"`vcluster start {self._ref.name}`",
            )
        if head.uuid not in self._woken:
            self._log(f"switching on the head of {self._ref.name}, which has the keys")
            act = {
                MachineState.SHUTOFF: self._cloud.start_machine,
                MachineState.SHELVED: self._cloud.unshelve_machine,
                MachineState.ERROR: self._cloud.reboot_machine,
            }[head.state]
            act(self._ref, head.uuid)
            self._woken.add(head.uuid)
        raise TemporaryError("it is being switched on")

    def _as_user(self, head: Machine) -> Remote:
        if head.endpoint is None:
            raise UsageError(
                f"{self._missing()}, and its head has no address to ask at",
                remedy="give the spec's file instead of the cluster's name, with access.jump in it",
            )
        if not head.host_key:
            raise UsageError(
                f"{self._missing()}, and the cloud does not say its head's host key",
                remedy="use the computer that made it",
            )
        if not answers(head.endpoint):
            raise TemporaryError(f"nobody answers at {head.endpoint.host}:{head.endpoint.port}")
        return Remote(head.endpoint, user=ADMIN_USER, key=None, host_key=head.host_key)

    # Words -----------------------------------------------------------------------------------------------------

    def _missing(self) -> str:
        return f"the keys of {self._ref.name} are not on this computer"

    def _no_secret(self, error: CloudError) -> VclusterError:
        if isinstance(error, NotAdmittedError):
            return self._refused(error)
        name = self._ref.name
        return DeadlineError(
            f"{self._missing()}, and its head does not give them: {error.message}",
            remedy=f"`vcluster logs {name}` shows what it does; a head behind a jump host needs the spec's file, with "
            f"access.jump in it, instead of the name; what never came up, `vcluster down {name}` takes away",
        )

    def _refused(self, error: NotAdmittedError) -> UsageError:
        tried = "; ".join(error.tried) if error.tried else "none: no agent answers, and ~/.ssh has no usual key"
        return UsageError(
            f"{self._missing()}, and its head takes none of yours\n  tried: {tried}",
            remedy=f"use a computer that has them, or name the right private key in {KEY_VARIABLE}; the public keys in "
            "access.ssh_keys of the spec are those that a head knows from its first boot",
        )

    def _pause(self, seconds: float, cancel: threading.Event) -> None:
        self._clock.sleep(seconds, cancel)
        if cancel.is_set():
            raise CancelledError("interrupted; nothing was changed")


def _claim_of(observed: Observed) -> str:
    """The fingerprint of the secret that a cluster's head was made with; empty when nothing tells it."""
    chosen = chosen_ports(observed).get(str(Role.HEAD))
    return chosen.claim if chosen else ""


def _same_key(one: str, other: str) -> bool:
    return one.split()[:2] == other.split()[:2]
