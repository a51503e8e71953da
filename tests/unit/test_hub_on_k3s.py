"""A Hub on k3s from the launcher: what plan and up say of it, what changes while it runs, and what it has not."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import yaml
from hub_on_k3s_kit import MORE, SPEC, VALUES, head_of, recorded

import vcluster.clouds.memory
import vcluster.cluster
from vcluster import Cluster, ClusterSpec
from vcluster.cli import main
from vcluster.clouds.memory import MemoryCloud
from vcluster.errors import CancelledError, DeadlineError, PermanentError, TemporaryError, UsageError
from vcluster.events import Event, Log
from vcluster.hub_on_k3s import READY, RECORDS
from vcluster.model import CommandResult, Flavor
from vcluster.stacks.k3s_cloud import MANIFESTS

ROOT = Path(__file__).parents[2]
ON_MEMORY = ["--cloud", "memory"]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryCloud:
    made, real = MemoryCloud(), vcluster.cluster.connect
    there = ("memory", "openstack")
    monkeypatch.setattr(vcluster.cluster, "connect", lambda name, home: made if name in there else real(name, home))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.chdir(tmp_path)
    Path("demo.yaml").write_text(SPEC)
    return made


# The plan ------------------------------------------------------------------------------------------------------------


def test_the_plan_of_a_class_of_127_on_40_workers(
    cloud: MemoryCloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (Flavor("m1.large", 4, 8192, 80), Flavor("c1.six", 6, 16384, 60))
    monkeypatch.setattr(vcluster.clouds.memory, "FLAVORS", sizes)
    assert main(["plan", str(ROOT / "examples/workshop-k3s.yaml")]) == 10
    lines = capsys.readouterr().out.splitlines()
    told = "\n".join(lines[-6:])
    assert "  notebooks: 200 fit at once, 127 are wanted" in told
    assert "    user: 40 workers × 5 of profile standard, 1 cpu and 2048 MiB each (processors are the limit; " in told
    assert "files go with the notebook" in told
    why = "a class of 127 comes within 60 s, a further worker takes 300 s, so that all come before it"
    assert f"  placeholders: 127: {why}" in told
    assert "  cost: 244 SU an hour" in told
    assert "1952 SU until it expires" in told


def test_where_no_worker_can_come_there_are_no_placeholders(
    cloud: MemoryCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "demo.yaml", "--json"]) == 10
    found = json.loads(capsys.readouterr().out)["notebooks"]["placeholders"]
    assert found["count"] == 0
    assert "every worker that may ever be is there" in found["reason"]


# Up ------------------------------------------------------------------------------------------------------------------


def test_up_shows_the_door_and_the_passwords(cloud: MemoryCloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "demo.yaml"]) == 0
    out, err = capsys.readouterr()
    words = {line[2:17].strip(): line[17:].strip() for line in out.splitlines()[1:]}
    assert words["JupyterHub"] == "https://127.0.0.1:20443/"
    assert words["its authority"].startswith("SHA-256 ")
    assert len(words["its authority"]) == len("SHA-256 ") + 32 * 3 - 1
    assert "rehearse" not in words
    assert words["look"].endswith("-- sudo k3s kubectl -n jupyterhub get pods -o wide")
    secret = next(yaml.safe_load_all(head_of(cloud).files[VALUES]))["stringData"]["values.yaml"]
    kept = json.loads(yaml.safe_load(secret)["hub"]["extraFiles"]["passwords.json"]["stringData"])
    assert (words["class password"], words["admin password"]) == (kept["class"], kept["admin"])
    assert kept["class"] not in err
    assert main(["users", "demo", "password", *ON_MEMORY]) == 0
    assert capsys.readouterr().out.split() == ["class", kept["class"], "admin", kept["admin"]]


def test_people_who_change_are_brought_in_and_nothing_else_is_written(cloud: MemoryCloud, tmp_path: Path) -> None:
    events = list[Event]()
    spec = ClusterSpec.from_yaml(SPEC)
    with Cluster(spec, cloud=cloud, home=tmp_path, on_event=events.append) as demo:
        demo.up()
        first = dict(head_of(cloud).files)
        events.clear()
        demo.up()
        assert head_of(cloud).files == first
        assert not [event for event in events if isinstance(event, Log) and "manifests" in event.message]
    with Cluster(ClusterSpec.from_yaml(MORE), cloud=cloud, home=tmp_path, on_event=events.append) as demo:
        demo.up()
    changed = {path for path, text in head_of(cloud).files.items() if first.get(path) != text}
    assert VALUES in changed
    assert b"student-005" in head_of(cloud).files[VALUES]
    assert f"{MANIFESTS}/vcluster-jupyterhub-front.yaml" not in changed
    assert [event for event in events if isinstance(event, Log) and "manifests on the head are new" in event.message]


def test_a_secret_that_is_not_here_leaves_the_hub_as_it_is(
    cloud: MemoryCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLASS_PASSWORD", "hunter2-hunter2")
    text = SPEC.replace("jupyterhub: {", "jupyterhub: {auth: {password: {env: CLASS_PASSWORD}}, ")
    events = list[Event]()
    with Cluster(ClusterSpec.from_yaml(text), cloud=cloud, home=tmp_path, on_event=events.append) as demo:
        first = demo.up().hub
        assert first is not None
        assert first.passwords is not None
        assert first.passwords.shared == "hunter2-hunter2"
        monkeypatch.delenv("CLASS_PASSWORD")
        before = dict(head_of(cloud).files)
        again = demo.up().hub
    assert again is not None
    assert (again.url, again.passwords) == (first.url, None)
    assert head_of(cloud).files == before
    warnings = [event.message for event in events if isinstance(event, Log) and event.level == "warning"]
    assert [text for text in warnings if "a secret is not here" in text and "CLASS_PASSWORD" in text]
    assert "hunter2" not in str(events)


# What it has not -----------------------------------------------------------------------------------------------------


def test_what_takes_a_slurm_head_is_refused_with_what_to_do(cloud: MemoryCloud, tmp_path: Path) -> None:
    with Cluster(ClusterSpec.from_yaml(SPEC), cloud=cloud, home=tmp_path) as demo:
        demo.up()
        assert demo.status().hub is None
        calls = (
            demo.users,
            demo.hub_status,
            lambda: demo.users_add(["zoe"]),
            lambda: demo.users_remove(["student-001"]),
            lambda: demo.users_password("class"),
            lambda: demo.rehearse(2),
        )
        for call in calls:
            with pytest.raises(UsageError, match="neither `users` nor `rehearse` reaches it") as caught:
                call()
            assert "`vcluster up` again" in caught.value.remedy


# A Hub that does not come ---------------------------------------------------------------------------------------------


class Sick:
    """A head whose Hub is not ready so many times; then it is, unless it failed."""

    def __init__(self, cloud: MemoryCloud, times: int, *, failed: bool = False) -> None:
        self._execute, self._left, self._failed = cloud.execute, times, failed
        self.asked = list[str]()

    def __call__(self, ref: object, command: str, stdin: str = "") -> CommandResult:
        if command not in (READY, RECORDS):
            return self._execute(ref, command, stdin)  # type: ignore[arg-type]
        self.asked.append(command)
        if command == RECORDS:
            # One that failed long ago stays in helm's history, and is listed after the tenth.
            statuses = ["superseded", "failed", *["superseded"] * 7, "deployed"]
            return CommandResult(recorded(*statuses, *["failed"] * self._failed), "", 0)
        self._left -= 1
        return CommandResult("", "" if self._left < 0 else "no\ndeployments.apps not found\n", int(self._left >= 0))


def test_up_waits_for_the_hub(cloud: MemoryCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sick = Sick(cloud, 3)
    monkeypatch.setattr(cloud, "execute", sick)
    events = list[Event]()
    with Cluster(ClusterSpec.from_yaml(SPEC), cloud=cloud, home=tmp_path, on_event=events.append) as demo:
        began = cloud.now()
        assert demo.up().hub is not None
        assert cloud.now() - began >= 15
    # A class with a password waits for nothing before it is told the address: that is no part of what helm installs.
    assert sick.asked == [READY, RECORDS] * 4
    told = [event.message for event in events if isinstance(event, Log) and "on its way" in event.message]
    assert len(told) == 1
    assert not [event for event in events if isinstance(event, Log) and event.level == "warning"]


def test_a_hub_that_runs_without_its_last_change_is_told(
    cloud: MemoryCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud, "execute", Sick(cloud, 0, failed=True))
    events = list[Event]()
    with Cluster(ClusterSpec.from_yaml(SPEC), cloud=cloud, home=tmp_path, on_event=events.append) as demo:
        assert demo.up().hub is not None
    told = [event.message for event in events if isinstance(event, Log) and event.level == "warning"]
    assert len(told) == 1
    assert "the Hub runs as it was" in told[0]
    assert "status=failed` has Kubernetes try again" in told[0]


def test_an_upgrade_that_failed_is_told_at_once(
    cloud: MemoryCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sick = Sick(cloud, 9, failed=True)
    monkeypatch.setattr(cloud, "execute", sick)
    with (
        Cluster(ClusterSpec.from_yaml(SPEC), cloud=cloud, home=tmp_path) as demo,
        pytest.raises(PermanentError, match="could not install the Hub") as caught,
    ):
        demo.up()
    assert sick.asked == [READY, RECORDS]
    assert "logs job/helm-install-jupyterhub" in caught.value.remedy
    assert "delete secret -l owner=helm,name=jupyterhub,status=failed` has Kubernetes try again" in caught.value.remedy


def test_time_is_up_before_the_hub_runs(cloud: MemoryCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud, "execute", Sick(cloud, 10**6))
    with (
        Cluster(ClusterSpec.from_yaml(SPEC), cloud=cloud, home=tmp_path) as demo,
        pytest.raises(DeadlineError, match=r"the Hub does not run yet: deployments\.apps not found"),
    ):
        demo.up(timeout=600)


def test_somebody_who_waits_no_longer(cloud: MemoryCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel, sick = threading.Event(), Sick(cloud, 10**6)

    def execute(ref: object, command: str, stdin: str = "") -> CommandResult:
        if command == RECORDS:
            cancel.set()
        return sick(ref, command, stdin)

    monkeypatch.setattr(cloud, "execute", execute)
    with (
        Cluster(ClusterSpec.from_yaml(SPEC), cloud=cloud, home=tmp_path) as demo,
        pytest.raises(CancelledError, match="before the Hub ran"),
    ):
        demo.up(cancel=cancel)


def test_a_head_that_keeps_no_manifest_says_so(
    cloud: MemoryCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cloud.execute

    def execute(ref: object, command: str, stdin: str = "") -> CommandResult:
        if "mv" in command and MANIFESTS in command:
            return CommandResult("", "No space left on device", 1)
        return real(ref, command, stdin)  # type: ignore[arg-type]

    monkeypatch.setattr(cloud, "execute", execute)
    with (
        Cluster(ClusterSpec.from_yaml(SPEC), cloud=cloud, home=tmp_path) as demo,
        pytest.raises(TemporaryError, match=r"did not keep .*No space left"),
    ):
        demo.up()
