"""Hubs on k3s to render, and the chart that they are held against."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from vcluster.model import ClusterRef, Flavor, Network, Port, Role
from vcluster.secrets import Keyring
from vcluster.spec import ClusterSpec
from vcluster.stacks import zero_to_jupyterhub as chart
from vcluster.stacks.base import Site

DATA = Path(__file__).parent / "data/zero-to-jupyterhub"
SECRET = bytes(range(32))
SIZES = {
    "small": Flavor("small", 2, 4096, 20),
    "worker": Flavor("worker", 6, 16384, 60),
    "gpu": Flavor("gpu", 16, 61440, 60),
}
GIVEN = {"client_secret": "hunter2-client", "password": "hunter2-class", "admin_password": "hunter2-admin-hunter2"}
CREDENTIAL = (
    "k3s: {openstack: {auth_url: 'https://c.example.org:5000/v3', application_credential_id: "
    "5a1c3b1f6d4e4f0e9b0f7c1f2d3e4a5b, application_credential_secret: {env: OS_SECRET}}}\n"
)
PROVIDED = "client_id: hub, client_secret: {env: S}"
USER = "workers: [{name: user, count: 2, flavor: worker}]\n"

HUBS: Mapping[str, str] = {
    "plain": f"{USER}jupyterhub: {{}}",
    "given-passwords": f"{USER}jupyterhub: {{auth: {{password: {{env: P}}, admin_password: {{env: A}}}}, "
    "people: {count: 3}}",
    "native": f"{USER}jupyterhub: {{auth: {{method: native}}, admins: [boss], people: {{count: 3}}}}",
    "firstuse": f"{USER}jupyterhub: {{auth: {{method: firstuse}}, instructors: [teacher], people: {{count: 3}}}}",
    "github": f"{USER}jupyterhub: {{domain: hub.example.org, email: a@example.org, "
    f"auth: {{method: github, {PROVIDED}, allow: {{organizations: [lab]}}}}, "
    'people: {csv: "name,login\\nann,octocat\\n"}}',
    "cilogon": f"{USER}jupyterhub: {{domain: hub.example.org, auth: {{method: cilogon, {PROVIDED}, options: "
    '{idps: "https://idp.example.edu/shibboleth"}}, people: {csv: "ann,ann@example.edu"}}',
    "globus": f"{USER}jupyterhub: {{domain: hub.example.org, auth: {{method: globus, {PROVIDED}, allow: "
    "{groups: [0b1c2d3e]}}, people: {count: 2}}",
    "oidc": f"{USER}jupyterhub: {{domain: hub.example.org, auth: {{method: oidc, {PROVIDED}, options: "
    "{issuer: 'https://login.example.edu'}, allow: {domains: [example.edu]}}, people: {count: 2}}",
    "none": f"{USER}{CREDENTIAL}jupyterhub: {{storage: none, people: {{count: 9, quota: 1G}}}}",
    "cinder": f"{USER}{CREDENTIAL}jupyterhub: {{people: {{count: 9, quota: 2G}}}}",
    "nfs": f"{USER}jupyterhub: {{storage: nfs, people: {{count: 9}}}}",
    "profiles": "workers: [{name: core, flavor: small, taints: ['hub=core:NoSchedule']}, "
    "{name: user, flavor: worker, taints: [dedicated:NoExecute]}, {name: gpu, flavor: gpu, gpus: 2}]\n"
    "jupyterhub: {cpu_oversubscribe: 3, profiles: [{}, {name: big, cpus: 4, memory: 8G, time: UNLIMITED}, "
    "{name: gpu, gpus: 1, partition: gpu, description: with a GPU}], people: {count: 4}}",
    "gpu-alone": "workers: [{name: gpu, flavor: gpu, gpus: 2}]\njupyterhub: {profiles: [{name: g, gpus: 1}]}",
    "repository": f"{USER}jupyterhub: {{repository: {{url: 'https://git.example.org/course.git', branch: main}}}}",
    "image": f"{USER}jupyterhub: {{environment: {{image: 'registry.example.org:5000/class/lab:2025.9'}}}}",
    "digest": f"{USER}jupyterhub: {{environment: {{image: 'quay.io/jupyter/scipy-notebook@sha256:{'a' * 64}'}}}}",
    "never-idle": f"{USER}jupyterhub: {{idle: {{server: '0', kernel: '0'}}}}",
    "longest": f"{USER}jupyterhub: {{idle: {{server: 10m, kernel: 5m, longest: 12h}}}}",
    "in-memory": f"{USER}k3s: {{components: [coredns, servicelb, traefik]}}\njupyterhub: {{domain: hub.example.org}}",
    "three-servers": f"head: {{flavor: small, count: 3}}\n{USER}jupyterhub: {{}}",
    "class-of-127": "workers: [{name: user, count: 40, max_count: 44, flavor: worker}]\n"
    "jupyterhub: {people: {count: 127}, instructors: [teacher]}",
}
"""One Hub for each way and kind that there is."""


def hub_spec(text: str) -> ClusterSpec:
    head = "" if "head:" in text else "head: {flavor: small}\n"
    return ClusterSpec.from_yaml(f"name: demo\ncloud: c\nscheduler: k3s\n{head}{text}\n")


def hub_site(text: str, secret: bytes = SECRET) -> Site:
    spec = hub_spec(text)
    slots = spec.slots(SIZES.__getitem__)
    first = ipaddress.ip_address("10.77.0.10")
    ports = {
        slot.name: Port(f"p{n}", "tag", slot.name, str(first + n), "52:54:00:00:00:01") for n, slot in enumerate(slots)
    }
    ref = ClusterRef("demo", "project", "0")
    network = Network("net", ref.tag(Role.NETWORK), "10.77.0.0/16")
    return Site(ref, spec, network, slots, ports, Keyring(secret), ("169.254.169.254",), GIVEN)


def merged(below: Any, above: Any) -> Any:
    """As helm puts values over others: mappings by key, null takes a key away, all else is replaced."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    both = {**below, **{key: merged(below.get(key), value) for key, value in above.items()}}
    return {key: value for key, value in both.items() if not (key in above and above[key] is None)}


def defaults() -> dict[str, Any]:
    """The chart's own values."""
    found: dict[str, Any] = json.loads((DATA / "values.json").read_text())
    return found


def validator() -> jsonschema.Draft7Validator:
    schema = json.loads((DATA / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def wrong(values: Mapping[str, Any]) -> list[str]:
    """What the chart's schema says against values, as helm has it look at them: over the chart's own."""
    found = validator().iter_errors(merged(defaults(), dict(values)))
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


def all_values(name: str) -> dict[str, Any]:
    """All values of a Hub, as helm merges them over the chart's."""
    site = hub_site(HUBS[name])
    found: dict[str, Any] = merged(merged(defaults(), chart.values(site)), chart.secret_values(site))
    return found


def manifests(text: str, url: str = "") -> dict[str, list[dict[str, Any]]]:
    """What lies on the head, by the end of its name."""
    made = chart.files(hub_site(text), url)
    return {file.path.rpartition("vcluster-jupyterhub")[2]: list(yaml.safe_load_all(file.content)) for file in made}
