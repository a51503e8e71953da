"""Ctrl-C, SIGTERM, a reader that goes away: in processes of their own."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
STOPPING = "stopping; what was made stays, run the same command again"

PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
from cli_fake import LOSS, World
world = World()

def during(cancel):
    print("working", file=sys.stderr, flush=True)
    {body}

world.during = during
world.loss = {loss}
world.ssh = ["sh", "-c", 'kill -s PIPE $$; exit "$2"']
sys.modules["vcluster.cluster"] = world.module()
from vcluster.cli import main
sys.exit(main())
"""

OBEYS = "assert cancel.wait(250), 'nobody stopped it'"
DEAF = "import time; time.sleep(600)"


@contextmanager
def started(
    *words: str, body: str = OBEYS, loss: str = "None", stdin: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[str]]:
    code = PROGRAM.format(folder=str(FOLDER), body=body, loss=loss)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """Read stderr up to a line that has the text in it."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"no {text!r} in {seen!r}")


def test_a_signal_in_the_middle_of_waiting_is_not_waited_for() -> None:
    """The interrupted thread holds the event's own lock."""
    body = "import os, signal\n    with cancel._cond:\n        os.kill(os.getpid(), signal.SIGINT)\n    " + OBEYS
    with started("up", "demo", body=body) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert STOPPING in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("words", [["up", "demo"], ["down", "demo", "--yes"], ["up", "demo", "--json"]])
def test_the_first_signal_stops_in_order(number: signal.Signals, words: list[str]) -> None:
    with started(*words) as process:
        wait_for(process, "working")
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert STOPPING in err
    assert "stopped before the end" in (out if "--json" in words else err)
    assert "Traceback" not in err


def test_the_second_signal_leaves_at_once() -> None:
    with started("up", "demo", body=DEAF) as process:
        wait_for(process, "working")
        process.send_signal(signal.SIGINT)
        wait_for(process, STOPPING)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)  # a fifth of what it would sleep
    assert process.returncode == 130


def test_a_signal_while_somebody_is_asked_ends_the_question() -> None:
    parent, child = pty.openpty()
    try:
        with started("down", "demo", body="pass", loss="LOSS", stdin=child) as process:
            wait_for(process, "delete network")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=120)
    finally:
        os.close(parent)
        os.close(child)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err


def test_a_name_typed_at_a_terminal_is_taken() -> None:
    parent, child = pty.openpty()
    try:
        with started("down", "demo", body="pass", loss="LOSS", stdin=child) as process:
            wait_for(process, "delete network")
            os.write(parent, b"demo\n")
            out, _ = process.communicate(timeout=120)
    finally:
        os.close(parent)
        os.close(child)
    assert process.returncode == 0
    assert "demo is gone" in out


def unread(*words: str, stream: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run with a stdout or stderr that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writer}
    try:
        return subprocess.run([sys.executable, "-c", code, *words], check=False, text=True, timeout=120, **streams)
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    ("words", "code"), [(["--help"], 0), (["schema"], 141), (["list"], 141), (["completion", "bash"], 141)]
)
def test_a_closed_stdout_is_quiet(words: list[str], code: int) -> None:
    done = unread(*words, stream="stdout", code=PROGRAM.format(folder=str(FOLDER), body="pass", loss="None"))
    assert (done.returncode, done.stderr) == (code, "")


def test_up_goes_on_when_nobody_reads_its_progress() -> None:
    program = PROGRAM.replace("print(", "str(").replace(", file=sys.stderr, flush=True", "")
    done = unread("up", "demo", stream="stderr", code=program.format(folder=str(FOLDER), body="pass", loss="None"))
    assert done.returncode == 0
    assert "demo is ready" in done.stdout


def test_ssh_ends_with_the_commands_own_status_and_plain_signals() -> None:
    """What Python ignores (SIGPIPE), the program in its place must not inherit: here it kills the shell."""
    code = PROGRAM.format(folder=str(FOLDER), body="pass", loss="None")
    plain = code.replace("kill -s PIPE $$; ", "")
    for program, status in ((plain, 7), (code, -signal.SIGPIPE)):
        done = subprocess.run(
            [sys.executable, "-c", program, "ssh", "demo", "--", "sh", "7"],
            check=False,
            capture_output=True,
            timeout=120,
        )
        assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


def test_a_missing_openssh_is_said() -> None:
    code = PROGRAM.format(folder=str(FOLDER), body="pass", loss="None").replace('["sh", "-c"', '["no-such-ssh", "-c"')
    done = subprocess.run([sys.executable, "-c", code, "ssh", "demo"], check=False, capture_output=True, timeout=120)
    assert done.returncode == 2
    assert b"the program 'no-such-ssh' is not installed" in done.stderr
    assert b"apt install openssh-client" in done.stderr
