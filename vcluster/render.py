"""The only place that knows Jinja: templates in, text out."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from vcluster.errors import PermanentError
from vcluster.resources import templates

__all__ = ["render"]


@cache
def _environment() -> Environment:
    # Shell scripts and configuration, not HTML: nothing is to be escaped.
    return Environment(
        loader=FileSystemLoader(templates()),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, **values: object) -> str:
    """A file of ``templates/`` with values put in; one whose name does not end in ``.j2`` is given as it is.

    Templates are read and compiled once in a process.

    Raises:
        PermanentError: the template is missing or wrong, or wants a value that it was not given; names the template.
    """
    environment = _environment()
    try:
        if not template.endswith(".j2"):
            return _plain(template)
        return environment.get_template(template).render(values)
    except (TemplateError, OSError) as error:
        line = getattr(error, "lineno", None)
        place = f", line {line}" if line else ""
        raise PermanentError(f"template {template}{place}: {error}") from error


@cache
def _plain(template: str) -> str:
    return (templates() / template).read_text()
