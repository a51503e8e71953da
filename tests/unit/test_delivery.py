"""Files of this computer on their way to the head: only what is missing goes, whole and checked."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vcluster import Cluster, ClusterSpec, delivery, ready
from vcluster.clouds.memory import MemoryCloud
from vcluster.delivery import HandedFile, check, deliver, handed
from vcluster.errors import PermanentError, SpecError, TemporaryError
from vcluster.model import CommandResult, Endpoint, Health, Machine, MachineState, Observed, Role
from vcluster.ready import HeadControl

SHA = "0123456789abcdef" * 4
SPEC = """\
name: demo
cloud: memory
scheduler: k3s
workers: [{count: 1}]
k3s:
  binary: ./k3s
  images:
    - source: https://mirror.example.org/images.tar
      sha256: %s
    - ./more.tar
"""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "k3s").write_bytes(b"program")
    (tmp_path / "more.tar").write_bytes(b"images")
    (tmp_path / "demo.yaml").write_text(SPEC % SHA)
    return tmp_path


@pytest.fixture
def spec(folder: Path) -> ClusterSpec:
    return ClusterSpec.load(folder / "demo.yaml")


@dataclass
class Head:
    """A head whose shell is this computer's, with its store and the administrator's home in a folder."""

    folder: Path
    sent: list[str] = field(default_factory=list)
    breaks: bool = False

    @property
    def store(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / "files").glob("*")}

    def run(self, command: str, *, stdin: str = "", timeout: float | None = None) -> CommandResult:
        shell = f'sudo() {{ shift; "$@"; }}\n{command}'
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
        return CommandResult(done.stdout, done.stderr, done.returncode)

    def put(self, local: Path, remote: str) -> None:
        if self.breaks:
            raise TemporaryError("the connection broke")
        self.sent.append(local.name)
        shutil.copyfile(local, remote)


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Head:
    home = tmp_path / "head"
    (home / "admin").mkdir(parents=True)
    monkeypatch.setattr(delivery, "STORE", str(home / "files"))
    monkeypatch.setattr(delivery, "DRAFTS", str(home / "admin"))
    return Head(home)


def send(head: Head, files: tuple[HandedFile, ...], told: Callable[[str], None] = print) -> None:
    deliver(head, files, told)  # type: ignore[arg-type]


# What is to be handed over -------------------------------------------------------------------------------------------


def test_files_of_this_computer_are_handed_over_and_others_are_not(spec: ClusterSpec, folder: Path) -> None:
    expected = (
        HandedFile(folder / "k3s", sha256(b"program")),
        HandedFile(folder / "more.tar", sha256(b"images")),
    )
    assert handed(spec) == expected
    assert handed(ClusterSpec.from_yaml(spec.to_yaml())) == expected


@pytest.mark.parametrize("text", ["", "scheduler: k3s\n", "scheduler: slurm\n"])
def test_most_clusters_are_handed_nothing(text: str) -> None:
    plain = ClusterSpec.from_yaml(f"name: demo\ncloud: local\n{text}")
    assert handed(plain) == handed(None) == ()
    check(plain)


def test_files_that_are_here_are_in_order(spec: ClusterSpec) -> None:
    check(spec)
    assert spec.kubernetes.binary.sha256 == sha256(b"program")


def test_a_file_that_is_not_here_is_said_with_its_line(folder: Path) -> None:
    (folder / "k3s").unlink()
    (folder / "more.tar").unlink()
    with pytest.raises(SpecError) as caught:
        check(ClusterSpec.load(folder / "demo.yaml"))
    assert [(p.where, p.line) for p in caught.value.problems] == [("k3s.binary", 6), ("k3s.images[1]", 10)]
    assert caught.value.problems[0].message == f"there is no file {folder / 'k3s'}"
    assert caught.value.problems[0].remedy == "correct its path"


def test_a_checksum_that_is_another_files_is_said_with_its_line(folder: Path) -> None:
    text = "name: demo\ncloud: local\nscheduler: k3s\nk3s:\n  binary:\n    path: k3s\n    sha256: "
    (folder / "demo.yaml").write_text(f"{text}{SHA}\n")
    with pytest.raises(SpecError) as caught:
        check(ClusterSpec.load(folder / "demo.yaml"))
    (problem,) = caught.value.problems
    assert (problem.where, problem.line) == ("k3s.binary.sha256", 7)
    assert problem.message == f"{folder / 'k3s'} has the SHA-256 {sha256(b'program')}"


def test_a_new_head_needs_the_files_and_one_that_is_there_has_them(spec: ClusterSpec, folder: Path) -> None:
    """So a cluster is mended from another computer, too."""
    cloud, home = MemoryCloud(), folder / "home"
    with Cluster(spec, cloud=cloud, home=home) as demo:
        demo.up()
        (folder / "k3s").unlink()
        cloud.lose("cpu-1")
        assert [a.name for a in demo.plan().actions if a.verb == "create"] == ["cpu-1"]
        demo.up()
        demo.down()
        with pytest.raises(SpecError, match="there is no file"):
            demo.plan()
        with pytest.raises(SpecError, match="there is no file"):
            demo.up()
    assert cloud.resources() == []


# On the way ----------------------------------------------------------------------------------------------------------


def test_only_what_is_missing_is_sent(head: Head, spec: ClusterSpec) -> None:
    told: list[str] = []
    send(head, handed(spec), told.append)
    assert head.store == {sha256(b"program"): b"program", sha256(b"images"): b"images"}
    assert head.sent == ["k3s", "more.tar"]
    assert told == ["the head gets k3s (0 MiB)", "the head gets more.tar (0 MiB)"]
    assert list((head.folder / "admin").iterdir()) == []
    modes = {path.stat().st_mode & 0o777 for path in (head.folder / "files", *(head.folder / "files").iterdir())}
    assert modes == {0o755}  # whoever serves them is nobody in particular
    send(head, handed(spec), told.append)
    assert (len(head.sent), len(told)) == (2, 2)
    (head.folder / "files" / sha256(b"images")).unlink()
    send(head, handed(spec), told.append)
    assert head.sent == ["k3s", "more.tar", "more.tar"]


def test_a_file_that_is_another_one_by_now_is_not_taken(head: Head, spec: ClusterSpec, folder: Path) -> None:
    files = handed(spec)
    (folder / "k3s").write_bytes(b"a newer program")
    with pytest.raises(PermanentError, match="the head does not take k3s: sha256sum: WARNING: 1 computed checksum"):
        send(head, files)
    assert head.store == {}
    assert list((head.folder / "admin").iterdir()) == []


def test_a_file_that_went_away_matters_where_the_head_has_it_not(head: Head, spec: ClusterSpec, folder: Path) -> None:
    files = handed(spec)
    (folder / "k3s").unlink()
    with pytest.raises(PermanentError, match=r"there is no file .*/k3s for the machines") as caught:
        send(head, files)
    assert caught.value.remedy == "put it back, and try again"
    (head.folder / "files").mkdir()
    (head.folder / "files" / sha256(b"program")).write_bytes(b"program")
    send(head, files)
    assert head.sent == ["more.tar"]


def test_a_disk_that_is_full_is_told(head: Head, spec: ClusterSpec) -> None:
    (head.folder / "files").write_bytes(b"no folder")
    with pytest.raises(PermanentError, match="the head does not take k3s: install: "):
        send(head, handed(spec))
    assert list((head.folder / "admin").iterdir()) == []


def test_a_connection_that_breaks_is_weather(head: Head, spec: ClusterSpec) -> None:
    head.breaks = True
    with pytest.raises(TemporaryError):
        send(head, handed(spec))
    head.breaks = False
    send(head, handed(spec))
    assert len(head.store) == 2


# When ----------------------------------------------------------------------------------------------------------------


@dataclass
class Line:
    """A connection to a head that says that it is ready, or breaks."""

    broken: bool = False
    closed: bool = False

    def run(self, command: str, *, stdin: str = "", timeout: float | None = None) -> CommandResult:
        if self.broken:
            raise TemporaryError("the connection broke")
        return CommandResult(json.dumps({"head": "ready"}), "", 0)

    def close(self) -> None:
        self.closed = True


def test_each_connection_to_the_head_is_greeted_once_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "JUMP_EVERY", 0.0)
    endpoint = Endpoint("10.0.0.1", 22, jump="me@bastion")
    machine = Machine("h", "t", "head", Role.HEAD, "", MachineState.ACTIVE, "s", "p", "10.0.0.1", endpoint=endpoint)
    seen, lines, greeted, refused = Observed(machines=(machine,)), list[Line](), list[Line](), [True]

    def connect(_: Endpoint) -> Line:
        lines.append(Line())
        return lines[-1]

    def greet(line: Line) -> None:
        greeted.append(line)
        if refused.pop() if refused else False:
            raise TemporaryError("the head has no disk yet")

    control = HeadControl(connect, lambda _: "", greet=greet)  # type: ignore[arg-type]
    assert control.health(seen) == {}
    assert (control.silence, lines[0].closed) == ("the head has no disk yet", True)
    for _ in range(3):
        assert control.health(seen) == {"head": Health.READY}
    lines[-1].broken = True
    assert control.health(seen) == {}
    assert control.health(seen) == {"head": Health.READY}
    assert greeted == lines
    assert len(lines) == 3
