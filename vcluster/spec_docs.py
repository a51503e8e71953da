"""The reference page of the spec and its JSON Schema, written from the models.

``python -m vcluster.spec_docs`` in a checkout writes both files anew; a test fails while they differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vcluster.changes import TABLE, UPGRADES, ChangeKind
from vcluster.spec import ClusterSpec, schema_json
from vcluster.spec_words import Kind

__all__ = ["reference", "sections", "write"]

_INTRODUCTION = """\
<!-- Written by `python -m vcluster.spec_docs` from the models in vcluster/spec.py. Do not edit. -->

# The spec

One YAML file describes one cluster. The smallest one is two lines:

```yaml
name: demo
cloud: local
```

A line `# yaml-language-server: $schema=…` with the output of `vcluster schema` lets an editor complete and check the
file. `vcluster plan SPEC` shows everything that is wrong with it, each with line and column, and changes nothing.

- **Sizes** are `512M`, `1G`, `1.5G`, `2T`, in powers of 1024.
- **Times** of jobs are as Slurm writes them: `30` (minutes), `1:00:00`, `2-00:00:00`, `UNLIMITED`.
- **Spans of time** of clusters are as on the command line: `90m`, `8h`, `2d`, `1d12h`.
- **Files** (keys, scripts, certificates) are named relative to the spec's folder, `~` is your home; or put the text
  itself in their place. They are read once, when the spec is read.
- A key with nothing after it means its default. Unknown keys are refused. `yes`, `no`, `on` and `off` are true and
  false: put them in quotes where a text is meant.

*On a running cluster* says what `vcluster up` does with a changed field: **in place** changes the running cluster,
**refused** changes nothing and says so: take the cluster down and up again, or give the new one another name.
"""


def sections(model: type[BaseModel] = ClusterSpec, path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section of the spec with its place (``workers[]``), the whole first, each place once."""
    yield path, model
    for name, info in model.model_fields.items():
        for inner in _models(info.annotation):
            many = "[]" if get_origin(info.annotation) is tuple else ""
            yield from sections(inner, f"{path}.{name}{many}" if path else f"{name}{many}")


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def reference() -> str:
    """The reference page, Markdown."""
    places: dict[type[BaseModel], list[str]] = {}
    for place, model in sections():
        places.setdefault(model, []).append(place)
    parts = [_INTRODUCTION]
    for model, where in places.items():
        title = "The whole file" if where == [""] else ", ".join(f"`{place}`" for place in where)
        parts.append(f"## {title}\n\n{_docstring(model)}\n\n{_table(model, where)}")
    return "\n".join(parts)


def _docstring(model: type[BaseModel]) -> str:
    return "\n".join(line.strip() for line in (model.__doc__ or "").strip().splitlines())


def _table(model: type[BaseModel], places: list[str]) -> str:
    lines = ["| key | type | default | meaning | on a running cluster |", "|---|---|---|---|---|"]
    for name, info in model.model_fields.items():
        cells = (f"`{name}`", _type(info), _default(info), _meaning(name, info), _change(name, info, places))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _type(info: FieldInfo) -> str:
    kind = next((item for item in info.metadata if isinstance(item, Kind)), None)
    if kind:
        return kind.text
    return "section" if _models(info.annotation) else "text"


def _default(info: FieldInfo) -> str:
    default = info.default
    if info.is_required():
        return "required"
    if isinstance(default, BaseModel):
        return "see below"
    if isinstance(default, tuple) and default and isinstance(default[0], BaseModel):
        return "one, as below"
    if default is None:
        return "see there"
    return "none" if default in ("", (), {}) else f"`{json.dumps(default).strip(chr(34))}`"


def _meaning(name: str, info: FieldInfo) -> str:
    text = (info.description or "").rstrip(".") + "."
    examples = " or ".join(f"`{name}: {_yaml(example)}`" for example in info.examples or [])
    return f"{text} Example: {examples}" if examples else text


def _yaml(value: Any) -> str:
    """A value as one line of YAML, as short as a person would write it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _change(name: str, info: FieldInfo, places: list[str]) -> str:
    fields = [f"{place}.{name}" if place else name for place in places]
    kinds = {kind for field in fields if (kind := _kind(field))}
    if UPGRADES.issuperset(fields):
        return "by `vcluster upgrade`"
    if kinds:
        return ", ".join(sorted(str(kind).removeprefix("changed ") for kind in kinds))
    return "see below" if _models(info.annotation) else "as the whole"


def _kind(field: str) -> ChangeKind | None:
    """What becomes of a field; of one that the table does not name, as of the nearest around it that it names."""
    while field and field not in TABLE and field.removesuffix("[]") not in TABLE:
        field = field.rpartition(".")[0]
    return TABLE.get(field) or TABLE.get(field.removesuffix("[]"))


def write(root: Path) -> None:
    """Write both files anew into a checkout."""
    (root / "docs/reference").mkdir(parents=True, exist_ok=True)
    (root / "docs/reference/spec.md").write_text(reference(), encoding="utf-8")
    (root / "vcluster/schema.json").write_text(schema_json(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).resolve().parents[1])
