"""The machines' keeper: what it starts ends with it, and it ends with whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from lab_keeper import Child, Keeper

from tests.lab.processes import runs

OWNER = """
import sys, time
from pathlib import Path
from lab_keeper import Keeper
keeper = Keeper()
child = keeper.start("sleeper", ["sleep", "600"], Path(sys.argv[1]))
print(keeper.pid, child.pid, flush=True)
time.sleep(600)
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def ended() -> list[Child]:
    return []


@pytest.fixture
def keeper(ended: list[Child]) -> Iterator[Keeper]:
    keeper = Keeper(ended.append)
    yield keeper
    keeper.close()
    assert not psutil.pid_exists(keeper.pid)


def gone(*pids: int) -> bool:
    """Whether all have ended, given some time for it; one that nobody has asked for its status has."""
    deadline = time.monotonic() + 120
    while alive := [pid for pid in pids if runs(pid)]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return not alive


@pytest.mark.parametrize("victim", ["owner", "keeper"])
def test_all_ends_when_one_is_killed(tmp_path: Path, victim: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert owner.stdout is not None
    try:
        keeper, child = map(int, owner.stdout.readline().split())
        assert psutil.Process(child).name() == "sleep"
        os.kill(owner.pid if victim == "owner" else keeper, signal.SIGKILL)
        if victim == "owner":
            owner.wait(120)
        assert gone(keeper, child)
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()


def test_close_ends_every_child(tmp_path: Path, ended: list[Child]) -> None:
    keeper = Keeper(ended.append)
    # One that does not want to.
    stubborn = keeper.start("stubborn", ["sh", "-c", "trap '' TERM; while :; do sleep 600; done"], tmp_path / "log")
    quiet = keeper.start("quiet", ["sleep", "600"], tmp_path / "log")
    keeper.close()
    assert gone(stubborn.pid, quiet.pid, keeper.pid)
    assert {child.name for child in ended} == {"stubborn", "quiet"}
    assert all(child.wanted for child in ended)
    with pytest.raises(RuntimeError, match=r"keeper .* is gone"):
        keeper.start("late", ["sleep", "600"], tmp_path / "log")


def test_child_that_ends_by_itself_is_told_of(keeper: Keeper, tmp_path: Path, ended: list[Child]) -> None:
    child = keeper.start("short", ["sh", "-c", "echo said; echo more >&2"], tmp_path / "log")
    assert child.gone.wait(120)
    assert not child.alive
    assert not child.wanted
    child.end(grace=1.0)  # no error
    assert (tmp_path / "log").read_text() == "said\nmore\n"
    again = keeper.start("short", ["sleep", "600"], tmp_path / "log")
    assert again.alive
    assert ended == [child]


def test_end_kills_what_does_not_listen(keeper: Keeper, tmp_path: Path) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 600 & wait; done"
    child = keeper.start("stubborn", ["sh", "-c", script], tmp_path / "log")
    while "ready" not in (tmp_path / "log").read_text():
        assert child.alive
    child.end(grace=0.2)
    assert child.wanted
    assert not child.alive
    assert gone(child.pid)


def test_name_is_of_one_living_child(keeper: Keeper, tmp_path: Path) -> None:
    keeper.start("one", ["sleep", "600"], tmp_path / "log")
    with pytest.raises(RuntimeError, match="one runs already"):
        keeper.start("one", ["sleep", "600"], tmp_path / "log")


def test_program_that_is_not_there(keeper: Keeper, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"cannot run ghost: .*No such file"):
        keeper.start("ghost", ["/nonexistent/program"], tmp_path / "log")
    assert keeper.start("ghost", ["sleep", "600"], tmp_path / "log").alive
