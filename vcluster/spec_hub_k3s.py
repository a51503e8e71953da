"""What can be wrong below ``jupyterhub`` because of the scheduler: on k3s the Hub is a Helm chart, notebooks are pods.

As in :mod:`vcluster.spec_cross`, these look at data as the user wrote it, and leave alone what they do not understand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vcluster import k3s_checks
from vcluster.spec_checks import RefusedError, Trouble, show
from vcluster.spec_peek import get as _get

__all__ = ["CORE", "chart_runs_on", "cluster", "first_group"]

CORE = "core"
"""A worker group of this name is for JupyterHub's own pods; without one they are on the servers."""

PLACE = "jupyterhub"


def first_group(names: list[Any], scheduler: Any) -> int:
    """The index of the worker group on which notebooks run that name none: on k3s not the one of the Hub's own pods."""
    others = [index for index, name in enumerate(names) if name != CORE or scheduler != "k3s"]
    return others[0] if others else 0


def chart_runs_on(numbers: tuple[int, ...]) -> bool:
    """Whether this k3s can be told a chart's secrets: HelmChart has ``valuesSecrets`` (k3s-io/helm-controller#64)."""
    began = {30: 12, 31: 8, 32: 4}
    minor, patch = numbers[1:3]
    return minor > max(began) or patch >= began.get(minor, patch + 1)


def cluster(data: Any) -> Iterator[Trouble]:
    """The Hub's section beside the scheduler."""
    section = _get(data, PLACE)
    if section is None:
        return
    found = _on_k3s(data, section) if _get(data, "scheduler", "slurm") == "k3s" else _on_slurm(section)
    for trouble in found:
        yield trouble.under((PLACE,))
    if _get(data, "scheduler") == "k3s":
        yield from _version(data)


def _on_slurm(section: Any) -> Iterator[Trouble]:
    if _get(section, "storage") is not None:
        yield _useless(("storage",), "slurm", "leave it out: homes are on the head")
    if _get(_get(section, "environment", {}), "image") is not None:
        yield _useless(("environment", "image"), "slurm", "leave it out: name packages")


def _useless(at: tuple[str, ...], scheduler: str, remedy: str) -> Trouble:
    return Trouble(at, f"means nothing with scheduler {scheduler}", remedy, key=True)


def _on_k3s(data: Any, section: Any) -> Iterator[Trouble]:
    if _get(_get(section, "auth", {}), "method") == "pam":
        remedy = "choose another method: there are no accounts on machines"
        yield Trouble(("auth", "method"), "pam means nothing with scheduler k3s", remedy)
    yield from _environment(_get(section, "environment", {}))
    storage, credential = _get(section, "storage"), _get(_get(data, "k3s", {}), "openstack", {})
    volumes = _get(credential, "application_credential_id") and _get(credential, "volumes", True) is True
    if storage == "cinder" and not volumes:
        remedy = "add k3s.openstack, a credential for volumes, or take another storage"
        yield Trouble(("storage",), "cinder has nobody who makes volumes", remedy)
    if storage == "nfs" and _get(_get(data, "head", {}), "count") == 3:
        # A server of three is made anew without asking, as its peers have all that it had, but for these files.
        remedy = "take cinder, or one server: leave out head.count"
        yield Trouble(("storage",), "nfs lies on the head alone, and of three servers any may be lost", remedy)
    if storage == "nfs" and _get(_get(section, "people", {}), "quota") is not None:
        yield Trouble(("people", "quota"), "means nothing with storage nfs", "leave it out, or take cinder", key=True)


def _environment(environment: Any) -> Iterator[Trouble]:
    from vcluster.spec_hub import EnvironmentSpec

    default = EnvironmentSpec.model_fields
    for key in ("packages", "requirements"):
        given = _get(environment, key)
        usual = given == default[key].default and not isinstance(environment, Mapping)
        if given is not None and not usual:
            remedy = "name an image that has them: environment.image"
            yield Trouble(("environment", key), "means nothing with scheduler k3s", remedy, key=True)


def _version(data: Any) -> Iterator[Trouble]:
    section = _get(data, "k3s", {})
    version = _get(section, "version", k3s_checks.DEFAULT_VERSION)
    try:
        numbers = k3s_checks.numbers(k3s_checks.version(version)) if isinstance(version, str) else ()
    except RefusedError:
        return
    if numbers and not chart_runs_on(numbers):
        what = f"{show(version)} cannot run JupyterHub's chart: it keeps no secrets for it"
        yield Trouble(("k3s", "version"), what, "v1.30.12, v1.31.8, v1.32.4 or any later one")
