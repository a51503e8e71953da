"""What a rehearsal showed: percentiles, failures with their reasons, and the verdict."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from vcluster.rehearsal.client import Visit
from vcluster.rehearsal.run import Rehearsal

__all__ = ["Report", "Row", "percentile"]

WORDS = {
    "login": "log-in",
    "spawn": "server start",
    "lab": "JupyterLab's page",
    "kernel": "kernel",
    "cell": "first cell",
    "until cell": "log-in to first cell",
    "cells": "later cells",
    "leave": "stop and log-out",
}


@dataclass(frozen=True, slots=True)
class Row:
    """Times of one kind, in seconds."""

    what: str
    count: int
    p50: float
    p95: float
    p99: float
    longest: float


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a rehearsal.

    Attributes:
        rows: by the keys of ``WORDS``; a kind that nobody got to is missing.
        failures: how often, by (step, reason), the most frequent first.
        hosts: servers by machine.
        bound: the seconds that the 95th percentile from log-in to first cell may have, or None.
        cancelled: the rehearsal was stopped early.
        left_badly: users whose server or session did not end in order, by reason.
    """

    users: int
    within: float
    lasting: float
    began: float
    seconds: float
    rows: tuple[Row, ...]
    failures: tuple[tuple[str, str, int], ...]
    left_badly: tuple[tuple[str, int], ...]
    hosts: tuple[tuple[str, int], ...]
    visits: tuple[Visit, ...]
    bound: float | None = None
    cancelled: bool = False

    @classmethod
    def of(cls, rehearsal: Rehearsal, bound: float | None = None) -> Report:
        """Count it up."""
        visits, script = rehearsal.visits, rehearsal.script
        failures = Counter((seen.failed, seen.reason) for seen in visits if seen.failed)
        badly = Counter(seen.left for seen in visits if seen.left not in {"", "yes"})
        return cls(
            users=len(visits),
            within=script.within,
            lasting=script.pace.lasting,
            began=rehearsal.began,
            seconds=rehearsal.seconds,
            rows=tuple(_rows(visits)),
            failures=tuple((step, reason, count) for (step, reason), count in failures.most_common()),
            left_badly=tuple(badly.most_common()),
            hosts=tuple(sorted(Counter(seen.host for seen in visits if seen.host).items())),
            visits=visits,
            bound=bound,
            cancelled=rehearsal.cancelled,
        )

    def row(self, what: str) -> Row | None:
        """The times of one kind."""
        return next((row for row in self.rows if row.what == what), None)

    @property
    def failed(self) -> int:
        """Users who could not do everything."""
        return sum(count for *_, count in self.failures)

    @property
    def passed(self) -> bool:
        """Whether a class of this size can come."""
        whole = self.row("until cell")
        in_time = self.bound is None or (whole is not None and whole.p95 <= self.bound)
        everybody = whole is not None and whole.count == self.users
        return everybody and in_time and not self.failures and not self.left_badly and not self.cancelled

    @property
    def verdict(self) -> str:
        """One sentence."""
        whole = self.row("until cell")
        if self.cancelled:
            return f"STOPPED early, after {self.seconds:.0f} s: no verdict"
        if self.failed:
            return f"FAILED: {self.failed} of {self.users} users could not work"
        if whole is None:
            return "FAILED: nobody came"
        text = f"all {self.users} users worked; 95 of 100 had their first cell within {whole.p95:.1f} s of logging in"
        if self.left_badly:
            return f"FAILED: {text}, but {sum(count for _, count in self.left_badly)} could not leave in order"
        if not self.passed:
            return f"FAILED: {text}, and {self.bound:.0f} s were allowed"
        return f"PASSED: {text}"

    def table(self) -> list[tuple[str, ...]]:
        """Rows of words for a person, the heading first."""
        heading = ("", "users", "median", "95 %", "99 %", "longest")
        return [
            heading,
            *((WORDS[r.what], str(r.count), *map(_spell, (r.p50, r.p95, r.p99, r.longest))) for r in self.rows),
        ]

    def text(self) -> str:
        """The whole for a terminal."""
        cells = self.table()
        widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
        lines = [
            "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
            for line in cells
        ]
        if self.hosts:
            lines += ["", "servers: " + ", ".join(f"{name} {count}" for name, count in self.hosts)]
        if self.failures:
            lines += [
                "",
                "failures:",
                *(f"  {count} × {WORDS.get(step, step)}: {why}" for step, why, count in self.failures),
            ]
        if self.left_badly:
            lines += ["", "left badly:", *(f"  {count} × {why}" for why, count in self.left_badly)]
        return "\n".join([*lines, "", self.verdict])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; times in seconds."""
        return {
            "began": datetime.fromtimestamp(self.began, UTC).isoformat(timespec="seconds"),
            "users": self.users,
            "within": self.within,
            "lasting": self.lasting,
            "seconds": round(self.seconds, 3),
            "passed": self.passed,
            "verdict": self.verdict,
            "bound": self.bound,
            "times": {row.what: {k: v for k, v in asdict(row).items() if k != "what"} for row in self.rows},
            "failures": [{"step": step, "reason": why, "count": count} for step, why, count in self.failures],
            "left_badly": [{"reason": why, "count": count} for why, count in self.left_badly],
            "hosts": dict(self.hosts),
            "visits": [seen.to_dict() for seen in self.visits],
        }

    def json(self) -> str:
        """All of it, each visit too."""
        return json.dumps(self.to_dict(), indent=1) + "\n"


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that ``percent`` of the values do not exceed (nearest rank).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def _rows(visits: Sequence[Visit]) -> list[Row]:
    def row(what: str, values: list[float]) -> list[Row]:
        def at(percent: float) -> float:
            return round(percentile(values, percent), 3)

        return [Row(what, len(values), at(50), at(95), at(99), at(100))] if values else []

    def took(step: str) -> list[float]:
        return [seconds for seen in visits if (seconds := seen.took(step)) is not None]

    rows = [one for step in ("login", "spawn", "lab", "kernel", "cell") for one in row(step, took(step))]
    rows += row("until cell", [seconds for seen in visits if (seconds := seen.until_cell) is not None])
    rows += row("cells", [seconds for seen in visits for _, seconds in seen.cells])
    return rows + row("leave", took("leave"))


def _spell(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
