"""``registries.yaml`` of k3s."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from k3s_kit import release, site

from vcluster.errors import SpecError
from vcluster.k3s_cross import knows_any_registry
from vcluster.spec import ClusterSpec
from vcluster.spec_secrets import registry_key
from vcluster.stacks.k3s_registries import PATH, files, registries

MIRROR = {"name": "docker.io", "mirrors": ["https://mirror.example.org", "http://second.example.org:5000"]}
ACCOUNT = {"name": "registry.example.org:5000", "username": "class", "password": {"env": "REGISTRY"}}
PASSWORD = 'p@ss: "word" #1'


@pytest.mark.parametrize(
    ("k3s", "wanted"),
    [
        ({}, None),
        ({"registries": [{"name": "docker.io"}]}, None),
        (
            {"registries": [MIRROR]},
            {"mirrors": {"docker.io": {"endpoint": ["https://mirror.example.org", "http://second.example.org:5000"]}}},
        ),
        (
            {"registries": [ACCOUNT]},
            {"configs": {"registry.example.org:5000": {"auth": {"username": "class", "password": PASSWORD}}}},
        ),
        (
            {"registries": [MIRROR, {"name": "*", "mirrors": ["https://all.example.org"]}]},
            {
                "mirrors": {
                    "docker.io": {"endpoint": ["https://mirror.example.org", "http://second.example.org:5000"]},
                    "*": {"endpoint": ["https://all.example.org"]},
                }
            },
        ),
        ({"embedded_registry": True}, {"mirrors": {"*": {}}}),
        (
            {"embedded_registry": True, "registries": [ACCOUNT, {"name": "*", "mirrors": ["https://all.example.org"]}]},
            {
                "mirrors": {
                    "*": {"endpoint": ["https://all.example.org"]},
                    "registry.example.org:5000": {},
                },
                "configs": {"registry.example.org:5000": {"auth": {"username": "class", "password": PASSWORD}}},
            },
        ),
        (
            {"embedded_registry": True, "registries": [MIRROR], **release("v1.29.1+k3s1")},
            {
                "mirrors": {
                    "docker.io": {"endpoint": ["https://mirror.example.org", "http://second.example.org:5000"]},
                    **{name: {} for name in ("ghcr.io", "nvcr.io", "quay.io", "registry.k8s.io")},
                }
            },
        ),
    ],
)
def test_what_k3s_reads(k3s: dict[str, Any], wanted: dict[str, Any] | None) -> None:
    there = site(k3s, secrets={registry_key("registry.example.org:5000"): PASSWORD})
    text = registries(there)
    assert (text if text is None else yaml.safe_load(text)) == wanted
    assert [(file.path, file.mode) for file in files(there)] == ([(PATH, 0o600)] if wanted else [])
    assert text == registries(there)


def test_an_authority_is_a_file_on_the_machine(tmp_path: Path) -> None:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    start = datetime(2030, 1, 1, tzinfo=UTC)
    key, name = Ed25519PrivateKey.generate(), x509.Name([])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=9))
        .sign(key, None)
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    there = site({"registries": [{"name": "registry.example.org:5000", "ca": pem}, {"name": "*", "ca": pem}]})
    first, *authorities = files(there)
    paths = [f"/etc/rancher/k3s/authorities/{name}.pem" for name in ("registry.example.org_5000", "all")]
    assert [(file.path, file.content, file.mode) for file in authorities] == [(path, pem, 0o644) for path in paths]
    assert yaml.safe_load(first.content) == {
        "configs": {
            "registry.example.org:5000": {"tls": {"ca_file": paths[0]}},
            "*": {"tls": {"ca_file": paths[1]}},
        }
    }


@pytest.mark.parametrize(
    ("version", "known"),
    [
        *(((1, 21, 2, 1), False), ((1, 25, 16, 4), False), ((1, 26, 14, 1), False), ((1, 26, 15, 1), True)),
        *(((1, 28, 7, 1), False), ((1, 28, 8, 1), True), ((1, 29, 2, 1), False), ((1, 29, 3, 1), True)),
        *(((1, 30, 0, 1), True), ((1, 36, 5, 1), True)),
    ],
)
def test_which_versions_know_all_registries(version: tuple[int, ...], known: bool) -> None:
    assert knows_any_registry(version) is known


def test_a_version_that_does_not_is_told(tmp_path: Path) -> None:
    text = """\
name: demo
cloud: openstack
scheduler: k3s
head: {flavor: medium}
k3s:
  version: v1.28.7+k3s1
  binary: {source: "https://mirror.example.org/k3s", sha256: "SUM"}
  registries:
    - name: "*"
      mirrors: ["https://mirror.example.org"]
""".replace("SUM", "0" * 64)
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        ClusterSpec.load(tmp_path / "spec.yaml")
    (problem,) = caught.value.problems
    assert (problem.where, problem.line) == ("k3s.registries[0].name", 9)
    assert problem.message == "* is not known to v1.28.7+k3s1"
