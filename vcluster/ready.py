"""Ready means that a job ran. The head is asked over SSH; it probes what has not proved itself since its boot."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence

from vcluster.clouds.base import BOOT_MARK
from vcluster.errors import CloudError, ConflictError, DeadlineError, TemporaryError
from vcluster.model import CommandResult, Endpoint, Health, Machine, MachineState, Observed, Role
from vcluster.remote import Remote, answers

__all__ = ["FAILED_LINE", "HeadControl"]

FAILED_LINE = re.compile(r"VCLUSTER FAILED: *(.*)")
"""What a machine writes on its console when its configuration fails."""

HELPER = "/usr/local/sbin/vcluster-node"
HEALTH_TIMEOUT = 120.0
EXIT_NEEDED = 3
"""The helper's exit code where the scheduler cannot do without what it shall forget."""

JUMP_EVERY = 5.0
"""Seconds between two attempts through a jump host, which is somebody else's machine and counts its logins."""

CONSOLE_EVERY = 15.0
"""Seconds between two looks at consoles of machines that are not ready."""

CONSOLES_AT_ONCE = 4
"""How many consoles one look may read: a request each, and workers tell the head themselves when they fail."""

_BOOT = re.compile(f"{BOOT_MARK}|\\] Linux version |running 'init-local'")
"""What begins a boot on a console: our own mark, the kernel's first line, cloud-init's first line."""


_OF_A_SERVICE = ("JupyterHub", "Kubernetes")
"""How lines of the head begin that say why something on it is not ready, while it tells of its machines."""


def _straight(endpoint: Endpoint) -> Endpoint:
    return endpoint


def _in_silence(remote: Remote) -> None:
    del remote


class HeadControl:
    """Asks the scheduler through the head's ``vcluster-node``.

    Implements :class:`vcluster.stacks.base.Control`.

    Args:
        connect: opens a connection to the head at an endpoint.
        console: the last lines of a machine's console, by uuid.
        way: how an endpoint that the cloud gave is reached from here; by a jump host, for example.
        greet: called with each new connection to the head, before anything is asked.
    """

    def __init__(
        self,
        connect: Callable[[Endpoint], Remote],
        console: Callable[[str], str],
        way: Callable[[Endpoint], Endpoint] = _straight,
        greet: Callable[[Remote], None] = _in_silence,
    ) -> None:
        self._connect, self._console, self._way, self._greet = connect, console, way, greet
        self._remote: Remote | None = None
        self._endpoint: Endpoint | None = None
        self._looked: dict[str, float] = {}
        self._looked_last = float("-inf")
        self._failed: set[tuple[str, float]] = set()
        self._greeted = False
        self._not_before = float("-inf")
        self.silence = ""

    def health(self, observed: Observed) -> Mapping[str, Health]:
        """What the head says of every machine, and FAILED for those whose console says so."""
        told = dict(self._ask(observed))
        silent = (Health.UNKNOWN, Health.BOOTING)
        active = [m for m in observed.machines if m.state is MachineState.ACTIVE]
        doubtful = [m for m in active if told.get(m.name, Health.UNKNOWN) in silent]
        # Before the head answers nobody is ready, and it alone can be why.
        self._look([m for m in doubtful if told or m.role is Role.HEAD])
        told.update((m.name, Health.FAILED) for m in doubtful if (m.uuid, m.started) in self._failed)
        return told

    def drain(self, names: Sequence[str], reason: str) -> None:
        """Let no new job onto these workers.

        Raises:
            TemporaryError: the head could not be asked, or the scheduler refused.
        """
        self._command("drain", *names, "--reason", reason)

    def resume(self, names: Sequence[str]) -> None:
        """Take workers back.

        Raises:
            TemporaryError: the head could not be asked, or the scheduler refused.
        """
        self._command("resume", *names)

    def release(self, names: Sequence[str]) -> None:
        """Forget machines that go, or that a dead one's name is given to.

        Raises:
            TemporaryError: the head could not be asked, or the scheduler refused.
            ConflictError: it cannot do without one of them, whose machine must stay.
        """
        self._command("release", *names)

    def close(self) -> None:
        """Close the connection to the head."""
        if self._remote is not None:
            self._remote.close()
            self._remote = None

    def _ask(self, observed: Observed) -> Mapping[str, Health]:
        head = observed.head
        if head is None or head.state is not MachineState.ACTIVE:
            return {}
        if head.endpoint is None:
            self.silence = "the head has no address that can be reached from here: give it one, or a jump host"
            return {}
        endpoint = self._way(head.endpoint)
        if self._endpoint != endpoint:
            self.close()
            self._endpoint = endpoint
        if self._remote is None:
            if time.monotonic() < self._not_before or not self._answers(endpoint):
                return {}
            self._remote = self._connect(endpoint)
            self._greeted = False
        try:
            if not self._greeted:
                self._greet(self._remote)
                self._greeted = True
            # Slurm tells of a killed worker's old boot for a while: with this the head knows it from the new one's.
            started = {machine.name: machine.started for machine in observed.workers()}
            result = self._call("health", stdin=json.dumps(started))
        except (TemporaryError, DeadlineError) as error:
            self.silence = error.message
            # A head that boots, reboots or is overloaded says nothing; its deadline is the planner's matter.
            self.close()
            if endpoint.jump:
                self._not_before = time.monotonic() + JUMP_EVERY
            return {}
        told = _parse(result)
        lines = result.stderr.strip().splitlines()
        if told:
            self.silence = next((line for line in lines if line.startswith(_OF_A_SERVICE)), "")
        else:
            self.silence = (lines or ["it is not configured yet"])[-1]
        return told

    def _answers(self, endpoint: Endpoint) -> bool:
        """Whether the head speaks; one that was slow to say no is left in peace for as long, since it is at work."""
        began = time.monotonic()
        if answers(endpoint):
            return True
        self.silence = f"no SSH server answers at {endpoint.host}:{endpoint.port}"
        now = time.monotonic()
        self._not_before = now + (now - began)
        return False

    def _command(self, *words: str) -> None:
        result = self._call(*words)
        if result.exit_code:
            lines = (result.stderr or result.stdout).strip().splitlines() or ["no reason given"]
            if result.exit_code == EXIT_NEEDED:
                raise ConflictError(lines[-1])
            raise TemporaryError(f"{words[0]}: {lines[-1]}")

    def _call(self, *words: str, stdin: str = "") -> CommandResult:
        if self._remote is None:
            raise TemporaryError("the head does not answer")
        return self._remote.run(f"sudo -n {HELPER} {shlex.join(words)}", stdin=stdin, timeout=HEALTH_TIMEOUT)

    def _look(self, machines: Sequence[Machine]) -> None:
        """Read a few consoles, those that were not looked at for the longest time first."""
        now = time.monotonic()
        if now - self._looked_last < CONSOLE_EVERY:
            return
        unknown = [machine for machine in machines if (machine.uuid, machine.started) not in self._failed]
        for machine in sorted(unknown, key=lambda m: self._looked.get(m.uuid, float("-inf")))[:CONSOLES_AT_ONCE]:
            self._looked_last = self._looked[machine.uuid] = now
            with contextlib.suppress(CloudError):
                boots = _BOOT.split(self._console(machine.uuid))
                if FAILED_LINE.search(boots[-1]):  # an earlier boot's word is not this one's
                    self._failed.add((machine.uuid, machine.started))


def _parse(result: CommandResult) -> Mapping[str, Health]:
    if result.exit_code:
        return {}
    try:
        told = json.loads(result.stdout)
    except ValueError:
        return {}
    words = {health.value for health in Health}
    return {str(name): Health(word) for name, word in told.items() if word in words}
