"""What lies on the machines of a Kubernetes cluster: it parses, it fits, and its firewall opens what is needed."""

from __future__ import annotations

import base64
import gzip
import ipaddress
import json
import os
import random
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from k3s_machines_kit import ELSEWHERE, GUARDED, THREE, files_of, site, slot_of, text_of
from slurm_kit import KEY, parsed

from vcluster.stacks.base import ADMIN_USER
from vcluster.stacks.k3s import FILES_PORT, K3sStack

MACHINES = ("head", "head-2", "cpu-1")
SHA = "0123456789abcdef" * 4
API_FROM = {"api_from": ["192.0.2.0/24", "2001:db8::/32"]}
FULL: dict[str, Any] = {
    **ELSEWHERE,
    "head": {"count": 3},
    "setup": {"head": "#!/bin/sh\ntrue\n", "workers": "#!/bin/sh\ntrue\n"},
    "k3s": {
        **API_FROM,
        "embedded_registry": True,
        "images": [{"source": "https://mirror.example.org/k3s/images.tar.zst", "sha256": SHA}],
    },
    "jupyterhub": {},
}


@pytest.mark.parametrize("name", MACHINES)
def test_user_data_is_what_cloud_init_wants(name: str) -> None:
    where = site(**FULL, access={"ssh_keys": [KEY]})
    data, files = parsed(K3sStack().user_data(where, slot_of(where, name)))
    assert data["hostname"] == name
    assert data["ssh_keys"]["ed25519_public"] == where.keyring.host(name).public
    assert [user["name"] for user in data["users"]] == [ADMIN_USER]
    assert data["users"][0]["ssh_authorized_keys"] == [where.keyring.admin.public, KEY]
    assert data["runcmd"] == [["/usr/local/sbin/vcluster-configure"]]
    assert all(file["permissions"].startswith("0") for file in files.values())
    assert len(files) == len(data["write_files"])  # no file is written twice


def test_equal_sites_give_equal_text_and_machines_differ() -> None:
    one, other, stack = site(**THREE), site(**THREE), K3sStack()
    texts = [stack.user_data(one, slot) for slot in one.slots]
    assert [stack.user_data(other, slot) for slot in other.slots] == texts
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("spec", [THREE, FULL], ids=["local", "openstack"])
def test_scripts_are_scripts(spec: dict[str, Any], name: str) -> None:
    where = site(**spec)
    seen = set()
    for path, file in files_of(where, name).items():
        text = text_of(file)
        if text.startswith(("#!/bin/bash", "#!/bin/sh")):
            done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
            assert (done.returncode, done.stderr) == (0, ""), path
            assert int(file["permissions"], 8) & 0o100, path
            seen.add(path)
        elif text.startswith("#!/usr/bin/python3"):
            compile(text, path, "exec")
            assert int(file["permissions"], 8) & 0o100, path
            seen.add(path)
    assert {"/usr/local/sbin/vcluster-configure", "/usr/local/lib/vcluster/fetch"} <= seen
    assert ("/usr/local/lib/vcluster/join" in seen) == (name != "cpu-1")
    assert ("/usr/local/sbin/vcluster-node" in seen) == (name == "head")


@pytest.mark.parametrize("name", MACHINES)
def test_what_is_started_is_there(name: str) -> None:
    """Units that the script enables, and programs that units run: each is a file of this machine, or the system's."""
    files = files_of(site(**FULL), name)
    script = text_of(files["/usr/local/sbin/vcluster-configure"])
    system = {"nftables.service", "chrony.service"}
    for unit in {u for line in re.findall(r"^\s*enable (.+)$", script, re.M) for u in line.split()} - system:
        assert f"/etc/systemd/system/{unit}" in files, unit
    ours = ("/usr/local/lib/vcluster/", "/usr/local/sbin/")
    programs = {
        word
        for path, file in files.items()
        if path.endswith(".service")
        for word in re.findall(r"^Exec\w+=-?(\S+)", text_of(file), re.M)
        if word.startswith(ours)
    }
    assert programs <= set(files)
    assert programs


def test_the_program_comes_from_its_release_or_from_the_head() -> None:
    scripts = {}
    for which, binary in (("release", {}), ("here", {"binary": {"source": str(Path(__file__))}})):
        where = site(k3s=binary)
        scripts[which] = text_of(files_of(where, "cpu-1")["/usr/local/sbin/vcluster-configure"])
    release, checksum = site().spec.kubernetes.program
    assert f"$library/fetch {release} {checksum} /usr/local/bin/k3s\n" in scripts["release"]
    assert release == "https://github.com/k3s-io/k3s/releases/download/v1.36.5%2Bk3s1/k3s"
    assert re.search(r"\$library/fetch head: [0-9a-f]{64} /usr/local/bin/k3s\n", scripts["here"])


def test_every_machine_gets_the_images() -> None:
    where = site(**FULL)
    wanted = (
        f"$library/fetch https://mirror.example.org/k3s/images.tar.zst {SHA} "
        "/var/lib/rancher/k3s/agent/images/images.tar.zst\n"
    )
    for name in MACHINES:
        assert wanted in text_of(files_of(where, name)["/usr/local/sbin/vcluster-configure"])


def test_facts_for_the_heads_programs() -> None:
    where = site(**THREE)
    facts = json.loads(text_of(files_of(where, "head")["/var/lib/vcluster/cluster.json"]))
    workers = {"head-2": "10.77.0.11", "head-3": "10.77.0.12", "cpu-1": "10.77.0.13", "cpu-2": "10.77.0.14"}
    assert (facts["head"], facts["workers"], facts["files"]) == ("head", workers, FILES_PORT)


@pytest.mark.parametrize("founded", [False, True])
def test_servers_are_told_who_they_are_and_whether_a_cluster_was_there(founded: bool) -> None:
    where = site(**THREE, founded=founded)
    for name in ("head", "head-2"):
        told = json.loads(text_of(files_of(where, name)["/etc/vcluster/k3s/join.json"]))
        servers = {"head": "10.77.0.10", "head-2": "10.77.0.11", "head-3": "10.77.0.12"}
        assert told == {"head": "head", "servers": servers, "founded": founded}
    assert "/etc/vcluster/k3s/join.json" not in files_of(where, "cpu-1")


def test_only_the_head_has_the_hubs_manifests_which_up_changes_there() -> None:
    where = site(**FULL)
    of_the_hub = {
        name: [path for path in files_of(where, name) if "/manifests/vcluster-jupyterhub" in path] for name in MACHINES
    }
    assert of_the_hub["head"]
    assert of_the_hub["head-2"] == of_the_hub["cpu-1"] == []


def test_user_data_fits_what_nova_takes() -> None:
    """In KiB of base64 of gzip, as Nova counts it (64 are allowed), at its worst: no two addresses in a row."""
    where = site({"name": "cpu", "count": 40}, **FULL)
    addresses = random.Random(1).sample(range(10, 60000), len(where.ports))
    scattered = [str(ipaddress.IPv4Address("10.77.0.0") + n) for n in addresses]
    ports = {name: replace(port, address=to) for (name, port), to in zip(where.ports.items(), scattered, strict=True)}
    where = replace(where, ports=ports)
    for name in MACHINES:
        text = K3sStack().user_data(where, slot_of(where, name))
        assert len(base64.b64encode(gzip.compress(text.encode()))) < 48 * 1024


# The firewall --------------------------------------------------------------------------------------------------------


def firewall(name: str, **spec: Any) -> str:
    return text_of(files_of(site(**spec), name)["/etc/nftables.conf"])


def chain(rules: str, name: str) -> list[str]:
    """The rules of a chain."""
    found = re.search(rf"(?s)\n  chain {name} \{{\n(.*?)\n  \}}\n", rules)
    return [line.strip() for line in found[1].splitlines()] if found else []


def ports(rule: str) -> set[int]:
    """The ports that a rule names."""
    named = re.search(r"(?:dport|proto-dst) (?:\{ ([0-9, ]+) \}|(\d+))", rule)
    return {int(port) for port in (named[1] or named[2]).split(",")} if named else set()


def let_in(rules: str, source: str, protocol: str = "tcp") -> set[int]:
    """The ports that are open to a source, as the rules write it."""
    asked = [rule for rule in chain(rules, "input") if rule.startswith(f"ip saddr {source} {protocol} ")]
    return {port for rule in asked if " accept" in rule for port in ports(rule)}


@pytest.mark.parametrize(
    ("name", "tcp", "udp"),
    [
        ("head", {22, 6443, 10250, 6815, 6816}, {51820, 51821, 123}),
        ("head-2", {22, 6443, 10250}, {51820, 51821}),
        ("cpu-1", {22, 10250}, {51820, 51821}),
    ],
)
def test_members_reach_what_kubernetes_needs_alone(name: str, tcp: set[int], udp: set[int]) -> None:
    rules = firewall(name, **THREE)
    assert let_in(rules, "@members") == tcp
    assert let_in(rules, "@members", "udp") == udp
    assert "policy drop" in chain(rules, "input")[0]
    assert "ip saddr @members accept" not in chain(rules, "input")
    assert "elements = { 10.77.0.10-10.77.0.14 }" in rules


@pytest.mark.parametrize(
    ("backend", "udp"), [("vxlan", {8472}), ("host-gw", set()), ("wireguard-native", {51820, 51821})]
)
def test_pods_traffic_comes_in_as_the_backend_sends_it(backend: str, udp: set[int]) -> None:
    assert let_in(firewall("cpu-1", k3s={"flannel_backend": backend}), "@members", "udp") == udp


def test_etcd_is_among_servers_alone() -> None:
    three = "{ 10.77.0.10, 10.77.0.11, 10.77.0.12 }"
    assert let_in(firewall("head", **THREE), three) == {2379, 2380}
    assert let_in(firewall("head-2", **THREE), three) == {2379, 2380}
    assert "2379" not in firewall("cpu-1", **THREE)
    assert "2379" not in firewall("head")  # alone


def test_the_embedded_registry_is_open_among_nodes_where_it_is_asked_for() -> None:
    """Each node serves its images on 6443 and tells of them on 5001 (k3s documentation, "Embedded Registry Mirror")."""
    asked = {**THREE, "k3s": {"embedded_registry": True}}
    for name in MACHINES:
        assert {5001, 6443} <= let_in(firewall(name, **asked), "@members")
        assert 5001 not in let_in(firewall(name, **THREE), "@members")


def test_the_api_has_a_door_on_the_head_alone_and_where_it_is_asked_for() -> None:
    asked = {**THREE, "k3s": API_FROM}
    head = firewall("head", **asked)
    assert let_in(head, "{ 192.0.2.0/24 }") == {6443}
    assert "ip6 saddr { 2001:db8::/32 } tcp dport 6443 accept" in chain(head, "input")
    assert let_in(head, "@guarded_ipv4") == {22, 6443}
    assert let_in(firewall("head", **THREE), "@guarded_ipv4") == {22}
    for name in ("head-2", "cpu-1"):
        assert "192.0.2.0" not in firewall(name, **asked)
        assert let_in(firewall(name, **asked), "@guarded_ipv4") == set()
    assert not any("saddr { 0.0.0.0/0 }" in rule and 6443 in ports(rule) for rule in chain(head, "input"))


@pytest.mark.parametrize("name", MACHINES)
def test_pods_go_everywhere_but_to_where_root_alone_may(name: str) -> None:
    rules = chain(firewall(name, **THREE, k3s={"pod_network": "10.244.0.0/16"}), "forward")
    assert "policy drop" in rules[0]
    rejected = rules.index("ip daddr @guarded_ipv4 reject with icmp type admin-prohibited")
    # Names are asked where the cloud says; nothing else is accepted before guarded addresses are refused.
    before = rules[2:rejected]
    assert [ports(rule) for rule in before] == [{53}, {53}]
    assert all("daddr @guarded_ipv4" in rule for rule in before)
    # Reports and NFS take a low port of a member for root, and flannel gives a pod's packets a member's address.
    low = 'ip saddr 10.244.0.0/16 ip daddr @members tcp sport < 1024 reject with icmp type admin-prohibited comment "'
    assert rules[rejected + 1].startswith(low)
    assert rules.index("ip saddr 10.244.0.0/16 accept") == rejected + 2
    assert rules.index("ip saddr @members ip daddr 10.244.0.0/16 accept") > rejected
    # A pod's own machine is asked for the kubelet, on servers for the API.
    own = let_in(firewall(name, **THREE, k3s={"pod_network": "10.244.0.0/16"}), "10.244.0.0/16")
    assert own == ({10250} if name == "cpu-1" else {10250, 6443})


@pytest.mark.parametrize("name", MACHINES)
def test_only_the_head_forwards_for_machines_and_doors(name: str) -> None:
    rules = firewall(name, **FULL)
    head = name == "head"
    assert any("daddr != 10.77.0.0/16" in rule for rule in chain(rules, "forward")) == head
    assert ("masquerade" in rules) == head
    doors = [rule for rule in chain(rules, "forward") if "ct status dnat" in rule]
    assert {port for rule in doors for port in ports(rule)} == ({80, 443, 6443} if head else set())
    # nft reads no port of a connection whose protocol is not said.
    assert all("meta l4proto tcp ct status dnat ct original proto-dst" in rule for rule in doors)


@pytest.mark.parametrize("name", MACHINES)
def test_processes_that_are_not_roots_are_kept_from_guarded_addresses(name: str) -> None:
    rules = chain(firewall(name, **THREE), "output")
    assert "meta skuid != 0 ip daddr @guarded_ipv4 reject with icmp type admin-prohibited" in rules
    assert "meta skuid != 0 ip6 daddr @guarded_ipv6 reject with icmpv6 type admin-prohibited" in rules


@pytest.mark.parametrize("name", MACHINES)
def test_kubernetes_own_tables_stay(name: str) -> None:
    rules = firewall(name, **THREE)
    assert "flush ruleset" not in rules
    assert "\ntable inet vcluster\ndelete table inet vcluster\n" in rules
    stop = text_of(files_of(site(**THREE), name)["/etc/systemd/system/nftables.service.d/vcluster.conf"])
    assert "ExecStop=\nExecStop=-/usr/sbin/nft delete table inet vcluster\n" in stop


NFT = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@pytest.mark.skipif(NFT is None or os.geteuid() != 0, reason="needs nft (Debian: nftables) and root")
@pytest.mark.parametrize("name", MACHINES)
def test_nft_reads_it(name: str, tmp_path: Path) -> None:
    said = {}
    specs = {"local": THREE, "full": FULL, "api": {**THREE, "k3s": API_FROM}}
    for which, spec in specs.items():
        for guarded in (GUARDED, ("169.254.169.254/32", "fe80::a9fe:a9fe/128"), ()):
            rules = text_of(files_of(site(**spec, guarded=guarded), name)["/etc/nftables.conf"])
            (tmp_path / "rules").write_text(rules)
            command = [str(NFT), "-c", "-f", str(tmp_path / "rules")]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            said[which, guarded] = (done.returncode, done.stderr)
    assert set(said.values()) == {(0, "")}
