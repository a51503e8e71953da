"""The Hub's secrets that come from the user: found where the spec says, when a head is made, and kept nowhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from vcluster.errors import Problem, SpecError
from vcluster.spec_checks import RefusedError

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec
    from vcluster.spec_hub import SecretRef

__all__ = ["KINDS", "HubSecrets", "resolve"]

KINDS: Mapping[str, int] = {"password": 8, "admin_password": 12, "client_secret": 8}
"""Each secret below ``jupyterhub.auth``, with the fewest characters that it has."""

MOST_BYTES = 4096


def resolve(spec: ClusterSpec) -> dict[str, str]:
    """Every secret that the spec names, by its key in :data:`KINDS`; none that it leaves to vcluster.

    Raises:
        SpecError: one cannot be found, with the line that names it; no message holds a secret.
    """
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for kind, least in KINDS.items():
        reference = getattr(spec.jupyterhub.auth, kind) if spec.jupyterhub else None
        if reference is None:
            continue
        try:
            found[kind] = _checked(_text(reference), least)
        except RefusedError as refusal:
            where = ("jupyterhub", "auth", kind, "env" if reference.env is not None else "file")
            problems += (spec.problem(where, t.message, t.remedy) for t in refusal.troubles)
    if problems:
        raise SpecError(problems)
    return found


class HubSecrets(Mapping[str, str]):
    """As :func:`resolve`, when somebody asks first: only a head needs them, and workers are made without."""

    def __init__(self, spec: ClusterSpec) -> None:
        self._spec = spec

    @cached_property
    def _found(self) -> dict[str, str]:
        return resolve(self._spec)

    def __getitem__(self, kind: str) -> str:
        return self._found[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return "HubSecrets(…)"


def _text(reference: SecretRef) -> str:
    if reference.env is not None:
        if (value := os.environ.get(reference.env)) is None:
            raise RefusedError(f"there is no variable {reference.env} in the environment", "export it, and try again")
        return value
    path = Path(reference.file or "")
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError(f"{path} is not an ordinary file", "name a file")
        if status.st_mode & stat.S_IROTH:
            raise RefusedError(f"{path} can be read by everybody on this computer", f"chmod 600 {path}")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise RefusedError(f"there is no file {path}", "its first line is the secret") from None
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror}") from None
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError:
        raise RefusedError(f"{path} is not UTF-8 text") from None
    if len(data) > MOST_BYTES or len(lines) > 1:
        raise RefusedError(f"{path} holds more than one line", "the secret alone")
    return lines[0] if lines else ""


def _checked(value: str, least: int) -> str:
    text = value.strip()
    if not text:
        raise RefusedError("is empty there", "put the secret there")
    if not text.isprintable() or not text.isascii():
        raise RefusedError("holds characters that cannot be typed everywhere", "letters, digits and signs of ASCII")
    if len(text) < least:
        raise RefusedError(f"has {len(text)} characters, at least {least} are needed", "choose a longer one")
    return text
