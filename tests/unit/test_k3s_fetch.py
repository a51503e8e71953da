"""What a machine downloads: whole and checked or not at all, from where it comes, or from the head."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from k3s_machines_kit import load
from loopback import Quiet, listening

CONTENT = bytes(range(256)) * 9000  # more than one piece
SHA = hashlib.sha256(CONTENT).hexdigest()
WRONG = b"<html>log in first</html>"


@dataclass
class Web:
    """A server that gives ``files`` by path, each time the next of them.

    Attributes:
        breaks: at what it breaks off: in the "length" that it said, in a "chunk", or before its "status" line is whole.
    """

    files: dict[str, list[bytes]] = field(default_factory=dict)
    breaks: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()

    class Handler(Quiet):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # noqa: N802 - named by the library
            made.asked.append(self.path)
            self.close_connection = True
            given = made.files.get(self.path, [])
            content = given.pop(0) if len(given) > 1 else given[0] if given else b""
            how = made.breaks.pop(0) if made.breaks else ""
            if how == "status":
                self.wfile.write(b"HTTP/1.1 banana\r\n\r\n")
                return
            self.send_response(200 if given else 404)
            if how == "chunk":
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"%x\r\n" % len(content) + content[:1000])
                return
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:1000] if how == "length" else content)

    with listening(Handler) as port:
        made.port = port
        yield made


@dataclass
class Machine:
    """A machine that downloads, and what happens while it waits."""

    program: ModuleType
    folder: Path
    web: Web
    waited: Callable[[int], None] | None = None
    naps: int = 0

    @property
    def target(self) -> Path:
        return self.folder / "bin" / "k3s"

    def get(self, source: str, *, head: bool = False) -> None:
        cluster = {"head": "me" if head else "127.0.0.1", "files": self.web.port, "workers": {}}
        (self.folder / "cluster.json").write_text(json.dumps(cluster))
        self.program.main(source, SHA, str(self.target))

    def sleep(self, seconds: float) -> None:
        self.naps += 1
        if self.waited is not None:
            self.waited(self.naps)

    def holds(self, folder: str) -> list[str]:
        return sorted(path.name for path in (self.folder / folder).glob("*"))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, web: Web) -> Machine:
    module = load("fetch", monkeypatch)
    made = Machine(module, tmp_path, web)
    (tmp_path / "store").mkdir()
    monkeypatch.setattr(module, "CLUSTER", tmp_path / "cluster.json")
    monkeypatch.setattr(module, "STORE", tmp_path / "store")
    monkeypatch.setattr(module, "PATIENCE", 5)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: made.naps, sleep=made.sleep))
    monkeypatch.setattr(module, "os", SimpleNamespace(link=os.link, uname=lambda: SimpleNamespace(nodename="me")))
    return made


def is_whole(machine: Machine) -> bool:
    return (
        machine.target.read_bytes() == CONTENT
        and machine.target.stat().st_mode & 0o777 == 0o755
        and machine.holds("bin") == ["k3s"]
    )


def test_a_file_comes_from_its_address(machine: Machine, web: Web) -> None:
    web.files = {"/k3s": [CONTENT]}
    machine.get(web.url("/k3s"))
    assert is_whole(machine)
    assert (web.asked, machine.holds("store"), machine.naps) == (["/k3s"], [], 0)


def test_a_file_that_is_there_is_not_asked_for(machine: Machine, web: Web) -> None:
    machine.target.parent.mkdir()
    machine.target.write_bytes(CONTENT)
    machine.get(web.url("/k3s"))
    assert web.asked == []
    web.files = {"/k3s": [CONTENT]}
    machine.target.write_bytes(CONTENT[:-1])  # another release's, or half of one
    machine.get(web.url("/k3s"))
    assert is_whole(machine)


def test_what_is_not_what_it_should_be_is_asked_for_again(
    machine: Machine, web: Web, capsys: pytest.CaptureFixture[str]
) -> None:
    web.files = {"/k3s": [WRONG, WRONG, CONTENT]}

    def nothing_yet(naps: int) -> None:
        assert not machine.target.exists()

    machine.waited = nothing_yet
    machine.get(web.url("/k3s"), head=True)
    assert is_whole(machine)
    assert machine.naps == 2
    said = capsys.readouterr().out.splitlines()
    assert said == [f"{web.url('/k3s')} has the SHA-256 {hashlib.sha256(WRONG).hexdigest()}, and not {SHA}"]


@pytest.mark.parametrize("how", ["length", "chunk", "status"])
def test_a_download_that_breaks_off_is_begun_anew(machine: Machine, web: Web, how: str) -> None:
    web.files, web.breaks = {"/k3s": [CONTENT]}, [how]
    machine.get(web.url("/k3s"), head=True)
    assert is_whole(machine)
    assert web.asked == ["/k3s", "/k3s"]


def test_a_draft_of_an_earlier_boot_is_no_hindrance(machine: Machine, web: Web) -> None:
    machine.target.parent.mkdir()
    machine.target.with_name(".k3s.draft").write_bytes(CONTENT + b"more")
    web.files = {"/k3s": [CONTENT]}
    machine.get(web.url("/k3s"))
    assert is_whole(machine)


@pytest.mark.parametrize("head", [False, True])
def test_what_cannot_be_had_is_said_and_leaves_nothing(machine: Machine, web: Web, head: bool) -> None:
    web.files = {"/k3s": [WRONG]}
    with pytest.raises(SystemExit, match=r"^k3s cannot be had: http"):
        machine.get(web.url("/k3s"), head=head)
    assert (machine.holds("bin"), machine.holds("store")) == ([], [])
    assert not machine.target.with_name(".k3s.draft").exists()


def test_the_head_waits_for_what_it_is_handed(machine: Machine, web: Web, capsys: pytest.CaptureFixture[str]) -> None:
    def handed(naps: int) -> None:
        if naps == 3:
            (machine.folder / "store" / SHA).write_bytes(CONTENT)

    machine.waited = handed
    machine.get("head:", head=True)
    assert is_whole(machine)
    assert web.asked == []
    assert capsys.readouterr().out == "it is not handed over yet\n"


def test_the_head_keeps_a_copy_for_the_others(machine: Machine, web: Web) -> None:
    web.files = {"/k3s": [CONTENT]}
    machine.get(web.url("/k3s"), head=True)
    kept = machine.folder / "store" / SHA
    assert kept.read_bytes() == CONTENT
    assert kept.stat().st_mode & 0o444 == 0o444  # whoever serves it is nobody in particular
    machine.target.unlink()
    machine.get(web.url("/k3s"), head=True)
    assert is_whole(machine)
    assert web.asked == ["/k3s"]  # it has it


def test_a_machine_gets_from_the_head_what_that_was_handed(machine: Machine, web: Web) -> None:
    web.files = {f"/{SHA}": [b"", CONTENT]}  # not yet there, and then
    machine.get("head:")
    assert is_whole(machine)
    assert web.asked == [f"/{SHA}"] * 2


def test_a_machine_without_a_way_out_turns_to_the_head(machine: Machine, web: Web) -> None:
    web.files = {f"/{SHA}": [CONTENT]}
    for address in ("http://127.0.0.1:1/k3s", web.url("/k3s")):  # nobody there; a proxy that says no
        machine.target.unlink(missing_ok=True)
        machine.get(address)
        assert is_whole(machine)
    assert web.asked == [f"/{SHA}", "/k3s", f"/{SHA}"]
    assert machine.naps == 0
