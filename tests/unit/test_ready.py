"""How the head is asked: what it says is believed, what it cannot say is not, and a console's word counts."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from vcluster.clouds.base import BOOT_MARK
from vcluster.errors import ConflictError, TemporaryError
from vcluster.model import CommandResult, Endpoint, Health, Machine, MachineState, Observed, Role
from vcluster.ready import EXIT_NEEDED, HeadControl
from vcluster.remote import answers


@dataclass
class FakeRemote:
    """Answers commands from a list; an exception in it is raised."""

    results: list[CommandResult | Exception]
    commands: list[str] = field(default_factory=list)
    closed: int = 0

    def run(self, command: str, *, stdin: str = "", timeout: float | None = None) -> CommandResult:
        self.commands.append(command)
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def banner() -> Iterator[Endpoint]:
    """A listener that greets as an SSH server does."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            while True:
                try:
                    link, _ = server.accept()
                except OSError:
                    return
                link.sendall(b"SSH-2.0-test\r\n")
                link.close()

        threading.Thread(target=greet, daemon=True).start()
        yield Endpoint("127.0.0.1", server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


def observed(endpoint: Endpoint | None, state: MachineState = MachineState.ACTIVE) -> Observed:
    head = Machine("h", "t", "head", Role.HEAD, "", state, "small", "p", "10.77.0.2", endpoint=endpoint)
    worker = Machine("w", "t", "cpu-1", Role.WORKER, "cpu", MachineState.ACTIVE, "small", "q", "10.77.0.3")
    return Observed(machines=(head, worker))


def control(remote: FakeRemote, console: str = "") -> HeadControl:
    return HeadControl(lambda endpoint: remote, lambda uuid: console)  # type: ignore[arg-type, return-value]


def said(**health: str) -> CommandResult:
    return CommandResult(json.dumps(health), "", 0)


def test_what_the_head_says_is_believed(banner: Endpoint) -> None:
    remote = FakeRemote([said(head="ready", **{"cpu-1": "booting"})])
    assert control(remote).health(observed(banner)) == {"head": Health.READY, "cpu-1": Health.BOOTING}
    assert remote.commands == ["sudo -n /usr/local/sbin/vcluster-node health"]


@pytest.mark.slow
def test_a_head_that_is_not_up_is_not_asked(banner: Endpoint) -> None:
    remote = FakeRemote([])
    assert control(remote).health(observed(banner, MachineState.BUILD)) == {}
    assert control(remote).health(observed(None)) == {}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        asked = control(remote)
        assert asked.health(observed(Endpoint("127.0.0.1", port))) == {}
        assert asked.silence == f"no SSH server answers at 127.0.0.1:{port}"
    assert asked.health(observed(None)) == {}
    assert "no address" in asked.silence
    assert remote.commands == []


@pytest.mark.parametrize(
    "answer",
    [
        TemporaryError("the connection broke"),
        CommandResult("", "sudo: /usr/local/sbin/vcluster-node: command not found", 1),
        CommandResult("not json", "", 0),
    ],
)
def test_a_head_that_cannot_say_yet_gives_nothing(banner: Endpoint, answer: CommandResult | TemporaryError) -> None:
    remote = FakeRemote([answer, said(head="ready")])
    asked = control(remote)
    assert asked.health(observed(banner)) == {}
    why = answer.message if isinstance(answer, TemporaryError) else answer.stderr or "it is not configured yet"
    assert asked.silence == why
    assert asked.health(observed(banner)) == {"head": Health.READY}
    assert asked.silence == ""


@pytest.mark.parametrize(
    "why", ["JupyterHub does not start: nobody can log in", "Kubernetes does not answer on the head"]
)
def test_a_service_that_does_not_start_is_told_beside_what_is_well(banner: Endpoint, why: str) -> None:
    booting = replace(said(head="booting"), stderr=f"sudo: unable to resolve host\n{why}\n")
    asked = control(FakeRemote([booting, replace(said(head="ready"), stderr="sudo: unable to resolve host\n")]))
    assert asked.health(observed(banner)) == {"head": Health.BOOTING}
    assert asked.silence == why
    assert asked.health(observed(banner)) == {"head": Health.READY}
    assert asked.silence == ""


def test_a_word_that_is_no_health_is_left_out(banner: Endpoint) -> None:
    remote = FakeRemote([said(head="ready", **{"cpu-1": "sparkling"})])
    assert control(remote).health(observed(banner)) == {"head": Health.READY}


def test_a_console_that_says_failed_is_believed_where_the_head_knows_nothing(banner: Endpoint) -> None:
    remote = FakeRemote([said(head="ready")])
    console = "[  12.3] cloud-init: VCLUSTER FAILED: setup of workers\n"
    assert control(remote, console).health(observed(banner)) == {"head": Health.READY, "cpu-1": Health.FAILED}


def test_an_earlier_boots_failure_is_not_this_ones(banner: Endpoint) -> None:
    failed = "cloud-init: VCLUSTER FAILED: setup of workers\n"
    marks = (
        f"{BOOT_MARK} 2026-01-02 03:04:05\n",
        "[    0.000000] Linux version 6.1.0-40-cloud-amd64 (debian-kernel@lists.debian.org)\n",
        "[    9.123456] cloud-init[310]: Cloud-init v. 22.4.2 running 'init-local' at Sun, 22 Nov 2026\n",
    )
    cases = [(failed + mark + "booting\n", {}) for mark in marks]
    cases += [(mark + failed, {"cpu-1": Health.FAILED}) for mark in marks]
    for console, told in cases:
        remote = FakeRemote([said(head="ready")])
        assert control(remote, console).health(observed(banner)) == {"head": Health.READY, **told}


def test_what_a_scheduler_cannot_do_without_is_no_weather(banner: Endpoint) -> None:
    asked = control(FakeRemote([said(), CommandResult("", "head-2 does not leave the database\n", EXIT_NEEDED)]))
    asked.health(observed(banner))
    with pytest.raises(ConflictError, match=r"^head-2 does not leave the database$"):
        asked.release(["head-2"])


def test_drain_and_resume_quote_their_words_and_pass_refusals_on(banner: Endpoint) -> None:
    remote = FakeRemote([said(), CommandResult("", "", 0), CommandResult("", "slurm says no\n", 1)])
    asked = control(remote)
    asked.health(observed(banner))
    asked.drain(["cpu-1"], "not wanted; rm -rf /")
    assert remote.commands[1].endswith("drain cpu-1 --reason 'not wanted; rm -rf /'")
    with pytest.raises(TemporaryError, match="slurm says no"):
        asked.resume(["cpu-1"])


def test_answers_wants_an_ssh_banner(banner: Endpoint) -> None:
    assert answers(banner)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not answers(Endpoint("127.0.0.1", silent.getsockname()[1]), timeout=0.2)


def test_a_jump_host_is_not_asked_at_every_look(banner: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("vcluster.ready.time.monotonic", lambda: now)
    remote = FakeRemote([TemporaryError("not yet"), said(head="ready")])
    asked = control(remote)
    picture = observed(Endpoint(banner.host, banner.port, "me@bastion"))
    assert asked.health(picture) == {}
    assert asked.health(picture) == {}
    assert len(remote.commands) == 1
    now += 5.0
    assert asked.health(picture) == {"head": Health.READY}


def test_the_consoles_of_a_thousand_workers_are_not_read_at_once(
    banner: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("vcluster.ready.time.monotonic", lambda: now)
    picture = observed(banner)
    worker = picture.machines[1]
    many = [replace(worker, uuid=f"w{n}", name=f"cpu-{n}") for n in range(1, 1001)]
    read: list[str] = []

    def console(uuid: str) -> str:
        read.append(uuid)
        return "VCLUSTER FAILED: packages\n" if uuid == "w7" else ""

    remote = FakeRemote([TemporaryError("booting"), *(said(head="ready") for _ in range(3))])
    asked = HeadControl(lambda endpoint: remote, console)  # type: ignore[arg-type, return-value]
    everyone = replace(picture, machines=(picture.machines[0], *many))
    assert asked.health(everyone) == {}
    assert read == ["h"]  # as long as the head says nothing, it alone can be why
    for _ in range(2):
        now += 15.0
        told = asked.health(everyone)
        told = asked.health(everyone) if len(remote.results) == 2 else told
    assert read == ["h", *(f"w{n}" for n in range(1, 9))]
    assert told == {"head": Health.READY, "cpu-7": Health.FAILED}


def test_the_way_to_the_head_may_be_another_than_the_cloud_says(banner: Endpoint) -> None:
    remote, seen = FakeRemote([said(head="ready")]), []

    def connect(endpoint: Endpoint) -> FakeRemote:
        seen.append(endpoint)
        return remote

    def way(endpoint: Endpoint) -> Endpoint:
        return replace(endpoint, jump="me@bastion")

    asked = HeadControl(connect, lambda uuid: "", way)  # type: ignore[arg-type]
    # Nobody answers at its private address from here; through the jump host somebody does.
    assert asked.health(observed(Endpoint("192.0.2.1", 22))) == {"head": Health.READY}
    assert seen == [Endpoint("192.0.2.1", 22, "me@bastion")]
