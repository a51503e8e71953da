"""vcluster-k3s on a pretended machine: its folders in a temporary one, k3s, systemctl and fetch as small programs."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.machinery
import importlib.util
import io
import json
import os
import subprocess
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from k3s_machines_kit import beside

from vcluster.resources import templates

K3S = """\
#!/bin/sh
# The version stands in a line of its own, so that two programs differ.
version={version}
echo "k3s $*" >> {log}
case "$1 $2" in
  "--version "*) echo "${{0##*/}} version $version (cafe)"; echo "go version go1.25";;
  "etcd-snapshot save") [ -e {folder}/no-room ] && {{ echo 'level=fatal msg="no \\"room\\" left"' >&2; exit 1; }}
    mkdir -p {data}/server/db/snapshots; echo etcd > {data}/server/db/snapshots/$6-head-1;;
  "etcd-snapshot delete") rm {data}/server/db/snapshots/$5;;
  "server --cluster-reset") [ -e {data}/server/db/reset-flag ] && exit 1
    [ -e {folder}/bad-snapshot ] && {{ echo 'level=fatal msg="bad snapshot"' >&2; exit 1; }}
    touch {data}/server/db/reset-flag; mkdir -p {data}/server/db/etcd
    cp ${{3#--cluster-reset-restore-path=}} {data}/server/db/etcd/member;;
esac
"""
SYSTEMCTL = """\
#!/bin/sh
echo "systemctl $*" >> {log}
[ -e {folder}/will-not-start ] && [ "$1" = restart ] && {{ echo "Job for $2 failed." >&2; exit 1; }}
exit 0
"""
FETCH = """\
#!/bin/sh
echo "fetch $*" >> {log}
mkdir -p "$(dirname "$3")"
cp {folder}/store/$2 "$3"
"""


class Machine:
    """A machine's folders, and what its programs were asked."""

    def __init__(self, folder: Path, module: ModuleType) -> None:
        self.folder, self.module = folder, module
        self.data, self.state = folder / "data", folder / "state"
        self.program = folder / "bin/k3s"
        self.store = folder / "store"
        for made in ("bin", "data/server", "state", "units", "store"):
            (folder / made).mkdir(parents=True, exist_ok=True)
        self._write("bin/systemctl", SYSTEMCTL)
        self._write("bin/fetch", FETCH)
        self._write("bin/k3s", K3S, version="v1.36.5+k3s1")
        (folder / "units/k3s.service").touch()
        (folder / "config.yaml").write_text("token: s3cret\nserver: https://10.0.0.2:6443\nnode-name: head\n")
        (self.data / "server/token").write_text("K10cafe::server:s3cret\n")

    def _write(self, name: str, text: str, **more: str) -> Path:
        path = self.folder / name
        path.write_text(text.format(folder=self.folder, data=self.data, log=self.folder / "log", **more))
        path.chmod(0o755)
        return path

    def new_program(self, version: str, told: str = "") -> dict[str, str]:
        """A program in the store; ``told`` is what it says it is, where that is another one."""
        made = self._write("new", K3S, version=told or version)
        sha256 = hashlib.sha256(made.read_bytes()).hexdigest()
        made.rename(self.store / sha256)
        return {"source": "head:", "sha256": sha256, "name": "k3s"}

    def archive(self, name: str, content: str) -> dict[str, str]:
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        (self.store / sha256).write_text(content)
        return {"source": "https://example.org/x", "sha256": sha256, "name": name}

    def call(self, *words: str, stdin: bytes = b"") -> Any:
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
            patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            self.module.main(list(words))
        return json.loads(out.getvalue())

    def asked(self, program: str = "") -> list[str]:
        lines = (self.folder / "log").read_text().splitlines() if (self.folder / "log").exists() else []
        return [line.replace(str(self.folder), "…") for line in lines if line.startswith(program)]

    def forget_asked(self) -> None:
        (self.folder / "log").unlink(missing_ok=True)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    loader = importlib.machinery.SourceFileLoader("vcluster_k3s", str(templates() / "k3s" / "vcluster-k3s"))
    beside(monkeypatch)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    made = Machine(tmp_path, module)
    there = {
        "PROGRAM": made.program,
        "CONFIG": tmp_path / "config.yaml",
        "KUBECONFIG": tmp_path / "k3s.yaml",
        "DATA": made.data,
        "STATE": made.state,
        "LOCK": tmp_path / "lock",
        "UNITS": tmp_path / "units",
        "FETCH": str(tmp_path / "bin/fetch"),
        "LOCK_SECONDS": 0,
    }
    for name, value in there.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return made


def agent(machine: Machine) -> Machine:
    (machine.folder / "units/k3s.service").unlink()
    return machine


# What is there -------------------------------------------------------------------------------------------------------


def test_status_tells_what_lies_there_and_what_was_not_ended(machine: Machine) -> None:
    images = machine.data / "agent/images"
    images.mkdir(parents=True)
    (images / "images.tar").write_text("x")
    told = machine.call("status")
    assert (told["role"], told["version"], told["pending"], told["restoring"]) == (
        "server",
        "v1.36.5+k3s1",
        False,
        False,
    )
    assert told["sha256"] == hashlib.sha256(machine.program.read_bytes()).hexdigest()
    assert told["images"] == {"images.tar": hashlib.sha256(b"x").hexdigest()}
    assert machine.call("status")["role"] == "server"
    assert agent(machine).call("status")["role"] == "agent"


def test_a_node_that_fell_silent_is_not_ready_whatever_is_written_of_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = lambda at: time.strftime("%Y-%m-%dT%H:%M:%S.123456Z", time.gmtime(at))  # noqa: E731

    def node(name: str, ready: str, **spec: Any) -> dict[str, Any]:
        conditions = [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": ready}]
        status = {"conditions": conditions, "nodeInfo": {"kubeletVersion": "v1.36.5+k3s1"}}
        return {"metadata": {"name": name}, "spec": spec, "status": status}

    nodes = [
        node("cpu-1", "True"),
        node("cpu-2", "True"),
        node("cpu-3", "Unknown"),
        node("cpu-4", "True", unschedulable=True),
    ]
    leases = [
        {"metadata": {"name": f"cpu-{n}"}, "spec": {"renewTime": stamp(time.time() - age)}}
        for n, age in ((1, 5), (2, 300), (3, 5), (4, 5))
    ]
    monkeypatch.setattr(machine.module.kube, "call", lambda _, where: {"items": leases if "leases" in where else nodes})
    told = machine.call("nodes")
    assert {name: each["ready"] for name, each in told.items()} == {
        "cpu-1": True,
        "cpu-2": False,
        "cpu-3": False,
        "cpu-4": True,
    }
    assert [name for name, each in told.items() if not each["schedulable"]] == ["cpu-4"]
    assert told["cpu-1"]["version"] == "v1.36.5+k3s1"


def test_what_only_a_server_has_is_not_asked_of_an_agent(machine: Machine) -> None:
    agent(machine)
    for words in (["nodes"], ["kubeconfig"], ["snapshot"], ["receive", "a" * 64], ["restore", "a" * 64], ["settle"]):
        with pytest.raises(machine.module.Sorry, match="no Kubernetes server"):
            machine.call(*words)


def test_before_kubernetes_started_there_is_nothing_to_give(machine: Machine) -> None:
    (machine.data / "server/token").unlink()
    for words in (["kubeconfig"], ["snapshot"]):
        with pytest.raises(machine.module.Sorry, match="has not started here yet"):
            machine.call(*words)


@pytest.mark.parametrize("words", [["dance"], [], ["restore"], ["upgrade", "../../etc"], ["receive", "A" * 64]])
def test_what_it_does_not_know_is_an_error(machine: Machine, words: list[str]) -> None:
    with pytest.raises(machine.module.Sorry):
        machine.call(*words)
    assert machine.asked() == []


def test_of_two_at_once_the_second_waits_and_then_says_so(machine: Machine) -> None:
    with machine.module.alone(), pytest.raises(machine.module.Sorry, match="another call is at work"):
        machine.call("rejoin")
    assert machine.call("rejoin") is None


# Backup --------------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_told_with_all_that_it_takes_to_bring_it_back(machine: Machine) -> None:
    told = machine.call("snapshot")
    file = Path(told["file"])
    assert file.name.startswith("vcluster-passing-")
    assert (file.read_text(), told["size"], told["sha256"]) == ("etcd\n", 5, hashlib.sha256(b"etcd\n").hexdigest())
    assert (file.stat().st_mode & 0o777, told["version"]) == (0o600, "v1.36.5+k3s1")
    assert Path(told["token"]).read_text() == "K10cafe::server:s3cret\n"
    assert machine.call("forget", told["file"]) is None
    assert not file.exists()
    assert Path(machine.call("snapshot", "--keep")["file"]).name.startswith("vcluster-kept-")


def test_what_a_killed_launcher_left_goes_with_the_next_snapshot_and_nothing_else(machine: Machine) -> None:
    folder = machine.data / "server/db/snapshots"
    folder.mkdir(parents=True)
    names = ("vcluster-passing-1-head-1", "vcluster-passing-2-head-1", "vcluster-kept-1", "etcd-snapshot-head-1")
    for name in names:
        (folder / name).write_text("x")
    old = time.time() - 7200
    for name in names:
        if name != names[1]:  # somebody may still fetch that
            os.utime(folder / name, (old, old))
    machine.call("snapshot")
    assert {file.name for file in folder.iterdir()} >= set(names[1:])
    assert not (folder / names[0]).exists()


@pytest.mark.parametrize("name", ["../../token", "etcd-snapshot-head-1"])
def test_only_our_own_snapshots_are_removed(machine: Machine, name: str) -> None:
    folder = machine.data / "server/db/snapshots"
    folder.mkdir(parents=True)
    (folder / "etcd-snapshot-head-1").touch()
    with pytest.raises(machine.module.Sorry, match="no snapshot of ours"):
        machine.call("forget", f"{folder}/{name}")
    assert (folder / "etcd-snapshot-head-1").exists()
    assert (machine.data / "server/token").exists()


def test_why_k3s_takes_no_snapshot_is_told(machine: Machine) -> None:
    (machine.folder / "no-room").touch()
    with pytest.raises(machine.module.Sorry, match=r"k3s: no .*room.* left"):
        machine.call("snapshot")


# Restore -------------------------------------------------------------------------------------------------------------

SNAPSHOT = b"the snapshot\n"
SHA256 = hashlib.sha256(SNAPSHOT).hexdigest()


def with_database(machine: Machine, content: str = "now") -> Path:
    member = machine.data / "server/db/etcd/member"
    member.parent.mkdir(parents=True)
    member.write_text(content)
    return member


def test_a_server_becomes_the_only_one_with_the_snapshots_database(machine: Machine) -> None:
    member = with_database(machine)
    assert machine.call("receive", SHA256, stdin=SNAPSHOT) is None
    machine.call("restore", SHA256)
    assert member.read_bytes() == SNAPSHOT
    assert machine.asked() == [
        "systemctl stop k3s.service",
        f"k3s server --cluster-reset --cluster-reset-restore-path=…/state/restore/{SHA256}",
        "systemctl restart k3s.service",
    ]
    # It begins alone, with all else as it was, and nobody else reads the token in it.
    config = machine.folder / "config.yaml"
    assert config.read_text() == "token: s3cret\nnode-name: head\ncluster-init: true\n"
    assert config.stat().st_mode & 0o777 == 0o600
    assert machine.call("status")["restoring"]
    with pytest.raises(machine.module.Sorry, match="begun and not ended"):
        machine.call("snapshot")
    machine.call("settle")
    assert not machine.call("status")["restoring"]
    assert not (machine.state / "restore").exists()


def test_an_interrupted_restore_is_mended_by_the_same_again(machine: Machine) -> None:
    """k3s leaves a mark with which it refuses a second reset."""
    member = with_database(machine)
    machine.call("receive", SHA256, stdin=SNAPSHOT)
    (machine.folder / "will-not-start").touch()
    with pytest.raises(machine.module.Sorry, match=r"k3s.service does not start.*journalctl -u k3s.service"):
        machine.call("restore", SHA256)
    assert (machine.data / "server/db/reset-flag").exists()
    assert machine.call("status")["restoring"]
    (machine.folder / "will-not-start").unlink()
    machine.call("receive", SHA256, stdin=SNAPSHOT)
    machine.call("restore", SHA256)
    assert member.read_bytes() == SNAPSHOT


def test_a_snapshot_that_k3s_does_not_take_is_told(machine: Machine) -> None:
    machine.call("receive", SHA256, stdin=SNAPSHOT)
    (machine.folder / "bad-snapshot").touch()
    with pytest.raises(machine.module.Sorry, match="takes nothing from the snapshot: bad snapshot"):
        machine.call("restore", SHA256)


def test_what_came_damaged_is_not_kept_and_stops_nothing(machine: Machine) -> None:
    with pytest.raises(machine.module.Sorry, match="checksum is another"):
        machine.call("receive", SHA256, stdin=b"half")
    with pytest.raises(machine.module.Sorry, match="send it first"):
        machine.call("restore", SHA256)
    assert machine.asked() == []
    assert list((machine.state / "restore").iterdir()) == []


def test_another_snapshot_takes_the_place_of_the_one_that_was_sent_before(machine: Machine) -> None:
    other = hashlib.sha256(b"other").hexdigest()
    machine.call("receive", other, stdin=b"other")
    machine.call("receive", SHA256, stdin=SNAPSHOT)
    assert [file.name for file in (machine.state / "restore").iterdir()] == [SHA256]


def test_a_peer_sets_its_database_aside_and_joins_anew_however_often(machine: Machine) -> None:
    with_database(machine, "of before")
    db = machine.data / "server/db"
    machine.call("halt")
    assert (db / "etcd-before-restore/member").read_text() == "of before"
    assert not (db / "etcd").exists()
    (db / "etcd").mkdir()  # it joined in a run that was interrupted later
    machine.call("halt")
    assert (db / "etcd-before-restore/member").read_text() == "of before"
    assert not (db / "etcd").exists()
    machine.call("halt")
    machine.call("rejoin")
    assert machine.asked("systemctl")[-1] == "systemctl restart k3s.service"
    machine.call("settle")
    assert not (db / "etcd-before-restore").exists()


def test_an_agent_is_started_and_not_waited_for(machine: Machine) -> None:
    agent(machine).call("rejoin")
    assert machine.asked() == ["systemctl restart --no-block k3s-agent.service"]


# Upgrade -------------------------------------------------------------------------------------------------------------

NEW = "v1.37.1+k3s1"


def stage(machine: Machine, program: dict[str, str], *images: dict[str, str], drop: tuple[str, ...] = ()) -> None:
    wanted = {"version": NEW, "program": program, "images": images, "drop": drop}
    machine.call("stage", stdin=json.dumps(wanted).encode())


def test_a_program_is_fetched_beside_the_old_one_and_changed_for_it_later(machine: Machine) -> None:
    old, program = machine.program.read_bytes(), machine.new_program(NEW)
    stage(machine, program)
    assert machine.program.read_bytes() == old
    assert machine.asked("systemctl") == []
    assert machine.call("upgrade", program["sha256"]) is None
    told = machine.call("status")
    assert (told["version"], told["sha256"], told["pending"]) == (NEW, program["sha256"], False)
    assert machine.program.stat().st_mode & 0o777 == 0o755
    assert machine.asked("systemctl") == ["systemctl restart k3s.service"]
    assert not machine.program.with_name("k3s.new").exists()


def test_an_agents_own_unit_is_restarted(machine: Machine) -> None:
    program = machine.new_program(NEW)
    stage(agent(machine), program)
    machine.call("upgrade", program["sha256"])
    assert machine.asked("systemctl") == ["systemctl restart k3s-agent.service"]


def test_a_program_that_says_it_is_another_is_refused(machine: Machine) -> None:
    program = machine.new_program(NEW, told="v1.35.0+k3s1")
    with pytest.raises(machine.module.Sorry, match=f"is v1.35.0.k3s1, and not {NEW.replace('+', '.')}"):
        stage(machine, program)
    with pytest.raises(machine.module.Sorry, match="stage it first"):
        machine.call("upgrade", program["sha256"])
    assert machine.call("status")["version"] == "v1.36.5+k3s1"


def test_a_program_that_cannot_be_had_is_told(machine: Machine) -> None:
    with pytest.raises(machine.module.Sorry, match=r"the program: .*No such file"):
        stage(machine, {"source": "head:", "sha256": "a" * 64, "name": "k3s"})


def test_what_did_not_start_is_started_anew_by_the_same_again(machine: Machine) -> None:
    program = machine.new_program(NEW)
    stage(machine, program)
    (machine.folder / "will-not-start").touch()
    with pytest.raises(machine.module.Sorry, match="does not start"):
        machine.call("upgrade", program["sha256"])
    told = machine.call("status")
    assert (told["version"], told["pending"]) == (NEW, True)
    (machine.folder / "will-not-start").unlink()
    machine.forget_asked()
    stage(machine, program)
    assert machine.asked("fetch") == []
    machine.call("upgrade", program["sha256"])
    assert not machine.call("status")["pending"]
    assert machine.asked("systemctl") == ["systemctl restart k3s.service"]


def test_images_come_and_go(machine: Machine) -> None:
    folder = machine.data / "agent/images"
    folder.mkdir(parents=True)
    for name in ("old.tar", "of-a-person.tar"):
        (folder / name).write_text("x")
    stage(machine, machine.new_program(NEW), machine.archive("images.tar", "new"), drop=("old.tar", "images.tar"))
    assert {file.name for file in folder.iterdir()} == {"images.tar", "of-a-person.tar"}
    assert (folder / "images.tar").read_text() == "new"


@pytest.mark.parametrize("name", ["../../../bin/sh", ".hidden", "a/b"])
def test_an_archive_stays_in_its_folder(machine: Machine, name: str) -> None:
    with pytest.raises(machine.module.Sorry, match="strange name"):
        stage(machine, machine.new_program(NEW), machine.archive(name, "x"))
    with pytest.raises(machine.module.Sorry, match="strange name"):
        stage(machine, machine.new_program(NEW), drop=(name,))


def test_a_program_that_never_ends_is_told_with_what_it_said_last(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(command: Any, **settings: Any) -> None:
        raise subprocess.TimeoutExpired(command, settings["timeout"], b"first\nwaiting\n", None)

    monkeypatch.setattr(machine.module.subprocess, "run", slow)
    with pytest.raises(machine.module.Sorry, match="sh was not done within 7 seconds, and said last: waiting"):
        machine.module.run("sh", timeout=7)
