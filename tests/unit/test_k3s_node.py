"""The head's own program for Kubernetes: when a node is ready, and which machines say that they failed."""

from __future__ import annotations

import io
import json
import os
import ssl
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from k3s_machines_kit import tls_folder
from k3s_node_kit import CLUSTER, NAMES, NOW, READY, certificates, health, kubernetes, node, node_object, probes
from kubernetes_kit import Kubernetes, stamp

from vcluster.k3s_ca import authority
from vcluster.secrets import Keyring

__all__ = ["certificates", "kubernetes", "node"]


def test_a_node_is_ready_when_a_pod_ran_on_it_once_per_boot(node: ModuleType, kubernetes: Kubernetes) -> None:
    assert health(node) == READY
    made = probes(kubernetes)
    assert {body["spec"]["nodeName"] for body in made} == set(NAMES)
    assert {body["spec"]["containers"][0]["image"] for body in made} == {"rancher/mirrored-pause:3.6"}
    assert all(body["spec"]["tolerations"] == [{"operator": "Exists"}] for body in made)
    assert kubernetes.pods == {}
    assert health(node) == READY
    assert probes(kubernetes) == []
    kubernetes.nodes["cpu-1"] = node_object("cpu-1", boot="B00T-2")
    assert health(node) == READY
    assert [body["spec"]["nodeName"] for body in probes(kubernetes)] == ["cpu-1"]
    assert set(kubernetes.clients) == {"system:masters"}


def test_an_api_that_is_not_there_yet(
    node: ModuleType, kubernetes: Kubernetes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kubernetes.active = False
    assert health(node) == dict.fromkeys(NAMES, "booting")
    assert kubernetes.asked == []  # systemd is cheaper to ask
    kubernetes.active = True
    for how in ({"unready": 500}, {"status": 503}):
        for key, value in how.items():
            setattr(kubernetes, key, value)
        assert health(node) == dict.fromkeys(NAMES, "booting")
    monkeypatch.setattr("vcluster_kube.PORT", 1)  # nobody listens
    assert health(node) == dict.fromkeys(NAMES, "booting")
    assert capsys.readouterr().err == "Kubernetes does not answer on the head yet\n" * 4
    (node.STATE / "failed").write_text("program\n")
    assert health(node)["head"] == "failed"


def test_of_several_servers_it_is_said_how_many_it_takes(
    node: ModuleType, kubernetes: Kubernetes, capsys: pytest.CaptureFixture[str]
) -> None:
    kubernetes.active = False
    facts = {"servers": dict.fromkeys(("head", "head-2", "head-3"), "10.0.0.9"), "founded": False}
    for founded, proved in ((False, False), (True, False), (False, True)):
        node.JOIN.write_text(json.dumps({**facts, "founded": founded}))
        if proved:
            node.remember("head", "boot-1", 1.0)
        assert health(node) == dict.fromkeys(NAMES, "booting")
        # Of a cluster that never was ready there is no backup.
        more = "; where too few are left, `vcluster restore` helps" if founded or proved else ""
        said = f"Kubernetes does not answer on the head yet, which takes 2 of 3 servers{more}\n"
        assert capsys.readouterr().err == said


def test_a_server_of_another_cluster_is_not_believed(
    node: ModuleType, certificates: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    foreign = tls_folder(tmp_path / "foreign")
    (foreign / "server-ca.crt").write_text(authority(Keyring(bytes(32)), "server-ca").certificate)
    monkeypatch.setattr("vcluster_kube.TLS", foreign)
    with pytest.raises(node.Sorry, match="CERTIFICATE_VERIFY_FAILED"):
        node.call("GET", "/readyz")


def test_a_node_that_is_not_there_or_not_well_boots(node: ModuleType, kubernetes: Kubernetes) -> None:
    del kubernetes.nodes["cpu-1"]
    kubernetes.nodes["cpu-2"] = node_object("cpu-2", ready="Unknown")
    kubernetes.nodes["head-2"]["status"] = {}
    assert health(node) == {"head": "ready", "head-2": "booting", "cpu-1": "booting", "cpu-2": "booting"}
    assert [body["spec"]["nodeName"] for body in probes(kubernetes)] == ["head"]


def test_a_stranger_among_the_nodes_is_nobodys_matter(node: ModuleType, kubernetes: Kubernetes) -> None:
    kubernetes.nodes["laptop"] = node_object("laptop")
    assert health(node) == READY


def test_a_head_that_is_still_at_work_boots(node: ModuleType) -> None:
    (node.STATE / "configured").unlink()
    assert health(node) == {**READY, "head": "booting"}


def test_a_probe_that_does_not_run_yet_is_looked_at_again_and_not_made_twice(
    node: ModuleType, kubernetes: Kubernetes
) -> None:
    del kubernetes.becomes["cpu-1"]
    for _ in range(2):
        assert health(node) == {**READY, "cpu-1": "booting"}
        assert [key[1] for key in kubernetes.pods] == ["probe-cpu-1-001cpu1"]
    kubernetes.becomes["cpu-1"] = "Succeeded"
    assert health(node) == READY
    assert kubernetes.pods == {}


def test_a_probe_that_failed_is_made_anew(node: ModuleType, kubernetes: Kubernetes) -> None:
    kubernetes.becomes["cpu-1"] = "Failed"
    assert health(node)["cpu-1"] == "booting"
    assert kubernetes.pods == {}
    kubernetes.becomes["cpu-1"] = "Running"
    assert health(node)["cpu-1"] == "ready"


def test_silent_nodes_keep_nobody_from_being_probed(
    node: ModuleType, kubernetes: Kubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one probe at a time and no patience at all, each node has its pod after one look, and is ready after two."""
    names = [f"cpu-{n}" for n in range(10, 18)]
    monkeypatch.setattr(node, "PROBES_AT_ONCE", 1)
    kubernetes.nodes |= {name: node_object(name) for name in names}
    kubernetes.leases |= dict.fromkeys(names, stamp(NOW))
    cluster = {**CLUSTER, "workers": dict.fromkeys(names, "10.0.0.1")}
    assert {node.health(cluster, {})[name] for name in names} == {"booting"}
    assert len(kubernetes.pods) == len(names)
    silent = set(names[:3])
    kubernetes.becomes |= dict.fromkeys(set(names) - silent, "Running")
    answer = node.health(cluster, {})
    assert {name for name in names if answer[name] == "ready"} == set(names) - silent


def test_a_probe_is_waited_for_a_while(
    node: ModuleType, kubernetes: Kubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    del kubernetes.becomes["cpu-1"]
    monkeypatch.setattr(node, "PROBE_SECONDS", 60)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        kubernetes.becomes["cpu-1"] = "Running"

    monkeypatch.setattr(node.time, "sleep", sleep)
    assert health(node) == READY
    assert slept == [0.5]


def test_the_probes_namespace_is_made_and_its_account_waited_for(node: ModuleType, kubernetes: Kubernetes) -> None:
    kubernetes.accounts.clear()
    assert health(node) == dict.fromkeys(NAMES, "booting")
    assert kubernetes.accounts == {"vcluster"}
    assert kubernetes.pods == {}
    assert health(node) == READY


def test_the_probes_image_is_what_k3s_says_it_has_anyway(node: ModuleType, kubernetes: Kubernetes) -> None:
    (node.STATE / "pause-image").unlink()
    kubernetes.help = "no such thing\n"
    assert set(health(node).values()) == {"booting"}
    kubernetes.help = '   --pause-image value   (agent/runtime) Customized (default: "rancher/mirrored-pause:3.6")\n'
    assert health(node) == READY
    kubernetes.help = "gone"
    assert node.pause_image() == "rancher/mirrored-pause:3.6"


def test_after_an_upgrade_the_probes_image_is_asked_for_again(
    node: ModuleType, kubernetes: Kubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes made since then do not have the old one."""
    program = tmp_path / "k3s"
    program.write_text("new")
    known = node.STATE / "pause-image"
    monkeypatch.setattr(node, "K3S", program)
    os.utime(known, (1.0, 1.0))
    kubernetes.help = '(default: "x")\n   --pause-image value   (agent/runtime) Customized (default: "pause:3.9")\n'
    assert node.pause_image() == "pause:3.9"
    os.utime(known, (later := time.time() + 60.0, later))
    kubernetes.help = "gone"
    assert node.pause_image() == "pause:3.9"


def test_a_node_that_is_silent_boots_whatever_kubernetes_still_says(node: ModuleType, kubernetes: Kubernetes) -> None:
    assert health(node) == READY
    kubernetes.leases |= {"cpu-1": stamp(NOW - 60), "cpu-2": None}
    del kubernetes.leases["head-2"]
    assert health(node) == {"head": "ready", "head-2": "booting", "cpu-1": "booting", "cpu-2": "booting"}


def test_a_machine_that_was_started_anew_has_to_call_again(node: ModuleType, kubernetes: Kubernetes) -> None:
    """The last heartbeat of its earlier life may be from after its start, by clocks that differ."""
    health(node, cpu_1=NOW - 1000)
    assert health(node, cpu_1=NOW - 1000)["cpu-1"] == "ready"
    assert health(node, cpu_1=NOW - 10)["cpu-1"] == "booting"
    assert health(node, cpu_1=NOW - 100)["cpu-1"] == "ready"
    kubernetes.nodes["cpu-1"] = node_object("cpu-1", boot="B00T-2")
    assert health(node, cpu_1=NOW - 10)["cpu-1"] == "ready"
    assert health(node, cpu_1=NOW - 10)["cpu-1"] == "ready"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05Z", 1767323045.0),
        ("2026-01-02T03:04:05.25Z", 1767323045.25),
        ("2026-01-02T03:04:05.123456Z", 1767323045.123456),
        ("2026-01-02T03:04:05.123456789Z", 1767323045.123456),
        (None, 0.0),
    ],
)
def test_kubernetes_times(node: ModuleType, text: str | None, expected: float) -> None:
    assert sys.modules["vcluster_kube"].seconds(text) == expected


# Reports -------------------------------------------------------------------------------------------------------------


def report(node: ModuleType, monkeypatch: pytest.MonkeyPatch, address: str, port: str) -> None:
    monkeypatch.setenv("REMOTE_ADDR", address)
    monkeypatch.setenv("REMOTE_PORT", port)
    monkeypatch.setattr(node.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"setup\n" + b"x" * 5000)))
    node.listen(CLUSTER)


@pytest.mark.parametrize(
    ("address", "name"), [("10.0.0.1", "cpu-1"), ("::ffff:10.0.0.1", "cpu-1"), ("10.0.0.9", "head-2")]
)
def test_a_machine_says_that_it_failed(
    node: ModuleType, monkeypatch: pytest.MonkeyPatch, address: str, name: str
) -> None:
    report(node, monkeypatch, address, "1001")
    assert health(node) == {**READY, name: "failed"}
    assert (sys.modules["vcluster_reports"].REPORTS / name).read_text() == "setup\n"
    os.utime(sys.modules["vcluster_reports"].REPORTS / name, (NOW - 60, NOW - 60))
    assert health(node) == READY


def test_a_failure_is_heard_before_kubernetes_answers(
    node: ModuleType, kubernetes: Kubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubernetes.status = 503
    report(node, monkeypatch, "10.0.0.1", "1001")
    assert health(node) == {**dict.fromkeys(NAMES, "booting"), "cpu-1": "failed"}
    kubernetes.status = 0
    node.release(CLUSTER, ["cpu-1"])  # it is made anew, and its earlier life's word does not count
    assert health(node)["cpu-1"] == "booting"


@pytest.mark.parametrize(
    ("address", "port"), [("10.0.0.1", "40000"), ("10.0.0.1", "1024"), ("10.0.0.77", "1001"), ("", "1001")]
)
def test_not_everybody_is_believed(node: ModuleType, monkeypatch: pytest.MonkeyPatch, address: str, port: str) -> None:
    with pytest.raises(node.Sorry, match="not believed"):
        report(node, monkeypatch, address, port)
    assert not sys.modules["vcluster_reports"].REPORTS.exists()


# The command line ----------------------------------------------------------------------------------------------------


def test_strangers_are_refused(node: ModuleType, kubernetes: Kubernetes) -> None:
    for names in ([], ["cpu-1", "laptop"], ["../head"]):
        for act in (node.resume, node.release, lambda cluster, who: node.drain(cluster, who, "why")):
            with pytest.raises(node.Sorry, match="machine"):
                act(CLUSTER, names)
    assert kubernetes.said("DELETE") == kubernetes.said("PATCH") == []


def test_the_words(
    node: ModuleType,
    kubernetes: Kubernetes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "cluster.json").write_text(json.dumps(CLUSTER))
    monkeypatch.setattr(node, "CLUSTER", tmp_path / "cluster.json")
    monkeypatch.setattr(node.sys, "stdin", io.StringIO('{"cpu-1": 1.5}'))
    node.main(["health"])
    assert json.loads(capsys.readouterr().out) == READY
    node.main(["drain", "cpu-1", "cpu-2", "--reason", "vcluster: scale"])
    node.main(["resume", "cpu-2"])
    node.main(["release", "head-2"])
    assert set(kubernetes.nodes) == {"head", "cpu-1", "cpu-2"}
    assert [name for name in NAMES if kubernetes.nodes.get(name, {}).get("spec")] == ["cpu-1"]
    for words in ([], ["dance"], ["drain", "cpu-1"]):
        with pytest.raises(node.Sorry, match="usage"):
            node.main(words)
