"""Container registries as k3s reads them: ``registries.yaml`` on every machine. Pure: spec and site in, text out.

The format is that of the k3s documentation, "Private Registry Configuration" and "Embedded Registry Mirror". An entry's
account and authority are those of the host in its name: a mirror that wants its own has an entry of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml

from vcluster.k3s_cross import knows_any_registry
from vcluster.spec_secrets import registry_key
from vcluster.stacks.userdata import File

if TYPE_CHECKING:
    from vcluster.spec_k3s import RegistrySpec
    from vcluster.stacks.base import Site

__all__ = ["PATH", "files", "registries"]

PATH = "/etc/rancher/k3s/registries.yaml"
AUTHORITIES = "/etc/rancher/k3s/authorities"

_WELL_KNOWN = ("docker.io", "ghcr.io", "nvcr.io", "quay.io", "registry.k8s.io")
"""Whose images nodes give each other where a version knows no word for all registries."""


def files(site: Site) -> Iterator[File]:
    """:data:`PATH` and the authorities that it names, for every machine.

    Raises:
        SpecError: a registry's password cannot be found.
    """
    text = registries(site)
    if text is None:
        return
    yield File(PATH, text, 0o600)
    for registry in site.spec.kubernetes.registries:
        if registry.ca:
            yield File(_authority(registry), registry.ca)


def registries(site: Site) -> str | None:
    """The text of ``registries.yaml``; None where there is nothing to say.

    Raises:
        SpecError: a registry's password cannot be found.
    """
    spec = site.spec.kubernetes
    mirrors: dict[str, Any] = {each.name: {"endpoint": list(each.mirrors)} for each in spec.registries if each.mirrors}
    if spec.embedded_registry:
        # A registry takes part when it is listed; one that has an entry does not count among all others.
        shared = ["*"] if knows_any_registry(spec.numbers) else [*_WELL_KNOWN]
        for name in (*(each.name for each in spec.registries if each.name != "*"), *shared):
            mirrors.setdefault(name, {})
    configs = {each.name: config for each in spec.registries if (config := _config(site, each))}
    content = {key: value for key, value in (("mirrors", mirrors), ("configs", configs)) if value}
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=False) if content else None


def _config(site: Site, registry: RegistrySpec) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if registry.username is not None:
        config["auth"] = {"username": registry.username, "password": site.secrets[registry_key(registry.name)]}
    if registry.ca:
        config["tls"] = {"ca_file": _authority(registry)}
    return config


def _authority(registry: RegistrySpec) -> str:
    name = "all" if registry.name == "*" else registry.name.replace(":", "_")
    return f"{AUTHORITIES}/{name}.pem"
