"""Three Kubernetes servers on real VMs: one dies and the API goes on, the head is lost and joins the others."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import Cli
from kubernetes import Kubernetes, needs_k3s

from vcluster.ready import EXIT_NEEDED

pytestmark = [pytest.mark.vm, pytest.mark.drill, needs_k3s]

SERVERS = {"head", "head-2", "head-3"}
TOMBSTONE = "/var/lib/rancher/k3s/server/db/etcd/tombstone"


@pytest.fixture(scope="module")
def ha(cli: Cli, vm_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    made = Kubernetes.up(
        cli,
        tmp_path_factory.mktemp("ha"),
        name="ha",
        head={"count": 3, "flavor": {"cpus": 1, "memory": "1536M", "disk": "8G"}},
        workers=[{"name": "cpu", "count": 0, "max_count": 1, "flavor": "small"}],
    )
    yield made
    made.down()
    assert not (vm_home / "local" / made.cluster.ref.id).exists()


def kill(ha: Kubernetes, name: str) -> None:
    uuid = next(m.uuid for m in ha.cluster.status().machines if m.name == name)
    for process in psutil.process_iter(["cmdline"]):
        if "-uuid" in (process.info["cmdline"] or ()) and uuid in process.info["cmdline"]:
            process.send_signal(signal.SIGKILL)


def members(ha: Kubernetes) -> set[str]:
    """The servers that Kubernetes says are etcd's."""
    return {
        node["metadata"]["name"]
        for node in ha.get("nodes")["items"]
        if node["metadata"]["labels"].get("node-role.kubernetes.io/etcd") == "true"
    }


def test_three_servers_are_one_cluster(ha: Kubernetes) -> None:
    assert ha.nodes() == dict.fromkeys(SERVERS, True)
    assert members(ha) == SERVERS


def test_etcd_lets_no_server_go_that_it_needs_and_takes_one_back_that_it_let_go(ha: Kubernetes) -> None:
    ha.on("head-3", "sudo systemctl stop k3s")
    try:
        end, said = time.monotonic() + 300, ""
        while "does not leave the database" not in said:  # a leader may have to be chosen
            assert time.monotonic() < end, said
            said = ha.on("head", "sudo vcluster-node release head-2; echo exit $?", check=False)
        assert f"exit {EXIT_NEEDED}" in said
    finally:
        ha.on("head-3", "sudo systemctl start --no-block k3s")
    # Now etcd can do without it, and Kubernetes asks again. Its k3s says that it was removed, and waits for a restart.
    end = time.monotonic() + 1500
    while "gone" not in ha.on("head-2", f"sudo test -e {TOMBSTONE} && echo gone", check=False):
        assert time.monotonic() < end
        time.sleep(5)
    ha.on("head-2", "sudo systemctl restart --no-block k3s")
    # k3s says that it is etcd's a while after its kubelet is ready.
    while not all(m.health == "ready" for m in ha.cluster.status().machines) or members(ha) != SERVERS:
        assert time.monotonic() < end
        time.sleep(10)
    assert "out of their database" in ha.on("head-2", "sudo journalctl -b -u k3s", check=False)


def test_a_server_dies_and_the_api_still_answers(cli: Cli, ha: Kubernetes) -> None:
    ha.kubectl("create", "configmap", "before", "--from-literal=word=kept")
    kill(ha, "head-3")
    end, said = time.monotonic() + 300, ""
    while "configmap/during" not in said:  # a leader may have to be chosen
        assert time.monotonic() < end, said
        said = ha.kubectl("create", "configmap", "during", "--from-literal=word=kept", check=False)
    assert ha.kubectl("get", "configmap", "before", "-o", "name") == "configmap/before\n"
    cli("up", str(ha.spec), "--yes", "--json", timeout=3600)
    assert ha.nodes() == dict.fromkeys(SERVERS, True)


def test_the_lost_head_is_made_anew_and_joins_the_others(cli: Cli, ha: Kubernetes) -> None:
    before = {m.name: m.uuid for m in ha.cluster.status().machines}
    ha.cluster.cloud.delete_machine(ha.cluster.ref, before["head"])
    cli("up", str(ha.spec), "--yes", "--json", timeout=3600)
    after = {m.name: m.uuid for m in ha.cluster.status().machines}
    assert {name for name in before if before[name] != after[name]} == {"head"}
    assert ha.nodes() == dict.fromkeys(SERVERS, True)
    assert members(ha) == SERVERS
    # What was there before the head was lost is there: it founded nothing of its own.
    assert ha.kubectl("get", "configmap", "before", "during", "-o", "name").split() == [
        "configmap/before",
        "configmap/during",
    ]
