"""The first install of a Hub on k3s takes minutes: what is new does not end it, and what failed is begun anew."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hub_on_k3s_kit import MORE, SPEC, VALUES, Helm, head_of

from vcluster import Cluster, ClusterSpec, hub_on_k3s
from vcluster.clouds.memory import MemoryCloud
from vcluster.errors import CancelledError, DeadlineError, PermanentError, SpecError
from vcluster.events import Event, Log
from vcluster.hub_on_k3s import ANEW_SECONDS, FORGET, READY, RECORDS
from vcluster.model import CommandResult
from vcluster.stacks.zero_to_jupyterhub import CHART_FILE

PROVIDED = SPEC.replace(
    "jupyterhub: {people: {count: 4}, instructors: [teacher]}",
    "jupyterhub: {auth: {method: oidc, client_id: hub, client_secret: {env: CLIENT_SECRET}, "
    "options: {issuer: 'https://login.example.edu'}}, people: {count: 4}}",
)


@pytest.fixture
def cloud() -> MemoryCloud:
    return MemoryCloud()


def brought_up(cloud: MemoryCloud, home: Path, text: str, *, timeout: float | None = None) -> list[str]:
    """What ``up`` says."""
    events = list[Event]()
    with Cluster(ClusterSpec.from_yaml(text), cloud=cloud, home=home, on_event=events.append) as demo:
        assert demo.up(timeout=timeout).hub is not None
    return [event.message for event in events if isinstance(event, Log)]


def test_a_pretended_head_says_of_helm_s_records_what_is_understood(cloud: MemoryCloud, tmp_path: Path) -> None:
    """Else a Hub in the memory cloud would be one of which helm knows nothing."""
    brought_up(cloud, tmp_path, SPEC)
    assert hub_on_k3s._statuses(cloud.execute(cloud.ref("demo"), RECORDS)) == ["deployed"]


def test_a_provider_s_first_install_knows_the_address_and_is_not_interrupted(
    cloud: MemoryCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIENT_SECRET", "hunter2-hunter2")
    helm = Helm(cloud, 240)
    monkeypatch.setattr(cloud, "execute", helm)
    brought_up(cloud, tmp_path, PROVIDED)
    assert (helm.records, helm.ended) == (["deployed"], 0)
    assert b"https://127.0.0.1:20443/" in helm.made_of[CHART_FILE]
    # It begins when its HelmChart comes, and a second look finds all as it should be.
    helm.asked.clear()
    brought_up(cloud, tmp_path, PROVIDED)
    assert helm.asked == [READY, RECORDS]


def test_a_provider_s_hub_that_was_never_begun_needs_its_secret(
    cloud: MemoryCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIENT_SECRET", "hunter2-hunter2")
    brought_up(cloud, tmp_path, PROVIDED)
    monkeypatch.delenv("CLIENT_SECRET")
    del head_of(cloud).files[CHART_FILE]
    with pytest.raises(SpecError, match="CLIENT_SECRET"):
        brought_up(cloud, tmp_path, PROVIDED)


def test_people_who_change_during_the_first_install_come_after_it(
    cloud: MemoryCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helm = Helm(cloud, 1200)
    monkeypatch.setattr(cloud, "execute", helm)
    with pytest.raises(DeadlineError, match="the Hub does not run yet"):
        brought_up(cloud, tmp_path, SPEC, timeout=600)
    assert helm.records == ["pending-install"]
    told = brought_up(cloud, tmp_path, MORE)
    helm.look()
    assert (helm.records, helm.ended) == (["deployed"], 0)
    assert b"student-005" in helm.made_of[VALUES]
    assert len([text for text in told if "installs the Hub as it was before" in text]) == 1


def test_who_waits_for_the_install_of_before_waits_until_told_or_the_end(
    cloud: MemoryCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helm = Helm(cloud, 10**6)
    monkeypatch.setattr(cloud, "execute", helm)
    for text, why in ((SPEC, "not found"), (MORE, "still installs the one of before")):
        with pytest.raises(DeadlineError, match=f"time is up: the Hub does not run yet: .*{why}"):
            brought_up(cloud, tmp_path, text, timeout=600)
    assert b"student-005" not in head_of(cloud).files[VALUES]
    cancel = threading.Event()

    def execute(ref: object, command: str, stdin: str = "", machine: str = "head") -> CommandResult:
        if command == RECORDS:
            cancel.set()
        return helm(ref, command, stdin, machine)

    monkeypatch.setattr(cloud, "execute", execute)
    with (
        Cluster(ClusterSpec.from_yaml(MORE), cloud=cloud, home=tmp_path) as demo,
        pytest.raises(CancelledError, match="before the Hub ran"),
    ):
        demo.up(cancel=cancel)
    assert helm.ended == 0


@pytest.mark.parametrize("text", [SPEC, MORE], ids=["the-same", "other-people"])
def test_an_install_that_failed_before_it_ever_ran_is_begun_anew(
    cloud: MemoryCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    helm = Helm(cloud, 240)
    helm.fails = True
    monkeypatch.setattr(cloud, "execute", helm)
    with pytest.raises(DeadlineError):
        brought_up(cloud, tmp_path, SPEC, timeout=300)
    helm.records, helm.fails = ["failed"], False
    helm.asked.clear()
    told = brought_up(cloud, tmp_path, text)
    assert helm.records == ["deployed"]
    assert (b"student-005" in helm.made_of[VALUES]) == (text == MORE)
    assert helm.asked.count(FORGET) == 1
    assert len([line for line in told if "begins it anew" in line]) == 1


def test_an_install_that_fails_in_its_own_time_is_told_and_the_next_up_begins_it_anew(
    cloud: MemoryCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helm = Helm(cloud, ANEW_SECONDS + 30)
    helm.fails = True
    monkeypatch.setattr(cloud, "execute", helm)
    with pytest.raises(PermanentError, match="could not install the Hub") as caught:
        brought_up(cloud, tmp_path, SPEC)
    assert FORGET not in helm.asked
    assert caught.value.remedy.endswith("then `vcluster up` again")
    helm.fails = False
    brought_up(cloud, tmp_path, SPEC)
    assert helm.records == ["deployed"]


def test_a_record_that_stays_is_told_with_what_to_do(
    cloud: MemoryCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helm = Helm(cloud, 240, "failed")
    helm.keeps = True
    monkeypatch.setattr(cloud, "execute", helm)
    with pytest.raises(PermanentError, match="could not install the Hub") as caught:
        brought_up(cloud, tmp_path, SPEC)
    assert helm.asked == [READY, RECORDS, FORGET]
    assert (
        "`vcluster ssh demo -- sudo k3s kubectl -n jupyterhub delete secret "
        "-l owner=helm,name=jupyterhub,status=failed` has Kubernetes try again"
    ) in caught.value.remedy
