"""From pydantic's errors to sentences: what a person is told about a value that does not fit its field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from vcluster.spec_checks import Path, RefusedError, Trouble, nearest, show

__all__ = ["BRANCHES", "Kind", "troubles"]

BRANCHES = ("<name>", "<size>")
"""How the branches of a flavor are tagged in pydantic's places."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Stands in a type's annotation and says in words what the type takes.

    Attributes:
        text: for the reference: ``size``, ``list of networks``.
        wanted: for messages, after "must be": ``a list of networks``; empty for ``text`` with an article.
    """

    text: str
    wanted: str = ""

    @property
    def sentence(self) -> str:
        """What follows "must be"."""
        return self.wanted or f"a {self.text}"


def troubles(model: type[BaseModel], error: ValidationError) -> Iterator[Trouble]:
    """Every error of one section in words, with places relative to the section."""
    for item in error.errors(include_url=False):
        # These are found in this very section, so the place is the key, whatever it looks like; elsewhere parts such
        # as "<size>" name the branch of a union, which the user never wrote.
        own = item["type"] in {"extra_forbidden", "missing"}
        place: Path = tuple(part for part in item["loc"] if own or part not in BRANCHES)
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, RefusedError):
            yield from (trouble.under(place) for trouble in cause.troubles)
        elif item["type"] == "extra_forbidden":
            yield _unknown(model, place)
        elif item["type"] == "missing":
            yield _missing(model, place)
        else:
            yield _misfit(model, place, item["type"], item["input"])


def _unknown(model: type[BaseModel], place: Path) -> Trouble:
    known = list(model.model_fields)
    close = nearest(str(place[-1]), known)
    return Trouble(place, "unknown key", f"did you mean {close}?" if close else f"known: {', '.join(known)}", key=True)


def _missing(model: type[BaseModel], place: Path) -> Trouble:
    info = model.model_fields[str(place[-1])]
    example = f"; for example {place[-1]}: {info.examples[0]}" if info.examples else ""
    return Trouble(place, "is missing", f"{(info.description or '').split('. ')[0].rstrip('.')}{example}")


def _misfit(model: type[BaseModel], place: Path, kind: str, value: Any) -> Trouble:
    if not place:
        return Trouble(
            (), f"must be a mapping of keys to values, got {show(value)}", f"{next(iter(model.model_fields))}: …"
        )
    info = model.model_fields.get(str(place[0]))
    if info is None:
        return Trouble(place, f"does not fit here: {show(value)}")
    if len(place) > 1:
        # An item of a list: only lists of texts and of sections have no words of their own.
        wanted = "text" if kind == "string_type" else "a mapping of keys to values"
        return Trouble(place, f"must be {wanted}, got {show(value)}", quote=kind == "string_type")
    remedy = ""
    if kind in {"tuple_type", "list_type"}:
        remedy = "begin each item with '- '" if isinstance(value, dict) else f"write [{value}]" if _short(value) else ""
    return Trouble(place, f"must be {wants(info)}, got {show(value)}", remedy, quote=kind == "string_type")


def _short(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= 40 and "PRIVATE" not in value


def wants(info: FieldInfo) -> str:
    """What a field takes, as it follows "must be"."""
    least = next((m.ge for m in info.metadata if isinstance(m, annotated_types.Ge)), None)
    most = next((m.le for m in info.metadata if isinstance(m, annotated_types.Le)), None)
    kind = next((m for m in info.metadata if isinstance(m, Kind)), None)
    text = kind.sentence if kind else "text"
    if least is not None:
        text += f" of at least {least}"
    if most is not None:
        text += f" and at most {most}"
    return text
