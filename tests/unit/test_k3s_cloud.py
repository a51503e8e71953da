"""Kubernetes on OpenStack: the manifests are what Kubernetes takes, and what the cloud's programs need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from k3s_kit import CREDENTIAL, SECRET, check, containers, objects, release, rights, site

from vcluster.errors import SpecError
from vcluster.spec import ClusterSpec
from vcluster.spec_secrets import CREDENTIAL as KEY
from vcluster.stacks import k3s_cloud
from vcluster.stacks.base import Site

PLAIN = ("coredns", "local-storage", "metrics-server")
UUID = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0"

# What upstream's manifests give (kubernetes/cloud-provider-openstack, v1.36.0), but for what is not used here.
MANAGER = {
    ("coordination.k8s.io", "leases"): {"get", "create", "update"},
    ("", "events"): {"create", "patch", "update"},
    ("", "nodes"): {"*"},
    ("", "nodes/status"): {"patch"},
    ("", "services"): {"list", "patch", "update", "watch"},
    ("", "services/status"): {"patch"},
    ("", "persistentvolumes"): {"*"},
    ("", "endpoints"): {"create", "get", "list", "watch", "update"},
    ("", "configmaps"): {"get", "list", "watch"},
}
CINDER = [
    # csi-attacher-role
    {
        ("", "persistentvolumes"): {"get", "list", "watch", "patch"},
        ("storage.k8s.io", "csinodes"): {"get", "list", "watch"},
        ("storage.k8s.io", "volumeattachments"): {"get", "list", "watch", "patch"},
        ("storage.k8s.io", "volumeattachments/status"): {"patch"},
        ("coordination.k8s.io", "leases"): {"get", "watch", "list", "delete", "update", "create"},
    },
    # csi-provisioner-role
    {
        ("", "persistentvolumes"): {"get", "list", "watch", "create", "delete", "patch"},
        ("", "persistentvolumeclaims"): {"get", "list", "watch", "update"},
        ("storage.k8s.io", "storageclasses"): {"get", "list", "watch"},
        ("", "nodes"): {"get", "list", "watch"},
        ("", "events"): {"list", "watch", "create", "update", "patch"},
        ("snapshot.storage.k8s.io", "volumesnapshots"): {"get", "list"},
        ("snapshot.storage.k8s.io", "volumesnapshotcontents"): {"get", "list"},
    },
    # csi-resizer-role
    {
        ("", "pods"): {"get", "list", "watch"},
        ("", "persistentvolumeclaims/status"): {"patch"},
    },
]
NODE = {("", "events"): {"get", "list", "watch", "create", "update", "patch"}}


def cloud(*, version: str = "", secret: str = SECRET, spec: dict[str, Any] | None = None, **more: Any) -> Site:
    """A cluster with a credential."""
    k3s = {"openstack": {**CREDENTIAL, **more}, **(release(version) if version else {})}
    return site(k3s, secrets={KEY: secret}, **(spec or {}))


def named(found: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (each,) = [each for each in found if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return each


@pytest.mark.parametrize("minor", [32, 33, 34, 35, 36, 37])
@pytest.mark.parametrize("components", [PLAIN, ("coredns", "servicelb")])
def test_kubernetes_takes_every_object(minor: int, components: tuple[str, ...]) -> None:
    found = objects(k3s_cloud.files(cloud(version=f"v1.{minor}.1+k3s1"), components))
    check(found, f"1.{minor}")
    assert {each["kind"] for each in found} == {
        *("ClusterRole", "ClusterRoleBinding", "ConfigMap", "CSIDriver", "DaemonSet", "Deployment"),
        *("Secret", "ServiceAccount", "StorageClass"),
    }


def test_only_servers_have_the_credential_and_only_one_object_holds_it() -> None:
    there = cloud()
    files = list(k3s_cloud.files(there, PLAIN))
    assert {file.mode for file in files} == {0o600}
    assert all(file.path.startswith("/var/lib/rancher/k3s/server/manifests/vcluster-") for file in files)
    found = objects(files)
    holders = [each for each in found if "ent#ial" in yaml.safe_dump(each, width=9999)]
    assert [(each["kind"], each["type"]) for each in holders] == [("Secret", "Opaque")]
    assert holders[0]["stringData"]["cloud.conf"] == (
        "[Global]\n"
        'auth-url = "https://cloud.example.org:5000/v3"\n'
        'application-credential-id = "5a1c3b1f6d4e4f0e9b0f7c1f2d3e4a5b"\n'
        'application-credential-secret = "cr\\"ed\\\\ent#ial;"\n'
        "[LoadBalancer]\n"
        'enabled = "true"\n'
        'manage-security-groups = "true"\n'
    )
    for each in found:
        pods = each.get("spec", {}).get("template", {}).get("spec", {})
        if any("secret" in volume for volume in pods.get("volumes", [])):
            required = pods["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            (term,) = required["nodeSelectorTerms"]
            (expression,) = term["matchExpressions"]
            assert expression == {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}
        elif pods:
            assert each["metadata"]["name"] == "cinder-csi-node"


def test_rights_are_upstreams() -> None:
    found = objects(k3s_cloud.files(cloud(), PLAIN))
    assert rights(named(found, "ClusterRole", "openstack-cloud-controller-manager")) == MANAGER
    assert rights(named(found, "ClusterRole", "cinder-csi-node")) == NODE
    union: dict[tuple[str, str], set[str]] = {}
    for role in CINDER:
        for what, verbs in role.items():
            union.setdefault(what, set()).update(verbs)
    assert rights(named(found, "ClusterRole", "cinder-csi-controller")) == union


def test_images_are_those_of_the_version() -> None:
    for minor, tag in ((32, "v1.32.1"), (33, "v1.33.1"), (34, "v1.34.1"), (35, "v1.35.0"), (36, "v1.36.0")):
        used = {
            container["image"]
            for container in containers(objects(k3s_cloud.files(cloud(version=f"v1.{minor}.0+k3s1"), PLAIN))).values()
        }
        assert f"registry.k8s.io/provider-os/openstack-cloud-controller-manager:{tag}" in used
        assert f"registry.k8s.io/provider-os/cinder-csi-plugin:{tag}" in used
        assert all(image.rpartition(":")[2].startswith("v") for image in used), used
        assert used == set(k3s_cloud.images(cloud(version=f"v1.{minor}.0+k3s1").spec).values())
    # One that is not known yet works with the last that is: one version behind is within Kubernetes' own bounds.
    assert k3s_cloud.images(cloud(version="v1.37.0+k3s1").spec)["driver"].endswith(":v1.36.0")
    older, newer = (k3s_cloud.images(cloud(version=f"v1.{n}.0+k3s1").spec)["provisioner"] for n in (33, 34))
    assert (older, newer) == (
        "registry.k8s.io/sig-storage/csi-provisioner:v5.1.0",
        "registry.k8s.io/sig-storage/csi-provisioner:v5.3.0",
    )


def test_what_is_made_in_the_project_names_the_cluster() -> None:
    there = cloud()
    all_of_them = containers(objects(k3s_cloud.files(there, PLAIN)))
    name = f"vcluster-{there.ref.id}"
    assert there.ref.kubernetes == name
    assert f"--cluster-name={name}" in all_of_them["openstack-cloud-controller-manager", "manager"]["args"]
    assert f"--cluster={name}" in all_of_them["cinder-csi-controller", "driver"]["args"]


def test_who_must_run_on_a_node_that_is_not_ready_does() -> None:
    found = objects(k3s_cloud.files(cloud(), PLAIN))
    manager = named(found, "DaemonSet", "openstack-cloud-controller-manager")["spec"]["template"]["spec"]
    keys = {toleration["key"] for toleration in manager["tolerations"]}
    assert "node.cloudprovider.kubernetes.io/uninitialized" in keys
    assert "node-role.kubernetes.io/control-plane" in keys
    assert manager["hostNetwork"] is True
    node = named(found, "DaemonSet", "cinder-csi-node")["spec"]["template"]["spec"]
    assert node["tolerations"] == [{"operator": "Exists"}]
    # The metadata service answers root on the machine and no pod.
    assert node["hostNetwork"] is True
    assert "securityContext" not in node
    config = named(found, "ConfigMap", "cinder-csi-node")["data"]["cloud.conf"]
    assert 'node-volume-attach-limit = "24"' in config
    assert 'search-order = "metadataService,configDrive"' in config


def test_a_class_of_volumes() -> None:
    for components, default in ((PLAIN, "false"), (("coredns",), "true")):
        found = objects(k3s_cloud.files(cloud(), components))
        storage = named(found, "StorageClass", "cinder")
        assert storage["metadata"]["annotations"] == {"storageclass.kubernetes.io/is-default-class": default}
        assert storage["provisioner"] == named(found, "CSIDriver", "cinder.csi.openstack.org")["metadata"]["name"]
        assert (storage["reclaimPolicy"], storage["volumeBindingMode"], storage["allowVolumeExpansion"]) == (
            *("Delete", "WaitForFirstConsumer"),
            True,
        )


def test_one_of_two_makes_load_balancers() -> None:
    for components, enabled in ((PLAIN, "true"), ((*PLAIN, "servicelb"), "false")):
        secret = named(objects(k3s_cloud.files(cloud(), components)), "Secret", "vcluster-cloud-config")
        assert f'enabled = "{enabled}"' in secret["stringData"]["cloud.conf"]


def test_region_and_external_network() -> None:
    def config(**spec: Any) -> str:
        found = objects(k3s_cloud.files(cloud(region="IU", spec=spec), PLAIN))
        return str(named(found, "Secret", "vcluster-cloud-config")["stringData"]["cloud.conf"])

    assert 'region = "IU"' in config()
    assert f'floating-network-id = "{UUID}"' in config(external_network=UUID)
    assert "floating-network-id" not in config(external_network="public")


@pytest.mark.parametrize(
    ("balancers", "volumes", "names"),
    [
        (True, True, ["cloud-config", "openstack-cloud-controller-manager", "cinder-csi"]),
        (True, False, ["cloud-config", "openstack-cloud-controller-manager"]),
        (False, True, ["cloud-config", "cinder-csi"]),
        (False, False, []),
    ],
)
def test_each_by_itself(balancers: bool, volumes: bool, names: list[str]) -> None:
    there = cloud(load_balancers=balancers, volumes=volumes)
    files = list(k3s_cloud.files(there, PLAIN))
    assert [Path(file.path).stem for file in files] == [f"vcluster-{name}" for name in names]
    check(objects(files), "1.36")
    assert k3s_cloud.server_options(there.spec) == ({"disable-cloud-controller": True} if balancers else {})
    assert k3s_cloud.kubelet_args(there.spec) == (["cloud-provider=external"] if balancers else [])
    assert [file.path for file in k3s_cloud.machine_files(there.spec)] == [k3s_cloud.PROVIDER_ID] * balancers


def test_nothing_without_a_credential() -> None:
    there = site({})
    assert list(k3s_cloud.files(there, PLAIN)) == []
    assert k3s_cloud.server_options(there.spec) == {}
    assert k3s_cloud.kubelet_args(there.spec) == []
    assert list(k3s_cloud.machine_files(there.spec)) == []


def test_the_same_in_every_run_and_another_secret_starts_the_pods_anew() -> None:
    one, again = (list(k3s_cloud.files(cloud(), PLAIN)) for _ in range(2))
    assert one == again
    other = list(k3s_cloud.files(cloud(secret="another-secret"), PLAIN))

    def marks(files: list[Any]) -> list[str]:
        pods = [each["spec"]["template"]["metadata"] for each in objects(files) if "template" in each.get("spec", {})]
        return [each["annotations"]["vcluster/config"] for each in pods if "annotations" in each]

    assert len(marks(one)) == 2
    assert set(marks(one)).isdisjoint(marks(other))


def test_the_spec_refuses_what_older_drivers_would_need() -> None:
    with pytest.raises(SpecError, match=r"k3s\.openstack: needs v1\.32 or newer, not v1\.31\.4\+k3s1"):
        cloud(version="v1.31.4+k3s1")
    example = Path(__file__).parents[2] / "examples" / "full-k3s.yaml"
    spec = ClusterSpec.load(example)
    assert k3s_cloud.server_options(spec) == {"disable-cloud-controller": True}


# Which of Nova's servers a machine is --------------------------------------------------------------------------------


def provider_id(root: Path, instance: str | None, metadata: str = "") -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run the program where `root` is the machine's file system, with a metadata service that answers this."""
    (file,) = k3s_cloud.machine_files(cloud().spec)
    assert isinstance(file.content, str)
    program, bin_ = root / "provider-id", root / "bin"
    bin_.mkdir()
    (bin_ / "curl").write_text(f"#!/bin/sh\necho '{metadata}'\n" if metadata else "#!/bin/sh\nexit 22\n")
    (bin_ / "curl").chmod(0o755)
    (bin_ / "python3").symlink_to(sys.executable)
    moved = file.content.replace("/var/lib/cloud", f"{root}/cloud").replace("/etc/rancher", f"{root}/rancher")
    program.write_text(moved)
    if instance is not None:
        (root / "cloud" / "data").mkdir(parents=True)
        (root / "cloud" / "data" / "instance-id").write_text(f"{instance}\n")
    env = {"PATH": f"{bin_}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", str(program)], capture_output=True, text=True, env=env, check=False, timeout=120)
    return done, root / "rancher" / "k3s" / "config.yaml.d" / "vcluster-provider-id.yaml"


@pytest.mark.parametrize(
    ("instance", "metadata"),
    [(UUID, ""), ("i-00000a1b", f'{{"uuid": "{UUID}", "name": "demo-cpu-1"}}'), (None, f'{{"uuid": "{UUID}"}}')],
)
def test_a_machine_tells_its_kubelet_which_server_it_is(tmp_path: Path, instance: str | None, metadata: str) -> None:
    done, config = provider_id(tmp_path, instance, metadata)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(config.read_text()) == {"kubelet-arg+": [f"provider-id=openstack:///{UUID}"]}
    assert config.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("instance", "metadata"), [(None, ""), ("iid-local", '{"uuid": "x; rm -rf"}')])
def test_a_machine_that_cannot_tell_does_not_join_under_a_guess(
    tmp_path: Path, instance: str | None, metadata: str
) -> None:
    done, config = provider_id(tmp_path, instance, metadata)
    assert done.returncode == 1
    assert "neither cloud-init nor the metadata service" in done.stderr
    assert not config.exists()
