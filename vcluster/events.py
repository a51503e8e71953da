"""Typed events: the library's only way of telling what it does. The CLI prints them, a gateway stores them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

__all__ = [
    "Done",
    "Event",
    "EventHandler",
    "Log",
    "MachineChanged",
    "PlanMade",
    "Retrying",
    "StepFinished",
    "StepStarted",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. ``time`` is in seconds since the epoch, ``cluster`` the cluster's name."""

    kind: ClassVar[str] = "event"
    cluster: str
    time: float

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping, ``kind`` first."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanMade(Event):
    """The loop decided what to do next. ``actions`` are one line each, ``waiting`` what it waits for."""

    kind: ClassVar[str] = "plan"
    actions: tuple[str, ...]
    waiting: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(Event):
    """One action began. ``subject`` is the resource's name."""

    kind: ClassVar[str] = "started"
    action: str
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished(Event):
    """One action ended. ``error`` is empty when it went well; ``seconds`` is how long it took."""

    kind: ClassVar[str] = "finished"
    action: str
    subject: str
    error: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineChanged(Event):
    """A machine was seen in another state or health than before. ``detail`` is a fault or an address."""

    kind: ClassVar[str] = "machine"
    machine: str
    state: str
    health: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying(Event):
    """A call failed for a passing reason and is tried again after ``delay`` seconds."""

    kind: ClassVar[str] = "retry"
    subject: str
    error: str
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Log(Event):
    """A sentence for the person who watches; ``level`` is ``info`` or ``warning``."""

    kind: ClassVar[str] = "log"
    level: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Event):
    """The run is over. ``changed`` is false when there was nothing to do; ``seconds`` is the whole run's time."""

    kind: ClassVar[str] = "done"
    changed: bool
    degraded: tuple[str, ...]
    seconds: float


EventHandler = Callable[[Event], None]
