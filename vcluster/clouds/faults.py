"""Scripted and seeded faults for the memory cloud."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import StrEnum

from vcluster.errors import CloudError, PermanentError, QuotaError, TemporaryError

__all__ = ["Fault", "FaultScript", "Trouble"]


class Trouble(StrEnum):
    """What befalls a machine after its create call went well."""

    NONE = "none"
    ERROR = "goes to ERROR"
    DIES = "dies"
    NEVER_READY = "never ready"
    MISCONFIGURED = "its configuration fails"
    NO_HOST = "No valid host was found. There are not enough hosts available."
    NO_QUOTA = "Quota exceeded for cores: Requested 1, but already used 10 of 10 cores"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one call: an error before the act, or after it (the answer is lost)."""

    error: CloudError | None = None
    lost: CloudError | None = None

    def before(self) -> None:
        """Raise the error that prevents the act."""
        if self.error is not None:
            raise self.error

    def after(self) -> None:
        """Raise the error that hides that the act was done."""
        if self.lost is not None:
            raise self.lost


@dataclass
class FaultScript:
    """Which calls fail and which machines get into trouble.

    Attributes:
        nth: (call, number) to fault: ``{("create_machine", 2): Fault(error=…)}``; numbers count from 1.
        subjects: (call, machine name) to fault, each time: a permanent one.
        machines: machine name to trouble and the seconds after its creation, each time it is made.
        volumes: volume name to how many volumes of that name will never be ready.
        hanging: volume name to how many of that name are in the making for ever, and cannot be deleted.
        once: like ``machines``, but only for the first machine of that name.
        full: availability zones that have no host for any machine; the empty name is that of machines that name none.
        rate: share of calls (0 to 1) that fail for a passing reason, half of them after the act.
        machine_rate: share of new machines that get into trouble once.
        seed: of the random numbers behind the rates.
    """

    nth: dict[tuple[str, int], Fault] = field(default_factory=dict)
    subjects: dict[tuple[str, str], Fault] = field(default_factory=dict)
    machines: dict[str, tuple[Trouble, float]] = field(default_factory=dict)
    once: dict[str, tuple[Trouble, float]] = field(default_factory=dict)
    volumes: dict[str, int] = field(default_factory=dict)
    hanging: dict[str, int] = field(default_factory=dict)
    full: set[str] = field(default_factory=set)
    rate: float = 0.0
    machine_rate: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - faults, not keys
        self._troubled: set[str] = set()

    def call(self, name: str, number: int, subject: str) -> Fault:
        """The fault of the ``number``-th call of this name."""
        if fault := self.subjects.get((name, subject)) or self.nth.get((name, number)):
            return fault
        if self.rate and self._random.random() < self.rate:
            error = TemporaryError(f"scripted weather in {name}")
            return Fault(lost=error) if self._random.random() < 0.5 else Fault(error=error)
        return Fault()

    def machine(self, name: str, zone: str = "") -> tuple[Trouble, float]:
        """What befalls a new machine, and how many seconds after its creation."""
        if zone in self.full:
            return Trouble.NO_HOST, 1.0
        if trouble := self.machines.get(name):
            return trouble
        if name in self._troubled:
            return Trouble.NONE, 0.0
        if trouble := self.once.get(name):
            self._troubled.add(name)
            return trouble
        if self.machine_rate and self._random.random() < self.machine_rate:
            self._troubled.add(name)
            kinds = (Trouble.ERROR, Trouble.DIES, Trouble.NEVER_READY)
            return self._random.choice(kinds), self._random.uniform(0, 60)
        return Trouble.NONE, 0.0

    def volume(self, name: str) -> bool:
        """Whether a new volume will never be ready."""
        return _one_of(self.volumes, name)

    def hangs(self, name: str) -> bool:
        """Whether a new volume will be in the making for ever."""
        return _one_of(self.hanging, name)

    @staticmethod
    def quota(what: str = "machines") -> Fault:
        """A fault that says that there is no more quota."""
        return Fault(error=QuotaError(f"quota for {what} exceeded"))

    @staticmethod
    def permanent(why: str = "scripted refusal") -> Fault:
        """A fault that will come again."""
        return Fault(error=PermanentError(why))


def _one_of(left: dict[str, int], name: str) -> bool:
    """Whether one of so many is left; it is then used up."""
    count = left.get(name, 0)
    left[name] = max(0, count - 1)
    return count > 0
