"""Command lines inside messages, made fit to be typed: with ``--cloud``, which the library does not know was needed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from contextvars import ContextVar

from vcluster.console import clean

__all__ = ["CALLED_ON", "add_cloud", "cloud_words", "forgotten_cloud"]

CALLED_ON: ContextVar[str] = ContextVar("vcluster_called_on", default="")
"""The cloud that this run's command line or spec names; empty while neither did."""

_COMMAND = re.compile(r"`vcluster ([a-z-]+)([^`\n]*)`")
_TAIL = re.compile(r" (?:--(?: |$)|>|\|)")
"""Where vcluster's own words end: a remote command, a redirection or a pipe."""
FORGOTTEN = "a cluster on another cloud needs --cloud NAME, or $VCLUSTER_CLOUD"


def cloud_words(cloud: str) -> str:
    """What a later command line needs to find a cluster that is not on the default cloud; with a space before."""
    from vcluster.connect import DEFAULT_CLOUD, default_cloud

    return "" if cloud == DEFAULT_CLOUD == default_cloud() else f" --cloud {clean(cloud)}"


def forgotten_cloud(cloud: str | None) -> str:
    """A hint for who names a cluster that is not there; empty when a cloud was named."""
    return "" if cloud or os.environ.get("VCLUSTER_CLOUD") else FORGOTTEN


def add_cloud(
    text: str, words: str, parameters: Callable[[str], Collection[str]], is_spec: Callable[[str], bool]
) -> str:
    """Put ``--cloud`` into every command in backticks that takes it and has none.

    A command that wants a cluster's name and shows none, or a spec, which says its cloud itself, stays as it is.

    Args:
        text: a message or a remedy.
        words: what to put in, a space before; empty for the default cloud.
        parameters: the names of a command's parameters; none for an unknown command.
        is_spec: whether a word means a spec file.
    """

    def mend(found: re.Match[str]) -> str:
        verb, rest = found.groups()
        tail = _TAIL.search(rest)
        end = tail.start() if tail else len(rest)
        given, known = rest[:end].split(), parameters(verb)
        target = next((word for word in given if not word.startswith("-")), "")
        if "cloud" not in known or any(word.split("=")[0] == "--cloud" for word in given):
            return found.group()
        if "target" in known and (not target or target == "SPEC" or is_spec(target)):
            return found.group()
        return f"`vcluster {verb}{rest[:end]}{words}{rest[end:]}`"

    return _COMMAND.sub(mend, text) if words else text
