"""Kubernetes on real VMs with a real k3s: what acceptance 1 and 2 of its issue ask for, on one booted cluster.

The tests run in the order of this file; the last ones break the cluster, repair it, and make it smaller.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import Cli, Watch
from kubernetes import Kubernetes, needs_k3s
from secret_search import search

from vcluster.k3s_ca import AUTHORITIES, agent_token, authority, server_token

pytestmark = [pytest.mark.vm, pytest.mark.drill, needs_k3s]

# A pod's page, for the others. Debian's wget of busybox 1.35 crashes with -T.
SERVE = "httpd -f -p 8080 -h /www"
FETCH = "timeout 20 wget -qO- http://{address}:8080/"


@pytest.fixture(scope="module")
def demo(cli: Cli, vm_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    made = Kubernetes.up(cli, tmp_path_factory.mktemp("k3s"))
    yield made
    made.down()
    assert not (vm_home / "local" / made.cluster.ref.id).exists()


def test_every_node_is_ready_and_says_its_group(demo: Kubernetes) -> None:
    assert demo.nodes() == {"head": True, "cpu-1": True, "cpu-2": True}
    labels = {n["metadata"]["name"]: n["metadata"]["labels"].get("vcluster/group") for n in demo.get("nodes")["items"]}
    assert labels == {"head": None, "cpu-1": "cpu", "cpu-2": "cpu"}
    assert demo.kubectl("get", "pods", "-n", "vcluster", check=False).startswith("No resources")


def test_a_second_up_changes_nothing_and_says_so(cli: Cli, demo: Kubernetes) -> None:
    assert cli.json("up", str(demo.spec), "--yes")["changed"] is False


def test_pods_of_our_image_run_on_each_agent_and_reach_each_other(demo: Kubernetes) -> None:
    demo.run_pod("server", "cpu-1", SERVE)
    address = demo.phase("server", "Running")["status"]["podIP"]
    demo.run_pod("client", "cpu-2", FETCH.format(address=address))
    demo.phase("client", "Succeeded", "Failed")
    assert demo.kubectl("logs", "client") == "from a pod\n"
    demo.kubectl("delete", "pod", "client")


@pytest.mark.parametrize("address", ["10.0.2.2", "169.254.169.254"])
def test_a_pod_reaches_neither_the_hosts_loopback_nor_metadata(demo: Kubernetes, address: str) -> None:
    name = f"spy-{address.replace('.', '-')}"
    demo.run_pod(name, "cpu-1", f"timeout 20 wget -qO- http://{address}/; echo ended")
    demo.phase(name, "Succeeded", "Failed")
    said = demo.kubectl("logs", name)
    assert "ended" in said
    assert "unreachable" in said or "prohibited" in said or "No route" in said
    demo.kubectl("delete", "pod", name)


def test_an_agent_holds_nothing_that_makes_it_a_server(demo: Kubernetes) -> None:
    ring = demo.cluster.folder.keyring()
    keys = [authority(ring, name).key.encode().splitlines()[1] for name in AUTHORITIES]
    assert search(demo.cluster, "cpu-1", [server_token(ring).encode(), *keys], readable=False) == ""
    assert search(demo.cluster, "head", [server_token(ring).encode(), *keys], readable=True) == ""
    # With what it has it asks for what only servers are given: the authorities' keys.
    asked = "curl -sk -o /dev/null -w '%{http_code}' -K - https://vcluster-servers:6443/v1-k3s/server-bootstrap"
    codes = {user: demo.told("cpu-1", asked, f"user = {user}:{agent_token(ring)}") for user in ("node", "server")}
    assert set(codes.values()) <= {"401", "403"}, codes
    right = asked.replace("vcluster-servers", "127.0.0.1")
    assert demo.told("head", right, f"user = server:{server_token(ring)}") == "200"


def test_secrets_are_encrypted_in_the_database_and_in_no_argument(demo: Kubernetes, watch: Watch) -> None:
    demo.kubectl("create", "secret", "generic", "probe", "--from-literal=word=unmistakable-needle")
    found = demo.on("head", "sudo grep -rlac unmistakable-needle /var/lib/rancher/k3s/server/db || true")
    assert found == ""
    ring = demo.cluster.folder.keyring()
    for machine in ("head", "cpu-1"):
        arguments = demo.on(machine, "sudo cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert not [word for word in (server_token(ring), agent_token(ring)) if word in arguments]
    assert not [line for line in [*watch.seen, *watch.printed] if server_token(ring) in line]


def test_kubeconfig_works_from_this_computer(cli: Cli, demo: Kubernetes, tmp_path: Path) -> None:
    config = tmp_path / "config"
    cli("kubeconfig", "demo", "--output", str(config))
    assert config.stat().st_mode & 0o777 == 0o600
    program = os.environ["VCLUSTER_TEST_K3S"]
    forward = demo.cluster.forward_command(6443, 6443)
    tunnel = subprocess.Popen(forward, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end, said = time.monotonic() + 120, ""
        while "cpu-1" not in said:
            assert time.monotonic() < end, said
            argv = [program, "kubectl", "--kubeconfig", str(config), "--context", "demo", "get", "nodes"]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
            said = done.stdout + done.stderr
        assert {line.split()[0] for line in done.stdout.splitlines()[1:]} == {"head", "cpu-1", "cpu-2"}
    finally:
        tunnel.kill()
        tunnel.wait()


def qemu_of(demo: Kubernetes, name: str) -> psutil.Process:
    uuid = next(m.uuid for m in demo.cluster.status().machines if m.name == name)
    found = [
        p
        for p in psutil.process_iter(["cmdline"])
        if "-uuid" in (p.info["cmdline"] or ()) and uuid in p.info["cmdline"]
    ]
    assert len(found) == 1
    return found[0]


def test_an_agent_whose_vm_is_killed_is_mended_by_up(cli: Cli, demo: Kubernetes) -> None:
    qemu_of(demo, "cpu-2").send_signal(signal.SIGKILL)
    assert cli.json("up", str(demo.spec), "--yes")["changed"] is True
    assert demo.nodes()["cpu-2"]
    demo.run_pod("again", "cpu-2", "echo back")
    demo.phase("again", "Succeeded")
    demo.kubectl("delete", "pod", "again")


def test_an_agent_is_replaced_under_the_same_name(cli: Cli, demo: Kubernetes) -> None:
    before = {m.name: m.uuid for m in demo.cluster.status().machines}
    cli("replace", "demo", "cpu-2", "--yes")
    after = {m.name: m.uuid for m in demo.cluster.status().machines}
    assert {name for name in before if before[name] != after[name]} == {"cpu-2"}
    assert demo.nodes() == {"head": True, "cpu-1": True, "cpu-2": True}


def test_scaling_down_drains_first_and_the_node_is_gone(cli: Cli, demo: Kubernetes) -> None:
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "topologySpreadConstraints": [
                        {
                            "maxSkew": 1,
                            "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "ScheduleAnyway",
                            "labelSelector": {"matchLabels": {"app": "web"}},
                        }
                    ],
                    "containers": [
                        {
                            "name": "web",
                            "image": "localhost/vcluster-test:1",
                            "imagePullPolicy": "Never",
                            "command": ["sh", "-c", SERVE],
                        }
                    ],
                },
            },
        },
    }
    demo.kubectl("apply", "-f", "-", stdin=json.dumps(deployment))
    demo.kubectl("rollout", "status", "deployment/web", "--timeout=240s")
    lines = cli("scale", "demo", "cpu", "1", "--yes", "--json").stdout.splitlines()
    told = [event for event in map(json.loads, lines) if "kind" in event]
    steps = [f"{event['action']} {event['subject']}" for event in told if event["kind"] == "started"]
    assert steps.index("drain worker cpu-2") < steps.index("delete machine cpu-2"), steps
    assert demo.nodes() == {"head": True, "cpu-1": True}
    demo.kubectl("rollout", "status", "deployment/web", "--timeout=240s")
    where = {pod["spec"]["nodeName"] for pod in demo.get("pods", "-l", "app=web")["items"]}
    assert where == {"cpu-1"}


def boot_id(demo: Kubernetes) -> str:
    """Which boot of the head answers; empty while none does."""
    said = demo.on("head", "cat /proc/sys/kernel/random/boot_id", check=False).strip()
    return said if re.fullmatch(r"[0-9a-f-]{36}", said) else ""


def test_the_head_reboots_and_all_is_as_it_was(cli: Cli, demo: Kubernetes) -> None:
    demo.kubectl("create", "configmap", "kept", "--from-literal=word=kept")
    before = boot_id(demo)
    demo.on("head", "sudo systemd-run --on-active=1 /sbin/reboot", check=False)
    end = time.monotonic() + 600
    while boot_id(demo) in (before, ""):
        assert time.monotonic() < end, "the head does not come back"
        time.sleep(2)
    cli("up", str(demo.spec), "--yes", "--json", timeout=3600)
    assert demo.nodes()["head"]
    assert demo.kubectl("get", "configmap", "kept", "-o", "name") == "configmap/kept\n"
