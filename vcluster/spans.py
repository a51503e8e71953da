"""Spans of time as people write them: ``90s``, ``15m``, ``8h``, ``2d``, ``1h30m``."""

from __future__ import annotations

import re

__all__ = ["SPAN", "seconds", "spell"]

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd]?)", re.ASCII)
SPAN = r"^([0-9]{1,9}(\.[0-9]{1,3})?[smhd])+$"


def seconds(text: str) -> float | None:
    """A span in seconds; a number without a unit is seconds. None for what is no span, or an empty one."""
    parts = _PART.findall(text)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return total if parts and "".join(number + unit for number, unit in parts) == text and total > 0 else None


def spell(span: float) -> str:
    """Seconds as the shortest text that :func:`seconds` reads: ``1d12h``, ``8h``, ``1h30m``, ``45s``."""
    left, text = round(span), ""
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, _UNITS[unit])
        text += f"{count}{unit}" if count else ""
    return text or "0s"
