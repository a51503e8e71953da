"""kill -9 after each request of `up` and of `down`: the next run converges, nothing leaks, nothing is there twice.

A position is the n-th request of its kind: which request is the n-th of all differs from run to run, since a wave asks
for many things at once, and counting so misses some. Without VCLUSTER_SOAK the positions are all requests that change
something, each killed when the service has acted and the client never learns of it; with it (`make soak`) there are two
moments, and every request of a run, looks too, by its number.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.lab.conftest import REPORT
from tests.lab.proxy_record import Moment, Recorded
from tests.lab.sweep.bed import Task, spec_of
from tests.lab.sweep.conftest import NAME, SOAK, Bed, tidy

pytestmark = [pytest.mark.lab, pytest.mark.timeout(12 * 3600)]

LAST = 400
"""No run of a cluster this small asks so often; the sweep ends where a run comes to its end."""

MOMENTS = (Moment.ACTED, Moment.ANSWERED) if SOAK else (Moment.ACTED,)
"""The service has acted and the client never learns of it; or the client knows and does nothing more."""

VERBS = ("up", "down")


@dataclass(frozen=True)
class Variant:
    """A cluster that is killed.

    Attributes:
        more: fields of its spec.
        sample: a regular expression for the kinds of requests that are positions.
        least: so many positions there are at least, of `up` and `down` together.
    """

    name: str
    workers: int
    least: int
    more: Mapping[str, Any] = field(default_factory=dict)
    sample: str = ""

    @property
    def spec(self) -> str:
        return spec_of(NAME, count=self.workers, **self.more)


VARIANTS = (
    Variant("two workers", 2, 30),  # so that they have a server group
    # What differs is how the volume comes, whom it is given to, and with whom it goes.
    Variant("a head's volume", 1, 5, {"head": {"flavor": "m3.tiny", "root_disk": 20}}, r"/volumes|/servers(/\{id\})?$"),
)


@dataclass(frozen=True)
class Position:
    """Where a run is killed: at the request of this number among those of this kind, or among all."""

    verb: str
    number: int
    moment: Moment
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.verb:4} {self.number:3} {self.moment:8}"


@pytest.fixture(params=VARIANTS, ids=[variant.name for variant in VARIANTS])
def variant(request: pytest.FixtureRequest, bed: Bed) -> Iterator[Variant]:
    """A cluster that came up undisturbed once."""
    made: Variant = request.param
    bed.come_up_undisturbed(made.spec)
    yield made
    tidy(bed, made.spec)


def changes(bed: Bed, variant: Variant, verb: str, moment: Moment) -> list[Position]:
    """One for each request of the undisturbed run that changed something."""
    asked = bed.asked[variant.spec][verb]
    kinds = [k for k in asked if " GET " not in k and "/auth/tokens" not in k and re.search(variant.sample, k)]
    return [Position(verb, number, moment, kind) for kind in kinds for number in range(1, asked[kind] + 1)]


def killed_at(bed: Bed, variant: Variant, position: Position) -> tuple[Task, str]:
    """Run a verb and kill it at a position; what was asked there."""
    task, struck, counted = Task(), [""], itertools.count(1)

    def strike() -> None:
        assert task.began.wait(300)
        os.kill(task.pid, signal.SIGKILL)

    def choose(request: Recorded, now: Moment) -> None:
        meant = now is Moment.ARRIVED and position.kind in ("", request.kind)
        if meant and next(counted) == position.number:
            struck[0] = request.kind
            bed.proxy.kill_after(request.number, strike, position.moment)

    bed.proxy.reset()
    bed.proxy.on_request(choose)
    bed.worker.run(position.verb, variant.spec, task)
    bed.proxy.drain()
    bed.proxy.reset()
    return task, struck[0] or f"{position.kind} (not asked so often)"


@dataclass
class Sweep:
    """What came of all positions, one line each.

    Attributes:
        wrong: those after which the next run did not mend all.
    """

    bed: Bed
    variant: Variant
    report: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def kill(self, position: Position, then: str) -> bool:
        """Kill a run and have another one mend it; whether there was anything to kill."""
        task, kind = killed_at(self.bed, self.variant, position)
        again = self.bed.worker.run(then, self.variant.spec)
        faults = [] if again.ok else [f"the next run: {again.answer}"]
        faults += self.bed.amiss(self.variant.spec) if then == "up" else self.bed.leaks()
        how = "killed" if task.killed else "ended before"
        line = f"{position} {kind}: {how}; then {then}: {faults or 'converged, no leak, no twin'}"
        self.report.append(line)
        self.wrong += [line] if faults else []
        return task.killed

    @property
    def kills(self) -> int:
        return sum(": killed;" in line for line in self.report)


@pytest.fixture
def sweep(bed: Bed, variant: Variant, record_property: Callable[[str, object], None]) -> Sweep:
    """One whose report is printed in the end, also when a test fails in the middle."""
    made = Sweep(bed, variant)
    record_property(REPORT, made.report)
    return made


@pytest.mark.parametrize("moment", MOMENTS)
def test_up_and_down_killed_after_each_change(bed: Bed, variant: Variant, sweep: Sweep, moment: Moment) -> None:
    ups, downs = (changes(bed, variant, verb, moment) for verb in VERBS)
    for pair in itertools.zip_longest(ups, downs):
        for verb, position in zip(VERBS, pair, strict=True):
            if position is not None:
                sweep.kill(position, then=verb)
            else:  # every one of them was tried
                assert bed.worker.run(verb, variant.spec).ok
    assert not sweep.wrong
    assert sweep.kills >= variant.least


@pytest.mark.skipif(not SOAK, reason="make soak: about two hundred positions")
@pytest.mark.parametrize("moment", MOMENTS)
def test_up_and_down_killed_after_each_request(bed: Bed, variant: Variant, sweep: Sweep, moment: Moment) -> None:
    ended = dict.fromkeys(VERBS, False)
    for number in range(1, LAST):
        for verb in VERBS:
            if ended[verb]:
                assert bed.worker.run(verb, variant.spec).ok
            else:
                ended[verb] = not sweep.kill(Position(verb, number, moment), then=verb)
        if all(ended.values()):
            break
    assert not sweep.wrong
    assert all(ended.values()), "the sweep did not reach the end of both runs"
    assert sweep.kills >= variant.least


@pytest.mark.skipif(not SOAK, reason="make soak: as many positions again")
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_up_that_was_killed_is_taken_away(bed: Bed, variant: Variant, sweep: Sweep, moment: Moment) -> None:
    """Nobody brings it up again: `down` finds all that it made."""
    for position in changes(bed, variant, "up", moment):
        sweep.kill(position, then="down")
    assert not sweep.wrong
    assert sweep.kills >= variant.least / 2
