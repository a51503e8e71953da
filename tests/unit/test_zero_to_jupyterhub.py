"""What the zero-to-jupyterhub chart is given: held against its own schema, without secrets where they do not belong."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from z2jh_kit import DATA, HUBS, all_values, hub_site, hub_spec, manifests, merged, wrong

from vcluster.stacks import zero_to_jupyterhub as chart
from vcluster.stacks.hub_storage import NFS_FOLDER, database_class, storage_of

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
    config = all_values(name)["hub"]["config"]
    assert config["JupyterHub"]["authenticator_class"] == stock
    assert config["Authenticator"]["allow_all"] is False
    assert config["Authenticator"]["any_allow_config"] is True


def test_who_may_come_is_named_and_with_rules_these_decide() -> None:
    named = all_values("class-of-127")["hub"]["config"]["Authenticator"]
    assert (len(named["allowed_users"]), named["admin_users"]) == (128, [])
    assert {"student-001", "student-127", "teacher"} <= set(named["allowed_users"])
    assert all_values("native")["hub"]["config"]["Authenticator"]["admin_users"] == ["boss"]
    assert "allowed_users" not in all_values("github")["hub"]["config"]["Authenticator"]
    told = all_values("github")["hub"]["extraFiles"]["hub.json"]["data"]["auth"]
    assert (told["allow"]["organizations"], told["client_id"]) == (["lab"], "hub")


def test_instructors_see_stop_and_open_servers_and_are_no_admins() -> None:
    role = all_values("class-of-127")["hub"]["loadRoles"]["instructor"]
    assert role["groups"] == ["instructors"]
    assert {"servers", "access:servers", "list:users", "admin-ui"} <= set(role["scopes"])
    assert not [scope for scope in role["scopes"] if scope.startswith("admin:")]
    people = json.loads(all_values("class-of-127")["hub"]["extraFiles"]["people.json"]["stringData"])["people"]
    assert [name for name, person in people.items() if person["instructor"]] == ["teacher"]


def test_a_provider_without_a_domain_is_told_the_address() -> None:
    site = hub_site(HUBS["oidc"].replace("domain: hub.example.org, ", ""))
    files = chart.values(site, "https://192.0.2.7/")["hub"]["extraFiles"]
    assert files["front.json"]["data"] == {"url": "https://192.0.2.7/"}
    assert "front.json" not in chart.values(site)["hub"]["extraFiles"]
    assert "front.json" not in chart.values(hub_site(HUBS["oidc"]), "https://hub.example.org/")["hub"]["extraFiles"]


# Notebooks -----------------------------------------------------------------------------------------------------------


def test_one_profile_is_everybody_s() -> None:
    notebooks = all_values("class-of-127")["singleuser"]
    assert notebooks["profileList"] == []
    assert (notebooks["cpu"], notebooks["memory"]) == (
        {"guarantee": 1.0, "limit": 1},
        {"guarantee": "1024M", "limit": "1024M"},
    )
    assert notebooks["extraPodConfig"] == {"activeDeadlineSeconds": 8 * 3600}
    assert notebooks["cloudMetadata"]["blockWithIptables"] is False


def test_profiles_share_processors_and_have_their_own_group() -> None:
    found = all_values("profiles")
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
    storage = all_values(name)["singleuser"]["storage"]
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
    limits = all_values("none")["singleuser"]["extraResource"]
    assert limits == {"guarantees": {"ephemeral-storage": "64Mi"}, "limits": {"ephemeral-storage": "1024Mi"}}


def test_the_head_s_export_is_a_volume() -> None:
    volume, claim = manifests(HUBS["nfs"])["-storage.yaml"]
    assert volume["spec"]["nfs"] == {"server": "10.77.0.10", "path": NFS_FOLDER}
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    assert claim["metadata"]["namespace"] == "jupyterhub"
    static = all_values("nfs")["singleuser"]["storage"]["static"]
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
    command = all_values("repository")["singleuser"]["lifecycleHooks"]["postStart"]["exec"]["command"]
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
    hook = all_values("repository")["singleuser"]["lifecycleHooks"]["postStart"]["exec"]["command"]
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
    found = all_values(name)
    assert cull.items() <= found["cull"].items()
    settings = found["singleuser"]["extraFiles"].get("jupyter_server_config.json", {}).get("data", {})
    assert settings.get("MappingKernelManager", {}).get("cull_idle_timeout", 0) == kernel


# A class that comes at once ------------------------------------------------------------------------------------------


def test_a_class_starts_all_at_once() -> None:
    hub = all_values("class-of-127")["hub"]
    assert hub["concurrentSpawnLimit"] > 127
    assert (hub["consecutiveFailureLimit"], hub["allowNamedServers"]) == (0, False)
    assert hub["activeServerLimit"] == 44 * 5
    assert all_values("class-of-127")["singleuser"]["startTimeout"] > 400
    assert all_values("class-of-127")["prePuller"]["hook"]["enabled"] is True
    assert all_values("class-of-127")["prePuller"]["continuous"]["enabled"] is True


def test_placeholders_hold_room_and_give_way() -> None:
    found = all_values("class-of-127")["scheduling"]
    assert found["userPlaceholder"]["replicas"] == 128
    assert found["userPlaceholder"]["resources"] == {"requests": {"cpu": "1000m", "memory": "1024Mi"}}
    assert found["podPriority"]["enabled"] is True
    assert all_values("plain")["scheduling"]["userPlaceholder"]["replicas"] == 0


@pytest.mark.parametrize(
    ("name", "label", "replicas"),
    [
        ("plain", "node-role.kubernetes.io/control-plane", 1),
        ("three-servers", "node-role.kubernetes.io/control-plane", 2),
        ("profiles", "vcluster/group", 2),
    ],
)
def test_the_hub_s_own_pods_have_a_place(name: str, label: str, replicas: int) -> None:
    found = all_values(name)
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
    assert all_values(name)["hub"]["db"]["type"] == kind
    text = HUBS["cinder"].replace("k3s: {", "k3s: {components: [coredns, servicelb, traefik], ")
    assert chart.values(hub_site(text))["hub"]["db"]["pvc"]["storageClassName"] == "cinder"
