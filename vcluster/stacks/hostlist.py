"""Slurm's host lists: ``cpu-1,cpu-2,cpu-3`` written as ``cpu-[1-3]``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["compress", "runs"]

_NUMBERED = re.compile(r"(.*?)(0|[1-9][0-9]*)")


def compress(names: Iterable[str]) -> str:
    """One host list of names, in their order; numbers at the end that follow each other become ranges."""
    parts: list[tuple[str, list[str]]] = []
    for prefix, first, last in _spans(names):
        text = first if first == last else f"{first}-{last}"
        if parts and parts[-1][0] == prefix and text:
            parts[-1][1].append(text)
        else:
            parts.append((prefix, [text] if text else []))
    return ",".join(
        prefix + (f"[{','.join(ranges)}]" if len(ranges) > 1 or "-" in "".join(ranges) else "".join(ranges))
        for prefix, ranges in parts
    )


def runs(pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Pairs of name and address, as few as can be: a run in which both count up by one becomes one pair of lists."""
    start = 0
    for end in range(1, len(pairs) + 1):
        if end == len(pairs) or not all(_follows(pairs[end - 1][i], pairs[end][i]) for i in (0, 1)):
            names, addresses = zip(*pairs[start:end], strict=True)
            yield compress(names), compress(addresses)
            start = end


def _split(name: str) -> tuple[str, str]:
    match = _NUMBERED.fullmatch(name)
    return (match[1], match[2]) if match else (name, "")


def _follows(one: str, other: str) -> bool:
    (prefix, number), (prefix2, number2) = _split(one), _split(other)
    return prefix == prefix2 and bool(number and number2) and int(number) + 1 == int(number2)


def _spans(names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Prefix, first and last number of each run; a name without a number has empty ones."""
    current: tuple[str, str, str] | None = None
    for name in names:
        prefix, number = _split(name)
        if current and number and current[0] == prefix and current[2] and int(current[2]) + 1 == int(number):
            current = (prefix, current[1], number)
            continue
        if current:
            yield current
        current = (prefix, number, number)
    if current:
        yield current
