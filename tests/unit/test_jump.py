"""Through a jump host, with the OpenSSH that people use: it is trusted only if the user knows it already."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import refusing
from ssh_kit import SshServer, ssh_server

from vcluster import jump
from vcluster.errors import PermanentError, TemporaryError, UsageError
from vcluster.folder import Folder
from vcluster.jump import proxy_command
from vcluster.model import ClusterRef, Endpoint, Machine, MachineState, Role
from vcluster.remote import Remote
from vcluster.secrets import Keyring

KEYS = Keyring(bytes(range(32)))
BASTION = Keyring(bytes(32))


@pytest.fixture
def head() -> Iterator[SshServer]:
    with ssh_server(SshServer(KEYS.host("head"), [KEYS.admin.public])) as running:
        yield running


@pytest.fixture
def bastion() -> Iterator[SshServer]:
    with ssh_server(SshServer(BASTION.host("bastion"), [BASTION.admin.public], forwards=True)) as running:
        yield running


@pytest.fixture(autouse=True)
def known(tmp_path: Path, bastion: SshServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's OpenSSH: a configuration with a key, and known hosts with the bastion in them; returns the latter.

    OpenSSH takes the home from the password file, so the tests hand it a configuration instead.
    """
    key, known, config = tmp_path / "key", tmp_path / "known_hosts", tmp_path / "config"
    key.write_text(BASTION.admin.private)
    key.chmod(0o600)
    known.write_text(f"[127.0.0.1]:{bastion.port} {' '.join(bastion.host.public.split()[:2])}\n")
    words = f"IdentityFile {key}\nIdentitiesOnly yes\nUserKnownHostsFile {known}\nGlobalKnownHostsFile /dev/null\n"
    config.write_text(words)
    monkeypatch.setattr(jump, "PROGRAM", ("ssh", "-F", str(config)))
    return known


def way(head: SshServer, bastion: SshServer) -> Endpoint:
    return Endpoint("127.0.0.1", head.port, f"someone@127.0.0.1:{bastion.port}")


def through(endpoint: Endpoint, keys: Keyring = KEYS) -> Remote:
    return Remote(endpoint, user="vcluster", key=KEYS.admin, host_key=keys.host("head").public)


def test_a_command_goes_through(head: SshServer, bastion: SshServer) -> None:
    with through(way(head, bastion)) as remote:
        assert remote.run("echo hello").stdout == "echo hello\n"
        assert remote.run("again").stdout == "again\n"
        tunnel = remote._tunnel
    assert (bastion.users, head.users) == (["someone"], ["vcluster"])
    assert bastion.forwarded == [("127.0.0.1", head.port)]
    assert tunnel is not None
    assert tunnel._process.returncode is not None  # closing leaves no ssh behind


def test_the_machine_behind_is_pinned_all_the_same(head: SshServer, bastion: SshServer) -> None:
    remote = through(way(head, bastion), keys=BASTION)
    with remote, pytest.raises(PermanentError, match="another host key"):
        remote.run("true")
    assert head.offered == []


def test_a_bastion_that_is_not_known_is_not_trusted(head: SshServer, bastion: SshServer, known: Path) -> None:
    known.write_text("")
    remote = through(way(head, bastion))
    with remote, pytest.raises(PermanentError, match="Host key verification failed") as found:
        remote.run("true")
    assert "known_hosts" in found.value.remedy
    assert (bastion.offered, head.offered) == ([], [])
    assert known.read_text() == ""


def test_a_bastion_with_another_key_is_not_trusted(head: SshServer, bastion: SshServer, known: Path) -> None:
    known.write_text(known.read_text().replace(bastion.host.public.split()[1], KEYS.host("x").public.split()[1]))
    remote = through(way(head, bastion))
    with remote, pytest.raises(PermanentError, match="Host key verification failed"):
        remote.run("true")
    assert bastion.offered == []


def test_a_bastion_that_lets_nobody_in(head: SshServer, bastion: SshServer) -> None:
    bastion.admitted = []
    remote = through(way(head, bastion))
    with remote, pytest.raises(PermanentError, match="Permission denied") as found:
        remote.run("true")
    assert f"ssh ssh://someone@127.0.0.1:{bastion.port}" in found.value.remedy


def test_a_bastion_that_forwards_nothing(head: SshServer, bastion: SshServer) -> None:
    bastion.forwards = False
    remote = through(way(head, bastion))
    with remote, pytest.raises(PermanentError, match="jump host") as found:
        remote.run("true")
    assert "AllowTcpForwarding" in found.value.remedy


def test_a_machine_that_is_not_up_yet_is_weather(bastion: SshServer) -> None:
    with refusing() as port:
        remote = through(Endpoint("127.0.0.1", port, f"someone@127.0.0.1:{bastion.port}"))
        with remote, pytest.raises(TemporaryError):
            remote.run("true")


def test_a_bastion_that_is_down_is_weather(head: SshServer) -> None:
    with refusing() as port:
        remote = through(Endpoint("127.0.0.1", head.port, f"127.0.0.1:{port}"))
        with remote, pytest.raises(TemporaryError, match="Connection refused"):
            remote.run("true")


def test_plain_ssh_goes_the_same_way(head: SshServer, bastion: SshServer, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "home", ClusterRef("demo", "project", "me"))
    folder.adopt(KEYS, "")
    machine = Machine("u", "t", "head", Role.HEAD, "", MachineState.ACTIVE, "small", "p", "10.0.0.2")
    config = folder.ssh_config(way(head, bastion), [machine])
    argv = ["ssh", "-F", str(config), "demo-head", "hostname"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("hostname\n", 0), done.stderr
    assert (bastion.users, head.users) == (["someone"], ["vcluster"])


@pytest.mark.parametrize("text", ["", "-oProxyCommand=x", "a b", "user@", "user@-x", "host:port", "u@h:22:3", "$(x)@h"])
def test_what_is_no_jump_host(text: str) -> None:
    with pytest.raises(UsageError, match="no jump host"):
        proxy_command(text, "h:22", batch=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bastion", ["--", "bastion"]),
        ("me@bastion.example.org", ["-l", "me", "-W", "10.0.0.2:22", "--", "bastion.example.org"]),
        ("me@[2001:db8::1]:2222", ["-p", "2222", "-l", "me", "-W", "10.0.0.2:22", "--", "2001:db8::1"]),
    ],
)
def test_a_jump_host_in_openssh_words(text: str, words: list[str]) -> None:
    argv = proxy_command(text, "10.0.0.2:22", batch=True)
    assert argv[-len(words) :] == words
    assert "StrictHostKeyChecking=yes" in argv
    assert "StrictHostKeyChecking=ask" in proxy_command(text, "10.0.0.2:22", batch=False)
