"""SSH to a machine: its host key is known beforehand, and the keys that a person has are tried one after the other."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import refusing
from ssh_kit import SshServer, nothing, ssh_server

from vcluster.errors import CancelledError, DeadlineError, PermanentError, TemporaryError
from vcluster.model import CommandResult, Endpoint
from vcluster.remote import KEY_VARIABLE, NotAdmittedError, Remote
from vcluster.secrets import Keyring

KEYS = Keyring(bytes(range(32)))
OTHER = Keyring(bytes(32))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's home with an empty ``.ssh``, and no agent."""
    (tmp_path / ".ssh").mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    return tmp_path


@pytest.fixture
def server() -> Iterator[SshServer]:
    with ssh_server(SshServer(KEYS.host("head"), [KEYS.admin.public])) as running:
        yield running


def new_key(path: Path, passphrase: str = "", comment: str = "me") -> str:
    """Make a key pair; returns the public line."""
    options = ["-q", "-t", "ed25519", "-N", passphrase, "-C", comment, "-f", str(path)]
    subprocess.run(["ssh-keygen", *options], check=True)
    return path.with_name(f"{path.name}.pub").read_text()


def mine(server: SshServer) -> Remote:
    """A connection with the person's own keys."""
    return Remote(server.endpoint, user="vcluster", key=None, host_key=KEYS.host("head").public)


def test_a_command_runs_with_the_clusters_key(server: SshServer) -> None:
    server.commands = lambda command, stdin: CommandResult("out", "err", 3)
    with Remote(server.endpoint, user="vcluster", key=KEYS.admin, host_key=KEYS.host("head").public) as remote:
        assert remote.run("anything") == CommandResult("out", "err", 3)
    assert server.users == ["vcluster"]


def test_another_host_key_is_refused_before_any_key_is_offered(server: SshServer) -> None:
    remote = Remote(server.endpoint, user="vcluster", key=KEYS.admin, host_key=OTHER.host("head").public)
    with remote, pytest.raises(PermanentError, match="another host key"):
        remote.run("true")
    assert server.offered == []


def test_a_key_that_is_refused_may_be_known_a_moment_later(server: SshServer) -> None:
    server.admitted = []
    with Remote(server.endpoint, user="vcluster", key=KEYS.admin, host_key=KEYS.host("head").public) as remote:
        with pytest.raises(NotAdmittedError, match="does not let vcluster in yet"):
            remote.run("true")
        server.admitted = [KEYS.admin.public]
        assert remote.run("true").exit_code == 0


def test_nobody_there_is_weather() -> None:
    with refusing() as port:
        remote = Remote(Endpoint("127.0.0.1", port), user="u", key=KEYS.admin, host_key=KEYS.host("head").public)
        with remote, pytest.raises(TemporaryError, match="no SSH at"):
            remote.run("true")


def test_the_usual_file_is_found(server: SshServer, home: Path) -> None:
    server.admitted = [new_key(home / ".ssh" / "id_ed25519")]
    with mine(server) as remote:
        assert remote.run("true").exit_code == 0


def test_the_named_key_alone_is_offered(server: SshServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_key(home / ".ssh" / "id_ed25519")
    server.admitted = [new_key(home / "work-key")]
    monkeypatch.setenv(KEY_VARIABLE, "~/work-key")
    with mine(server) as remote:
        assert remote.run("true").exit_code == 0
    assert len(server.offered) == 1


def test_it_is_said_which_keys_were_tried_and_which_could_not(server: SshServer, home: Path) -> None:
    server.admitted = []
    new_key(home / ".ssh" / "id_ed25519", passphrase="a long one")
    new_key(home / ".ssh" / "id_ecdsa")
    (home / ".ssh" / "id_rsa").write_text("no key at all\n")
    with mine(server) as remote, pytest.raises(NotAdmittedError) as found:
        remote.run("true")
    locked, tried, broken = found.value.tried
    assert "id_ed25519 (not used: it has a passphrase; `ssh-add" in locked
    assert tried.endswith("id_ecdsa")
    assert "id_rsa (not used: no private key" in broken
    assert len(server.offered) == 1


def test_a_named_key_that_is_not_there_is_said(server: SshServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "/nowhere/key")
    with mine(server) as remote, pytest.raises(NotAdmittedError) as found:
        remote.run("true")
    assert found.value.tried == ("/nowhere/key (not read: No such file or directory)",)


def test_no_key_at_all(server: SshServer) -> None:
    with mine(server) as remote, pytest.raises(NotAdmittedError) as found:
        remote.run("true")
    assert found.value.tried == ()


@pytest.fixture
def agent(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real agent; returns the person's home."""
    if shutil.which("ssh-agent") is None:
        pytest.fail("the tests need OpenSSH's client (Debian: openssh-client)")
    place = home / "agent"
    told = subprocess.run(["ssh-agent", "-s", "-a", str(place)], check=True, capture_output=True, text=True).stdout
    monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
    yield home
    os.kill(int(told.split("SSH_AGENT_PID=")[1].split(";")[0]), signal.SIGTERM)


def add(*keys: Path) -> None:
    """Hand keys to the agent."""
    subprocess.run(["ssh-add", "-q", *map(str, keys)], check=True, stderr=subprocess.DEVNULL)


def test_a_key_with_a_passphrase_works_through_the_agent(server: SshServer, agent: Path) -> None:
    key = agent / ".ssh" / "id_ed25519"
    server.admitted = [new_key(key)]
    add(key)
    # From now on the file needs a passphrase; the agent has it already.
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-N", "a long one", "-f", str(key)], check=True, stdout=subprocess.DEVNULL
    )
    with mine(server) as remote:
        assert remote.run("true").exit_code == 0
    assert len(server.offered) == 1


def test_of_many_keys_in_an_agent_the_named_one_is_used(
    server: SshServer, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [agent / f"key{n}" for n in range(6)]
    lines = [new_key(path, comment=f"key{n}") for n, path in enumerate(paths)]
    add(*paths)
    server.admitted, server.tries = [lines[5]], 3
    with mine(server) as remote, pytest.raises(NotAdmittedError) as found:
        remote.run("true")
    assert [name for name in found.value.tried if "not tried" in name] == [
        f"key{n} (agent) (not tried: the machine had enough of the others)" for n in (3, 4, 5)
    ]
    monkeypatch.setenv(KEY_VARIABLE, str(paths[5]))
    with mine(server) as remote:
        assert remote.run("true").exit_code == 0


def test_a_machine_that_is_not_up_makes_no_noise() -> None:
    """In a process of its own: the tests' own logging would hide it."""
    code = (
        "import socket\n"
        "from vcluster.remote import Remote\n"
        "from vcluster.model import Endpoint\n"
        "from vcluster.errors import TemporaryError\n"
        "from vcluster.secrets import Keyring\n"
        "keys = Keyring(bytes(32))\n"
        "with socket.create_server(('127.0.0.1', 0)) as server:\n"
        "    import threading\n"
        "    threading.Thread(target=lambda: server.accept()[0].close(), daemon=True).start()\n"
        "    place = Endpoint('127.0.0.1', server.getsockname()[1])\n"
        "    try:\n"
        "        Remote(place, user='u', key=keys.admin, host_key=keys.host('head').public).run('true')\n"
        "    except TemporaryError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.startswith("no SSH at 127.0.0.1:"), done.stderr
    assert done.stderr == ""


def test_a_connection_that_is_closed_ends_what_waits_for_it(server: SshServer) -> None:
    """Whoever interrupts `up` leaves a command behind in a thread; Python would wait for that at its end."""
    running, over = threading.Event(), threading.Event()

    def lasting(command: str, stdin: str) -> CommandResult:
        running.set()
        over.wait(280)
        return nothing(command, stdin)

    server.commands = lasting
    remote = Remote(server.endpoint, user="vcluster", key=KEYS.admin, host_key=KEYS.host("head").public)
    ended = threading.Event()

    def work() -> None:
        with contextlib.suppress(TemporaryError):
            remote.run("sleep 280", timeout=280)
        ended.set()

    try:
        thread = threading.Thread(target=work)
        thread.start()
        assert running.wait(120)
        remote.close()
        assert ended.wait(120)
    finally:
        over.set()
    thread.join()


# Streams, and machines behind the head -------------------------------------------------------------------------------


def with_key(server: SshServer) -> Remote:
    return Remote(server.endpoint, user="vcluster", key=KEYS.admin, host_key=KEYS.host("head").public)


def test_what_is_no_text_comes_and_goes_as_it_is(server: SshServer) -> None:
    server.commands = lambda command, stdin: CommandResult(stdin, "beside", 4)
    content = os.urandom(3 << 20)  # more than a channel holds at once
    sink = io.BytesIO()
    with with_key(server) as remote:
        result = remote.stream("echo", source=io.BytesIO(content), sink=sink, timeout=60)
    assert result == CommandResult("", "beside", 4)
    assert sink.getvalue() == content


def test_without_a_sink_the_output_is_in_the_result(server: SshServer) -> None:
    with with_key(server) as remote:
        assert remote.stream("say", timeout=60) == CommandResult("say\n", "", 0)


def test_a_stream_is_given_up_when_its_time_is_up_or_somebody_asks(server: SshServer) -> None:
    held, began, cancel = threading.Event(), threading.Event(), threading.Event()

    def slow(command: str, stdin: str) -> CommandResult:
        began.set()
        held.wait(250)
        return nothing(command, stdin)

    def ask() -> None:
        began.wait(250)
        cancel.set()

    server.commands = slow
    asking = threading.Thread(target=ask)
    with with_key(server) as remote:
        with pytest.raises(DeadlineError, match="longer than 0 s: sleep"):
            remote.stream("sleep", timeout=0.0)
        began.clear()
        asking.start()
        with pytest.raises(CancelledError, match="interrupted"):
            remote.stream("sleep", timeout=250, cancel=cancel)
        held.set()
    asking.join(120)


def test_a_machine_behind_the_head_is_reached_through_it_and_is_pinned_too(server: SshServer) -> None:
    server.forwards = True
    with ssh_server(SshServer(KEYS.host("cpu-1"), [KEYS.admin.public])) as worker:
        worker.commands = lambda command, stdin: CommandResult("worker", "", 0)
        with with_key(server) as head:
            right, wrong = KEYS.host("cpu-1").public, KEYS.host("cpu-2").public
            with Remote(worker.endpoint, user="vcluster", key=KEYS.admin, host_key=right, via=head) as remote:
                assert remote.stream("who", timeout=60).stdout == "worker"
                assert remote.run("who").stdout == "worker"
            assert server.forwarded == [("127.0.0.1", worker.port)]
            stranger = Remote(worker.endpoint, user="vcluster", key=KEYS.admin, host_key=wrong, via=head)
            with stranger, pytest.raises(PermanentError, match="another host key"):
                stranger.run("who")


def test_a_head_that_leads_nowhere_is_weather(server: SshServer) -> None:
    nowhere = Endpoint("127.0.0.1", 1)
    with with_key(server) as head:
        remote = Remote(nowhere, user="vcluster", key=KEYS.admin, host_key=KEYS.host("cpu-1").public, via=head)
        with remote, pytest.raises(TemporaryError, match="no way to"):
            remote.run("true")
