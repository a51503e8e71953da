"""A site with Kubernetes to render, and its manifests as Kubernetes reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import kubernetes_validate
import slurm_kit
import yaml

from vcluster.stacks.base import Site
from vcluster.stacks.userdata import File

SECRET = 'cr"ed\\ent#ial;'
CREDENTIAL = {
    "auth_url": "https://cloud.example.org:5000/v3",
    "application_credential_id": "5a1c3b1f6d4e4f0e9b0f7c1f2d3e4a5b",
    "application_credential_secret": {"env": "CREDENTIAL"},
}


def site(k3s: Mapping[str, Any], *, secrets: Mapping[str, str] | None = None, **spec: Any) -> Site:
    """A cluster on OpenStack with a group of workers."""
    raw = {"cloud": "openstack", "head": {"flavor": "small"}, "scheduler": "k3s"}
    workers = [{"name": "cpu", "count": 2, "flavor": "big"}]
    made = slurm_kit.site(**{**raw, "workers": workers, "k3s": k3s, **spec})
    return dataclasses.replace(made, secrets=secrets or {})


def release(version: str) -> dict[str, Any]:
    """Another release than the default one, whose binary is known by nobody."""
    return {"version": version, "binary": {"source": "https://mirror.example.org/k3s", "sha256": "0" * 64}}


def objects(files: Iterable[File]) -> list[dict[str, Any]]:
    """The objects of all manifests."""
    found = []
    for file in files:
        assert isinstance(file.content, str)
        found += list(yaml.safe_load_all(file.content))
    return found


def check(found: list[dict[str, Any]], version: str) -> None:
    """Every object is one that this version of Kubernetes takes, and fits the others."""
    names = {(each["kind"], each["metadata"]["name"]) for each in found}
    assert len(names) == len(found)
    for each in found:
        kubernetes_validate.validate(each, version, strict=True)
        if each["kind"] == "ClusterRoleBinding":
            assert ("ClusterRole", each["roleRef"]["name"]) in names
            assert all(("ServiceAccount", subject["name"]) in names for subject in each["subjects"])
        if each["kind"] in {"DaemonSet", "Deployment"}:
            _check_pods(each, names)


def _check_pods(each: dict[str, Any], names: set[tuple[str, str]]) -> None:
    spec, template = each["spec"], each["spec"]["template"]
    assert spec["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    pods = template["spec"]
    account = pods.get("serviceAccountName")
    assert account is None or ("ServiceAccount", account) in names
    volumes = {volume["name"]: volume for volume in pods["volumes"]}
    mounted = {mount["name"] for container in pods["containers"] for mount in container["volumeMounts"]}
    assert mounted == set(volumes)
    for volume in volumes.values():
        assert "secret" not in volume or ("Secret", volume["secret"]["secretName"]) in names
        assert "configMap" not in volume or ("ConfigMap", volume["configMap"]["name"]) in names


def containers(found: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Every container by its workload's and its own name."""
    return {
        (each["metadata"]["name"], container["name"]): container
        for each in found
        if each["kind"] in {"DaemonSet", "Deployment"}
        for container in each["spec"]["template"]["spec"]["containers"]
    }


def rights(role: dict[str, Any]) -> dict[tuple[str, str], set[str]]:
    """What a role may do, by API group and resource."""
    found: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault((group, resource), set()).update(rule["verbs"])
    return found
