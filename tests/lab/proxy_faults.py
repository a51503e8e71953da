"""Faults, and which request meets which: by a script, or by a seed."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tests.lab.proxy_record import Recorded

__all__ = [
    "PERMANENT",
    "TEMPORARY",
    "Fault",
    "How",
    "Rule",
    "Script",
    "Seeded",
    "conflict",
    "cut",
    "drop",
    "expired",
    "failing",
    "forbidden",
    "missing",
    "quota",
    "rate_limited",
    "silence",
    "slow",
]


class How(StrEnum):
    """What the client sees.

    ANSWER: another status. SILENCE: nothing, until it gives up. DROP: the connection ends without an answer.
    CUT: it ends in the middle of the answer. SLOW: the true answer, late. EXPIRED: 401, and that to every later
    request with the same token too. QUOTA: the status and words with which the service refuses for lack of quota.
    """

    ANSWER = "answer"
    SILENCE = "silence"
    DROP = "drop"
    CUT = "cut"
    SLOW = "slow"
    EXPIRED = "expired"
    QUOTA = "quota"


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls a request.

    Attributes:
        name: as it is told in reports and by :attr:`Recorded.fault`.
        after: the service acts, and only its answer is lost; else it never hears of the request.
        status: for ANSWER.
        retry_after: value of the ``Retry-After`` header, none if empty.
        message: what the service says, its usual words if empty.
        balancer: the answer is an HTML page from the load balancer instead of the service's JSON.
        seconds: how long SLOW waits, and SILENCE at most.
        reset: DROP and CUT end the connection by a reset, not in order.
    """

    name: str
    how: How
    after: bool = False
    status: int = 0
    retry_after: str = ""
    message: str = ""
    balancer: bool = False
    seconds: float = 0.0
    reset: bool = False


def _when(after: bool) -> str:
    return "after" if after else "before"


def rate_limited(retry_after: int | str = "") -> Fault:
    """429; ``retry_after`` in seconds or as an HTTP date."""
    name = f"429 retry-after {retry_after}" if retry_after != "" else "429"
    return Fault(name, How.ANSWER, status=429, retry_after=str(retry_after), balancer=True)


def failing(status: int = 503, *, after: bool = False, retry_after: int | str = "") -> Fault:
    """A 5xx, before or after the act; those of a gateway come as a page of the load balancer."""
    return Fault(
        f"{status} {_when(after)}",
        How.ANSWER,
        after=after,
        status=status,
        retry_after=str(retry_after),
        balancer=status in (502, 503, 504),
    )


def silence(*, after: bool = False, seconds: float = 600.0) -> Fault:
    """No answer until the client gives up, or the time is over (then the connection ends)."""
    return Fault(f"silence {_when(after)}", How.SILENCE, after=after, seconds=seconds)


def drop(*, after: bool = False, reset: bool = False) -> Fault:
    """The connection ends without an answer."""
    return Fault(f"drop {_when(after)}", How.DROP, after=after, reset=reset)


def cut(*, reset: bool = False) -> Fault:
    """The connection ends in the middle of the answer's body (without an answer, where that has none)."""
    return Fault("cut", How.CUT, after=True, reset=reset)


def slow(seconds: float) -> Fault:
    """The true answer, so much later."""
    return Fault(f"slow {seconds:g} s", How.SLOW, after=True, seconds=seconds)


def expired() -> Fault:
    """The request's token is no longer valid; requests without one pass."""
    return Fault("401", How.EXPIRED, status=401)


def missing(message: str = "") -> Fault:
    """404."""
    return Fault("404", How.ANSWER, status=404, message=message)


def conflict(message: str = "") -> Fault:
    """409."""
    return Fault("409", How.ANSWER, status=409, message=message)


def forbidden(message: str = "") -> Fault:
    """403, by policy."""
    return Fault("403", How.ANSWER, status=403, message=message)


def quota() -> Fault:
    """No quota: 403 in Nova's words, 409 in Neutron's, 413 in Cinder's and Glance's."""
    return Fault("quota", How.QUOTA)


TEMPORARY: tuple[Fault, ...] = (
    rate_limited(),
    rate_limited(1),
    failing(500),
    failing(500, after=True),
    failing(503),
    failing(503, after=True),
    failing(504, after=True),
    silence(),
    silence(after=True),
    drop(),
    drop(after=True, reset=True),
    cut(),
    slow(0.3),
    expired(),
)
"""Faults after which the same request, or another look, goes well."""

PERMANENT: tuple[Fault, ...] = (quota(), forbidden())
"""Faults that no second try mends."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which requests meet a fault.

    Attributes:
        method: empty for any.
        service: empty for any.
        path: a regular expression, searched in the template (``/servers$``, ``#os-stop``).
        skip: so many matching requests pass first.
        times: so many then meet the fault; None for all.
    """

    fault: Fault
    method: str = ""
    service: str = ""
    path: str = ""
    skip: int = 0
    times: int | None = 1

    def fits(self, request: Recorded) -> bool:
        """Whether the request is one of those meant, regardless of how many came before."""
        return (
            self.method in ("", request.method)
            and self.service in ("", request.service)
            and re.search(self.path, request.template) is not None
        )


class Script:
    """Rules, each with a count of the requests that it fitted. The first that is due decides."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._fitted: list[int] = []

    def add(self, rules: Iterable[Rule]) -> None:
        """Further rules, after those there are."""
        for rule in rules:
            self._rules.append(rule)
            self._fitted.append(0)

    def draw(self, request: Recorded) -> Fault | None:
        """The fault that is due, if any. Every rule that fits counts the request, whichever decides."""
        due: Fault | None = None
        for at, rule in enumerate(self._rules):
            if not rule.fits(request):
                continue
            self._fitted[at] += 1
            number = self._fitted[at] - rule.skip
            if due is None and number > 0 and (rule.times is None or number <= rule.times):
                due = rule.fault
        return due


@dataclass(slots=True)
class Seeded:
    """Faults at random, and the same ones whenever the requests are the same.

    Requests are numbered within their class (:attr:`Recorded.kind`: service, method and path template). The draw of the
    n-th of a class depends on the seed, the class and n alone, not on what other threads ask at the same time; only
    whether a token may expire depends on how often it was used.

    Attributes:
        rate: share of requests that meet a fault, 0 to 1.
        kinds: the faults, each as likely as the others.
        streak: no class meets more faults than this one after another, so that a client that tries often enough
            gets through; the draws after it stay as they were.
        spare: a regular expression; requests whose kind it finds pass.
        grace: a token expires only after so many requests with it were passed on, else a client that asks anew with its
            fresh token might be told again that it had expired, which no client takes.
    """

    seed: int
    rate: float
    kinds: Sequence[Fault] = TEMPORARY
    streak: int = 3
    spare: str = ""
    grace: int = 8
    _seen: Counter[str] = field(default_factory=Counter)
    _running: Counter[str] = field(default_factory=Counter)

    def draw(self, request: Recorded, token_used: int) -> Fault | None:
        """The fault of this request; ``token_used`` tells how often its token was used before."""
        kind = request.kind
        if self.spare and re.search(self.spare, kind):
            return None
        self._seen[kind] += 1
        dice = random.Random(f"{self.seed} {kind} {self._seen[kind]}")
        fault = dice.choice(self.kinds) if dice.random() < self.rate else None
        if fault and fault.how is How.EXPIRED and token_used < self.grace:
            fault = None
        if fault is None or self._running[kind] >= self.streak:
            self._running[kind] = 0
            return None
        self._running[kind] += 1
        return fault
