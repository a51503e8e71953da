"""A computer with credentials and an SSH key alone gets the cluster's secret from its head, and from nobody else."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from ssh_kit import SshServer, ssh_server

from vcluster import adopt
from vcluster.access import Access
from vcluster.actions import NOTE_READY
from vcluster.cloudinit import files_in
from vcluster.clouds.base import Cloud
from vcluster.errors import CancelledError, DeadlineError, PermanentError, TemporaryError, UsageError
from vcluster.events import Event, Log
from vcluster.folder import Folder
from vcluster.model import ClusterRef, CommandResult, Machine, MachineState, Observed, Port, Role
from vcluster.remote import KEY_VARIABLE
from vcluster.secrets import Keyring
from vcluster.stacks.base import HEAD_SECRET, HEAD_SPEC

KEYS, OTHER = Keyring(bytes(range(32))), Keyring(bytes(32))
REF = ClusterRef("demo", "project", "me")
SPEC = "name: demo\ncloud: somewhere\n"


@dataclass
class OneHead:
    """As much of a cloud as the way in needs: one cluster, whose picture a test may change at every look."""

    observed: Observed
    next: list[Callable[[Observed], Observed]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def observe(self, ref: ClusterRef, since: Observed | None = None) -> Observed:
        self.calls.append("machines" if since else "all")
        if self.next:
            self.observed = self.next.pop(0)(self.observed)
        return self.observed

    def start_machine(self, ref: ClusterRef, uuid: str) -> None:
        self.calls.append(f"start {uuid}")
        self.observed = with_head(self.observed, state=MachineState.ACTIVE)

    def reboot_machine(self, ref: ClusterRef, uuid: str) -> None:
        self.calls.append(f"reboot {uuid}")
        self.observed = with_head(self.observed, state=MachineState.ACTIVE)

    def unshelve_machine(self, ref: ClusterRef, uuid: str) -> None:
        self.calls.append(f"unshelve {uuid}")
        self.observed = with_head(self.observed, state=MachineState.ACTIVE)

    def now(self) -> float:
        return 0.0


def with_head(observed: Observed, **changes: Any) -> Observed:
    """The picture with another head."""
    return replace(observed, machines=tuple(replace(machine, **changes) for machine in observed.machines))


@dataclass
class Bed:
    """A head that answers, a person's home, and the way in from there."""

    server: SshServer
    cloud: OneHead
    folder: Folder
    home: Path
    events: list[Event] = field(default_factory=list)

    @property
    def access(self) -> Access:
        return Access(cast(Cloud, self.cloud), REF, self.folder, self.events.append)

    def adopt(self, timeout: float = 20.0, **options: Any) -> bool:
        return self.access.adopt(self.cloud.observed, timeout, **options)

    def said(self) -> str:
        return "\n".join(event.message for event in self.events if isinstance(event, Log))


def gives(secret: str, spec: str = SPEC) -> Callable[[str, str], CommandResult]:
    """A head on which these lie."""

    def answer(command: str, stdin: str) -> CommandResult:
        known = command == adopt.FETCH_COMMAND
        return CommandResult(f"{secret}\n{spec}", "", 0) if known else CommandResult(f"{command}\n", "", 0)

    return answer


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setattr(adopt, "POLL", 0.05)
    key = home / ".ssh" / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    mine = key.with_name("id_ed25519.pub").read_text()
    with ssh_server(SshServer(KEYS.host("head"), [mine, KEYS.admin.public], gives(KEYS.encoded))) as server:
        host_key = KEYS.host("head").public
        head = Machine("u", REF.tag(Role.HEAD), "head", Role.HEAD, "", MachineState.ACTIVE, "small", "p", "10.0.0.2")
        head = replace(head, endpoint=server.endpoint, host_key=host_key)
        port = Port("p", REF.tag(Role.HEAD), "head", "10.0.0.2", "", device="u", claim=KEYS.claim)
        cloud = OneHead(Observed(ports=(port,), machines=(head,)))
        yield Bed(server, cloud, Folder(tmp_path / "vcluster", REF), home)


def test_secret_and_spec_come_to_this_computer(bed: Bed) -> None:
    assert bed.adopt()
    assert bed.folder.claim == KEYS.claim
    assert (bed.folder.path / "spec.yaml").read_text() == SPEC
    assert {path.stat().st_mode & 0o077 for path in bed.folder.path.rglob("*")} == {0}
    assert bed.server.users == ["vcluster"]
    assert "came from its head" in bed.said()
    assert KEYS.encoded not in bed.said()


def test_keys_that_are_here_are_not_fetched(bed: Bed) -> None:
    bed.folder.adopt(KEYS, SPEC)
    assert bed.adopt()
    assert (bed.server.users, bed.cloud.calls, bed.events) == ([], [], [])


def test_commands_work_at_once_from_a_computer_without_keys(bed: Bed) -> None:
    assert bed.access.run("hostname").stdout == "hostname\n"
    assert bed.access.ssh_command()[:2] == ["ssh", "-F"]


def test_a_stale_secret_is_moved_aside_once_the_right_one_is_proved(bed: Bed) -> None:
    bed.folder.adopt(OTHER, "name: demo\n")
    bed.server.commands = gives(Keyring(bytes([7] * 32)).encoded)
    with pytest.raises(PermanentError, match="does not come from"):
        bed.adopt()
    assert bed.folder.claim == OTHER.claim
    bed.server.commands = gives(KEYS.encoded)
    assert bed.adopt()
    assert bed.folder.claim == KEYS.claim
    assert (bed.folder.path / f"secret.old-{OTHER.claim}").read_bytes() == OTHER.secret
    assert f"secret.old-{OTHER.claim}" in bed.said()


def test_somebody_else_at_the_heads_address_gets_no_key(bed: Bed) -> None:
    bed.cloud.observed = with_head(bed.cloud.observed, host_key=OTHER.host("head").public)
    with pytest.raises(PermanentError, match="another host key"):
        bed.adopt()
    assert bed.server.offered == []
    assert not bed.folder.known


def test_a_head_that_gives_another_claims_secret_is_not_believed(bed: Bed) -> None:
    port = replace(bed.cloud.observed.ports[0], claim=OTHER.claim)
    bed.cloud.observed = replace(bed.cloud.observed, ports=(port,))
    with pytest.raises(PermanentError, match="does not come from"):
        bed.adopt()
    assert not bed.folder.known


@pytest.mark.parametrize("text", ["", "AAAA", "hush, hush!"])
def test_what_is_no_secret_is_said_without_being_shown(bed: Bed, text: str) -> None:
    bed.server.commands = gives(text)
    with pytest.raises(PermanentError, match="no secret") as found:
        bed.adopt()
    assert not text or text not in str(found.value)


def test_a_head_that_knows_none_of_the_users_keys(bed: Bed) -> None:
    bed.server.admitted = []
    bed.cloud.observed = replace(bed.cloud.observed, notes={NOTE_READY: "1"})
    with pytest.raises(UsageError, match="takes none of yours") as found:
        bed.adopt(timeout=3600.0)
    assert str(bed.home / ".ssh" / "id_ed25519") in found.value.message
    assert "access.ssh_keys" in found.value.remedy
    assert KEY_VARIABLE in found.value.remedy


def test_a_head_that_was_never_ready_may_not_know_them_yet(bed: Bed) -> None:
    admitted, bed.server.admitted = bed.server.admitted, []

    def later(observed: Observed) -> Observed:
        bed.server.admitted = admitted
        return observed

    bed.cloud.next = [lambda observed: observed, later]
    assert bed.adopt()
    assert bed.said().count("waiting for the head") == 1
    assert set(bed.cloud.calls) == {"machines"}


def test_a_head_that_boots_is_waited_for(bed: Bed) -> None:
    ready = bed.cloud.observed
    bed.cloud.observed = with_head(ready, state=MachineState.BUILD, endpoint=None)
    files = iter([CommandResult("", "cat: /etc/vcluster/secrets/cluster: No such file or directory\n", 1)])
    given = gives(KEYS.encoded)
    bed.server.commands = lambda command, stdin: next(files, None) or given(command, stdin)
    bed.cloud.next = [lambda observed: observed, lambda _: ready]
    assert bed.adopt()
    assert bed.folder.claim == KEYS.claim


def test_time_that_runs_out_says_what_was_waited_for(bed: Bed) -> None:
    bed.server.commands = lambda command, stdin: CommandResult("half a secret", "sudo: a password is required\n", 1)
    with pytest.raises(DeadlineError, match="a password is required") as found:
        bed.adopt(timeout=0.0)
    assert "half a secret" not in str(found.value)


def test_nobody_answers(bed: Bed) -> None:
    bed.cloud.observed = with_head(bed.cloud.observed, endpoint=replace(bed.server.endpoint, port=1))
    with pytest.raises(DeadlineError, match=r"nobody answers at 127\.0\.0\.1:1"):
        bed.adopt(timeout=0.0)


def test_without_a_head_the_caller_looks_again(bed: Bed) -> None:
    bed.cloud.observed = replace(bed.cloud.observed, machines=())
    assert not bed.adopt()
    assert bed.cloud.calls == []


def test_a_head_that_goes_while_it_is_waited_for(bed: Bed) -> None:
    bed.server.admitted = []
    bed.cloud.next = [lambda observed: replace(observed, machines=())]
    assert not bed.adopt()


@pytest.mark.parametrize("state", [MachineState.SHUTOFF, MachineState.SHELVED, MachineState.ERROR])
def test_a_head_that_is_off_is_named(bed: Bed, state: MachineState) -> None:
    bed.cloud.observed = replace(with_head(bed.cloud.observed, state=state), notes={NOTE_READY: "1"})
    with pytest.raises(UsageError, match=f"is {state}"):
        bed.adopt()
    assert bed.cloud.calls == []


@pytest.mark.parametrize(
    ("state", "call"),
    [
        (MachineState.SHUTOFF, "start u"),
        (MachineState.SHELVED, "unshelve u"),
        (MachineState.ERROR, "reboot u"),
    ],
)
def test_a_head_that_is_off_is_switched_on_once_where_the_caller_says_so(
    bed: Bed, state: MachineState, call: str
) -> None:
    off = replace(with_head(bed.cloud.observed, state=state), notes={NOTE_READY: "1"})
    bed.cloud.observed, on = off, bed.cloud.observed
    bed.cloud.next = [lambda _: off, lambda _: off, lambda _: on]  # the cloud takes a while to show it
    assert bed.adopt(boot=True)
    assert bed.cloud.calls == [call, "machines", "machines", "machines"]


def test_a_head_in_error_that_was_never_ready_is_left_to_whoever_makes_it(bed: Bed) -> None:
    ready = bed.cloud.observed
    bed.cloud.observed = with_head(ready, state=MachineState.ERROR)
    bed.cloud.next = [lambda observed: observed, lambda _: ready]
    assert bed.adopt(boot=True)
    assert set(bed.cloud.calls) == {"machines"}
    bed.folder.remove()
    bed.cloud.observed = with_head(ready, state=MachineState.ERROR)
    with pytest.raises(DeadlineError, match="ERROR before it was ever ready") as found:
        bed.adopt(timeout=0.0)
    assert "vcluster down demo" in found.value.remedy


@pytest.mark.parametrize(("field_", "words"), [("host_key", "host key"), ("endpoint", "no address")])
def test_a_head_that_cannot_be_known_or_reached_is_not_asked(bed: Bed, field_: str, words: str) -> None:
    bed.cloud.observed = with_head(bed.cloud.observed, **{field_: "" if field_ == "host_key" else None})
    with pytest.raises(UsageError, match=words):
        bed.adopt()
    assert bed.server.offered == []


def test_ctrl_c_while_waiting(bed: Bed) -> None:
    bed.server.admitted = []
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError):
        bed.adopt(cancel=cancel)


def test_a_question_in_passing_is_no_error_when_it_fails(bed: Bed) -> None:
    bed.server.admitted = []
    assert not bed.access._can_ask_now(bed.cloud.observed)
    assert "the scheduler was not asked" in bed.said()
    bed.folder.adopt(KEYS, "")
    assert bed.access._can_ask_now(bed.cloud.observed)


def test_the_spec_as_applied_goes_to_the_head(bed: Bed) -> None:
    seen: list[tuple[str, str]] = []

    def take(command: str, stdin: str) -> CommandResult:
        seen.append((command, stdin))
        return CommandResult("", "", 0)

    bed.folder.adopt(KEYS, "")
    bed.server.commands = take
    bed.access._keep_spec("name: demo\nsetup: a script with a password in it\n")
    ((command, stdin),) = seen
    assert "password" not in command
    assert HEAD_SPEC in command
    assert stdin.endswith("a password in it\n")
    bed.server.commands = lambda command, stdin: CommandResult("", "sh: no space left\n", 1)
    with pytest.raises(TemporaryError, match="no space left"):
        bed.access._keep_spec("name: demo\n")


def test_the_places_of_both_are_what_user_data_writes() -> None:
    from slurm_kit import site

    from vcluster.stacks.slurm import SlurmStack

    where = site()
    head, worker = (files_in(SlurmStack().user_data(where, slot)) for slot in where.slots[:2])
    result = CommandResult((head[HEAD_SECRET] + head[HEAD_SPEC]).decode(), "", 0)
    machine = Machine("u", "t", "head", Role.HEAD, "", MachineState.ACTIVE, "small", "p", "a")
    keyring, spec = adopt.fetch(lambda command: result, machine, where.keyring.claim)
    assert keyring.secret == where.keyring.secret
    assert type(where.spec).from_yaml(spec) == where.spec
    assert not {HEAD_SECRET, HEAD_SPEC} & worker.keys()
