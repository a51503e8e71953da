"""A rehearsal as a picture (SVG): a line for each user, from the arrival to the last cell."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from vcluster.rehearsal.client import Visit
from vcluster.rehearsal.report import Report

__all__ = ["picture"]

WIDTH = 960
LEFT, RIGHT, TOP, BOTTOM = 60, 24, 92, 44

COLOURS = {
    "login": ("#4e79a7", "log-in"),
    "spawn": ("#f28e2b", "server start"),
    "lab": ("#b07aa1", "JupyterLab's page"),
    "kernel": ("#76b7b2", "kernel"),
    "cell": ("#59a14f", "first cell"),
}
CELL = "#2f5d2a"
FAILURE = "#c00000"
GRID = "#dddddd"


def picture(report: Report, title: str) -> str:
    """The picture as text; needs no other file and no script.

    Args:
        title: one line, set above.
    """
    visits = sorted(report.visits, key=lambda seen: seen.due)
    step = min(14.0, max(3.0, 560 / max(1, len(visits))))
    height = TOP + step * len(visits) + BOTTOM
    span = max([1.0, *(_end(seen) for seen in visits)])
    scale = (WIDTH - LEFT - RIGHT) / span
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="24" font-size="16" font-weight="bold">{escape(title)}</text>',
        f'<text x="{LEFT}" y="44">{escape(report.verdict)}</text>',
        *_legend(),
        *_axis(span, scale, height),
    ]
    for number, seen in enumerate(visits):
        parts += _line(seen, TOP + step * number, step * 0.8, scale)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _end(seen: Visit) -> float:
    return max([seen.due, *seen.began.values(), *seen.done.values()])


def _legend() -> Iterator[str]:
    x = float(LEFT)
    for colour, words in (*COLOURS.values(), (CELL, "a later cell"), (FAILURE, "failed")):
        yield f'<rect x="{x:.0f}" y="58" width="12" height="12" fill="{colour}"/>'
        yield f'<text x="{x + 16:.0f}" y="68">{escape(words)}</text>'
        x += 34 + 7 * len(words)


def _axis(span: float, scale: float, height: float) -> Iterator[str]:
    step = next(s for s in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 86400) if span / s <= 12 or s == 86400)
    bottom = height - BOTTOM
    for second in range(0, int(span) + 1, step):
        x = LEFT + second * scale
        yield f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="{GRID}"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{second}</text>'
    middle = LEFT + span * scale / 2
    words = "seconds since the first arrival; a line is a user"
    yield f'<text x="{middle:.0f}" y="{bottom + 34:.1f}" text-anchor="middle">{words}</text>'


def _line(seen: Visit, y: float, thick: float, scale: float) -> Iterator[str]:
    def bar(begin: float, end: float, colour: str, part: float = 1.0) -> str:
        width, tall = max(0.6, (end - begin) * scale), thick * part
        x, top = LEFT + begin * scale, y + (thick - tall) / 2
        return f'<rect x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{tall:.1f}" fill="{colour}"/>'

    for step, (colour, _) in COLOURS.items():
        if step in seen.began:
            begin = seen.began[step]
            yield bar(begin, seen.done.get(step, seen.began.get("leave", begin)), colour)
    for begin, seconds in seen.cells:
        yield bar(begin, begin + seconds, CELL, 0.6)
    if seen.failed:
        at = seen.began.get("leave", seen.began.get(seen.failed, seen.due))
        x, middle, radius = LEFT + at * scale, y + thick / 2, max(2.0, thick / 2)
        yield f'<circle cx="{x:.1f}" cy="{middle:.1f}" r="{radius:.1f}" fill="{FAILURE}"/>'
