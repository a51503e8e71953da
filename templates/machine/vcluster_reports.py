"""What machines tell the head of themselves, whatever scheduler it serves: that their configuration failed."""

import os
import sys
import time
from pathlib import Path

REPORTS = Path("/run/vcluster/reports")
# A failed machine repeats its word every few seconds; when it falls silent it is gone or made anew.
REPORT_LIVES = 20


class Sorry(Exception):  # noqa: N818 - as it is told
    """An error to tell in one sentence."""


def reports():
    """Machines that said lately that their configuration failed."""
    found = set()
    for file in REPORTS.glob("*"):
        try:
            if time.time() - file.stat().st_mtime < REPORT_LIVES:
                found.add(file.name)
        except FileNotFoundError:
            continue
    return found


def forget_report(name):
    """What a machine said before it was mended, or made anew."""
    (REPORTS / name).unlink(missing_ok=True)


def listen(cluster):
    """One report on standard input. Only root on a member can send from a low port, so users can't cry wolf."""
    address = os.environ.get("REMOTE_ADDR", "").removeprefix("::ffff:")
    port = int(os.environ.get("REMOTE_PORT", "65535"))
    names = [name for name, where in cluster["workers"].items() if where == address]
    if not names or port >= 1024:
        raise Sorry(f"a report from {address} port {port} is not believed")
    REPORTS.mkdir(mode=0o700, parents=True, exist_ok=True)
    (REPORTS / names[0]).write_bytes(sys.stdin.buffer.readline(200))


def known(names, machines):
    """The names, if they are machines of this cluster."""
    strangers = [name for name in names if name not in machines]
    if strangers or not names:
        raise Sorry(f"no machine of this cluster: {', '.join(strangers)}" if strangers else "no machine named")
    return names
