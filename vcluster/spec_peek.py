"""Looking at data as a user wrote it, which may be a model, a mapping, or anything at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["SOURCES", "get", "items", "one_source", "source", "source_key"]

SOURCES = ("source", "url", "path")
"""The keys under which a section may say where something comes from."""


def get(data: Any, key: str, default: Any = None) -> Any:
    """A field's value; the default where there is none, or nothing in it."""
    value = data.get(key) if isinstance(data, Mapping) else getattr(data, key, None)
    return default if value is None else value


def items(data: Any, key: str) -> list[Any]:
    """The items of a field that is a list; none where it is not."""
    value = get(data, key)
    return list(value) if isinstance(value, list | tuple) else []


def source(data: Any) -> Any:
    """Where something comes from, whichever form of its section the user chose; empty where that is not said."""
    return data if isinstance(data, str) else next(filter(None, (get(data, key) for key in SOURCES)), "")


def source_key(data: Any) -> str:
    """Under which of its keys a section's source was written; its first when there are none or several."""
    given = [key for key in SOURCES if isinstance(data, Mapping) and data.get(key) is not None]
    return given[0] if len(given) == 1 else SOURCES[0]


def one_source(data: Any) -> Any:
    """A section with its source under that key, whichever of its forms the user chose."""
    if isinstance(data, str):
        return {"source": data}
    if isinstance(data, Mapping) and (written := source_key(data)) != "source":
        return {"source" if key == written else key: value for key, value in data.items() if key != "source"}
    return data
