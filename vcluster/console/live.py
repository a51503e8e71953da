"""The live table of a terminal: one line per machine that is not done yet, the others counted. Drawn with rich."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vcluster.console import clean, describe, duration
from vcluster.events import Event, MachineChanged, PlanMade, StepFinished, StepStarted

__all__ = ["LiveReporter"]

ALWAYS_SHOWN = 12
"""So many machines fit on any terminal; of more, only those that are not ready are shown."""

REFRESH = 4.0
"""How often a second the table is drawn."""

STYLES = {"ready": "green", "busy": "green", "failed": "bold red", "ERROR": "bold red", "drained": "yellow"}
GONE = {"", "DELETED", "GONE", "ABSENT"}
DONE = {"ready", "busy"}


@dataclass(slots=True)
class Row:
    """What is known of one machine; ``finished`` is when it became ready, 0 before."""

    name: str
    state: str
    health: str
    detail: str
    began: float
    finished: float = 0.0


class LiveReporter:
    """Draws the table below the lines that were said.

    Args:
        stream: a terminal.
        clock: monotonic seconds.
        console: for tests; by default one on ``stream`` (rich honours ``NO_COLOR`` by itself).
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
        console: Console | None = None,
    ) -> None:
        self.asking = False
        self._console = console or Console(file=stream, highlight=False, markup=False, emoji=False)
        self._verbose = verbose
        self._clock = clock
        self._begin = clock()
        self._rows: dict[str, Row] = {}
        self._busy: dict[str, None] = {}
        self._waiting: tuple[str, ...] = ()
        self._note = ""
        self._lock = threading.RLock()
        self._live = Live(
            console=self._console,
            get_renderable=self.table,
            refresh_per_second=REFRESH,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def handle(self, event: Event) -> None:
        """Bring the table up to date; what is no machine's state becomes a line above it."""
        with self._lock:
            match event:
                case MachineChanged():
                    self._change(event)
                case PlanMade(waiting=waiting):
                    self._waiting = tuple(clean(what) for what in waiting)
                case StepStarted(action=action, subject=subject):
                    self._busy[clean(f"{action} {subject}")] = None
                case StepFinished(action=action, subject=subject):
                    self._busy.pop(clean(f"{action} {subject}"), None)
        if isinstance(event, MachineChanged) and event.state != "ERROR" and event.health != "failed":
            return
        if line := describe(event, verbose=self._verbose):
            self._console.print(Text(f"[{self._clock() - self._begin:7.1f}s] {line}"), soft_wrap=True)

    def _change(self, event: MachineChanged) -> None:
        now = self._clock()
        if event.state in GONE:
            self._rows.pop(event.machine, None)
            return
        row = self._rows.setdefault(event.machine, Row(clean(event.machine), "", "", "", now))
        row.state, row.health, row.detail = clean(event.state), clean(event.health), clean(event.detail)
        if row.health not in DONE:
            row.finished = 0.0
        elif not row.finished:
            row.finished = now

    def table(self) -> RenderableType:
        """What is drawn now."""
        with self._lock:
            rows = list(self._rows.values())
            busy = list(self._busy) or [f"waiting for {what}" for what in self._waiting]
            note = self._note
        now = self._clock()
        parts: list[RenderableType] = []
        room = max(3, self._console.height - 6)
        shown = rows if len(rows) <= min(ALWAYS_SHOWN, room) else [row for row in rows if row.health not in DONE][:room]
        if shown:
            grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
            for title in ("machine", "state", "health", "time"):
                grid.add_column(title, no_wrap=True)
            grid.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
            for row in shown:
                grid.add_row(
                    Text(row.name),
                    Text(row.state, style=STYLES.get(row.state, "")),
                    Text(row.health, style=STYLES.get(row.health, "")),
                    Text(duration((row.finished or now) - row.began)),
                    Text(row.detail, style="dim"),
                )
            parts.append(grid)
        parts.append(Text(self._summary(rows, len(shown), busy, now), style="dim", no_wrap=True, overflow="ellipsis"))
        if note:
            parts.append(Text(note, style="bold yellow"))
        return Group(*parts)

    def _summary(self, rows: list[Row], shown: int, busy: list[str], now: float) -> str:
        words = [duration(now - self._begin)]
        if rows:
            ready = sum(row.health in DONE for row in rows)
            words.append(f"{ready} of {len(rows)} ready")
            others = Counter(row.health or row.state for row in rows if row.health not in DONE)
            if shown < len(rows):
                words += [f"{count} {name}" for name, count in others.most_common()]
        if busy:
            words.append(busy[0] if len(busy) == 1 else f"{busy[0]} and {len(busy) - 1} more")
        return " · ".join(words)

    def interrupted(self, message: str) -> None:
        """Keep it for the next drawing: a signal handler must not draw in the middle of one."""
        self._note = message

    @contextmanager
    def question(self) -> Iterator[None]:
        """Take the table away while somebody is asked."""
        self._live.stop()
        self.asking = True
        try:
            yield
        finally:
            self.asking = False
            self._live.start()

    def close(self) -> None:
        """Take the table away and show the cursor again."""
        self._live.stop()
