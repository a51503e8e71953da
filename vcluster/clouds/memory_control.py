"""The memory cloud's scheduler: it says READY some virtual seconds after a machine became ACTIVE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vcluster.clouds.faults import Trouble
from vcluster.clouds.memory_store import Entry
from vcluster.model import ClusterRef, Health, MachineState, Observed

if TYPE_CHECKING:
    from vcluster.clouds.memory_project import MemoryProject

__all__ = ["MemoryControl"]


class MemoryControl:
    """A scheduler that says READY some virtual seconds after a machine became ACTIVE."""

    silence = ""

    def __init__(self, cloud: MemoryProject, ref: ClusterRef) -> None:
        self._cloud, self._ref = cloud, ref

    def health(self, observed: Observed) -> dict[str, Health]:
        """Health of every machine; empty while the head boots."""
        told: dict[str, Health] = {}
        with self._cloud.lock:
            for entry in self._cloud.entries(self._ref):
                told[entry.machine.name] = self._judge(entry)
        head = observed.head
        return told if head and told.get(head.name) is Health.READY else {}

    def drain(self, names: Sequence[str], reason: str) -> None:
        """Drain workers."""
        with self._cloud.call("drain"):
            for entry in self._cloud.entries(self._ref):
                if entry.machine.name in names:
                    entry.drained = True

    def resume(self, names: Sequence[str]) -> None:
        """Take workers back."""
        with self._cloud.call("resume"):
            for entry in self._cloud.entries(self._ref):
                if entry.machine.name in names:
                    entry.drained = False

    def release(self, names: Sequence[str]) -> None:
        """Forget machines; ``released`` of the cloud tells a test which."""
        self._cloud.released += names

    def close(self) -> None:
        """Nothing to close."""

    def _judge(self, entry: Entry) -> Health:
        now = self._cloud.now()
        state = entry.picture(now).state
        if state is not MachineState.ACTIVE:
            return Health.UNKNOWN
        if entry.trouble is Trouble.MISCONFIGURED:
            return Health.FAILED
        if entry.trouble is Trouble.NEVER_READY or now < entry.active_at + entry.ready_after:
            return Health.BOOTING
        if entry.drained:
            return Health.BUSY if now < entry.busy_until else Health.DRAINED
        return Health.READY
