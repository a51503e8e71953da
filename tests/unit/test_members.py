"""How the machines of a Kubernetes cluster are asked: over SSH, the head straight and the others through it."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ssh_kit import SshServer, ssh_server

from vcluster import kubernetes
from vcluster.errors import CancelledError, PermanentError, TemporaryError
from vcluster.folder import Folder
from vcluster.kubernetes import Kubernetes
from vcluster.members import HELPER, Members
from vcluster.model import ClusterRef, CommandResult, Endpoint, Machine, MachineState, Observed, Role

STATUS = {
    "role": "agent",
    "version": "v1.36.5+k3s1",
    "sha256": "ab",
    "images": {},
    "pending": False,
    "restoring": False,
}


class Bed:
    """A head and an agent behind it, each an SSH server, and what they were told."""

    def __init__(self, home: Path, head: SshServer, agent: SshServer) -> None:
        self.head, self.agent = head, agent
        self.heard: list[tuple[str, str, str]] = []
        self.answers: dict[str, CommandResult] = {}
        for name, server in (("head", head), ("cpu-1", agent)):
            server.commands = lambda command, stdin, name=name: self.hear(name, command, stdin)
        cloud: Any = SimpleNamespace(now=lambda: 0.0)
        ref = ClusterRef("demo", "project", "me")
        self.cluster = Kubernetes(cloud, ref, Folder(home, ref), None, None)
        self.cancel = threading.Event()

    def hear(self, name: str, command: str, stdin: str) -> CommandResult:
        self.heard.append((name, command, stdin))
        return self.answers.get(name, CommandResult(json.dumps(STATUS), "", 0))

    @property
    def observed(self) -> Observed:
        def machine(name: str, role: Role, group: str, endpoint: Endpoint | None) -> Machine:
            state = MachineState.ACTIVE
            return Machine(name, "tag", name, role, group, state, "small", "port", "127.0.0.1", endpoint=endpoint)

        return Observed(
            machines=(machine("head", Role.HEAD, "", self.head.endpoint), machine("cpu-1", Role.WORKER, "cpu", None))
        )


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    ref = ClusterRef("demo", "project", "me")
    keys = Folder(tmp_path, ref).keyring()
    admitted = [keys.admin.public]
    head, agent = (SshServer(keys.host(name), list(admitted)) for name in ("head", "cpu-1"))
    head.forwards = True
    with ssh_server(head), ssh_server(agent):
        monkeypatch.setattr(kubernetes, "SSH_PORT", agent.port)
        yield Bed(tmp_path, head, agent)


@pytest.fixture
def members(bed: Bed) -> Iterator[Members]:
    with bed.cluster._machines(bed.observed, bed.cancel) as made:
        yield made


def test_the_head_is_asked_straight_and_the_others_through_it(bed: Bed, members: Members) -> None:
    assert members.program("head").version == "v1.36.5+k3s1"
    assert bed.head.forwarded == []
    assert members.program("cpu-1").version == "v1.36.5+k3s1"
    members.program("cpu-1")  # over the same connection
    assert bed.head.forwarded == [("127.0.0.1", bed.agent.port)]
    command = f"sudo -n {HELPER} status"
    assert bed.heard == [("head", command, ""), ("cpu-1", command, ""), ("cpu-1", command, "")]
    assert bed.head.users == bed.agent.users == ["vcluster"]


def test_what_is_given_goes_in_by_standard_input_and_words_are_quoted(bed: Bed, members: Members) -> None:
    members.tell("cpu-1", "stage", timeout=60, given={"token": "s3cret"})
    members.tell("head", "forget", "a b; rm -rf /", timeout=60)
    members.tell("head", "receive", "ab", timeout=60, source=io.BytesIO(b"\xff\x00 snapshot"))
    assert bed.heard[0] == ("cpu-1", f"sudo -n {HELPER} stage", '{"token": "s3cret"}')
    assert bed.heard[1][1] == f"sudo -n {HELPER} forget 'a b; rm -rf /'"
    assert bed.heard[2][2].encode(errors="surrogateescape") == b"\xff\x00 snapshot"


def test_a_file_on_the_head_comes_as_it_is(bed: Bed, members: Members) -> None:
    content = bytes(range(256)) * 1000
    bed.answers["head"] = CommandResult(content.decode(errors="surrogateescape"), "", 0)
    sink = io.BytesIO()
    members.copy("/var/lib/a file", sink, 60)
    assert sink.getvalue() == content
    assert bed.heard == [("head", "sudo -n cat '/var/lib/a file'", "")]


def test_an_error_is_told_with_its_last_line_and_never_with_what_was_printed(bed: Bed, members: Members) -> None:
    bed.answers["head"] = CommandResult("client-key-data: U0VDUkVU", "noise\nvcluster-k3s: no room left\n", 1)
    for ask in (members.kubeconfig, members.nodes, lambda: members.copy("/x", io.BytesIO(), 60)):
        with pytest.raises(PermanentError, match="no room left") as caught:
            ask()
        assert "U0VDUkVU" not in str(caught.value)
        assert "noise" not in str(caught.value)
    bed.answers["head"] = CommandResult("", "", 1)
    with pytest.raises(PermanentError, match="head: no reason given"):
        members.nodes()
    bed.answers["head"] = CommandResult("client-key-data: U0VDUkVU", "", 0)
    with pytest.raises(TemporaryError, match="head gave no answer to nodes") as caught_too:
        members.nodes()
    assert "U0VDUkVU" not in str(caught_too.value)


def test_who_was_interrupted_waits_for_no_machine(bed: Bed, members: Members) -> None:
    bed.cancel.set()
    with pytest.raises(CancelledError):
        members.program("cpu-1")
