"""Secrets of the user: found where the spec says, when a machine that needs one is made, and kept nowhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vcluster.errors import Problem, SpecError
from vcluster.spec_checks import Path as At
from vcluster.spec_checks import RefusedError

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec
    from vcluster.spec_secret import SecretRef

__all__ = ["CREDENTIAL", "KINDS", "SpecSecrets", "registry_key", "resolve"]

KINDS: Mapping[str, int] = {"password": 8, "admin_password": 12, "client_secret": 8}
"""Each secret below ``jupyterhub.auth``, with the fewest characters that it has."""

CREDENTIAL = "k3s.openstack.application_credential_secret"
"""The key of the secret with which Kubernetes talks to the cloud: servers alone need it."""

MOST_BYTES = 4096


def registry_key(name: str) -> str:
    """The key of the password for a container registry: every machine that pulls from it needs it."""
    return f"k3s.registries[{name}].password"


@dataclass(frozen=True, slots=True)
class _Named:
    """Where a spec says that a secret is, and with how few characters it is taken for a mistake."""

    at: At
    reference: SecretRef
    least: int


def _named(spec: ClusterSpec) -> dict[str, _Named]:
    found: dict[str, _Named] = {}
    for kind, least in KINDS.items() if spec.jupyterhub else ():
        assert spec.jupyterhub is not None
        if (reference := getattr(spec.jupyterhub.auth, kind)) is not None:
            found[kind] = _Named(("jupyterhub", "auth", kind), reference, least)
    if spec.k3s is not None:
        at: At = ("k3s", "openstack", "application_credential_secret")
        if (reference := spec.k3s.openstack.application_credential_secret) is not None:
            found[CREDENTIAL] = _Named(at, reference, 8)
        for index, registry in enumerate(spec.k3s.registries):
            if registry.password is not None:
                # Whoever runs the registry chose it: any length may be right.
                at = ("k3s", "registries", index, "password")
                found[registry_key(registry.name)] = _Named(at, registry.password, 1)
    return found


def resolve(spec: ClusterSpec) -> dict[str, str]:
    """Every secret that the spec names, by its key; none that it leaves to vcluster.

    Keys are those of :data:`KINDS`, :data:`CREDENTIAL` and :func:`registry_key`.

    Raises:
        SpecError: one or several cannot be found, with the lines that name them; no message holds a secret.
    """
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for key, named in _named(spec).items():
        try:
            found[key] = _found(spec, named)
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return found


class SpecSecrets(Mapping[str, str]):
    """As :func:`resolve`, but each when somebody asks for it first.

    A worker may need a registry's password and no other secret: it can be made where the Hub's are not.
    """

    def __init__(self, spec: ClusterSpec) -> None:
        self._spec = spec
        self._named = _named(spec)
        self._known: dict[str, str] = {}

    def __getitem__(self, key: str) -> str:
        if key not in self._known:
            self._known[key] = _found(self._spec, self._named[key])
        return self._known[key]

    def __contains__(self, key: object) -> bool:
        # Mapping's own way is to read it.
        return key in self._named

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)

    def __repr__(self) -> str:
        return "SpecSecrets(…)"


def _found(spec: ClusterSpec, named: _Named) -> str:
    reference = named.reference
    try:
        return _checked(_text(reference), named.least)
    except RefusedError as refusal:
        where = (*named.at, "env" if reference.env is not None else "file")
        raise SpecError([spec.problem(where, t.message, t.remedy) for t in refusal.troubles]) from None


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
