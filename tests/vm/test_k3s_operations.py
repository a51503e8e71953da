"""On real VMs with a real k3s: kubectl from here, a backup and back, another program on every machine."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from conftest import Cli, Watch
from kubernetes import PROGRAM, Kubernetes, needs_k3s

from tests.lab.layout import free_ports
from vcluster.k3s_ca import server_token

pytestmark = [pytest.mark.vm, pytest.mark.drill, needs_k3s]


@pytest.fixture(scope="module")
def demo(cli: Cli, vm_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    workers = [{"name": "cpu", "count": 1, "flavor": {"cpus": 1, "memory": "1G", "disk": "6G"}}]
    made = Kubernetes.up(cli, tmp_path_factory.mktemp("operations"), workers=workers)
    yield made
    made.down()


@contextmanager
def forwarded(demo: Kubernetes, port: int) -> Iterator[None]:
    """The way that `vcluster forward` makes."""
    with subprocess.Popen(demo.cluster.forward_command(6443, port)) as process:
        try:
            end = time.monotonic() + 60
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    assert time.monotonic() < end
                    time.sleep(0.2)
            yield
        finally:
            process.terminate()


def configmaps(demo: Kubernetes) -> set[str]:
    names = {item["metadata"]["name"] for item in demo.get("configmaps")["items"]}
    return names - {"kube-root-ca.crt"}


def test_kubectl_works_from_here_by_the_merged_file(cli: Cli, demo: Kubernetes, tmp_path: Path) -> None:
    (port,), mine = free_ports(1), tmp_path / "config"
    os.environ["KUBECONFIG"] = str(mine)
    try:
        cli("kubeconfig", demo.name, "--merge", "--port", str(port))
    finally:
        del os.environ["KUBECONFIG"]
    assert mine.stat().st_mode & 0o777 == 0o600
    words = [PROGRAM, "kubectl", "--kubeconfig", str(mine), "get", "nodes", "-o", "name"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    with forwarded(demo, port):
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert sorted(done.stdout.split()) == ["node/cpu-1", "node/head"], done.stderr


def test_what_came_after_a_backup_goes_with_a_restore(cli: Cli, demo: Kubernetes, tmp_path: Path) -> None:
    demo.kubectl("create", "configmap", "before")
    told = cli.json("backup", demo.name, str(tmp_path))
    file = Path(str(told["file"]))
    assert file.stat().st_mode & 0o777 == 0o600
    assert "vcluster-passing" not in demo.on("head", "sudo ls /var/lib/rancher/k3s/server/db/snapshots", check=False)
    demo.kubectl("create", "configmap", "after")
    demo.run_pod("later", "cpu-1", "sleep 10000")
    demo.phase("later", "Running")
    assert configmaps(demo) == {"before", "after"}
    cli("restore", demo.name, str(file), "--yes")
    assert configmaps(demo) == {"before"}
    assert demo.nodes() == {"head": True, "cpu-1": True}
    # The node's kubelet ends what the restored Kubernetes does not know.
    end = time.monotonic() + 300
    while "sleep 10000" in demo.on("cpu-1", "ps -eo args"):
        assert time.monotonic() < end
        time.sleep(5)
    assert cli.json("up", str(demo.spec), "--yes")["changed"] is False


def test_every_machine_gets_another_program_and_the_new_spec_is_the_clusters(
    cli: Cli, demo: Kubernetes, tmp_path: Path
) -> None:
    """The same release with another checksum: what stands behind a program's end does not change what it does."""
    other = tmp_path / "k3s"
    other.write_bytes(Path(PROGRAM).read_bytes() + b"\0")
    other.chmod(0o755)
    sha256 = hashlib.sha256(other.read_bytes()).hexdigest()
    data = yaml.safe_load(demo.spec.read_text())
    data["k3s"]["binary"] = str(other)
    new = tmp_path / "new.yaml"
    new.write_text(yaml.safe_dump(data))
    boots = {name: demo.on(name, "cat /proc/sys/kernel/random/boot_id") for name in ("head", "cpu-1")}
    assert "vcluster upgrade" in cli("up", str(new), "--yes", code=2).stderr
    assert cli.json("upgrade", str(new))["changed"] == ["head", "cpu-1"]
    for name in ("head", "cpu-1"):
        assert demo.on(name, "sha256sum /usr/local/bin/k3s").split()[0] == sha256
        assert demo.on(name, "cat /proc/sys/kernel/random/boot_id") == boots[name]
    assert demo.nodes() == {"head": True, "cpu-1": True}
    assert not any(node["spec"].get("unschedulable") for node in demo.get("nodes")["items"])
    assert cli.json("upgrade", str(new))["changed"] == []
    assert cli.json("up", str(new), "--yes")["changed"] is False


def test_no_secret_was_in_an_argument_or_in_what_was_printed(demo: Kubernetes, watch: Watch) -> None:
    token = server_token(demo.cluster.folder.keyring())
    key = json.loads(demo.kubectl("config", "view", "--raw", "-o", "json"))["users"][0]["user"]["client-key-data"]
    for secret in (token, key[:60]):
        assert not any(secret in text for text in (*watch.seen, *watch.printed))
