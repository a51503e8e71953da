"""Ready means that a job ran. The head is asked over SSH; it probes what has not proved itself since its boot."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence

from vcluster.clouds.base import BOOT_MARK
from vcluster.errors import CloudError, DeadlineError, TemporaryError
from vcluster.model import CommandResult, Endpoint, Health, Machine, MachineState, Observed
from vcluster.remote import Remote, answers

__all__ = ["FAILED_LINE", "HeadControl"]

FAILED_LINE = re.compile(r"VCLUSTER FAILED: *(.*)")
"""What a machine writes on its console when its configuration fails."""

HELPER = "/usr/local/sbin/vcluster-node"
HEALTH_TIMEOUT = 120.0
JUMP_EVERY = 5.0
"""Seconds between two attempts through a jump host, which is somebody else's machine and counts its logins."""

CONSOLE_EVERY = 15.0
"""Seconds between two looks at the console of a machine that is not ready."""


class HeadControl:
    """Asks the scheduler through the head's ``vcluster-node``.

    Args:
        connect: opens a connection to the head at an endpoint.
        console: the last lines of a machine's console, by uuid.
    """

    def __init__(self, connect: Callable[[Endpoint], Remote], console: Callable[[str], str]) -> None:
        self._connect, self._console = connect, console
        self._remote: Remote | None = None
        self._endpoint: Endpoint | None = None
        self._looked: dict[str, float] = {}
        self._failed: set[tuple[str, float]] = set()
        self._not_before = float("-inf")

    def health(self, observed: Observed) -> Mapping[str, Health]:
        """What the head says of every machine, and FAILED for those whose console says so."""
        told = dict(self._ask(observed))
        for machine in observed.machines:
            known = told.get(machine.name, Health.UNKNOWN)
            doubtful = known in (Health.UNKNOWN, Health.BOOTING) and machine.state is MachineState.ACTIVE
            if doubtful and self._says_failed(machine):
                told[machine.name] = Health.FAILED
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

    def close(self) -> None:
        """Close the connection to the head."""
        if self._remote is not None:
            self._remote.close()
            self._remote = None

    def _ask(self, observed: Observed) -> Mapping[str, Health]:
        head = observed.head
        if head is None or head.endpoint is None or head.state is not MachineState.ACTIVE:
            return {}
        if self._endpoint != head.endpoint:
            self.close()
            self._endpoint = head.endpoint
        if self._remote is None:
            if time.monotonic() < self._not_before or not answers(head.endpoint):
                return {}
            self._remote = self._connect(head.endpoint)
        try:
            # Slurm tells of a killed worker's old boot for a while: with this the head knows it from the new one's.
            started = {machine.name: machine.started for machine in observed.workers()}
            result = self._call("health", stdin=json.dumps(started))
        except (TemporaryError, DeadlineError):
            # A head that boots, reboots or is overloaded says nothing; its deadline is the planner's matter.
            self.close()
            if head.endpoint.jump:
                self._not_before = time.monotonic() + JUMP_EVERY
            return {}
        return _parse(result)

    def _command(self, *words: str) -> None:
        result = self._call(*words)
        if result.exit_code:
            lines = (result.stderr or result.stdout).strip().splitlines() or ["no reason given"]
            raise TemporaryError(f"{words[0]}: {lines[-1]}")

    def _call(self, *words: str, stdin: str = "") -> CommandResult:
        if self._remote is None:
            raise TemporaryError("the head does not answer")
        return self._remote.run(f"sudo -n {HELPER} {shlex.join(words)}", stdin=stdin, timeout=HEALTH_TIMEOUT)

    def _says_failed(self, machine: Machine) -> bool:
        life = (machine.uuid, machine.started)
        now = time.monotonic()
        if life not in self._failed and now - self._looked.get(machine.uuid, float("-inf")) >= CONSOLE_EVERY:
            self._looked[machine.uuid] = now
            try:
                text = self._console(machine.uuid)
            except CloudError:
                return False
            if FAILED_LINE.search(text.rpartition(BOOT_MARK)[2]):  # an earlier boot's word is not this one's
                self._failed.add(life)
        return life in self._failed


def _parse(result: CommandResult) -> Mapping[str, Health]:
    if result.exit_code:
        return {}
    try:
        told = json.loads(result.stdout)
    except ValueError:
        return {}
    words = {health.value for health in Health}
    return {str(name): Health(word) for name, word in told.items() if word in words}
