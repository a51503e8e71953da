"""What the zero-to-jupyterhub chart is given: held against its own schema, without secrets where they do not belong."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from z2jh_kit import DATA, GIVEN, HUBS, SECRET, defaults, hub_site, hub_spec, merged, wrong

from vcluster.secrets import Keyring
from vcluster.stacks import zero_to_jupyterhub as chart
from vcluster.stacks.hub_certificate import fingerprint, front_authority
from vcluster.stacks.hub_storage import NFS_FOLDER, database_class, storage_of
from vcluster.stacks.jupyterhub import passwords


def values(name: str) -> dict[str, Any]:
    """All values of a Hub, as helm merges them over the chart's."""
    site = hub_site(HUBS[name])
    found: dict[str, Any] = merged(merged(defaults(), chart.values(site)), chart.secret_values(site))
    return found


def manifests(text: str, url: str = "") -> dict[str, list[dict[str, Any]]]:
    """What lies on the head, by the end of its name."""
    made = chart.files(hub_site(text), url)
    return {file.path.rpartition("vcluster-jupyterhub")[2]: list(yaml.safe_load_all(file.content)) for file in made}


# The schema ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HUBS)
def test_the_chart_takes_every_hub(name: str) -> None:
    site = hub_site(HUBS[name])
    assert wrong(merged(chart.values(site), chart.secret_values(site))) == []
    assert wrong(chart.values(site)) == []


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("hub.concurrentSpawnLimit", "many", "'many' is not of type 'integer', 'null'"),
        ("hub.concurentSpawnLimit", 9, "'concurentSpawnLimit' was unexpected"),
        ("hub.config.authenticator", {}, "does not match any of the regexes"),
        ("singleuser.storage.type", "cinder", "'cinder' is not one of ['dynamic', 'static', 'none']"),
        ("singleuser.profile_list", [], "'profile_list' was unexpected"),
        ("scheduling.userPlaceholder.replicas", 1.5, "1.5 is not of type 'integer'"),
        ("ingress.host", "a", "'host' was unexpected"),
        ("cul", {}, "'cul' was unexpected"),
    ],
)
def test_the_schema_refuses_what_is_wrong(place: str, value: object, told: str) -> None:
    above: Any = value
    for key in reversed(place.split(".")):
        above = {key: above}
    (message,) = wrong(merged(chart.values(hub_site(HUBS["plain"])), above))
    assert told in message


def test_the_schema_is_the_pinned_version_s() -> None:
    assert tuple(map(int, chart.VERSION.split("."))) >= (4, 4, 0)
    assert f"`{chart.VERSION}`" in (DATA / "README.md").read_text()


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


# Who gets in ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stock"),
    [
        ("plain", "shared-password"),
        ("native", "native"),
        ("github", "github"),
        ("cilogon", "cilogon"),
        ("globus", "globus"),
        ("oidc", "generic-oauth"),
        ("firstuse", "firstuseauthenticator.FirstUseAuthenticator"),
    ],
)
def test_the_chart_s_class_is_never_the_one_that_lets_everybody_in(name: str, stock: str) -> None:
    config = values(name)["hub"]["config"]
    assert config["JupyterHub"]["authenticator_class"] == stock
    assert config["Authenticator"]["allow_all"] is False
    assert config["Authenticator"]["any_allow_config"] is True


def test_who_may_come_is_named_and_with_rules_these_decide() -> None:
    named = values("class-of-127")["hub"]["config"]["Authenticator"]
    assert (len(named["allowed_users"]), named["admin_users"]) == (128, [])
    assert {"student-001", "student-127", "teacher"} <= set(named["allowed_users"])
    assert values("native")["hub"]["config"]["Authenticator"]["admin_users"] == ["boss"]
    assert "allowed_users" not in values("github")["hub"]["config"]["Authenticator"]
    told = values("github")["hub"]["extraFiles"]["hub.json"]["data"]["auth"]
    assert (told["allow"]["organizations"], told["client_id"]) == (["lab"], "hub")


def test_instructors_see_stop_and_open_servers_and_are_no_admins() -> None:
    role = values("class-of-127")["hub"]["loadRoles"]["instructor"]
    assert role["groups"] == ["instructors"]
    assert {"servers", "access:servers", "list:users", "admin-ui"} <= set(role["scopes"])
    assert not [scope for scope in role["scopes"] if scope.startswith("admin:")]
    people = json.loads(values("class-of-127")["hub"]["extraFiles"]["people.json"]["stringData"])["people"]
    assert [name for name, person in people.items() if person["instructor"]] == ["teacher"]


def test_a_provider_without_a_domain_is_told_the_address() -> None:
    site = hub_site(HUBS["oidc"].replace("domain: hub.example.org, ", ""))
    files = chart.values(site, "https://192.0.2.7/")["hub"]["extraFiles"]
    assert files["front.json"]["data"] == {"url": "https://192.0.2.7/"}
    assert "front.json" not in chart.values(site)["hub"]["extraFiles"]
    assert "front.json" not in chart.values(hub_site(HUBS["oidc"]), "https://hub.example.org/")["hub"]["extraFiles"]


# Notebooks -----------------------------------------------------------------------------------------------------------


def test_one_profile_is_everybody_s() -> None:
    notebooks = values("class-of-127")["singleuser"]
    assert notebooks["profileList"] == []
    assert (notebooks["cpu"], notebooks["memory"]) == (
        {"guarantee": 1.0, "limit": 1},
        {"guarantee": "1024M", "limit": "1024M"},
    )
    assert notebooks["extraPodConfig"] == {"activeDeadlineSeconds": 8 * 3600}
    assert notebooks["cloudMetadata"]["blockWithIptables"] is False


def test_profiles_share_processors_and_have_their_own_group() -> None:
    found = values("profiles")
    small, big, gpu = (profile["kubespawner_override"] for profile in found["singleuser"]["profileList"])
    assert [profile["default"] for profile in found["singleuser"]["profileList"]] == [True, False, False]
    assert (small["cpu_guarantee"], small["cpu_limit"], small["mem_guarantee"]) == (0.333, 1, "1024M")
    assert (big["cpu_guarantee"], big["cpu_limit"], big["mem_limit"]) == (1.333, 4, "8192M")
    # "core" is first in the spec, and not for notebooks.
    assert [each["node_selector"] for each in (small, big, gpu)] == [
        {"vcluster/group": g} for g in ("user", "user", "gpu")
    ]
    assert (small["extra_pod_config"], big["extra_pod_config"]) == ({"activeDeadlineSeconds": 28800}, {})
    assert gpu["extra_resource_limits"]["nvidia.com/gpu"] == gpu["extra_resource_guarantees"]["nvidia.com/gpu"] == "1"
    assert gpu["extra_pod_config"]["runtimeClassName"] == "nvidia"
    # KubeSpawner merges a profile's resources into these: a GPU here would be everybody's.
    assert "nvidia.com/gpu" not in found["singleuser"]["extraResource"]["limits"]
    keys = {each["key"] for each in found["singleuser"]["extraTolerations"]}
    assert keys == {"dedicated", "nvidia.com/gpu"}
    (term,) = found["singleuser"]["extraNodeAffinity"]["required"]
    assert term["matchExpressions"][0]["values"] == ["user", "gpu"]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("plain", "none", {"type": "none"}),
        ("none", "none", {"type": "none"}),
        ("cinder", "cinder", {"type": "dynamic", "capacity": "2048Mi"}),
        ("nfs", "nfs", {"type": "static"}),
    ],
)
def test_where_files_are(name: str, kind: str, expected: dict[str, str]) -> None:
    storage = values(name)["singleuser"]["storage"]
    assert storage_of(hub_spec(HUBS[name])) == kind
    assert expected.items() <= storage.items()
    assert chart.wants_nfs(hub_spec(HUBS[name])) == (kind == "nfs")


def test_a_volume_without_a_quota_has_five_gibibytes() -> None:
    text = HUBS["cinder"].replace(", quota: 2G", "")
    assert chart.values(hub_site(text))["singleuser"]["storage"] == {
        "type": "dynamic",
        "capacity": "5120Mi",
        "dynamic": {"storageClass": "cinder"},
    }


def test_what_goes_with_the_notebook_fills_no_machine() -> None:
    limits = values("none")["singleuser"]["extraResource"]
    assert limits == {"guarantees": {"ephemeral-storage": "64Mi"}, "limits": {"ephemeral-storage": "1024Mi"}}


def test_the_head_s_export_is_a_volume() -> None:
    volume, claim = manifests(HUBS["nfs"])["-storage.yaml"]
    assert volume["spec"]["nfs"] == {"server": "10.77.0.10", "path": NFS_FOLDER}
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    assert claim["metadata"]["namespace"] == "jupyterhub"
    static = values("nfs")["singleuser"]["storage"]["static"]
    assert static == {"pvcName": claim["metadata"]["name"], "subPath": "home/{username}"}


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("image", {"name": "registry.example.org:5000/class/lab", "tag": "2025.9"}),
        ("digest", {"name": "quay.io/jupyter/scipy-notebook@sha256", "tag": "a" * 64}),
    ],
)
def test_the_image_is_the_spec_s(name: str, image: dict[str, str]) -> None:
    assert chart.values(hub_site(HUBS[name]))["singleuser"]["image"] == image
    assert "image" not in chart.values(hub_site(HUBS["plain"]))["singleuser"]


def test_the_repository_comes_when_the_notebook_starts_and_holds_nothing_up() -> None:
    command = values("repository")["singleuser"]["lifecycleHooks"]["postStart"]["exec"]["command"]
    assert command[4:] == ["https://git.example.org/course.git", "main", "course", "/home/jovyan"]
    assert command[2].endswith("&")
    # KubeSpawner would put names in place of them, or fail.
    assert not [word for word in command if "{" in word or "}" in word]
    compile(command[3], "gitpuller", "exec")


def test_an_image_without_gitpuller_has_git(tmp_path: Path) -> None:
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    home = tmp_path / "home"
    home.mkdir()
    hook = values("repository")["singleuser"]["lifecycleHooks"]["postStart"]["exec"]["command"]
    script = hook[2].removesuffix("&").replace("/tmp/", f"{tmp_path}/")
    for _ in range(2):  # and whoever comes again keeps what is there
        subprocess.run(["sh", "-c", script, "raise SystemExit(1)", str(tmp_path), "", "course", str(home)], check=True)
        assert (home / "course/.git").is_dir()


@pytest.mark.parametrize(
    ("name", "cull", "kernel"),
    [
        ("plain", {"enabled": True, "timeout": 3600, "every": 300, "maxAge": 0}, 3600),
        ("longest", {"enabled": True, "timeout": 600, "every": 150, "maxAge": 43200}, 300),
        ("never-idle", {"enabled": False}, 0),
    ],
)
def test_what_ends_by_itself(name: str, cull: dict[str, object], kernel: int) -> None:
    found = values(name)
    assert cull.items() <= found["cull"].items()
    settings = found["singleuser"]["extraFiles"].get("jupyter_server_config.json", {}).get("data", {})
    assert settings.get("MappingKernelManager", {}).get("cull_idle_timeout", 0) == kernel


# A class that comes at once ------------------------------------------------------------------------------------------


def test_a_class_starts_all_at_once() -> None:
    hub = values("class-of-127")["hub"]
    assert hub["concurrentSpawnLimit"] > 127
    assert (hub["consecutiveFailureLimit"], hub["allowNamedServers"]) == (0, False)
    assert hub["activeServerLimit"] == 44 * 5
    assert values("class-of-127")["singleuser"]["startTimeout"] > 400
    assert values("class-of-127")["prePuller"]["hook"]["enabled"] is True
    assert values("class-of-127")["prePuller"]["continuous"]["enabled"] is True


def test_placeholders_hold_room_and_give_way() -> None:
    found = values("class-of-127")["scheduling"]
    assert found["userPlaceholder"]["replicas"] == 128
    assert found["userPlaceholder"]["resources"] == {"requests": {"cpu": "1000m", "memory": "1024Mi"}}
    assert found["podPriority"]["enabled"] is True
    assert values("plain")["scheduling"]["userPlaceholder"]["replicas"] == 0


@pytest.mark.parametrize(
    ("name", "label", "replicas"),
    [
        ("plain", "node-role.kubernetes.io/control-plane", 1),
        ("three-servers", "node-role.kubernetes.io/control-plane", 2),
        ("profiles", "vcluster/group", 2),
    ],
)
def test_the_hub_s_own_pods_have_a_place(name: str, label: str, replicas: int) -> None:
    found = values(name)
    selectors = [
        found["hub"]["nodeSelector"],
        found["proxy"]["chp"]["nodeSelector"],
        found["scheduling"]["userScheduler"]["nodeSelector"],
        found["prePuller"]["hook"]["nodeSelector"],
    ]
    assert [list(selector) for selector in selectors] == [[label]] * 4
    (tolerated,) = found["scheduling"]["corePods"]["tolerations"]
    assert tolerated["key"] == ("hub" if name == "profiles" else label)
    assert found["scheduling"]["userScheduler"]["replicas"] == replicas


@pytest.mark.parametrize(
    ("name", "storage", "kind"),
    [("plain", "local-path", "sqlite-pvc"), ("in-memory", "", "sqlite-memory")],
)
def test_where_the_hub_s_database_is(name: str, storage: str, kind: str) -> None:
    assert database_class(hub_spec(HUBS[name])) == storage
    assert values(name)["hub"]["db"]["type"] == kind
    text = HUBS["cinder"].replace("k3s: {", "k3s: {components: [coredns, servicelb, traefik], ")
    assert chart.values(hub_site(text))["hub"]["db"]["pvc"]["storageClassName"] == "cinder"


# The front door ------------------------------------------------------------------------------------------------------


def test_people_come_through_traefik() -> None:
    found = values("plain")
    assert found["proxy"]["service"]["type"] == "ClusterIP"
    assert found["proxy"]["https"]["enabled"] is False
    assert (found["ingress"]["enabled"], found["ingress"]["hosts"]) == (True, [])
    assert values("github")["ingress"]["hosts"] == ["hub.example.org"]


def test_with_a_domain_the_certificate_is_lets_encrypt_s_and_is_kept() -> None:
    (config,) = manifests(HUBS["github"])["-front.yaml"]
    settings = yaml.safe_load(config["spec"]["valuesContent"])
    assert (config["kind"], config["metadata"]["name"]) == ("HelmChartConfig", "traefik")
    assert "--certificatesresolvers.letsencrypt.acme.email=a@example.org" in settings["additionalArguments"]
    assert "--certificatesresolvers.letsencrypt.acme.httpchallenge.entrypoint=web" in settings["additionalArguments"]
    assert settings["persistence"]["enabled"] is True
    annotations = values("github")["ingress"]["annotations"]
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
    assert "certresolver" not in json.dumps(values("plain")["ingress"])
    before, _ = manifests(HUBS["plain"])["-front.yaml"]
    assert before["stringData"]["tls.key"] == secret["stringData"]["tls.key"]
    assert before["stringData"]["tls.crt"] != secret["stringData"]["tls.crt"]
