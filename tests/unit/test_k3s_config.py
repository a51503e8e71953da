"""k3s' configuration file on each machine: its options follow the version, its addresses are the machine's own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from k3s_machines_kit import ELSEWHERE, THREE, config_of, files_of, site, text_of

from vcluster import k3s_room
from vcluster.k3s_checks import COMPONENTS, DEFAULT_VERSION

SHA = "0123456789abcdef" * 4
EVERY_SERVER = {
    "token", "agent-token", "node-name", "node-ip", "flannel-iface", "advertise-address", "tls-san",
    "write-kubeconfig-mode", "cluster-cidr", "service-cidr", "flannel-backend", "secrets-encryption", "node-taint",
    "disable", "kube-controller-manager-arg", "kube-scheduler-arg", "kube-cloud-controller-manager-arg",
}  # fmt: skip
EVERY_AGENT = {"server", "token", "node-name", "node-ip", "flannel-iface", "node-label", "kubelet-arg"}


def k3s(version: str = DEFAULT_VERSION, **more: Any) -> dict[str, Any]:
    checksum = {} if version == DEFAULT_VERSION else {"binary": {"sha256": SHA}}
    return {"k3s": {"version": version, **checksum, **more}}


@pytest.mark.parametrize(
    ("version", "backend"),
    [
        ("v1.21.2+k3s1", "vxlan"),
        ("v1.22.17+k3s1", "vxlan"),
        ("v1.23.1+k3s1", "wireguard-native"),
        ("v1.29.1+k3s1", "wireguard-native"),
        (DEFAULT_VERSION, "wireguard-native"),
    ],
)
def test_options_follow_the_version(version: str, backend: str) -> None:
    where = site(**k3s(version))
    server, agent = config_of(where, "head"), config_of(where, "cpu-1")
    assert (set(server), set(agent)) == (EVERY_SERVER, EVERY_AGENT)
    assert server["flannel-backend"] == backend
    assert "mtu" not in str([*server, *agent])  # flannel takes the interface's


@pytest.mark.parametrize("version", ["v1.29.1+k3s1", DEFAULT_VERSION])
def test_the_embedded_registry_is_asked_of_servers_alone_and_where_it_is_there(version: str) -> None:
    where = site(**k3s(version, embedded_registry=True))
    assert config_of(where, "head")["embedded-registry"] is True
    assert set(config_of(where, "cpu-1")) == EVERY_AGENT


@pytest.mark.parametrize("backend", ["vxlan", "host-gw", "wireguard-native"])
def test_a_backend_that_is_asked_for_is_taken(backend: str) -> None:
    assert config_of(site(**k3s(flannel_backend=backend)), "head")["flannel-backend"] == backend


def test_a_server_answers_to_every_name_that_any_server_is_called_by() -> None:
    where = site(
        **{**ELSEWHERE, "head": {"count": 3}},
        access={"floating_ip": "198.51.100.7"},
        k3s={"tls_san": ["K8s.example.org", "192.0.2.9"]},
    )
    servers = {"head": "10.77.0.10", "head-2": "10.77.0.11", "head-3": "10.77.0.12"}
    for name, address in servers.items():
        config = config_of(where, name)
        names = config["tls-san"]
        assert {*servers, *servers.values(), "demo", "vcluster-servers", "127.0.0.1"} <= set(names)
        assert {"198.51.100.7", "k8s.example.org", "192.0.2.9"} <= set(names)
        assert len(names) == len(set(names))
        assert (config["node-name"], config["node-ip"], config["advertise-address"]) == (name, address, address)


def test_three_servers_differ_in_their_names_and_addresses_alone() -> None:
    where = site(**THREE)
    own = ("node-name", "node-ip", "advertise-address")
    rest = [{k: v for k, v in config_of(where, name).items() if k not in own} for name in ("head", "head-2", "head-3")]
    assert rest[0] == rest[1] == rest[2]
    # Who begins and who joins is found out by the machine.
    assert not {"cluster-init", "server"} & set(rest[0])


def test_a_lone_server_leads_and_emulated_ones_take_their_time() -> None:
    parts = [f"kube-{name}-arg" for name in ("controller-manager", "scheduler", "cloud-controller-manager")]
    alone, emulated = config_of(site(), "head"), config_of(site(**THREE), "head")
    assert [alone[part] for part in parts] == [["leader-elect=false"]] * 3
    assert "leader-elect-lease-duration=120s" in emulated[parts[0]]
    assert "leader-elect=false" not in str(emulated)
    assert not set(parts) & set(config_of(site(**{**ELSEWHERE, **THREE}), "head"))


def test_an_agent_knows_all_servers_by_one_name() -> None:
    where = site(**THREE)
    assert config_of(where, "cpu-1")["server"] == "https://vcluster-servers:6443"
    hosts = [line.split() for line in text_of(files_of(where, "cpu-1")["/etc/hosts"]).splitlines() if line]
    assert {a for a, *names in hosts if "vcluster-servers" in names} == {"10.77.0.10", "10.77.0.11", "10.77.0.12"}
    assert ["10.77.0.13", "cpu-1"] in hosts


@pytest.mark.parametrize(
    ("asked", "runs"),
    [
        ({}, {"coredns", "local-storage", "metrics-server"}),
        ({"components": []}, set()),
        ({"components": ["traefik", "coredns"]}, {"coredns", "traefik"}),
        ({"components": list(COMPONENTS)}, set(COMPONENTS)),
    ],
    ids=["usual", "none", "some", "all"],
)
def test_what_is_not_listed_is_disabled(asked: dict[str, Any], runs: set[str]) -> None:
    config = config_of(site(**k3s(**asked)), "head")
    assert set(config.get("disable", [])) == set(COMPONENTS) - runs
    assert ("disable" in config) == (runs != set(COMPONENTS))


def test_labels_and_taints_are_each_groups_own() -> None:
    where = site(
        {"name": "core", "count": 1},
        {"name": "user", "count": 1, "labels": {"example.org/disk": "fast", "tier": ""}, "taints": ["a=b:NoSchedule"]},
    )
    core, user = config_of(where, "core-1"), config_of(where, "user-1")
    assert core["node-label"] == ["vcluster/group=core"]
    assert "node-taint" not in core
    assert user["node-label"] == ["vcluster/group=user", "example.org/disk=fast", "tier="]
    assert user["node-taint"] == ["a=b:NoSchedule"]
    assert config_of(where, "head")["node-taint"] == ["node-role.kubernetes.io/control-plane=true:NoSchedule"]


def test_a_group_with_gpus_says_so_and_takes_no_pod_that_does_not() -> None:
    where = site(
        {"name": "cpu", "count": 1, "flavor": "m3.small"},
        {"name": "gpu", "count": 1, "flavor": "g3.large", "gpus": 2, "taints": ["x:NoExecute"]},
        **ELSEWHERE,
    )
    gpu = config_of(where, "gpu-1")
    assert gpu["node-label"] == ["vcluster/group=gpu", "vcluster/gpu=true"]
    assert gpu["node-taint"] == ["nvidia.com/gpu=present:NoSchedule", "x:NoExecute"]
    assert config_of(where, "cpu-1")["node-label"] == ["vcluster/group=cpu"]
    steps = {name: text_of(files_of(where, name)["/usr/local/sbin/vcluster-configure"]) for name in ("cpu-1", "gpu-1")}
    assert ["nvidia-smi" in script for script in steps.values()] == [False, True]


def test_networks_are_those_of_the_spec() -> None:
    config = config_of(site(**k3s(pod_network="10.244.0.0/16", service_network="10.96.0.0/12")), "head")
    assert (config["cluster-cidr"], config["service-cidr"]) == ("10.244.0.0/16", "10.96.0.0/12")


# The machine's part --------------------------------------------------------------------------------------------------

ADDRESSES = "1: lo    inet 127.0.0.1/8 scope host lo\n2: ens3    inet {0}/24 scope global ens3\n3: x inet {0}0/24 x\n"


def configured(
    where: Any, name: str, folder: Path, *, addresses: str = "", public: str = ""
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The configure script's step that writes the file, with its folders moved and its commands played."""
    script = text_of(files_of(where, name)["/usr/local/sbin/vcluster-configure"])
    step = re.search(r"(?s)\nstep configuration\n(.*?)\numask 022\n", script)
    assert step
    target = folder / "rancher"
    text = step[1].replace("/etc/rancher/k3s", str(target)).replace("/etc/vcluster/k3s", str(folder))
    (folder / "config.yaml").write_text(text_of(files_of(where, name)["/etc/vcluster/k3s/config.yaml"]))
    (folder / "addresses").write_text(addresses or ADDRESSES.format(where.ports[name].address))
    played = (
        'set -Eeuo pipefail\nmodprobe() { :; }\nfailed() { echo "failed: $now"; exit 1; }\n'
        f"ip() {{ cat {folder}/addresses; }}\ncurl() {{ printf '%s' '{public}'; [ -n '{public}' ]; }}\n"
    )
    done = subprocess.run(["bash"], input=played + text, capture_output=True, text=True, check=False)
    return done, target / "config.yaml"


@pytest.mark.parametrize("name", ["head", "head-2", "cpu-1"])
def test_the_machine_puts_its_private_interface_into_it(name: str, tmp_path: Path) -> None:
    where = site(**THREE)
    done, file = configured(where, name, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert yaml.safe_load(file.read_text()) == {**config_of(where, name), "flannel-iface": "ens3"}
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(("public", "more"), [("198.51.100.7", ["198.51.100.7"]), ("", []), ("<html>no", [])])
def test_on_openstack_a_server_asks_for_its_floating_address(public: str, more: list[str], tmp_path: Path) -> None:
    where = site(**ELSEWHERE)
    done, file = configured(where, "head", tmp_path, public=public)
    assert (done.returncode, done.stderr) == (0, "")
    assert yaml.safe_load(file.read_text())["tls-san"] == [*more, *config_of(where, "head")["tls-san"]]
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_machine_without_its_address_fails_and_says_so(tmp_path: Path) -> None:
    done, file = configured(site(), "cpu-1", tmp_path, addresses="2: ens3 inet 192.0.2.1/24\n")
    assert done.stdout == "failed: no interface has the address 10.77.0.11\n"
    assert (done.returncode, file.exists()) == (1, False)


def test_an_agent_keeps_what_capacity_does_not_give_away() -> None:
    assert config_of(site(**k3s()), "cpu-1")["kubelet-arg"] == list(k3s_room.KUBELET)
