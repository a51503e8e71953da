"""How fast the command line starts: `vcluster --help` against `python -c pass`, interleaved in one run."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

TARGET = 4.0
ROUNDS = 30
SCRIPT = Path(sys.executable).with_name("vcluster")


def cost(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one run; the CPU's are the kernel's own account of the finished process."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime


def measure(rounds: int = ROUNDS) -> tuple[list[float], list[float]]:
    """Medians of (wall of the bare start, wall of ours, ratio of walls), and of the same three in CPU time.

    Each round runs both next to each other, so that a busy machine slows both.
    """
    bare = [sys.executable, "-c", "pass"]
    ours = [sys.executable, str(SCRIPT), "--help"]
    for warm_up in (bare, ours):
        cost(warm_up)
    pairs = [(cost(bare), cost(ours)) for _ in range(rounds)]

    def medians(kind: int) -> list[float]:
        columns = zip(*((a[kind], b[kind], b[kind] / a[kind]) for a, b in pairs), strict=True)
        return [statistics.median(column) for column in columns]

    return medians(0), medians(1)


def test_startup(capsys: pytest.CaptureFixture[str]) -> None:
    wall, cpu = measure()
    with capsys.disabled():
        sys.stdout.write(
            f"\nstartup: python -c pass {wall[0] * 1000:.1f} ms, vcluster --help {wall[1] * 1000:.1f} ms,"
            f" ratio {wall[2]:.2f}; in CPU time {cpu[2]:.2f} (target at most {TARGET})\n"
        )
    # CPU time, because a wall clock would test how busy the machine is.
    assert cpu[2] <= TARGET
