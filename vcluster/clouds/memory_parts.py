"""What the memory cloud is made of: a virtual clock, and machines and ports with a hidden life."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Generic, TypeVar

from vcluster.clouds.faults import Trouble
from vcluster.model import ClusterRef, Flavor, Machine, Network, Port

__all__ = ["FLAVORS", "Entry", "Listed", "VirtualClock", "shown"]

T = TypeVar("T")

FLAVORS = (Flavor("small", 1, 1024, 8), Flavor("medium", 2, 4096, 20), Flavor("large", 8, 16384, 40))


class VirtualClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def sleep(self, seconds: float, cancel: threading.Event | None = None) -> None:
        """Let time pass at once; ``cancel`` is there for the loop's :class:`Clock` protocol."""
        with self._lock:
            self._now += seconds


@dataclass
class Entry:
    """A machine and its hidden life."""

    machine: Machine
    cluster: str
    seen_from: float
    active_at: float
    ready_after: float
    trouble: Trouble = Trouble.NONE
    trouble_at: float = 0.0
    gone_at: float = float("inf")
    drained: bool = False
    busy_until: float = 0.0


@dataclass
class Listed(Generic[T]):
    """A network or port with the moment from which listings show it."""

    thing: T
    cluster: str
    seen_from: float
    gone_at: float = float("inf")


def shown(listed: Listed[Network] | Listed[Port], ref: ClusterRef, now: float) -> bool:
    """Whether a listing shows it now."""
    return listed.cluster == ref.id and listed.seen_from <= now
