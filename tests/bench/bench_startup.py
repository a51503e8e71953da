"""How fast the command line starts: `vcluster --help` against `python -c pass`, interleaved in one run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

TARGET = 4.0
ROUNDS = 30
SCRIPT = Path(sys.executable).with_name("vcluster")


def seconds(command: list[str]) -> float:
    """Wall time of one run."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def measure(rounds: int = ROUNDS) -> tuple[float, float, float]:
    """Medians of both in seconds, and the median of the rounds' ratios.

    Each round runs both next to each other, so that a busy machine slows both.
    """
    bare = [sys.executable, "-c", "pass"]
    ours = [sys.executable, str(SCRIPT), "--help"]
    for warm_up in (bare, ours):
        seconds(warm_up)
    pairs = [(seconds(bare), seconds(ours)) for _ in range(rounds)]
    ratio = statistics.median(with_us / without for without, with_us in pairs)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratio


def test_startup(capsys: pytest.CaptureFixture[str]) -> None:
    bare, ours, ratio = measure()
    with capsys.disabled():
        sys.stdout.write(
            f"\nstartup: python -c pass {bare * 1000:.1f} ms, vcluster --help {ours * 1000:.1f} ms,"
            f" ratio {ratio:.2f} (target at most {TARGET})\n"
        )
    assert ratio <= TARGET
