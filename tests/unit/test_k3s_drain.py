"""The head's own program for Kubernetes: nodes that are drained, taken back, and forgotten."""

from __future__ import annotations

import json
import os
from types import ModuleType, SimpleNamespace

import pytest
from k3s_node_kit import CLUSTER, READY, certificates, health, kubernetes, node, node_object, probes
from kubernetes_kit import Kubernetes, Object, pod, stamp

import vcluster.ready

__all__ = ["certificates", "kubernetes", "node"]


def put(kubernetes: Kubernetes, *pods: Object) -> None:
    kubernetes.pods |= {(each["metadata"]["namespace"], each["metadata"]["name"]): each for each in pods}


def there(kubernetes: Kubernetes) -> set[str]:
    return {name for _, name in kubernetes.pods}


def drain(node: ModuleType, *names: str) -> None:
    node.drain(CLUSTER, list(names), "vcluster: scale")


def test_pods_that_end_by_themselves_are_waited_for(node: ModuleType, kubernetes: Kubernetes) -> None:
    health(node)
    put(kubernetes, pod("job", "cpu-1", "Job"), pod("bare", "cpu-1"), pod("elsewhere", "cpu-2", "Job"))
    drain(node, "cpu-1")
    assert kubernetes.nodes["cpu-1"]["spec"]["unschedulable"] is True
    assert kubernetes.nodes["cpu-1"]["metadata"]["annotations"] == {"vcluster/drained": "vcluster: scale"}
    assert health(node) == {**READY, "cpu-1": "busy"}
    assert there(kubernetes) == {"job", "bare", "elsewhere"}
    kubernetes.pods["class", "job"]["status"]["phase"] = "Succeeded"
    assert health(node)["cpu-1"] == "busy"
    kubernetes.pods["class", "bare"]["status"]["phase"] = "Failed"
    assert health(node) == {**READY, "cpu-1": "drained"}


@pytest.mark.parametrize("owner", ["ReplicaSet", "StatefulSet", "ReplicationController"])
def test_pods_that_are_made_anew_elsewhere_are_asked_to_go_at_once(
    node: ModuleType, kubernetes: Kubernetes, owner: str
) -> None:
    put(kubernetes, pod("web", "cpu-1", owner), pod("job", "cpu-1", "Job"))
    drain(node, "cpu-1")
    assert there(kubernetes) == {"job"}


def test_what_every_node_has_does_not_count(node: ModuleType, kubernetes: Kubernetes) -> None:
    mirror = {"annotations": {"kubernetes.io/config.mirror": "x"}}
    put(
        kubernetes,
        pod("flannel", "cpu-1", "DaemonSet", namespace="kube-system"),
        pod("static", "cpu-1", "Node", **mirror),
        pod("mirrored", "cpu-1", **mirror),
        pod("done", "cpu-1", "Job", phase="Succeeded"),
        pod("probe-cpu-1-x", "cpu-1", namespace="vcluster"),
    )
    drain(node, "cpu-1")
    assert health(node)["cpu-1"] == "drained"
    assert len(kubernetes.pods) == 5


def test_a_disruption_budget_is_kept_and_asked_again(node: ModuleType, kubernetes: Kubernetes) -> None:
    put(kubernetes, pod("web", "cpu-1", "ReplicaSet"))
    kubernetes.protected = {"web": 429}
    drain(node, "cpu-1")
    assert health(node)["cpu-1"] == "busy"
    assert len(kubernetes.said("POST", "/api/v1/namespaces/class/pods/web/eviction")) == 2
    kubernetes.protected.clear()
    assert health(node)["cpu-1"] == "busy"  # it is on its way
    assert there(kubernetes) == set()
    assert health(node)["cpu-1"] == "drained"


@pytest.mark.parametrize("status", [403, 500])
def test_an_eviction_that_is_refused_for_good_leaves_that_node_busy_and_the_others_told_of(
    node: ModuleType, kubernetes: Kubernetes, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    health(node)
    put(kubernetes, pod("web", "cpu-1", "ReplicaSet"), pod("other", "cpu-1", "ReplicaSet"))
    kubernetes.protected = {"web": status}
    drain(node, "cpu-1")
    assert there(kubernetes) == {"web"}
    assert health(node) == {**READY, "cpu-1": "busy"}
    assert "/pods/web/eviction: Cannot evict pod" in capsys.readouterr().err


@pytest.mark.parametrize("refusal", [404, 400])
def test_an_older_kubernetes_is_asked_in_its_own_words(node: ModuleType, kubernetes: Kubernetes, refusal: int) -> None:
    put(kubernetes, pod("web", "cpu-1", "ReplicaSet"))
    kubernetes.policies, kubernetes.no_policy = ("v1beta1",), refusal
    drain(node, "cpu-1")
    assert there(kubernetes) == set()


def test_a_pod_that_goes_already_is_not_asked_again(node: ModuleType, kubernetes: Kubernetes) -> None:
    put(kubernetes, pod("web", "cpu-1", "ReplicaSet", deletionTimestamp=stamp(0)))
    drain(node, "cpu-1")
    assert health(node)["cpu-1"] == "busy"
    assert there(kubernetes) == {"web"}


def test_a_node_that_never_called_can_be_drained_and_taken_back(node: ModuleType, kubernetes: Kubernetes) -> None:
    del kubernetes.nodes["cpu-1"]
    drain(node, "cpu-1", "cpu-2")
    assert kubernetes.nodes["cpu-2"]["spec"]["unschedulable"] is True
    node.resume(CLUSTER, ["cpu-1", "cpu-2"])
    assert "unschedulable" not in kubernetes.nodes["cpu-2"]["spec"]


def test_only_what_was_drained_by_us_is_taken_back(node: ModuleType, kubernetes: Kubernetes) -> None:
    health(node)
    kubernetes.nodes["cpu-2"]["spec"]["unschedulable"] = True  # kubectl cordon, by a person
    drain(node, "cpu-1")
    node.resume(CLUSTER, ["cpu-1", "cpu-2"])
    assert kubernetes.nodes["cpu-1"]["spec"] == {}
    assert kubernetes.nodes["cpu-1"]["metadata"]["annotations"] == {}
    assert kubernetes.nodes["cpu-2"]["spec"] == {"unschedulable": True}
    assert health(node) == READY  # a person's cordon says nothing of a node's health


def test_a_server_can_be_drained(node: ModuleType, kubernetes: Kubernetes) -> None:
    health(node)
    put(kubernetes, pod("coredns", "head", "ReplicaSet", namespace="kube-system"))
    drain(node, "head", "head-2")
    assert there(kubernetes) == set()
    assert health(node) == {**READY, "head": "drained", "head-2": "drained"}


# Release -------------------------------------------------------------------------------------------------------------


def test_a_machine_that_goes_takes_its_node_and_its_proof_along(
    node: ModuleType, kubernetes: Kubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    health(node)
    monkeypatch.setattr(node.time, "sleep", lambda _: None)
    kubernetes.lingers = 2  # until what watches over it agrees
    node.release(CLUSTER, ["cpu-1", "head-2"])
    assert set(kubernetes.nodes) == {"head", "cpu-2"}
    assert {path.name for path in node.PROOFS.iterdir()} == {"head", "cpu-2"}
    node.release(CLUSTER, ["cpu-1"])  # nobody knows it any more
    assert set(kubernetes.nodes) == {"head", "cpu-2"}
    kubernetes.nodes["cpu-1"] = node_object("cpu-1")  # made anew, with the same disk's boot id
    probes(kubernetes)
    assert health(node)["cpu-1"] == "ready"
    assert [body["spec"]["nodeName"] for body in probes(kubernetes)] == ["cpu-1"]


def test_a_server_that_the_database_needs_is_no_machine_to_delete(
    node: ModuleType, kubernetes: Kubernetes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(node, "GONE_SECONDS", 0.1)
    kubernetes.lingers = 10**6
    node.JOIN.write_text(json.dumps({"servers": {"head": "10.0.0.8", "head-2": "10.0.0.9"}}))
    node.release(CLUSTER, ["cpu-1"])  # as ever: its name is asked for again before it is given away
    with pytest.raises(SystemExit) as caught:
        node.release(CLUSTER, ["head-2"])
    assert caught.value.code == node.EXIT_NEEDED == vcluster.ready.EXIT_NEEDED
    assert "head-2 does not leave the database" in capsys.readouterr().err


@pytest.fixture
def servers(node: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers, and a clock that each wait moves on by half a second."""
    monkeypatch.setattr(node, "DATABASE", node.STATE)
    node.JOIN.write_text(json.dumps({"servers": {"head": "10.0.0.8", "head-2": "10.0.0.9"}}))
    naps: list[float] = []
    clock = SimpleNamespace(time=node.time.time, monotonic=lambda: sum(naps), sleep=naps.append)
    monkeypatch.setattr(node, "time", clock)


def linger(kubernetes: Kubernetes, name: str) -> None:
    """Let a node be one that etcd holds no more, and k3s' leader does."""
    kubernetes.nodes[name] = node_object(name) | {
        "metadata": {"name": name, "deletionTimestamp": "now", "finalizers": ["wrangler.cattle.io/node"]}
    }
    kubernetes.lingers = 10**6


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("name", ["head-2", "cpu-1"])
def test_a_node_that_only_the_leader_still_holds_is_let_go(node: ModuleType, kubernetes: Kubernetes, name: str) -> None:
    linger(kubernetes, name)

    def after() -> None:
        if kubernetes.said("PATCH"):
            kubernetes.nodes.pop(name, None)

    kubernetes.after = after
    node.release(CLUSTER, [name])
    assert name not in kubernetes.nodes
    assert len(kubernetes.said("PATCH")) == 1
    # Each look takes half a second of this clock.
    assert len(kubernetes.said("DELETE")) > node.LEADER_SECONDS / 0.5, "the leader is given its time"


@pytest.mark.usefixtures("servers")
def test_a_node_that_goes_is_none_to_count_on(node: ModuleType, kubernetes: Kubernetes) -> None:
    assert health(node) == READY
    linger(kubernetes, "head-2")
    assert health(node) == {**READY, "head-2": "booting"}


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize(
    ("name", "looks", "stone", "told"),
    [
        ("head-2", 0, "", "needed"),  # nobody says anything, which is no leave
        ("head-2", 9, "", "needed"),  # etcd held it to the last that was heard
        ("head-2", 9, "etcd", "needed"),  # the tombstone is the head's own
        ("head", 0, "", "silent"),  # its own API is what is broken; the others are well
        ("head", 9, "", "needed"),
        ("head", 9, "etcd", "gone"),  # etcd let it go, and its API ended with that
        ("head", 9, "etcd-removed", "gone"),  # k3s started anew in the meantime
        ("head", 9, "an old one", "needed"),
        ("cpu-1", 9, "", "silent"),
    ],
)
def test_no_answer_is_no_leave(
    node: ModuleType, kubernetes: Kubernetes, name: str, looks: int, *, stone: str, told: str
) -> None:
    if stone:
        place = node.DATABASE / ("etcd" if stone == "an old one" else stone) / "tombstone"
        place.parent.mkdir()
        place.touch()
        old = node.time.time() - 60
        os.utime(place, (old, old) if stone == "an old one" else None)
    kubernetes.lingers = 10**6

    def after() -> None:
        if len(kubernetes.said("DELETE")) >= looks:
            kubernetes.status = 503

    kubernetes.after = after
    kubernetes.status = 0 if looks else 503
    if told == "gone":
        node.release(CLUSTER, [name])
        return
    with pytest.raises(node.Sorry if told == "silent" else SystemExit) as caught:
        node.release(CLUSTER, [name])
    if told == "needed":
        assert getattr(caught.value, "code", None) == node.EXIT_NEEDED


def test_an_api_that_refuses_is_an_error(
    node: ModuleType, kubernetes: Kubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "GONE_SECONDS", 0.1)
    kubernetes.status = 503
    for act in (lambda: node.release(CLUSTER, ["cpu-1"]), lambda: node.drain(CLUSTER, ["cpu-1"], "why")):
        with pytest.raises(node.Sorry, match="apiserver not ready"):
            act()


def test_servers_that_choose_a_leader_are_asked_again(
    node: ModuleType, kubernetes: Kubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(_seconds: float) -> None:
        kubernetes.status = 0

    health(node)
    kubernetes.status = 503
    monkeypatch.setattr(node.time, "sleep", sleep)
    node.release(CLUSTER, ["head-2"])
    assert "head-2" not in kubernetes.nodes
