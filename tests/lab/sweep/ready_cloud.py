"""The OpenStack cloud in front of Nova's fake driver: no machine has a guest, so each is ready once it is ACTIVE.

Everything else is real: openstacksdk, the requests, the control plane. Time runs faster, so that the waits between two
looks or two tries do not fill the day.
"""

from __future__ import annotations

import base64
import gzip
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vcluster.clouds.memory_head import PretendedHead
from vcluster.model import ClusterRef, CommandResult, Health, MachineState, Observed

if TYPE_CHECKING:
    from openstack.connection import Connection

__all__ = ["ReadyCloud"]


class FastClock:
    """A clock of which ``speed`` seconds go by in one."""

    def __init__(self, speed: float) -> None:
        self._speed = speed

    def now(self) -> float:
        return time.monotonic() * self._speed

    def sleep(self, seconds: float, cancel: threading.Event) -> None:
        cancel.wait(seconds / self._speed)


class ReadyControl:
    """A scheduler that finds every machine ready that is on; there are no jobs, so a drained one is empty at once."""

    silence = ""

    def __init__(self) -> None:
        self._drained: set[str] = set()

    def health(self, observed: Observed) -> dict[str, Health]:
        on = [m.name for m in observed.machines if m.state is MachineState.ACTIVE]
        return {name: Health.DRAINED if name in self._drained else Health.READY for name in on}

    def drain(self, names: Sequence[str], reason: str) -> None:
        self._drained.update(names)

    def resume(self, names: Sequence[str]) -> None:
        self._drained.difference_update(names)

    def release(self, names: Sequence[str]) -> None:
        self._drained.difference_update(names)

    def close(self) -> None:
        """Nothing is open."""


class ReadyCloud:
    """Wraps an OpenStack cloud; implements :class:`vcluster.stacks.base.Simulated`.

    Args:
        cloud: the real one.
        admin: a connection that may read servers' user data, from which a head's files are taken.
        speed: how much faster its clock runs.
    """

    def __init__(self, cloud: Any, admin: Connection | None = None, speed: float = 10.0) -> None:
        self._cloud, self._admin = cloud, admin
        self.clock = FastClock(speed)
        self._control = ReadyControl()
        self._heads: dict[str, PretendedHead] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cloud, name)

    def control(self, ref: ClusterRef) -> ReadyControl:
        return self._control

    def execute(self, ref: ClusterRef, command: str, stdin: str = "", machine: str = "head") -> CommandResult:
        """What a head with these files would answer; at first they are those of the user data that Nova holds."""
        head = self._cloud.observe(ref).head
        if head is None or self._admin is None:
            return CommandResult("", "the head is gone", 1)
        if head.uuid not in self._heads:
            packed = self._admin.compute.get_server(head.uuid).user_data
            self._heads[head.uuid] = PretendedHead(gzip.decompress(base64.b64decode(packed)).decode())
        return self._heads[head.uuid].execute(command, stdin, workers=())
