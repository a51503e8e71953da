"""Before a server starts: it begins the cluster or joins the one that is there, and never founds a second one."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from k3s_machines_kit import load, server_context, tls_folder
from kubernetes_kit import Kubernetes, serving

from vcluster.secrets import Keyring

CONFIG = "token: hush\nnode-name: me\ntls-san:\n- head\ndisable:\n- traefik\n"
ETCD, LEADER = "wrangler.cattle.io/managed-etcd-controller", "wrangler.cattle.io/node"
SERVERS = {"head": "10.77.0.10", "head-2": "10.77.0.11", "head-3": "10.77.0.12"}


class StillWaitingError(Exception):
    """It waits, and would for ever."""


@dataclass
class Host:
    """A server that boots, and what it does while it waits.

    Attributes:
        ports: where on the loopback the servers at these addresses are; nobody is at others.
        listening: addresses where k3s runs, whether it answers or not.
        waited: called each time that it waits, with how often it did before.
        asked: the URLs that it asked.
    """

    program: ModuleType
    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    listening: set[str] = field(default_factory=set)
    waited: Any = None
    asked: list[str] = field(default_factory=list)
    naps: int = 0

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    def boot(self, name: str, *, founded: bool = False, servers: dict[str, str] | None = None) -> list[str]:
        """Run the program; gives the lines that it added."""
        facts = {"head": "head", "servers": servers or SERVERS, "founded": founded}
        (self.folder / "join.json").write_text(json.dumps(facts))
        self.program.socket.gethostname = lambda: name
        self.naps = 0
        self.program.main()
        return [line for line in self.config.read_text().splitlines() if line not in CONFIG.splitlines()]

    def sleep(self, seconds: float) -> None:
        self.naps += 1
        if self.naps > 5:
            raise StillWaitingError
        if self.waited is not None:
            self.waited(self.naps)

    def connect(self, where: tuple[str, int], timeout: float) -> Any:
        if where[0] not in self.listening:
            raise ConnectionRefusedError
        return contextlib.nullcontext()

    def urlopen(self, asked: Any, **more: Any) -> Any:
        """The real one, led to the loopback."""
        url = asked if isinstance(asked, str) else asked.full_url
        method = "GET" if isinstance(asked, str) else asked.get_method()
        self.asked.append(f"{method} {url}")
        address = url.removeprefix("https://").partition(":")[0]
        if address not in self.ports:
            raise urllib.error.URLError("nobody is there")
        moved = url.replace(f"{address}:6443", f"127.0.0.1:{self.ports[address]}")
        data, headers = (None, {}) if isinstance(asked, str) else (asked.data, asked.headers)
        return urllib.request.urlopen(urllib.request.Request(moved, data, headers, method=method), **more)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    module = load("join", monkeypatch)
    made = Host(module, tmp_path)
    tls_folder(tmp_path / "server")
    made.config.write_text(CONFIG)
    made.config.chmod(0o600)
    monkeypatch.setattr(module, "DATA", tmp_path / "server")
    monkeypatch.setattr(module, "MEMBER", tmp_path / "server/db/etcd/member")
    monkeypatch.setattr(module, "FACTS", tmp_path / "join.json")
    monkeypatch.setattr(module, "CONFIG", made.config)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: made.naps, sleep=made.sleep, time=lambda: 7))
    monkeypatch.setattr(module, "socket", SimpleNamespace(create_connection=made.connect))
    requests = SimpleNamespace(urlopen=made.urlopen, Request=urllib.request.Request)
    monkeypatch.setattr(module, "urllib", SimpleNamespace(error=urllib.error, request=requests))
    folders = SimpleNamespace(TemporaryDirectory=lambda dir: tempfile.TemporaryDirectory(dir=tmp_path))  # noqa: A006
    monkeypatch.setattr(module, "tempfile", folders)
    return made


@pytest.fixture
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    """A server of this cluster that is on, and knows the machine that had the name before."""
    context = server_context(tmp_path_factory.mktemp("peer"))
    with serving(Kubernetes(nodes={name: {"metadata": {"name": name}} for name in SERVERS}), context) as running:
        yield running


def test_the_head_of_a_new_cluster_begins(host: Host) -> None:
    assert host.boot("head") == ["cluster-init: true"]
    assert host.asked == ["GET https://10.77.0.11:6443/ping", "GET https://10.77.0.12:6443/ping"]


def test_a_head_that_is_alone_begins_and_asks_nobody(host: Host) -> None:
    assert host.boot("head", servers={"head": "10.77.0.10"}) == ["cluster-init: true"]
    assert host.asked == []


@pytest.mark.parametrize("name", ["head", "head-2"])
@pytest.mark.parametrize("founded", [False, True])
def test_who_has_a_database_goes_on_with_it(host: Host, name: str, founded: bool, peer: Kubernetes) -> None:
    host.program.MEMBER.mkdir(parents=True)
    host.ports = dict.fromkeys(SERVERS.values(), peer.port)
    assert host.boot(name, founded=founded) == ["cluster-init: true"]
    assert host.asked == []
    assert set(peer.nodes) == set(SERVERS)


@pytest.mark.parametrize("name", ["head", "head-2"])
@pytest.mark.parametrize("founded", [False, True])
def test_who_was_taken_out_of_the_others_database_joins_them_again(
    host: Host, name: str, founded: bool, peer: Kubernetes
) -> None:
    host.program.MEMBER.mkdir(parents=True)
    (host.program.MEMBER / "old").write_text("kept")
    (host.program.MEMBER.parent / "tombstone").touch()
    with pytest.raises(StillWaitingError):
        host.boot(name, founded=founded)
    with pytest.raises(StillWaitingError):
        host.boot(name, founded=founded)  # at its second start it knows it still
    host.ports = {SERVERS["head-3"]: peer.port}
    assert host.boot(name, founded=founded) == ["server: https://10.77.0.12:6443"]
    assert (host.program.MEMBER.parent.with_name("etcd-removed") / "member/old").read_text() == "kept"
    assert not host.program.MEMBER.exists()


def test_who_joined_again_goes_on_with_its_new_database(host: Host) -> None:
    host.program.MEMBER.mkdir(parents=True)
    host.program.MEMBER.parent.with_name("etcd-removed").mkdir()
    assert host.boot("head") == ["cluster-init: true"]


def test_a_head_that_is_alone_keeps_its_database_whatever_k3s_wrote(host: Host) -> None:
    host.program.MEMBER.mkdir(parents=True)
    (host.program.MEMBER.parent / "tombstone").touch()
    assert host.boot("head", servers={"head": "10.77.0.10"}) == ["cluster-init: true"]
    assert host.program.MEMBER.is_dir()


def test_the_head_does_not_begin_beside_a_server_that_is_too_busy_to_answer(host: Host, peer: Kubernetes) -> None:
    def answers(naps: int) -> None:
        if naps == 3:
            host.ports = {SERVERS["head-2"]: peer.port}

    host.listening, host.waited = {SERVERS["head-2"]}, answers
    assert host.boot("head") == ["server: https://10.77.0.11:6443"]


def test_the_head_begins_in_the_end_beside_what_never_answers(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.listening = {SERVERS["head-2"]}
    monkeypatch.setattr(host.program, "BUSY", 4)
    assert host.boot("head") == ["cluster-init: true"]
    assert host.naps == 4


@pytest.mark.parametrize(("name", "founded"), [("head", True), ("head-2", False), ("head-2", True)])
def test_whoever_else_is_the_first_waits_for_another(host: Host, name: str, founded: bool) -> None:
    with pytest.raises(StillWaitingError):
        host.boot(name, founded=founded)
    assert host.config.read_text() == CONFIG
    own = SERVERS[name]
    assert not [url for url in host.asked if own in url]


@pytest.mark.parametrize(("name", "founded"), [("head", True), ("head-3", False)])
def test_a_server_that_comes_later_is_joined(host: Host, name: str, founded: bool, peer: Kubernetes) -> None:
    def comes(naps: int) -> None:
        if naps == 3:
            host.ports = {"10.77.0.11": peer.port}

    host.waited = comes
    assert host.boot(name, founded=founded) == ["server: https://10.77.0.11:6443"]


@pytest.mark.parametrize("founded", [False, True])
def test_a_head_that_was_lost_is_forgotten_first_and_then_joins(host: Host, founded: bool, peer: Kubernetes) -> None:
    """Not founded: it was lost before the cluster was ever ready, and the others are on."""
    host.ports = {"10.77.0.12": peer.port}
    before: list[str] = []
    peer.after = lambda: before.append(host.config.read_text())
    peer.lingers = 1
    assert host.boot("head", founded=founded) == ["server: https://10.77.0.12:6443"]
    assert set(peer.nodes) == {"head-2", "head-3"}
    assert peer.said("DELETE") == ["/api/v1/nodes/head"] * 3  # until it is gone
    assert before == [CONFIG] * 3
    assert set(peer.clients[1:]) == {"system:masters"}


def test_a_server_that_is_new_joins_at_once(host: Host, peer: Kubernetes) -> None:
    del peer.nodes["head-2"]
    host.ports = {"10.77.0.10": peer.port}
    assert host.boot("head-2") == ["server: https://10.77.0.10:6443"]
    assert (peer.said("DELETE"), host.naps) == (["/api/v1/nodes/head-2"], 0)


def test_a_server_that_starts_itself_is_waited_for(host: Host, peer: Kubernetes) -> None:
    host.ports = {"10.77.0.11": peer.port}
    peer.status = 503

    def starts(naps: int) -> None:
        peer.status = 503 if naps < 3 else 0

    host.waited = starts
    assert host.boot("head") == ["server: https://10.77.0.11:6443"]
    assert "head" not in peer.nodes


def test_a_server_that_breaks_off_is_asked_again(host: Host, peer: Kubernetes) -> None:
    host.ports = {"10.77.0.11": peer.port}
    peer.after = host.ports.clear

    def back(naps: int) -> None:
        host.ports = {"10.77.0.11": peer.port}

    host.waited = back
    assert host.boot("head") == ["server: https://10.77.0.11:6443"]


def test_a_server_that_does_not_forget_is_told_of_and_systemd_tries_again(
    host: Host, peer: Kubernetes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.ports = {"10.77.0.11": peer.port}
    peer.lingers = 1000
    monkeypatch.setattr(host.program, "GONE", 3)
    with pytest.raises(SystemExit, match="no other server forgets head"):
        host.boot("head", founded=True)
    assert "10.77.0.11 does not forget head" in capsys.readouterr().out
    assert host.config.read_text() == CONFIG


def test_the_third_server_is_asked_where_the_second_forgets_nobody(
    host: Host, peer: Kubernetes, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host.program, "GONE", 3)
    peer.status = 503
    with serving(
        Kubernetes(nodes={"head": {"metadata": {"name": "head"}}}), server_context(tmp_path_factory.mktemp("third"))
    ) as third:
        host.ports = {"10.77.0.11": peer.port, "10.77.0.12": third.port}
        assert host.boot("head", founded=True) == ["server: https://10.77.0.12:6443"]
        assert third.nodes == {}


@pytest.mark.parametrize("others", [[], ["example.org/theirs"]])
def test_a_node_that_etcd_let_go_and_the_leader_does_not_is_taken_off(
    host: Host, peer: Kubernetes, monkeypatch: pytest.MonkeyPatch, others: list[str]
) -> None:
    """What somebody else has to do for it is waited for."""
    host.ports = {"10.77.0.11": peer.port}
    peer.nodes["head"] = hanging = {
        "metadata": {
            "name": "head",
            "deletionTimestamp": "2026-11-28T10:19:52Z",
            "finalizers": [ETCD, LEADER, *others],
            "resourceVersion": "7",
        }
    }
    peer.lingers = 1000
    monkeypatch.setattr(host.program, "LEADER", 2)
    patched: list[int] = []

    def after() -> None:
        if peer.said("PATCH") and not patched:
            patched.append(host.naps)
            if not others:
                del peer.nodes["head"]

    def lets_go(naps: int) -> None:
        if naps == 4:
            hanging["metadata"]["finalizers"] = [LEADER, *others]

    peer.after, host.waited = after, lets_go
    if others:
        with pytest.raises(StillWaitingError):
            host.boot("head", founded=True)
        assert peer.nodes["head"]["metadata"]["finalizers"] == others
    else:
        assert host.boot("head", founded=True) == ["server: https://10.77.0.11:6443"]
    assert patched == [4], "not while etcd holds it"
    bodies = [body for path, body in peer.bodies if body]
    assert bodies == [{"metadata": {"finalizers": others, "resourceVersion": "7"}}]


def test_the_leader_is_given_its_time(host: Host, peer: Kubernetes) -> None:
    host.ports = {"10.77.0.11": peer.port}
    peer.nodes["head"] = {"metadata": {"name": "head", "deletionTimestamp": "now", "finalizers": [LEADER]}}
    peer.lingers = 3
    assert host.boot("head", founded=True) == ["server: https://10.77.0.11:6443"]
    assert peer.said("PATCH") == []


def test_a_server_of_another_cluster_is_nobody(host: Host, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("stranger")
    with serving(Kubernetes(nodes={"head": {}}), server_context(folder, Keyring(bytes(32)))) as stranger:
        host.ports = {"10.77.0.11": stranger.port}
        assert host.boot("head") == ["cluster-init: true"]
        assert stranger.asked == []


def test_each_start_says_it_once_and_keeps_the_rest(host: Host, peer: Kubernetes) -> None:
    host.ports = {"10.77.0.11": peer.port}
    assert host.boot("head", founded=True) == ["server: https://10.77.0.11:6443"]
    peer.nodes["head"] = {}  # it joined, and died before it had a database
    host.ports = {"10.77.0.12": peer.port}
    assert host.boot("head", founded=True) == ["server: https://10.77.0.12:6443"]
    host.program.MEMBER.mkdir(parents=True)
    for _ in range(2):
        assert host.boot("head", founded=True) == ["cluster-init: true"]
        assert host.config.read_text() == f"{CONFIG}cluster-init: true\n"
        assert host.config.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in host.folder.iterdir()) == ["config.yaml", "join.json", "server"]


def test_its_credential_is_one_that_servers_believe(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    certificate, key = host.program.credential(folder)
    command = ["openssl", "verify", "-CAfile", str(tmp_path / "server/tls/client-ca.crt"), certificate]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{certificate}: OK\n")
    read = x509.load_pem_x509_certificate(Path(certificate).read_bytes())
    assert read.subject.rfc4514_string() == "CN=vcluster:join,O=system:masters"
    assert (read.not_valid_after_utc - read.not_valid_before_utc).days == 1
    assert Path(key).stat().st_mode & 0o077 == 0
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key)
