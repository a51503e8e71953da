"""Another k3s for a running cluster, on the memory cloud: the order, what is refused, what an interruption leaves."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from kube_kit import NAMES, NEW, OLD, Kit

from vcluster import Cluster
from vcluster.actions import NOTE_SPEC
from vcluster.errors import CancelledError, DeadlineError, PermanentError, SpecError, TemporaryError, UsageError
from vcluster.events import Done
from vcluster.turn import DOWN


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path / "home")


def versions(kit: Kit) -> list[str]:
    return [kit.k3s.on(name).running for name in NAMES]


def changes(kit: Kit) -> list[str]:
    return kit.asked("stage", "upgrade")


def test_servers_come_first_and_each_machine_is_done_before_the_next(kit: Kit) -> None:
    done = kit.upgraded().upgrade()
    assert (done.version, list(done.machines), done.before) == (NEW, NAMES, ())
    assert changes(kit) == [f"{name} {verb}" for name in NAMES for verb in ("stage", "upgrade")]
    assert versions(kit) == [NEW] * 5
    assert kit.drained() == []
    # Servers hold nobody's pods.
    steps = [event.subject for event in kit.events if event.kind == "started" and event.action == "drain"]
    assert steps == ["cpu-1", "cpu-2"]
    assert [event.changed for event in kit.events if isinstance(event, Done)] == [True]


def test_afterwards_the_new_spec_is_what_the_cluster_is_made_of(kit: Kit) -> None:
    with pytest.raises(UsageError, match=r"k3s\.version.*refused") as caught:
        kit.upgraded().up()
    assert "`vcluster upgrade`" in caught.value.remedy
    new = kit.upgraded()
    new.upgrade()
    assert new.plan().empty
    assert not new.up().changed
    assert kit.cloud.observe(new.ref).notes[NOTE_SPEC] == new._spec().digest
    # On every computer: by its name, and on the head.
    named = Cluster("demo", cloud=kit.cloud, home=kit.home)
    assert named._spec().kubernetes.version == NEW
    assert NEW in kit.cloud.execute(new.ref, "sudo -n cat /var/lib/vcluster/spec.yaml").stdout
    with pytest.raises(UsageError, match=r"k3s\.version"):
        kit.demo.up()


def test_a_second_run_has_nothing_to_do(kit: Kit) -> None:
    kit.upgraded().upgrade()
    kit.k3s.asked.clear()
    done = kit.upgraded().upgrade()
    assert (done.machines, list(done.before), changes(kit)) == ((), NAMES, [])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("verb", ["stage", "upgrade"])
def test_it_stops_at_the_first_that_fails_and_goes_on_there(kit: Kit, name: str, verb: str) -> None:
    kit.k3s.faults[f"{name} {verb}"] = "out of luck"
    with pytest.raises(PermanentError, match=f"{name}: out of luck") as caught:
        kit.upgraded().upgrade()
    assert "the same command again goes on with this machine" in caught.value.remedy
    at = NAMES.index(name)
    assert versions(kit) == [NEW] * at + [OLD] * (5 - at)
    assert kit.cloud.observe(kit.demo.ref).notes[NOTE_SPEC] == kit.demo._spec().digest
    kit.k3s.asked.clear()
    done = kit.upgraded().upgrade()
    assert (list(done.before), list(done.machines)) == (NAMES[:at], NAMES[at:])
    assert versions(kit) == [NEW] * 5
    assert kit.drained() == []


def test_what_an_earlier_run_left_drained_is_taken_back(kit: Kit) -> None:
    kit.upgraded().upgrade()
    control = kit.cloud.control(kit.demo.ref)
    control.drain(["cpu-1"], "vcluster upgrade")
    kit.k3s.cordoned.add("cpu-1")
    kit.upgraded().upgrade()
    assert kit.drained() == []


def test_what_was_changed_and_did_not_start_is_done_again(kit: Kit) -> None:
    kit.upgraded().upgrade()
    kit.k3s.on("head-2").pending = True
    assert kit.upgraded().upgrade().machines == ("head-2",)


def test_another_program_of_the_same_version_is_another(kit: Kit) -> None:
    kit.upgraded().upgrade()
    assert list(kit.upgraded(sha256="b" * 64).upgrade().machines) == NAMES


def test_images_are_changed_with_it(kit: Kit) -> None:
    def archive(name: str, digit: str) -> dict[str, str]:
        return {"source": f"https://example.org/{name}", "sha256": digit * 64}

    kit.upgraded(images=[archive("one.tar", "1"), archive("two.tar", "2")]).upgrade()
    assert kit.k3s.on("cpu-1").images == {"one.tar": "1" * 64, "two.tar": "2" * 64}
    assert list(kit.upgraded(images=[archive("two.tar", "3")]).upgrade().machines) == NAMES
    assert kit.k3s.on("cpu-1").staged["drop"] == ["one.tar"]
    assert kit.upgraded(images=[archive("two.tar", "3")]).upgrade().machines == ()


def test_the_number_of_workers_is_not_the_upgrades_matter(kit: Kit) -> None:
    kit.demo.scale("cpu", 1)
    new = kit.upgraded()
    assert list(new.upgrade().machines) == [name for name in NAMES if name != "cpu-2"]
    named = Cluster("demo", cloud=kit.cloud, home=kit.home)
    assert named.plan().empty
    assert [group.count for group in named._spec().workers] == [1]


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "wanted", "why", "remedy"),
    [
        ("v1.37.2+k3s1", "v1.37.1+k3s1", "does not go back", "take v1.37.2+k3s1 or a later"),
        ("v1.37.1+k3s2", "v1.37.1+k3s1", "does not go back", "take v1.37.1+k3s2 or a later"),
        ("v1.35.9+k3s1", "v1.37.1+k3s1", "skips no minor version", "upgrade to a v1.36 first"),
    ],
)
def test_no_way_back_and_no_minor_version_is_skipped(kit: Kit, there: str, wanted: str, why: str, remedy: str) -> None:
    kit.k3s.on("head-3").running = there
    with pytest.raises(UsageError, match=f"head-3 has .*{why}") as caught:
        kit.upgraded(wanted).upgrade()
    assert remedy in caught.value.remedy
    assert changes(kit) == []


def test_an_agent_that_stayed_behind_may_catch_up(kit: Kit) -> None:
    """Servers alone make the rule: an agent's kubelet may be older."""
    kit.k3s.on("cpu-2").running = "v1.35.9+k3s1"
    assert "cpu-2" in kit.upgraded().upgrade().machines


def test_what_more_a_spec_changes_is_refused_as_up_does(kit: Kit) -> None:
    with pytest.raises(UsageError, match=r"more of demo than an upgrade does:\n  k3s\.flannel_backend") as caught:
        kit.upgraded(flannel_backend="vxlan").upgrade()
    assert "write `flannel_backend: wireguard-native` under k3s" in caught.value.remedy
    with pytest.raises(UsageError, match=r"head\.count") as caught:
        kit.cluster(head={"count": 1}, k3s={"version": OLD}).upgrade()
    assert "take the cluster down and up again" in caught.value.remedy
    assert changes(kit) == []


def test_what_up_changes_in_place_may_come_with_it(tmp_path: Path) -> None:
    workers: list[dict[str, Any]] = [{"name": "cpu", "count": 2, "max_count": 3}]
    kit = Kit(tmp_path, workers=workers)
    k3s = {"version": NEW, "binary": {"source": "https://example.org/k3s", "sha256": "a" * 64}}
    more = kit.cluster(workers=[{**workers[0], "count": 3}], k3s=k3s)
    assert list(more.upgrade().machines) == NAMES
    assert [machine.name for machine in more.up().status.machines if machine.group == "cpu"] == [
        "cpu-1",
        "cpu-2",
        "cpu-3",
    ]


def test_it_needs_the_file(kit: Kit) -> None:
    with pytest.raises(UsageError, match="needs the spec with the new version"):
        Cluster("demo", cloud=kit.cloud, home=kit.home).upgrade()


def test_a_program_that_is_not_here_is_told_with_its_line(kit: Kit) -> None:
    with pytest.raises(SpecError, match="there is no file /none/k3s"):
        kit.cluster(k3s={"version": NEW, "binary": {"source": "/none/k3s", "sha256": "a" * 64}}).upgrade()


def test_a_program_that_nothing_can_be_checked_by_is_refused(kit: Kit) -> None:
    new = kit.upgraded()
    object.__setattr__(new._spec().kubernetes.binary, "sha256", "")
    with pytest.raises(UsageError, match="nothing is known to check k3s' program by"):
        new.upgrade()
    assert changes(kit) == []


def test_all_machines_must_be_on(kit: Kit) -> None:
    kit.cloud.kill("cpu-2")
    with pytest.raises(UsageError, match="cpu-2 is ERROR: all machines must be on") as caught:
        kit.upgraded().upgrade()
    assert caught.value.remedy == "`vcluster up demo` mends that"


def test_in_the_middle_of_a_restore_nothing_is_changed(kit: Kit) -> None:
    kit.k3s.restoring = True
    with pytest.raises(UsageError, match="a restore of demo was begun and not ended"):
        kit.upgraded().upgrade()
    assert changes(kit) == []


# What takes long -----------------------------------------------------------------------------------------------------


def test_jobs_on_a_machine_are_waited_for(kit: Kit) -> None:
    kit.cloud.occupy("cpu-1", 300)
    began = kit.cloud.now()
    kit.upgraded().upgrade()
    assert 300 <= kit.cloud.now() - began < 330
    assert versions(kit) == [NEW] * 5


def test_a_machine_that_pods_do_not_leave_is_taken_back_and_named(kit: Kit) -> None:
    kit.cloud.occupy("cpu-1", 86400)
    with pytest.raises(DeadlineError, match="pods do not leave cpu-1") as caught:
        kit.upgraded().upgrade()
    assert "kubectl get pods -A --field-selector spec.nodeName=cpu-1" in caught.value.remedy
    assert kit.drained() == []
    assert versions(kit) == [NEW, NEW, NEW, OLD, OLD]


def test_who_stops_it_while_pods_leave_gets_the_machine_back(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = threading.Event()
    monkeypatch.setattr(kit.cloud.clock, "sleep", lambda seconds, event=None: cancel.set())
    kit.cloud.occupy("cpu-1", 86400)
    with pytest.raises(CancelledError, match="interrupted while pods left cpu-1") as caught:
        kit.upgraded().upgrade(cancel=cancel)
    assert "the same command again" in caught.value.remedy
    assert kit.drained() == []


def test_who_stops_it_between_two_machines_stops_there(kit: Kit) -> None:
    cancel = threading.Event()

    def watch(event: Any) -> None:
        if event.kind == "finished" and (event.action, event.subject) == ("upgrade", "head-2"):
            cancel.set()

    cluster = kit.upgraded()
    cluster._on_event = watch
    with pytest.raises(CancelledError, match="between two machines"):
        cluster.upgrade(cancel=cancel)
    assert versions(kit) == [NEW, NEW, OLD, OLD, OLD]


def test_a_server_waits_for_the_others(kit: Kit) -> None:
    """With one away already, etcd would lose its majority with this one."""
    kit.k3s.halted.add("head-3")
    with pytest.raises(DeadlineError, match="Kubernetes has not head-3 back"):
        kit.upgraded().upgrade(timeout=600)
    assert changes(kit) == []


def test_a_kubernetes_that_does_not_answer_can_still_be_changed(kit: Kit) -> None:
    """As after a run whose program did not start on a head that is alone."""
    kit.k3s.faults["head nodes"] = "Kubernetes does not answer: refused"
    assert list(kit.upgraded().upgrade().machines) == NAMES
    assert "going on without its word" in kit.told()


def test_a_cluster_that_is_taken_down_meanwhile_is_left_alone(kit: Kit) -> None:
    def down(event: Any) -> None:
        if event.kind == "finished" and (event.action, event.subject) == ("upgrade", "head"):
            kit.cloud.annotate(kit.demo.ref, {"leaving": f"{DOWN}abc@{kit.cloud.now():.0f}"})

    cluster = kit.upgraded()
    cluster._on_event = down
    with pytest.raises(CancelledError, match="was called meanwhile"):
        cluster.upgrade()
    assert versions(kit) == [NEW, OLD, OLD, OLD, OLD]


def test_a_head_that_does_not_keep_the_spec_is_told_and_the_next_run_ends_it(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = kit.upgraded()
    with pytest.MonkeyPatch.context() as patch:

        def full(text: str) -> None:
            raise TemporaryError("the head did not keep the spec: No space left on device")

        patch.setattr(new, "_keep_spec", full)
        with pytest.raises(TemporaryError, match="No space left"):
            new.upgrade()
    assert kit.cloud.observe(new.ref).notes[NOTE_SPEC] == kit.demo._spec().digest
    assert new.upgrade().machines == ()
    assert kit.cloud.observe(new.ref).notes[NOTE_SPEC] == new._spec().digest
