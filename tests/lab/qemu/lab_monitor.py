"""One conversation with a QEMU over its control socket, from any thread and without an event loop."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["MonitorError", "execute", "human", "wait_ready"]

_TIMEOUT = 60.0


class MonitorError(RuntimeError):
    """QEMU does not answer, or refuses."""


def execute(path: Path, command: str, **arguments: object) -> Any:
    """Run one QMP command; what it returned.

    Raises:
        MonitorError: nobody answers on this socket, or QEMU refuses.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT)
            connection.connect(str(path))
            with connection.makefile("rw") as stream:
                stream.readline()  # the greeting
                for name, values in (("qmp_capabilities", {}), (command, arguments)):
                    stream.write(json.dumps({"execute": name, "arguments": values}) + "\n")
                    stream.flush()
                    answer = _answer(stream)
    except (OSError, ValueError) as error:
        raise MonitorError(f"{path}: {command}: {error}") from error
    return answer


def _answer(stream: Any) -> Any:
    for line in stream:
        message = json.loads(line)
        if "error" in message:
            raise MonitorError(message["error"].get("desc", "refused"))
        if "return" in message:
            return message["return"]
    raise MonitorError("QEMU hung up")


def human(path: Path, line: str) -> str:
    """Run a command of the monitor for people; what it printed.

    Raises:
        MonitorError: as :func:`execute`.
    """
    return str(execute(path, "human-monitor-command", **{"command-line": line})).strip()


def wait_ready(path: Path, alive: Callable[[], bool], timeout: float) -> None:
    """Wait until QEMU answers.

    Args:
        alive: called to ask whether the process still runs.
        timeout: seconds.

    Raises:
        MonitorError: it ended, or did not answer in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            execute(path, "query-status")
        except MonitorError:
            if not alive() or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
