"""A command's input and output on their way through an SSH channel, piece by piece."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable
from typing import BinaryIO, Protocol

from vcluster.errors import CancelledError, DeadlineError
from vcluster.model import CommandResult

__all__ = ["flow"]

PIECE = 1 << 18
LOOK_EVERY = 0.5
"""Seconds between two looks whether somebody wants it to stop."""


class Channel(Protocol):
    """What is used of paramiko's."""

    def settimeout(self, timeout: float) -> None: ...
    def send(self, piece: memoryview, /) -> int: ...
    def shutdown_write(self) -> None: ...
    def recv(self, most: int, /) -> bytes: ...
    def recv_ready(self) -> bool: ...
    def recv_stderr(self, most: int, /) -> bytes: ...
    def recv_stderr_ready(self) -> bool: ...
    def exit_status_ready(self) -> bool: ...
    def recv_exit_status(self) -> int: ...


def flow(
    channel: Channel,
    source: BinaryIO | None,
    sink: BinaryIO | None,
    *,
    timeout: float,
    cancel: threading.Event | None,
    what: str,
) -> CommandResult:
    """Feed the command that was begun on a channel, and take what it says until it ends.

    Args:
        source: what it reads.
        sink: takes its output; None keeps it for the result.
        timeout: seconds for all of it.
        cancel: set from another thread to stop.
        what: the command, for messages.

    Raises:
        DeadlineError: the time was up.
        CancelledError: ``cancel`` was set.
        OSError: the connection broke.
    """
    end = time.monotonic() + timeout

    def check() -> None:
        if cancel is not None and cancel.is_set():
            raise CancelledError("interrupted while a machine was at work")
        if time.monotonic() > end:
            raise DeadlineError(f"the command took longer than {timeout:.0f} s: {what[:80]}")

    channel.settimeout(LOOK_EVERY)
    if source is not None:
        _feed(channel, source, check)
    channel.shutdown_write()
    said, errors = io.BytesIO(), io.BytesIO()
    _listen(channel, said if sink is None else sink, errors, check)
    while not channel.exit_status_ready():
        check()
        time.sleep(0.02)
    code = channel.recv_exit_status()
    if code < 0:
        raise OSError("it ended without an exit status")
    return CommandResult(said.getvalue().decode(errors="replace"), errors.getvalue().decode(errors="replace"), code)


def _feed(channel: Channel, source: BinaryIO, check: Callable[[], None]) -> None:
    while piece := source.read(PIECE):
        left = memoryview(piece)
        while left:
            check()
            try:
                sent = channel.send(left)
            except TimeoutError:
                continue  # its buffer is full
            except OSError:
                return  # it has enough, and says why on its way out
            if sent == 0:
                return
            left = left[sent:]


def _listen(channel: Channel, sink: BinaryIO, errors: BinaryIO, check: Callable[[], None]) -> None:
    while True:
        check()
        while channel.recv_stderr_ready():
            errors.write(channel.recv_stderr(PIECE))
        try:
            piece = channel.recv(PIECE)
        except TimeoutError:
            continue
        if not piece:
            break
        sink.write(piece)
    with contextlib.suppress(TimeoutError):
        while piece := channel.recv_stderr(PIECE):
            errors.write(piece)
