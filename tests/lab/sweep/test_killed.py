"""kill -9 after each request of `up` and of `down`: the next run converges, nothing leaks, nothing is there twice.

Without VCLUSTER_SOAK a fixed sample of the positions is tried, with it (`make soak`) every one.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator

import pytest

from tests.lab.proxy_record import Moment
from tests.lab.sweep.bed import Task
from tests.lab.sweep.conftest import SOAK, Bed

pytestmark = pytest.mark.lab

SAMPLE = (9, 14, 19, 24, 29, 34, 40, 48)
"""Numbers of requests: in these places a cluster of two machines is being made, most of them creations."""

LAST = 400
"""No run of a cluster this small asks so often; the sweep ends where a run comes to its end."""

MACHINES = ["demo-cpu-1", "demo-head"]


def positions() -> Iterator[tuple[int, Moment]]:
    """The service has acted and the client never learns of it; the client knows and does nothing more."""
    numbers = range(1, LAST) if SOAK else SAMPLE
    return itertools.product(numbers, (Moment.ACTED, Moment.ANSWERED))


def killed_at(bed: Bed, verb: str, spec: str, number: int, moment: Moment) -> tuple[Task, str]:
    """Run a verb and kill it at a request; what that request was."""
    task = Task()

    def strike() -> None:
        assert task.began.wait(30)
        os.kill(task.pid, signal.SIGKILL)

    bed.proxy.reset()
    bed.proxy.kill_after(number, strike, moment)
    bed.worker.run(verb, spec, task)
    bed.proxy.settle()
    asked = bed.proxy.requests
    bed.proxy.reset()
    return task, asked[number - 1].kind if len(asked) >= number else "(no such request)"


@pytest.mark.timeout(6 * 3600)
def test_up_and_down_killed_after_each_request(bed: Bed, spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    report: list[str] = []
    wrong: list[str] = []
    beyond = {"up": 0, "down": 0}
    for number, moment in positions():
        for verb in ("up", "down"):
            if beyond[verb] >= 2:  # with both moments no request of this number came: every position was tried
                if verb == "up":
                    assert bed.worker.run("up", spec).ok
                    continue
                assert bed.worker.run("down", spec).ok
                continue
            task, kind = killed_at(bed, verb, spec, number, moment)
            beyond[verb] = 0 if task.killed else beyond[verb] + 1
            again = bed.worker.run(verb, spec)
            faults = [] if again.ok else [f"the next run: {again.answer}"]
            if verb == "up":
                faults += [] if bed.machines() == MACHINES else [f"machines {bed.machines('swept')}"]
                faults += [] if bed.ports() == MACHINES else [f"ports {bed.ports('swept')}"]
            else:
                faults += bed.leaks()
            how = "killed" if task.killed else "ended before"
            line = f"{verb:4} {number:3} {moment:8} {kind}: {how}; then {faults or 'converged, no leak, no twin'}"
            report.append(line)
            wrong += [line] if faults else []
        if min(beyond.values()) >= 2:
            break
    with capsys.disabled():
        print("\n" + "\n".join(report))  # noqa: T201
    assert not wrong
    assert sum("killed" in line for line in report) >= len(SAMPLE)
    if SOAK:
        assert min(beyond.values()) >= 2, "the sweep did not reach the end of both runs"
