"""kill -9 after each request of `up` and of `down`: the next run converges, nothing leaks, nothing is there twice.

Without VCLUSTER_SOAK the positions are all requests that change something, each killed when the service has acted and
the client never learns of it; with it (`make soak`) they are all requests, killed at two moments.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable

import pytest

from tests.lab.conftest import REPORT
from tests.lab.proxy_record import Moment, Recorded
from tests.lab.sweep.bed import Task
from tests.lab.sweep.conftest import SOAK, Bed

pytestmark = pytest.mark.lab

LAST = 400
"""No run of a cluster this small asks so often; the sweep ends where a run comes to its end."""

MOMENTS = (Moment.ACTED, Moment.ANSWERED) if SOAK else (Moment.ACTED,)
"""The service has acted and the client never learns of it; or the client knows and does nothing more."""

MACHINES = ["demo-cpu-1", "demo-head"]


def counts(request: Recorded) -> bool:
    """Whether a request is one of the positions."""
    return SOAK or (request.method != "GET" and not request.path.endswith("/auth/tokens"))


def killed_at(bed: Bed, verb: str, spec: str, number: int, moment: Moment) -> tuple[Task, str]:
    """Run a verb and kill it at a position; what was asked there."""
    task, struck, counted = Task(), [""], itertools.count(1)

    def strike() -> None:
        assert task.began.wait(300)
        os.kill(task.pid, signal.SIGKILL)

    def choose(request: Recorded, now: Moment) -> None:
        if now is Moment.ARRIVED and counts(request) and next(counted) == number:
            struck[0] = request.kind
            bed.proxy.kill_after(request.number, strike, moment)

    bed.proxy.reset()
    bed.proxy.on_request(choose)
    bed.worker.run(verb, spec, task)
    bed.proxy.reset()
    return task, struck[0] or "(no such request)"


@pytest.mark.timeout(6 * 3600)
@pytest.mark.parametrize("moment", MOMENTS)
def test_up_and_down_killed_after_each_request(
    bed: Bed, spec: str, moment: Moment, record_property: Callable[[str, object], None]
) -> None:
    report: list[str] = []
    wrong: list[str] = []
    ended = {"up": False, "down": False}
    for number in range(1, LAST):
        for verb in ("up", "down"):
            if ended[verb]:  # every position was tried
                assert bed.worker.run(verb, spec).ok
                continue
            task, kind = killed_at(bed, verb, spec, number, moment)
            ended[verb] = not task.killed
            again = bed.worker.run(verb, spec)
            faults = [] if again.ok else [f"the next run: {again.answer}"]
            if verb == "up":
                faults += [] if bed.machines() == MACHINES else [f"machines {bed.machines()}"]
                faults += [] if bed.ports() == MACHINES else [f"ports {bed.ports()}"]
            else:
                faults += bed.leaks()
            how = "killed" if task.killed else "ended before"
            line = f"{verb:4} {number:3} {moment:8} {kind}: {how}; then {faults or 'converged, no leak, no twin'}"
            report.append(line)
            wrong += [line] if faults else []
        if all(ended.values()):
            break
    record_property(REPORT, report)
    assert not wrong
    assert all(ended.values()), "the sweep did not reach the end of both runs"
    assert sum(": killed;" in line for line in report) > 15
