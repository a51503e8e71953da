"""Looking at data as a user wrote it, which may be a model, a mapping, or anything at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["get", "items"]


def get(data: Any, key: str, default: Any = None) -> Any:
    """A field's value; the default where there is none, or nothing in it."""
    value = data.get(key) if isinstance(data, Mapping) else getattr(data, key, None)
    return default if value is None else value


def items(data: Any, key: str) -> list[Any]:
    """The items of a field that is a list; none where it is not."""
    value = get(data, key)
    return list(value) if isinstance(value, list | tuple) else []
