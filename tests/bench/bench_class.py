"""A class on vcluster's Hub against one on a bare JupyterHub, on this machine, in this hour, with the same users.

``make bench-class``; the size and the rest by environment:

    VCLUSTER_CLASS          users (127)
    VCLUSTER_CLASS_WITHIN   seconds within which they come (60)
    VCLUSTER_CLASS_FOR      seconds that each works (300)
    VCLUSTER_CLASS_RUNS     runs of each, in turn (2)
    VCLUSTER_CLASS_MOST     1: afterwards also the largest class without a failure
    VCLUSTER_CLASS_BUSY     1: on a busy machine too, to try the benchmark itself; its times then tell nothing
    VCLUSTER_CLASS_OUT      the folder for figures and pictures (build/bench-class)

Each run begins on machines that were just made. The bare Hub has the trimmed environment too, which is to its favour.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import psutil
import pytest

from tests.hub.bare import Bare
from tests.hub.bed import DEFAULT, Bed
from vcluster.rehearsal.client import Pace
from vcluster.rehearsal.picture import picture
from vcluster.rehearsal.report import Report
from vcluster.rehearsal.run import Script

pytestmark = pytest.mark.hub

BOUND = 1.5
"""How many times a bare Hub's 95th percentile from log-in to first cell ours may take."""

MEMORY_OF_ONE = 150 << 20
"""Bytes that a user takes at most: a server, a kernel, and for ours slurmstepd."""

KEPT_FREE = 1 << 30
STEPS = 12


def number(name: str, default: int) -> int:
    return int(os.environ.get(f"VCLUSTER_CLASS{name}", default))


def say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')}  {text}\n")


def script() -> Script:
    return Script(float(number("_WITHIN", 60)), Pace(float(number("_FOR", 300))))


def spec(users: int) -> dict[str, Any]:
    """Four workers that say they have room for the class; what they have is this host's."""
    size = {"cpus": 4, "memory": f"{max(4, users // 4 * 5 // 8)}G", "disk": "8G"}
    hub = {
        **DEFAULT["jupyterhub"],
        "people": {"count": 1, "prefix": "student"},
        "class_size": users,
        "cpu_oversubscribe": -(-(users + 8) // 16),
    }
    return {**DEFAULT, "workers": [{"name": "cpu", "count": 4, "flavor": size}], "jupyterhub": hub}


@dataclass
class Used:
    """Memory that was taken from the host, in bytes, at the most; and processor time, in seconds."""

    memory: int = 0
    cpu: float = 0.0


@contextmanager
def watched() -> Iterator[Used]:
    used, over = Used(), threading.Event()
    before, busy = psutil.virtual_memory().available, busy_seconds()

    def watch() -> None:
        while not over.wait(0.5):
            used.memory = max(used.memory, before - psutil.virtual_memory().available)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield used
    finally:
        over.set()
        thread.join()
        used.cpu = busy_seconds() - busy


def busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice)


def quiet() -> None:
    """Wait until this machine has nothing else to do; what is measured beside something else is not measured."""
    end = time.monotonic() + 120
    while not number("_BUSY", 0) and (load := psutil.cpu_percent(5)) > 15:
        if time.monotonic() > end:
            pytest.fail(f"this machine is busy ({load:.0f} % of its processors): a comparison would tell nothing")


def check_room(users: int) -> None:
    needed, there = users * MEMORY_OF_ONE + KEPT_FREE, psutil.virtual_memory().available
    if there < needed:
        pytest.fail(f"{users} users need {needed >> 30} GiB of memory, and {there >> 30} GiB are free")


def ours(users: int, lasting: float | None = None) -> tuple[Report, Used, Bare]:
    """A run on vcluster's Hub, and a bare one with its certificate to compare with."""
    check_room(users)
    quiet()
    wanted = script() if lasting is None else Script(script().within, Pace(lasting))
    say(f"vcluster's Hub, {users} users")
    with Bed(spec(users), forward=False) as bed:
        with watched() as used:
            report = bed.rehearse(users, wanted, say)
        return report, used, Bare(bed, users)


def bare(other: Bare) -> tuple[Report, Used]:
    quiet()
    say(f"a bare Hub, {len(other.names)} users")
    with other, watched() as used:
        report = other.rehearse(script())
    return report, used


def keep(folder: Path, name: str, report: Report, used: Used) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(report.json())
    (folder / f"{name}.svg").write_text(picture(report, f"{name}: {report.users} users within {report.within:.0f} s"))
    say(f"{name}: memory {used.memory / 2**30:.1f} GiB, processors {used.cpu:.0f} s\n{report.text()}\n")
    told = {key: value for key, value in report.to_dict().items() if key != "visits"}
    return {"name": name, "memory": used.memory, "cpu": round(used.cpu, 1), **told}


def p95(report: Report) -> float:
    whole = report.row("until cell")
    assert whole is not None
    return whole.p95


def test_a_class_against_a_bare_hub() -> None:
    users, folder = number("", 127), Path(os.environ.get("VCLUSTER_CLASS_OUT", "build/bench-class"))
    mine: list[Report] = []
    theirs: list[Report] = []
    told = []
    for run in range(1, number("_RUNS", 2) + 1):
        report, used, other = ours(users)
        mine.append(report)
        told.append(keep(folder, f"vcluster-{run}", report, used))
        report, used = bare(other)
        theirs.append(report)
        told.append(keep(folder, f"bare-{run}", report, used))
    ratio = mean(map(p95, mine)) / mean(map(p95, theirs))
    most = largest(users, folder) if number("_MOST", 0) else None
    summary = {"users": users, "ratio": round(ratio, 3), "bound": BOUND, "largest": most, "runs": told}
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    (folder / "summary.md").write_text(as_table(told))
    say(f"95th percentile from log-in to first cell: {ratio:.2f} times a bare Hub's (at most {BOUND})")
    assert [report.verdict for report in mine if not report.passed] == []
    assert ratio <= BOUND


def as_table(runs: list[dict[str, Any]]) -> str:
    """The figures as they go into the documentation."""
    lines = [
        "| run | users | failed | first cell, median | 95 % | longest | servers' start, 95 % | memory | processors |"
    ]
    lines.append("|---" * 9 + "|")
    for run in runs:
        whole, start = run["times"].get("until cell"), run["times"].get("spawn")
        failed = sum(failure["count"] for failure in run["failures"])
        times = [f"{whole[key]:.1f} s" for key in ("p50", "p95", "longest")] if whole else ["-"] * 3
        times.append(f"{start['p95']:.1f} s" if start else "-")
        cells = [run["name"], run["users"], failed, *times, f"{run['memory'] / 2**30:.1f} GiB", f"{run['cpu']:.0f} s"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def largest(start: int, folder: Path) -> int:
    """The largest class of which all can work, by steps of a tenth; each works for a minute."""
    best = start
    for _ in range(STEPS):
        users = best + max(1, best // 10)
        if users * MEMORY_OF_ONE + KEPT_FREE > psutil.virtual_memory().available:
            say(f"{users} users would not fit into this machine's memory")
            break
        report, used, _ = ours(users, lasting=60.0)
        keep(folder, f"most-{users}", report, used)
        if not report.passed:
            break
        best = users
    return best
