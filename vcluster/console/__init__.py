"""What a person or a program sees while the library works: a live table, plain lines, or one JSON object a line.

Progress goes to stderr. Text from clouds and machines is not trusted: control characters are taken out, and nothing
in it is read as rich's markup.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Protocol, TextIO

from vcluster import spans
from vcluster.events import Event, Log, MachineChanged, PlanMade, Retrying, StepFinished, StepStarted

__all__ = [
    "JsonReporter",
    "PlainReporter",
    "Reporter",
    "clean",
    "cost_text",
    "describe",
    "duration",
    "expiry_text",
    "is_terminal",
    "reporter",
]

_ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # operating system commands, as window titles and links
    r"|\x1b[P^_X][^\x1b]*(?:\x1b\\)?"  # device control and other strings
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # colours and cursor movement
    r"|\x1b[ -/]*[0-~]?"
)


def clean(text: object, *, lines: bool = False) -> str:
    """Text that a terminal may show: without escape sequences, control characters and direction overrides.

    Args:
        text: anything; its ``str`` is taken.
        lines: keep line breaks and tabs (for a console's output); else they become one space.
    """
    plain = _ESCAPES.sub("", str(text)).replace("\r\n", "\n")
    if not lines:
        plain = re.sub(r"[\r\n\t]+", " ", plain)
    return "".join(c for c in plain if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp"})


def duration(seconds: float) -> str:
    """A time span as a person says it: ``4.2s``, ``3m 07s``, ``2h 05m``."""
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest:02d}s" if minutes < 60 else f"{minutes // 60}h {minutes % 60:02d}m"


def expiry_text(at: float | None, now: float) -> str:
    """When something's time is up, as seen from now (both in seconds since the epoch); empty for never."""
    if at is None:
        return ""
    from datetime import UTC, datetime

    moment = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    left = at - now
    if left <= 0:
        return f"{moment} (past)"
    rounded = round(left, -2) if left > 86400 else left
    return f"{moment} (in {spans.spell(rounded // 60 * 60) if left >= 60 else duration(left)})"


def cost_text(cost: float | None, unit: str) -> str:
    """Units for a person: ``18 SU``, ``0.5 SU``; empty where they are not known."""
    return "" if cost is None else f"{round(cost, 2):g} {unit}".rstrip()


def describe(event: Event, *, verbose: bool = False) -> str:
    """One line for an event; empty for one that is only shown when ``verbose``."""
    line = ""
    match event:
        case Log(level=level, message=message):
            line = f"warning: {message}" if level == "warning" else message
        case MachineChanged(machine=machine, state=state, health=health, detail=detail):
            words = [state, *([health] if health and health != "unknown" else []), *([detail] if detail else [])]
            line = f"{machine}: {', '.join(words)}"
        case Retrying(subject=subject, error=error, delay=delay):
            line = f"{subject}: {error}; again in {duration(delay)}"
        case StepFinished(action=action, subject=subject, error=error) if error:
            line = f"{action} {subject} failed: {error}"
        case StepFinished(action=action, subject=subject, seconds=seconds) if verbose:
            line = f"{action} {subject}: done in {duration(seconds)}"
        case StepStarted(action=action, subject=subject) if verbose:
            line = f"{action} {subject} …"
        case PlanMade(actions=actions, waiting=waiting) if verbose:
            line = f"plan: {len(actions)} actions, waiting for {', '.join(waiting) or 'nothing'}"
    return clean(line)


def is_terminal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a stream is a terminal that can redraw a table."""
    return stream.isatty() and environment.get("TERM", "dumb") != "dumb"


class Reporter(Protocol):
    """Takes events, from any thread, and shows them."""

    asking: bool
    """True while a question waits for the person's answer."""

    def handle(self, event: Event) -> None:
        """Show an event."""
        ...

    def interrupted(self, message: str) -> None:
        """Say something from inside a signal handler."""
        ...

    def question(self) -> AbstractContextManager[None]:
        """Leave the terminal to a question for a while."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was; more than once does no harm."""
        ...


class PlainReporter:
    """One line per change, with the seconds since the start in front.

    Args:
        stream: where lines go; a reader that went away is not an error, the work goes on.
        quiet: show nothing.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        quiet: bool = False,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.asking = False
        self._stream: TextIO | None = None if quiet else stream
        self._verbose = verbose
        self._clock = clock
        self._begin = clock()
        self._lock = threading.RLock()

    def handle(self, event: Event) -> None:
        """Write the event's line, if it has one."""
        if line := describe(event, verbose=self._verbose):
            self._write(f"[{self._clock() - self._begin:7.1f}s] {line}\n")

    def _write(self, text: str) -> None:
        with self._lock:
            if self._stream is None:
                return
            try:
                self._stream.write(text)
                self._stream.flush()
            except BrokenPipeError:
                _discard(self._stream)
                self._stream = None

    def interrupted(self, message: str) -> None:
        """Write straight to the descriptor: a signal may have come in the middle of a buffered write."""
        write_raw(message)

    @contextmanager
    def question(self) -> Iterator[None]:
        """Mark that somebody is being asked."""
        self.asking = True
        try:
            yield
        finally:
            self.asking = False

    def close(self) -> None:
        """Nothing to put back."""


class JsonReporter(PlainReporter):
    """Each event as one JSON object on its own line (NDJSON)."""

    def handle(self, event: Event) -> None:
        """Write the event."""
        self._write(json.dumps(event.to_dict(), default=str) + "\n")


def _discard(stream: TextIO) -> None:
    """Let what is left in a stream's buffer go nowhere; the interpreter would fail to flush it and exit with 120."""
    with suppress(OSError):  # io.UnsupportedOperation among them: a stream without a descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def write_raw(message: str) -> None:
    """A line to stderr that is safe inside a signal handler."""
    try:
        os.write(2, f"{message}\n".encode())
    except OSError:
        return  # nobody is left to read it


def reporter(*, as_json: bool, quiet: bool, verbose: bool, stdout: TextIO, stderr: TextIO) -> Reporter:
    """The reporter that fits: JSON when asked for, a live table on a terminal, else plain lines."""
    if as_json:
        return JsonReporter(stdout)
    if not quiet and is_terminal(stderr):
        from vcluster.console.live import LiveReporter

        return LiveReporter(stderr, verbose=verbose)
    return PlainReporter(stderr, quiet=quiet, verbose=verbose)
