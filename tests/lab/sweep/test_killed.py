"""kill -9 after each request of `up` and of `down`: the next run converges, nothing leaks, nothing is there twice.

Without VCLUSTER_SOAK the positions are requests that change something, each killed when the service has acted and the
client never learns of it; with it (`make soak`) they are all requests, killed at two moments.
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


@dataclass(frozen=True)
class Variant:
    """A cluster that is killed.

    Attributes:
        more: fields of its spec.
        sample: a regular expression for the templates of the requests that are positions without VCLUSTER_SOAK.
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

    def counts(self, request: Recorded) -> bool:
        """Whether a request is one of the positions."""
        if SOAK:
            return True
        changes = request.method != "GET" and not request.path.endswith("/auth/tokens")
        return changes and re.search(self.sample, request.template) is not None


VARIANTS = (
    Variant("two workers", 2, 30),  # so that they have a server group
    # What differs is how the volume comes, whom it is given to, and with whom it goes.
    Variant("a head's volume", 1, 5, {"head": {"flavor": "m3.tiny", "root_disk": 20}}, r"/volumes|/servers(/\{id\})?$"),
)


@pytest.fixture(params=VARIANTS, ids=[variant.name for variant in VARIANTS])
def variant(request: pytest.FixtureRequest, bed: Bed) -> Iterator[Variant]:
    """A cluster that came up undisturbed once."""
    made: Variant = request.param
    bed.come_up_undisturbed(made.spec)
    yield made
    tidy(bed, made.spec)


def killed_at(bed: Bed, verb: str, variant: Variant, number: int, moment: Moment) -> tuple[Task, str]:
    """Run a verb and kill it at a position; what was asked there."""
    task, struck, counted = Task(), [""], itertools.count(1)

    def strike() -> None:
        assert task.began.wait(300)
        os.kill(task.pid, signal.SIGKILL)

    def choose(request: Recorded, now: Moment) -> None:
        if now is Moment.ARRIVED and variant.counts(request) and next(counted) == number:
            struck[0] = request.kind
            bed.proxy.kill_after(request.number, strike, moment)

    bed.proxy.reset()
    bed.proxy.on_request(choose)
    bed.worker.run(verb, variant.spec, task)
    bed.proxy.reset()
    return task, struck[0] or "(no such request)"


def mended(bed: Bed, verb: str, variant: Variant) -> list[str]:
    """Run a verb again; what is wrong then, nothing if it converged and all is there once, or gone."""
    again = bed.worker.run(verb, variant.spec)
    faults = [] if again.ok else [f"the next run: {again.answer}"]
    return faults + (bed.amiss(variant.spec) if verb == "up" else bed.leaks())


@pytest.mark.parametrize("moment", MOMENTS)
def test_up_and_down_killed_after_each_request(
    bed: Bed, variant: Variant, moment: Moment, record_property: Callable[[str, object], None]
) -> None:
    report: list[str] = []
    wrong: list[str] = []
    ended = {"up": False, "down": False}
    for number in range(1, LAST):
        for verb in ("up", "down"):
            if ended[verb]:  # every position was tried
                assert bed.worker.run(verb, variant.spec).ok
                continue
            task, kind = killed_at(bed, verb, variant, number, moment)
            ended[verb] = not task.killed
            faults = mended(bed, verb, variant)
            how = "killed" if task.killed else "ended before"
            line = f"{verb:4} {number:3} {moment:8} {kind}: {how}; then {faults or 'converged, no leak, no twin'}"
            report.append(line)
            wrong += [line] if faults else []
        if all(ended.values()):
            break
    record_property(REPORT, report)
    assert not wrong
    assert all(ended.values()), "the sweep did not reach the end of both runs"
    assert sum(": killed;" in line for line in report) >= variant.least


@pytest.mark.skipif(not SOAK, reason="make soak: as many positions again")
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_up_that_was_killed_is_taken_away(
    bed: Bed, variant: Variant, moment: Moment, record_property: Callable[[str, object], None]
) -> None:
    """Nobody brings it up again: `down` finds all that it made."""
    report: list[str] = []
    wrong: list[str] = []
    for number in range(1, LAST):
        task, kind = killed_at(bed, "up", variant, number, moment)
        faults = mended(bed, "down", variant)
        line = f"up   {number:3} {moment:8} {kind}: then down: {faults or 'no leak'}"
        report.append(line)
        wrong += [line] if faults else []
        if not task.killed:
            break
    record_property(REPORT, report)
    assert not wrong
    assert variant.least / 2 < len(report) < LAST - 1, "the sweep did not reach the end of the run"
