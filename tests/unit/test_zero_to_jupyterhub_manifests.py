"""The manifests of a Hub on k3s: a pinned chart, its front door, and secrets where they belong."""

from __future__ import annotations

import json

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from z2jh_kit import GIVEN, HUBS, SECRET, all_values, hub_site, manifests

from vcluster.secrets import Keyring
from vcluster.stacks import zero_to_jupyterhub as chart
from vcluster.stacks.hub_certificate import fingerprint, front_authority
from vcluster.stacks.jupyterhub import passwords

# Secrets -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HUBS)
def test_no_secret_is_where_everybody_may_look(name: str) -> None:
    site = hub_site(HUBS[name])
    ring = site.keyring
    secret = [
        ring.password("jupyterhub-proxy"),
        ring.key("jupyterhub-cookie").hex(),
        ring.key("jupyterhub-crypt").hex(),
    ]
    secret += [*GIVEN.values(), *(word for word in passwords(site).values() if word)]
    secret += [SECRET.hex(), ring.encoded]
    (helm,) = manifests(HUBS[name])[".yaml"]
    for text in (json.dumps(chart.values(site)), json.dumps(helm)):
        assert not [word for word in secret if word in text]
        assert "@example.edu" not in text  # addresses of people
    told = json.dumps(chart.secret_values(site))
    assert all(word in told for word in secret[:3])
    assert (GIVEN["client_secret"] in told) == (site.spec.jupyterhub.auth.client_secret is not None)  # type: ignore[union-attr]
    assert "hunter2" not in repr(list(chart.files(site)))


def test_passwords_are_those_of_a_slurm_head() -> None:
    words = json.loads(
        chart.secret_values(hub_site(HUBS["given-passwords"]))["hub"]["extraFiles"]["passwords.json"]["stringData"]
    )
    assert words == {"class": GIVEN["password"], "admin": GIVEN["admin_password"], "rehearsal": None}


@pytest.mark.parametrize("name", HUBS)
def test_manifests_are_root_s_and_the_same_in_every_run(name: str) -> None:
    first, again = list(chart.files(hub_site(HUBS[name]))), list(chart.files(hub_site(HUBS[name])))
    assert first == again
    assert {file.mode for file in first} == {0o600}
    assert [file.path for file in first] == sorted(file.path for file in first)  # as k3s takes them
    assert all(file.path.startswith("/var/lib/rancher/k3s/server/manifests/vcluster-jupyterhub") for file in first)
    for file in first:
        for document in yaml.safe_load_all(file.content):
            assert {"apiVersion", "kind", "metadata"} <= set(document)
    other = list(chart.files(hub_site(HUBS[name], bytes(32))))
    assert [file.path for file in other] == [file.path for file in first]
    assert [file.content for file in other] != [file.content for file in first]


def test_without_a_hub_or_kubernetes_there_is_nothing() -> None:
    from dataclasses import replace

    site = hub_site(HUBS["plain"])
    bare = site.spec.model_copy(update={"jupyterhub": None})
    slurm = site.spec.model_copy(update={"scheduler": "slurm"})
    assert [list(chart.files(replace(site, spec=spec))) for spec in (bare, slurm)] == [[], []]


# The HelmChart -------------------------------------------------------------------------------------------------------


def test_the_chart_is_pinned_and_a_time_out_takes_nothing_away() -> None:
    found = manifests(HUBS["plain"])
    (helm,), (secret,), (namespace,) = found[".yaml"], found["-values.yaml"], found["-namespace.yaml"]
    spec = helm["spec"]
    assert (helm["apiVersion"], helm["kind"]) == ("helm.cattle.io/v1", "HelmChart")
    assert (spec["repo"], spec["chart"]) == ("https://hub.jupyter.org/helm-chart/", "jupyterhub")
    assert (spec["version"], spec["failurePolicy"], spec["timeout"]) == ("4.4.0", "abort", "30m")
    assert spec["targetNamespace"] == namespace["metadata"]["name"]
    assert spec["valuesSecrets"] == [{"name": secret["metadata"]["name"], "keys": list(secret["stringData"])}]
    # A HelmChart reads Secrets of its own namespace alone.
    assert secret["metadata"]["namespace"] == helm["metadata"]["namespace"] == "kube-system"
    site = hub_site(HUBS["plain"])
    assert yaml.safe_load(spec["valuesContent"]) == chart.values(site)
    assert yaml.safe_load(secret["stringData"]["values.yaml"]) == chart.secret_values(site)
    assert "bootstrap" not in spec


def test_where_every_worker_is_tainted_the_chart_s_job_runs_on_a_server() -> None:
    (helm,) = manifests(HUBS["gpu-alone"])[".yaml"]
    assert helm["spec"]["bootstrap"] is True


@pytest.mark.parametrize("name", HUBS)
def test_the_address_changes_nothing_that_helm_installs(name: str) -> None:
    """It comes in the midst of the first install, which k3s ends when that which it installs is changed."""
    text = HUBS[name].replace("domain: hub.example.org, ", "").replace("email: a@example.org, ", "")
    first, told = manifests(text), manifests(text, "https://192.0.2.7/")
    provided = "client_id" in text
    assert (".yaml" not in first) == provided
    assert "192.0.2.7" in json.dumps(told[".yaml"]) or not provided
    assert all(first[end] == told[end] for end in ("-values.yaml", ".yaml") if end in first)
    # Nor Traefik's: its certificate is in a Secret that its values name.
    assert first["-front.yaml"][-1] == told["-front.yaml"][-1]


# The front door ------------------------------------------------------------------------------------------------------


def test_people_come_through_traefik() -> None:
    found = all_values("plain")
    assert found["proxy"]["service"]["type"] == "ClusterIP"
    assert found["proxy"]["https"]["enabled"] is False
    assert (found["ingress"]["enabled"], found["ingress"]["hosts"]) == (True, [])
    assert all_values("github")["ingress"]["hosts"] == ["hub.example.org"]


def test_with_a_domain_the_certificate_is_lets_encrypt_s_and_is_kept() -> None:
    (config,) = manifests(HUBS["github"])["-front.yaml"]
    settings = yaml.safe_load(config["spec"]["valuesContent"])
    assert (config["kind"], config["metadata"]["name"]) == ("HelmChartConfig", "traefik")
    assert "--certificatesresolvers.letsencrypt.acme.email=a@example.org" in settings["additionalArguments"]
    assert "--certificatesresolvers.letsencrypt.acme.httpchallenge.entrypoint=web" in settings["additionalArguments"]
    assert settings["persistence"]["enabled"] is True
    annotations = all_values("github")["ingress"]["annotations"]
    assert annotations["traefik.ingress.kubernetes.io/router.tls.certresolver"] == "letsencrypt"
    assert "tlsStore" not in settings


def test_without_a_domain_the_cluster_s_own_authority_signs() -> None:
    secret, config = manifests(HUBS["plain"], "https://192.0.2.7/")["-front.yaml"]
    settings = yaml.safe_load(config["spec"]["valuesContent"])
    name = settings["tlsStore"]["default"]["defaultCertificate"]["secretName"]
    assert (secret["metadata"]["name"], secret["type"]) == (name, "kubernetes.io/tls")
    leaf, above = x509.load_pem_x509_certificates(secret["stringData"]["tls.crt"].encode())
    above_key = above.public_key()
    assert isinstance(above_key, ec.EllipticCurvePublicKey)
    leaf.verify_directly_issued_by(above)
    assert fingerprint(front_authority(Keyring(SECRET)).certificate) == fingerprint(
        secret["stringData"]["tls.crt"][secret["stringData"]["tls.crt"].rindex("-----BEGIN") :]
    )
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    assert addresses == ["192.0.2.7", "10.77.0.10", "127.0.0.1"]
    assert names.get_values_for_type(x509.DNSName) == ["head", "localhost"]
    assert "certresolver" not in json.dumps(all_values("plain")["ingress"])
    before, _ = manifests(HUBS["plain"])["-front.yaml"]
    assert before["stringData"]["tls.key"] == secret["stringData"]["tls.key"]
    assert before["stringData"]["tls.crt"] != secret["stringData"]["tls.crt"]
