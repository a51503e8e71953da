"""What every section of the spec stands on: the base model, and the types of its fields."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from vcluster import spec_checks as checks
from vcluster import spec_text as texts
from vcluster.errors import Problem, SpecError
from vcluster.spec_checks import RefusedError, Trouble
from vcluster.spec_cross import MOST_MACHINES
from vcluster.spec_file import Source
from vcluster.spec_words import Kind, troubles

# Set while a section is validated inside another one: only the outermost turns troubles into a SpecError.
_inside: ContextVar[bool] = ContextVar("_inside", default=False)


class Model(BaseModel):
    """Base of every section: frozen, unknown keys refused, and all that is wrong told at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def _prepare(cls, data: Any) -> Any:
        """A key with nothing after it (its list is commented out, say) means the default."""
        if isinstance(data, Mapping):
            return {key: value for key, value in data.items() if value is not None or key not in cls.model_fields}
        return data

    @classmethod
    def _written(cls, data: Any) -> Mapping[str, str]:
        """Field to the key under which the user wrote it, where that is another one."""
        del data
        return {}

    @classmethod
    def _cross(cls, data: Any) -> list[Trouble]:
        """What is wrong among several fields of ``data``, a model or anything at all that a user wrote."""
        del data
        return []

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        outermost = not _inside.get()
        token = _inside.set(True)
        result: Self | None = None
        found: list[Trouble] = []
        written = cls._written(data)
        data = cls._prepare(data)
        try:
            result = handler(data)
        except ValidationError as error:
            found = list(troubles(cls, error))
        finally:
            _inside.reset(token)
        places = {trouble.at for trouble in found}
        found += [t for t in cls._cross(data if result is None else result) if t.at not in places]
        found = [replace(t, at=(written.get(str(t.at[0]), t.at[0]), *t.at[1:])) if t.at else t for t in found]
        source = info.context if isinstance(info.context, Source) else Source()
        # Raised out here, not in the handler above: pydantic's error quotes the input, which may be a secret.
        if outermost and (found or source.problems):
            raise SpecError(_in_order(found, source))
        if result is None or found:
            raise RefusedError(troubles=found)
        return result


def _in_order(found: list[Trouble], source: Source) -> list[Problem]:
    """All problems in the order of the file, one for each place."""
    taken = {(p.where, p.line, p.column) for p in source.problems}
    mine = [source.problem(trouble) for trouble in found]
    rest = [p for p in mine if (p.where, p.line, p.column) not in taken]
    return sorted([*source.problems, *rest], key=lambda p: (p.line, p.column))


def folder_of(info: ValidationInfo) -> Path | None:
    return info.context.folder if isinstance(info.context, Source) else Path()


def _items(value: Any, what: str) -> list[Any] | tuple[Any, ...]:
    if isinstance(value, list | tuple):
        return value
    short = isinstance(value, str) and value.isprintable() and len(value) <= 40 and "PRIVATE" not in value
    raise RefusedError(f"must be a list of {what}, got {checks.show(value)}", f"write [{value}]" if short else "")


def _keys(value: Any, info: ValidationInfo) -> tuple[str, ...]:
    return texts.public_keys(_items(value, "public keys"), folder_of(info))


def _networks(value: Any) -> tuple[str, ...]:
    return checks.networks(_items(value, "networks"))


Text = Annotated[str, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True), Kind("true or false", "true or false")]
Count = Annotated[int, Field(strict=True, ge=0, le=MOST_MACHINES), Kind("whole number")]
OptionalCount = Annotated[int | None, Field(strict=True, ge=0, le=MOST_MACHINES), Kind("whole number")]


def any_size(least: int) -> WithJsonSchema:
    return WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": checks.SIZE}, {"type": "integer", "minimum": least}]}
    )


def pattern(regex: str, *, empty: bool = False) -> WithJsonSchema:
    """A text's pattern, for the JSON Schema; the check itself is a function."""
    return WithJsonSchema({"type": "string", "pattern": f"^$|{regex}" if empty else regex})


Memory = Annotated[int, BeforeValidator(checks.memory), any_size(checks.LEAST_MEMORY), Kind("size")]
Disk = Annotated[int, BeforeValidator(checks.disk), any_size(checks.LEAST_DISK), Kind("size")]
JobMemory = Annotated[int | None, BeforeValidator(checks.memory_per_cpu), any_size(1), Kind("size")]
Keys = Annotated[tuple[str, ...], BeforeValidator(_keys), Kind("list of public keys")]
Networks = Annotated[tuple[str, ...], BeforeValidator(_networks), Kind("list of networks")]
Url = Annotated[Text, AfterValidator(checks.url), pattern(checks.URL, empty=True), Kind("address", "an address")]
Script = Annotated[
    Text, AfterValidator(lambda value, info: texts.script(value, folder_of(info))), Kind("file's name or script")
]
Pem = Annotated[
    Text,
    AfterValidator(lambda value, info: texts.certificates(value, folder_of(info))),
    Kind("file's name or PEM text"),
]
SlurmTime = Annotated[
    str,
    BeforeValidator(checks.slurm_time),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": checks.SLURM_TIME}, {"type": "integer", "minimum": 1}]}),
    Kind("time"),
]
Package = Annotated[Text, AfterValidator(checks.package), pattern(checks.PACKAGE)]
