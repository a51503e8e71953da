"""Kubeconfig, backup and restore of a Kubernetes cluster, on the memory cloud."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from kube_kit import NAMES, NEW, OLD, SPEC, Kit

from vcluster import Cluster, ClusterSpec
from vcluster.clouds.memory import MemoryCloud
from vcluster.clouds.memory_k3s import SNAPSHOTS
from vcluster.errors import CancelledError, PermanentError, QuotaError, TemporaryError, UsageError
from vcluster.events import StepFinished
from vcluster.kube_backup import Facts, KubeBackup, write
from vcluster.model import Endpoint
from vcluster.turn import DOWN
from vcluster.views import PlanView

SECRETS = ("U0VDUkVULUtFWQ", "t0ken-of-the-servers")


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path / "home")


def snapshots(kit: Kit) -> list[str]:
    files = next(entry.head for entry in kit.cloud.entries(kit.demo.ref) if entry.head).files
    return [Path(name).name.rpartition("-")[0] for name in files if name.startswith(SNAPSHOTS)]


# Kubeconfig ----------------------------------------------------------------------------------------------------------


def test_without_an_open_api_the_address_is_this_computers_own(kit: Kit) -> None:
    assert (kit.demo.kubeconfig().server, kit.demo.kubeconfig().port) == ("https://127.0.0.1:6443", 6443)
    assert (kit.demo.kubeconfig(7000).server, kit.demo.kubeconfig(7000).port) == ("https://127.0.0.1:7000", 7000)
    assert not any(secret in kit.told() for secret in SECRETS)


def test_with_an_open_api_it_is_the_heads_door(tmp_path: Path) -> None:
    kit = Kit(tmp_path, k3s={"api_from": ["192.0.2.0/24"]})
    found = kit.demo.kubeconfig()
    assert (found.server, found.port) == ("https://127.0.0.1:26443", 0)
    entry = next(each for each in kit.cloud.entries(kit.demo.ref) if each.head)
    entry.machine = replace(entry.machine, doors={6443: Endpoint("2001:db8::7", 6443)})
    assert kit.demo.kubeconfig().server == "https://[2001:db8::7]:6443"


@pytest.mark.parametrize("call", ["kubeconfig", "backup"])
def test_slurm_has_none(tmp_path: Path, call: str) -> None:
    raw = {key: value for key, value in SPEC.items() if key not in ("scheduler", "head")}
    slurm = Cluster(ClusterSpec.model_validate(raw), cloud=MemoryCloud(), home=tmp_path)
    slurm.up()
    with pytest.raises(UsageError, match="demo runs Slurm, not Kubernetes"):
        getattr(slurm, call)()


def test_a_head_that_is_off_or_not_there_is_named(kit: Kit) -> None:
    kit.demo.stop()
    with pytest.raises(UsageError, match="the head of demo is SHUTOFF") as caught:
        kit.demo.kubeconfig()
    assert caught.value.remedy == "`vcluster start demo`"
    kit.demo.down()
    with pytest.raises(UsageError, match="there is no cluster"):
        kit.demo.kubeconfig()


def test_why_the_head_gives_none_is_told(kit: Kit) -> None:
    kit.k3s.faults["head kubeconfig"] = "Kubernetes has not started here yet"
    with pytest.raises(PermanentError, match="head: Kubernetes has not started here yet"):
        kit.demo.kubeconfig()


# Backup --------------------------------------------------------------------------------------------------------------


def test_a_backup_has_all_that_it_takes_and_nobody_else_reads_it(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = kit.demo.backup()
    assert made.path == Path("demo-20231114-221400.tar")
    assert made.path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(made.path) as tar:
        names = [(member.name, member.mode) for member in tar.getmembers()]
        assert names == [(name, 0o600) for name in ("backup.json", "token", "spec.yaml", "snapshot")]
        facts = json.load(tar.extractfile("backup.json") or io.BytesIO())
    assert (facts["cluster"], facts["id"], facts["version"]) == ("demo", kit.demo.ref.id, OLD)
    read = KubeBackup.read(made.path)
    assert (read.facts, read.token) == (made.facts, "K10cafe::server:t0ken-of-the-servers")
    assert ClusterSpec.from_yaml(read.spec) == ClusterSpec.model_validate(SPEC)
    with read.snapshot() as file:
        assert file.read() == b'["before"]'
    assert snapshots(kit) == []
    assert not any(secret in f"{kit.told()}{read!r}" for secret in SECRETS)


def test_a_snapshot_can_stay_on_the_head_too(kit: Kit, tmp_path: Path) -> None:
    assert kit.demo.backup(tmp_path, keep=True).path.parent == tmp_path
    assert snapshots(kit) == ["vcluster-kept"]


def test_a_file_that_is_there_is_never_written_over(kit: Kit, tmp_path: Path) -> None:
    path = tmp_path / "mine.tar"
    path.write_text("mine")
    with pytest.raises(UsageError, match="there already"):
        kit.demo.backup(path)
    with pytest.raises(UsageError, match="there is no folder"):
        kit.demo.backup(tmp_path / "none/x.tar")
    assert path.read_text() == "mine"
    assert kit.asked("snapshot") == []


def damaged(kit: Kit, how: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what the head sends of a snapshot be another thing."""
    execute = MemoryCloud.execute

    def on_the_way(cloud: MemoryCloud, ref: Any, command: str, stdin: str = "", machine: str = "head") -> Any:
        result = execute(cloud, ref, command, stdin, machine)
        if command.startswith("sudo -n cat ") and SNAPSHOTS in command:
            return replace(result, stdout=how(result.stdout.encode()).decode())
        return result

    monkeypatch.setattr(MemoryCloud, "execute", on_the_way)


@pytest.mark.parametrize("how", [lambda c: c[:-1], lambda c: c + b"x", lambda c: c.upper(), lambda c: b""])
def test_what_did_not_come_whole_is_no_backup(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Callable[[bytes], bytes]
) -> None:
    damaged(kit, how, monkeypatch)
    folder = tmp_path / "backups"
    folder.mkdir()
    with pytest.raises(TemporaryError, match=r"did not come over whole|more than its snapshot has"):
        kit.demo.backup(folder)
    assert list(folder.iterdir()) == []
    assert snapshots(kit) == []


def test_a_full_disk_here_is_told_as_that(tmp_path: Path) -> None:
    class Full(io.BytesIO):
        def write(self, piece: Any) -> int:
            raise OSError(28, "No space left on device")

    from vcluster import kube_backup

    facts = Facts("demo", "id", "claim", OLD, "now", 3, hashlib.sha256(b"abc").hexdigest())

    def fill(sink: BinaryIO) -> None:
        sink._file = Full()  # type: ignore[attr-defined]
        sink.write(b"abc")

    with pytest.raises(QuotaError, match="No space left"):
        kube_backup.write(tmp_path / "x.tar", facts, "token", "spec", fill)
    assert list(tmp_path.iterdir()) == []


def test_who_stops_a_backup_leaves_nothing_on_the_head(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(content: bytes) -> bytes:
        raise CancelledError("stopped")

    damaged(kit, stopped, monkeypatch)
    with pytest.raises(CancelledError):
        kit.demo.backup(tmp_path)
    assert snapshots(kit) == []
    failed = [event for event in kit.events if isinstance(event, StepFinished) and event.error]
    assert [(event.action, event.error) for event in failed] == [("fetch", "stopped")]


# Restore -------------------------------------------------------------------------------------------------------------


def test_what_came_since_is_gone_and_all_machines_are_back(kit: Kit, tmp_path: Path) -> None:
    backup = kit.demo.backup(tmp_path)
    kit.k3s.objects.append("after")
    shown: list[PlanView] = []
    kit.k3s.asked.clear()
    done = kit.demo.restore(backup.path, confirm=lambda view: not shown.append(view))  # type: ignore[func-returns-value]
    assert kit.k3s.objects == ["before"]
    assert list(done.machines) == NAMES
    assert kit.asked("halt", "restore", "rejoin", "settle") == [
        "head-2 halt",
        "head-3 halt",
        "head restore",
        "head-2 rejoin",
        "head-3 rejoin",
        "cpu-1 rejoin",
        "cpu-2 rejoin",
        "head settle",
        "head-2 settle",
        "head-3 settle",
    ]
    (action,) = shown[0].actions
    assert (action.name, action.destroys_data) == ("head", True)
    assert backup.facts.time in action.detail
    assert not any(secret in f"{kit.told()}{kit.k3s.asked}" for secret in SECRETS)


def test_who_does_not_agree_keeps_all(kit: Kit, tmp_path: Path) -> None:
    backup = kit.demo.backup(tmp_path)
    kit.k3s.objects.append("after")
    with pytest.raises(CancelledError, match="nothing was changed"):
        kit.demo.restore(backup.path, confirm=lambda _: False)
    assert kit.k3s.objects == ["before", "after"]
    assert kit.asked("receive", "halt", "restore") == []


@pytest.mark.parametrize("where", ["head-2 halt", "head restore", "head-3 rejoin", "cpu-1 rejoin", "head settle"])
def test_an_interrupted_restore_says_what_to_do_and_the_same_again_mends_it(
    kit: Kit, tmp_path: Path, where: str
) -> None:
    backup = kit.demo.backup(tmp_path)
    kit.k3s.objects.append("after")
    kit.k3s.faults[where] = "out of luck"
    with pytest.raises(PermanentError, match="out of luck") as caught:
        kit.demo.restore(backup.path)
    assert "the same `vcluster restore demo` again" in caught.value.remedy
    kit.demo.restore(backup.path)
    assert (kit.k3s.objects, kit.k3s.halted, kit.k3s.restoring) == (["before"], set(), False)


def test_what_a_backup_is_not_of_is_never_taken(kit: Kit, tmp_path: Path) -> None:
    path = kit.demo.backup(tmp_path).path
    read = KubeBackup.read(path)

    def other(name: str, token: str = read.token, **more: Any) -> Path:
        with read.snapshot() as file:
            content = file.read()

        def fill(sink: BinaryIO) -> None:
            sink.write(content)

        write(tmp_path / name, replace(read.facts, **more), token, read.spec, fill)
        return tmp_path / name

    for file, why in (
        (other("id", id="0123456789", cluster="prod"), r"of another cluster, prod \(0123456789\)"),
        (other("claim", claim="000000000000"), "of an earlier demo, which had other keys"),
        (other("token", token="K10cafe::server:another"), "of an earlier demo, which had other keys"),
        (other("newer", version=NEW), f"was taken with {NEW.replace('+', '.')}, and the head has .* which is older"),
    ):
        with pytest.raises(UsageError, match=why) as caught:
            kit.demo.restore(file)
        assert "another" not in caught.value.remedy
        assert "t0ken" not in str(caught.value)
    # Another form of the same token, and an older Kubernetes, are well.
    kit.demo.restore(other("short", token="t0ken-of-the-servers", version="v1.35.1+k3s1"))
    assert kit.asked("restore") == ["head restore"]


def test_a_cluster_that_was_made_anew_has_other_keys(kit: Kit, tmp_path: Path) -> None:
    path = kit.demo.backup(tmp_path).path
    kit.demo.down()
    again = kit.cluster()
    again.up()
    with pytest.raises(UsageError, match="of an earlier demo, which had other keys"):
        again.restore(path)


def test_what_is_no_backup_is_told_before_anything_is_asked(kit: Kit, tmp_path: Path) -> None:
    good = kit.demo.backup(tmp_path / "good.tar").path.read_bytes()
    kit.k3s.asked.clear()
    cases = {
        "empty": (b"", "no backup of vcluster's"),
        "words": (b"x" * 4096, "no backup of vcluster's"),
        "short": (good[:700], "no backup of vcluster's|is damaged"),
        "flipped": (good.replace(b'["before"]', b'["BEFORE"]'), "is damaged"),
        "format": (good.replace(b'"format": 1', b'"format": 9'), "another vcluster"),
        "fields": (good.replace(b'"claim"', b'"clAim"'), "no backup of vcluster's"),
        "list": (good.replace(b"{\n", b"[\n", 1), "no backup of vcluster's"),
    }
    for name, (content, why) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UsageError, match=why):
            kit.demo.restore(path)
    with pytest.raises(UsageError, match=r"there is no file .*/none") as caught:
        kit.demo.restore(tmp_path / "none")
    assert "`vcluster backup` wrote" in caught.value.remedy
    with pytest.raises(PermanentError, match="cannot read"):
        kit.demo.restore(tmp_path)
    assert kit.k3s.asked == []


def test_all_machines_must_be_on_and_answer_before_anything_stops(kit: Kit, tmp_path: Path) -> None:
    path = kit.demo.backup(tmp_path).path
    kit.k3s.faults["cpu-2 status"] = "no such program"
    with pytest.raises(PermanentError, match="cpu-2: no such program"):
        kit.demo.restore(path)
    kit.cloud.kill("cpu-1")
    with pytest.raises(UsageError, match="cpu-1 is ERROR: all machines must be on"):
        kit.demo.restore(path)
    assert kit.asked("receive", "halt", "restore") == []


def test_a_cluster_that_goes_down_is_left_alone(kit: Kit, tmp_path: Path) -> None:
    path = kit.demo.backup(tmp_path).path
    kit.cloud.annotate(kit.demo.ref, {"leaving": f"{DOWN}abc@{kit.cloud.now():.0f}"})
    with pytest.raises(CancelledError, match="demo is left alone: it is being taken down"):
        kit.demo.restore(path)
    assert kit.asked("receive", "halt", "restore") == []


def test_who_stops_while_nodes_come_back_is_told_what_is_missing(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cancel = kit.demo.backup(tmp_path).path, threading.Event()
    sleep = kit.cloud.clock.sleep

    def stop(seconds: float, event: threading.Event | None = None) -> None:
        cancel.set()
        sleep(seconds, event)

    monkeypatch.setattr(kit.cloud.clock, "sleep", stop)
    # It says that it starts again, and does not.
    execute = kit.k3s.execute
    monkeypatch.setattr(
        kit.k3s, "execute", lambda machine, command, *more: execute(machine, command.replace("rejoin", "halt"), *more)
    )
    with pytest.raises(CancelledError, match="had not head-2, head-3, cpu-1, cpu-2 back") as caught:
        kit.demo.restore(path, cancel=cancel)
    assert "again" in caught.value.remedy
